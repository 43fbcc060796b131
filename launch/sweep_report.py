"""Results of a sweep: what became of its trials, as table and picture."""

import csv
import dataclasses
import io
import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import optuna
from matplotlib import figure

from launch import sweep_spec
from trm_jax import errors
from trm_jax.data import files
from trm_jax.runtime import metric_writer

_MAX_TICKS = 8
STATES = ("complete", "pruned", "failed", "unfinished", "not run")
COMPLETE, PRUNED, FAILED, UNFINISHED, NOT_RUN = STATES
_STATE_OF = {
  optuna.trial.TrialState.COMPLETE: COMPLETE,
  optuna.trial.TrialState.PRUNED: PRUNED,
  optuna.trial.TrialState.FAIL: FAILED,
}


@dataclasses.dataclass(frozen=True)
class Run:
  """A trial; of its retries the last one.

  Attributes:
    number: Number of the first try.
    point: Setting -> value.
    state: One of STATES.
    folder: Name of its folder; "" before its settings are drawn.
    step: Supervision steps done.
    curve: Supervision step -> metric, of the evaluations so far.
    result: Metric of a complete trial, else None.
    minutes: Training time of all tries.
    reason: Why it failed, else "".
  """

  number: int
  point: sweep_spec.Point
  state: str
  folder: str
  step: int = 0
  curve: Mapping[int, float] = dataclasses.field(default_factory=dict)
  result: float | None = None
  minutes: float = 0.0
  reason: str = ""

  @property
  def latest(self) -> float | None:
    """The result, or the last evaluation's metric."""
    values = [*self.curve.values(), self.result]
    found = [v for v in values if v is not None and math.isfinite(v)]
    return found[-1] if found else None


def runs(
  study: optuna.Study, plan: sweep_spec.Plan, folder: pathlib.Path
) -> list[Run]:
  """Returns the trials, best first; unfinished ones last."""
  found: dict[str, Run] = {}
  for trial in study.get_trials(deepcopy=False):
    state = _STATE_OF.get(trial.state, UNFINISHED)
    if state == FAILED and "reason" not in trial.user_attrs:
      continue  # it was retried, or had nothing to do
    point = sweep_spec.point_of(trial)
    is_drawn = point or plan.sweep.points is not None
    name = plan.trial(point).folder if is_drawn else ""
    rows = metric_writer.read_metrics(str(folder / name)) if name else []
    waits = trial.state == optuna.trial.TrialState.WAITING
    first = sweep_spec.RETRY.retried_trial_number(trial)
    found[name or str(trial.number)] = Run(
      number=trial.number if first is None else first,
      point=point,
      state=NOT_RUN if waits and not rows else state,
      folder=name,
      step=max((row["step"] for row in rows), default=0),
      curve=dict(sorted(trial.intermediate_values.items())),
      result=trial.value if state == COMPLETE else None,
      minutes=trial.user_attrs.get("minutes", 0.0),
      reason=trial.user_attrs.get("reason", ""),
    )
  sign = -1 if plan.sweep.direction == "maximize" else 1

  def place(run: Run) -> tuple[int, float, int]:
    value = math.inf if run.latest is None else sign * run.latest
    return STATES.index(run.state), value, run.number

  return sorted(found.values(), key=place)


def ranking(plan: sweep_spec.Plan, found: Sequence[Run]) -> str:
  """Returns a search's trials as a Markdown table."""
  rows = [[_brief(v) for v in row] for row in _rows(plan, found)]
  reasons = [f"\ntrial {r.number}: {r.reason}\n" for r in found if r.reason]
  return markdown(rows) + "".join(reasons)


def best(
  plan: sweep_spec.Plan, found: Sequence[Run], folder: pathlib.Path
) -> str:
  """Returns the best trial of a search and the command that repeats it.

  Raises:
    UserError: No trial has a result.
  """
  if not found or found[0].state != COMPLETE:
    raise errors.UserError("no trial has a result yet; see the table above")
  command = ["python", "-m", "trm_jax.main", *plan.trial(found[0].point).flags]
  return (
    f"best: trial {found[0].number} with {plan.sweep.metric}="
    f"{found[0].result:.4f}; to repeat it:"
    f" {shlex.join([*command, f'--workdir={folder}/best'])}"
  )


def markdown(rows: Sequence[Sequence[str]]) -> str:
  """Returns a table whose first row is the header."""
  rows = [[cell.replace("|", r"\|") for cell in row] for row in rows]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  rows.insert(1, ["-" * width for width in widths])
  lines = [" | ".join(map(str.ljust, row, widths)) for row in rows]
  return "".join(f"| {line} |\n" for line in lines)


def write(
  plan: sweep_spec.Plan,
  found: Sequence[Run],
  text: str,
  folder: pathlib.Path,
  *,
  paper: Mapping[str, float],
) -> None:
  """Writes results.md, results.csv and results.png.

  Args:
    plan: The sweep.
    found: Its trials.
    text: What results.md says.
    folder: Folder of the sweep.
    paper: Row of a table -> the paper's metric.
  """
  table, image = io.StringIO(), io.BytesIO()
  csv.writer(table).writerows(_rows(plan, found))
  _picture(plan.sweep, found, paper).savefig(image, format="png", dpi=110)
  for name, content in (
    ("results.md", text.encode()),
    ("results.csv", table.getvalue().encode()),
    ("results.png", image.getvalue()),
  ):
    with files.writing(folder / name) as file:
      file.write(content)


def _rows(plan: sweep_spec.Plan, found: Sequence[Run]) -> list[list[Any]]:
  """Returns a header and a row for each trial."""
  knobs = plan.sweep.knobs
  end = ["step", plan.sweep.metric, "state", "minutes", "folder"]
  rows: list[list[Any]] = [["trial", *knobs, *end]]
  for run in found:
    settings = [run.point.get(knob) for knob in knobs]
    result = [run.step, run.latest, run.state, run.minutes]
    rows.append([run.number, *settings, *result, run.folder])
  return rows


def _brief(value: Any) -> str:
  if value is None:
    return ""
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def _picture(
  sweep: sweep_spec.Sweep,
  found: Sequence[Run],
  paper: Mapping[str, float],
) -> figure.Figure:
  """Draws the evaluations of each trial, and the results over each setting."""
  knobs = ["row"] if paper else sweep.knobs
  picture = figure.Figure(layout="constrained")
  panels = picture.subplots(1, 1 + len(knobs), squeeze=False)[0]
  picture.set_size_inches(4.2 * len(panels), 4.2)
  panels[0].set(xlabel="supervision steps", ylabel=sweep.metric)
  panels[0].set_title("evaluations (cross: not complete)", fontsize=10)
  if paper:
    panels[1].plot([*paper], [*paper.values()], "ko", mfc="none")
    panels[1].set_title("paper (ring), ours (dot, cross)", fontsize=10)
  shades = matplotlib.colormaps["viridis"]
  for place, run in enumerate(found):
    style: Any = {"color": shades(1 - place / len(found))}
    marker = "o" if run.state == COMPLETE else "x"
    panels[0].plot([*run.curve], [*run.curve.values()], f"{marker}-", **style)
    for panel, knob in zip(panels[1:], knobs, strict=True):
      if run.latest is not None and knob in run.point:
        value: Any = run.point[knob]
        value = value if type(value) in (int, float) else str(value)
        panel.plot([value], [run.latest], marker, **style)
        panel.annotate(str(run.number), (value, run.latest))
  for panel, knob in zip(panels[1:], knobs, strict=True):
    panel.set_xlabel(knob)
    values: set[Any] = {run.point.get(knob) for run in found}
    if values and all(type(v) in (int, float) and v > 0 for v in values):
      panel.set_xscale("log")
      if len(values) <= _MAX_TICKS:
        panel.set_xticks([*values], [f"{v:g}" for v in values])
        panel.minorticks_off()
    panel.tick_params("x", which="both", rotation=90)
  for panel in panels:
    panel.grid(alpha=0.3)
  return picture
