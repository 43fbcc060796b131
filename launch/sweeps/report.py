"""What a sweep found: a table, a CSV, and a picture."""

import csv
import dataclasses
import io
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import optuna
from etils import epath
from matplotlib import figure, ticker

from launch.sweeps import search
from launch.sweeps import study as study_lib
from trm_jax import errors
from trm_jax.data import files

_STATES = {
  study_lib.COMPLETE: "complete",
  study_lib.PRUNED: "pruned",
  study_lib.FAILED: "failed",
  study_lib.RUNNING: "unfinished",
}
_PANELS_PER_ROW = 3
_MOST_TICKS = 6  # with a label each


@dataclasses.dataclass(frozen=True)
class Row:
  """A trial."""

  number: int
  settings: Mapping[str, Any]  # setting -> value
  curve: Mapping[int, float]  # supervision step -> metric
  step: int | None  # of the last evaluation
  value: float | None  # of the metric, then
  state: str  # of _STATES
  minutes: float
  reason: str  # why it failed


def rows(study: study_lib.Study) -> list[Row]:
  """Returns the trials: complete, pruned, failed, unfinished; best first."""
  sign = -1 if study.plan.sweep.direction == "maximize" else 1
  order = list(_STATES.values())

  def place(row: Row) -> tuple[int, float, int]:
    value = math.inf if row.value is None else sign * row.value
    return order.index(row.state), value, row.number

  return sorted(map(_row, study.trials()), key=place)


def _row(trial: optuna.trial.FrozenTrial) -> Row:
  curve = dict(sorted(trial.intermediate_values.items()))
  step, value = list(curve.items())[-1] if curve else (None, None)
  if trial.state == study_lib.COMPLETE:
    value = trial.value
  return Row(
    number=trial.number,
    settings=trial.params,
    curve=curve,
    step=step,
    value=value if value is not None and math.isfinite(value) else None,
    state=_STATES[trial.state],
    minutes=float(trial.user_attrs.get(study_lib.MINUTES, 0.0)),
    reason=trial.user_attrs.get(study_lib.REASON, ""),
  )


def write(study: study_lib.Study, workdir: epath.Path) -> str:
  """Writes results.md, results.csv and results.png.

  Args:
    study: with at least one trial.
    workdir: of the sweep.

  Returns:
    What to print: the table, and where the files are.

  Raises:
    UserError: a file cannot be written.
  """
  found = rows(study)
  table = markdown(found, study.plan.sweep)
  for name, content in (
    ("results.md", table.encode()),
    ("results.csv", _csv(found, study.plan.sweep).encode()),
    ("results.png", _picture(found, study.plan.sweep)),
  ):
    with files.writing(workdir / name) as file:
      file.write(content)
  return f"{table}\n{workdir}/results.md, results.csv and results.png"


def _header(sweep: search.Sweep) -> list[str]:
  return ["trial", *knobs(sweep), "step", sweep.metric, "state", "minutes"]


def knobs(sweep: search.Sweep) -> list[str]:
  """Returns the varied settings in the order of the sweep file."""
  return list(
    dict.fromkeys([*sweep.space, *(k for r in sweep.rows for k in r)])
  )


def markdown(found: Sequence[Row], sweep: search.Sweep) -> str:
  """Returns the table, and below it why trials failed."""
  header = _header(sweep)
  lines = [
    [
      str(row.number),
      *(_brief(row.settings.get(knob)) for knob in knobs(sweep)),
      _brief(row.step),
      "" if row.value is None else f"{row.value:.4f}",
      row.state,
      f"{row.minutes:.1f}",
    ]
    for row in found
  ]
  lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
  widths = [
    max(map(len, column)) for column in zip(header, *lines, strict=True)
  ]
  rule = ["-" * width for width in widths]
  text = "".join(
    f"| {' | '.join(map(str.ljust, line, widths))} |\n"
    for line in (header, rule, *lines)
  )
  failed = [f"\ntrial {r.number}: {r.reason}\n" for r in found if r.reason]
  return text + "".join(failed)


def _brief(value: Any) -> str:
  if value is None:
    return ""
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def _csv(found: Sequence[Row], sweep: search.Sweep) -> str:
  text = io.StringIO()
  lines = csv.writer(text)
  lines.writerow(_header(sweep))
  for row in found:
    settings = [row.settings.get(knob) for knob in knobs(sweep)]
    result = [row.step, row.value, row.state, f"{row.minutes:.2f}"]
    lines.writerow([row.number, *settings, *result])
  return text.getvalue()


def last_line(study: study_lib.Study, workdir: epath.Path) -> str:
  """Returns the best trial, its result and the command that repeats it.

  Args:
    study: with the trials.
    workdir: of the sweep, for the repetition.

  Raises:
    UserError: no trial has a result.
  """
  best = study.best()
  if best is None:
    raise errors.UserError(
      f"none of the {len(study.trials())} trials has a result yet; see the"
      " table above"
    )
  command = ["python", "-m", "trm_jax.main"]
  command += study.plan.arguments(best.params, workdir / "best")
  return (
    f"best: trial {best.number} with {study.plan.sweep.metric}="
    f"{best.value:.4f}; to repeat it: {shlex.join(command)}"
  )


# --- picture ---------------------------------------------------------------


def _picture(found: Sequence[Row], sweep: search.Sweep) -> bytes:
  """Draws the evaluations of each trial, and results over each setting."""
  num_panels = 1 + len(knobs(sweep))
  columns = min(num_panels, _PANELS_PER_ROW)
  height = math.ceil(num_panels / columns)
  picture = figure.Figure(
    figsize=(4.2 * columns, 3.6 * height), layout="constrained"
  )
  panels = picture.subplots(height, columns, squeeze=False).flatten()
  for panel in panels[num_panels:]:
    panel.set_axis_off()
  shades = matplotlib.colormaps["viridis"]
  # Trials have the colour of their place, in all panels the same.
  colours = [shades(1 - i / max(len(found) - 1, 1)) for i in range(len(found))]
  _draw_curves(panels[0], found, colours, sweep.metric)
  for panel, knob in zip(panels[1:], knobs(sweep), strict=False):
    _draw_setting(panel, found, colours, knob, sweep)
  out = io.BytesIO()
  picture.savefig(out, format="png", dpi=110)
  return out.getvalue()


def _draw_curves(panel, found, colours, metric) -> None:
  for row, colour in zip(found, colours, strict=True):
    if row.curve:
      steps, values = list(row.curve), list(row.curve.values())
      pruned = row.state == "pruned"
      panel.plot(steps, values, "x--" if pruned else "o-", ms=4, color=colour)
      panel.annotate(
        str(row.number),
        (steps[-1], values[-1]),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=7,
        va="center",
      )
  panel.set(xlabel="supervision steps", ylabel=metric)
  panel.set_title("evaluations (x: pruned)", fontsize=10)
  panel.grid(alpha=0.3)


def _draw_setting(panel, found, colours, knob, sweep) -> None:
  """Draws the trials' last values over a setting."""
  shown = [
    (row, colour)
    for row, colour in zip(found, colours, strict=True)
    if row.value is not None and knob in row.settings
  ]
  values = [row.settings[knob] for row, _ in shown]
  numeric = all(type(value) in (int, float) for value in values)
  for (row, colour), value in zip(shown, values, strict=True):
    marker = "x" if row.state == "pruned" else "o"
    place = value if numeric else str(value)
    panel.plot([place], [row.value], marker, color=colour)
    panel.annotate(
      str(row.number),
      (place, row.value),
      xytext=(5, 3),
      textcoords="offset points",
      fontsize=7,
    )
  if numeric and values and min(values) > 0 and max(values) >= 8 * min(values):
    panel.set_xscale("log")
    panel.xaxis.set_minor_formatter(ticker.NullFormatter())
  places = sorted(set(values)) if numeric else []
  if 0 < len(places) <= _MOST_TICKS:
    panel.set_xticks(places, [_brief(place) for place in places])
    panel.minorticks_off()
  panel.margins(x=0.12)
  panel.set(xlabel=knob, ylabel=sweep.metric)
  panel.grid(alpha=0.3)
