"""Results of a sweep: Markdown table, CSV and plot; paper against ours."""

import csv
import math
import pathlib
import shlex
import statistics
from collections.abc import Sequence
from typing import Any

import optuna
from matplotlib import figure

from launch import sweep_spec

_State = optuna.trial.TrialState
_Trials = Sequence[optuna.trial.FrozenTrial]
_STATES = {  # in the order of the table
  _State.COMPLETE: "complete",
  _State.PRUNED: "pruned",
  _State.FAIL: "failed",
  _State.RUNNING: "unfinished",
  _State.WAITING: "not run",
}
_LEGEND = """
%: exact accuracy on the test set; OOM: out of memory in the paper. [In
brackets]: the latest evaluation of an unfinished run, not a result. ±: standard
deviation over seeds.
"""


def write(
  plan: sweep_spec.Plan, study: optuna.Study, folder: pathlib.Path
) -> tuple[str, str]:
  """Writes results.md, results.csv and results.png.

  Returns:
    The text of results.md, and a line that names the best trial, or the rows of
    a table that have a result; "" if there is none.
  """
  trials = _trials(study, plan)
  knobs, metric = list(plan.sweep.space), plan.sweep.metric
  shown = plan.sweep.shown
  head = ["trial", *knobs, "step", metric, *shown, "state", "folder"]
  rows: list[list[Any]] = [head]
  for trial in trials:
    point = _point(trial)
    name = plan.folder(point) if len(point) == len(knobs) else ""
    more = trial.user_attrs.get("shown", {})
    rows.append(
      [
        *(trial.number, *map(point.get, knobs)),
        *(trial.user_attrs.get("step", 0), _value(trial)),
        *map(more.get, shown),
        *(_state(trial), name),
      ]
    )
  with (folder / "results.csv").open("w", newline="") as file:
    csv.writer(file).writerows(rows)
  text = _markdown(rows) if plan.table is None else _table(plan.table, trials)
  for trial in trials:
    if trial.state == _State.FAIL:
      text += f"\ntrial {trial.number} failed: {trial.user_attrs['reason']}\n"
  (folder / "results.md").write_text(text)
  _plot(plan, trials).savefig(folder / "results.png", dpi=110)
  results = [trial for trial in trials if trial.state == _State.COMPLETE]
  if not results:
    return text, ""
  if plan.table is not None:
    done = {_point(trial)["row"] for trial in results}
    names = [name for name in plan.table.rows if name in done]
    count = f"{len(names)} of {len(plan.table.rows)} rows have a result"
    return text, f"{count}: {', '.join(names)}"
  flags = [*plan.flags(_point(results[0])), f"--workdir={folder}/best"]
  return text, (
    f"best: trial {results[0].number} with {metric}={results[0].value:.4f}; to"
    f" repeat it: python -m trm_jax.main {shlex.join(flags)}"
  )


def _trials(study: optuna.Study, plan: sweep_spec.Plan) -> _Trials:
  """Returns the last one of each trial's retries, best first."""
  last: dict[str, optuna.trial.FrozenTrial] = {}
  for trial in study.get_trials(deepcopy=False):
    key = trial.user_attrs.get("key")
    # The others were retried, or repeated another trial's draw.
    if key and (trial.state != _State.FAIL or "reason" in trial.user_attrs):
      last[key] = trial
  sign = -1 if plan.sweep.direction == "maximize" else 1

  def rank(trial: optuna.trial.FrozenTrial) -> tuple[int, float]:
    value = _value(trial)
    order = list(_STATES).index(trial.state)
    return order, math.inf if value is None else sign * value

  return sorted(last.values(), key=rank)


def _point(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
  """Returns a trial's settings, as far as they are queued or drawn."""
  return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _state(trial: optuna.trial.FrozenTrial) -> str:
  is_retry = trial.state == _State.WAITING and trial.params
  return "unfinished" if is_retry else _STATES[trial.state]


def _value(trial: optuna.trial.FrozenTrial) -> float | None:
  """Returns the result, or the metric of the last evaluation."""
  curve = [value for _, value in sorted(trial.intermediate_values.items())]
  values = [v for v in (*curve, *(trial.values or ())) if not math.isnan(v)]
  return values[-1] if values else None


def _table(table: sweep_spec.Table, trials: _Trials) -> str:
  """Returns paper against ours in Markdown."""
  rows = [["row", "in the paper", "paper's %", "ours %", "state"]]
  for name, (text, accuracy) in table.rows.items():
    mine = [t for t in trials if _point(t)["row"] == name]
    states = dict.fromkeys(map(_state, mine)) or ["not run"]
    paper = "OOM" if accuracy is None else f"{accuracy:.1f}"
    rows.append([name, text, paper, _ours(mine), ", ".join(states)])
  return f"# {table.title}\n\n{_markdown(rows)}{_LEGEND}"


def _ours(mine: Sequence[optuna.trial.FrozenTrial]) -> str:
  """Returns mean and deviation of the results, else the latest evaluations."""
  values = [100 * t.value for t in mine if t.value is not None]
  if not values:
    latest = [f"{100 * v:.1f}" for t in mine if (v := _value(t)) is not None]
    return f"[{', '.join(latest)}]" if latest else ""
  text = f"{statistics.fmean(values):.1f}"
  if len(values) > 1:
    text += f" ± {statistics.stdev(values):.1f}"
  return text + f" ({len(values)} of {len(mine)} seeds)" * (len(mine) > 1)


def _markdown(rows: Sequence[Sequence[Any]]) -> str:
  """Returns a table whose first row is the header."""

  def cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return "" if value is None else text.replace("|", r"\|")

  cells = [[cell(value) for value in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  cells.insert(1, ["-" * width for width in widths])
  lines = [" | ".join(map(str.ljust, row, widths)) for row in cells]
  return "".join(f"| {line} |\n" for line in lines)


def _plot(plan: sweep_spec.Plan, trials: _Trials) -> figure.Figure:
  """Plots the evaluations of each trial."""
  picture = figure.Figure(layout="constrained", figsize=(8, 5))
  axes = picture.subplots()
  axes.set(xlabel="supervision steps", ylabel=plan.sweep.metric)
  axes.grid(alpha=0.3)
  for trial in trials:
    if curve := sorted(trial.intermediate_values.items()):
      row = f"{_point(trial)['row']}, " if plan.table is not None else ""
      label = f"{row}trial {trial.number} ({_state(trial)})"
      axes.plot(*zip(*curve, strict=True), "o-", label=label)
      axes.legend(fontsize=8)
  return picture
