"""Plots curves of training, and the charts of an evaluation's report.

Series differ in line style and marker, not by color alone.
"""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from etils import epath
from matplotlib import axes as axes_lib
from matplotlib import figure, ticker

from trm_jax.data import files
from trm_jax.evaluation import attempts as attempts_lib
from trm_jax.evaluation import report as report_lib
from trm_jax.visualization import calibration


@dataclasses.dataclass(frozen=True)
class Theme:
  """Colors of a chart.

  Attributes:
    ink: Color of text.
    grid: Color of grid lines.
    series: Color of each series.
  """

  ink: str
  grid: str
  series: tuple[str, ...]


# Okabe and Ito's colorblind-safe colors, lighter in the dark theme.
LIGHT = Theme("#1b1b1b", "#c9c9c9", ("#0060a0", "#c05000", "#007a5a"))
DARK = Theme("#e6e6e6", "#4a4a4a", ("#6cb8f0", "#f0a050", "#4ccfa8"))
_LINES, _MARKERS = ("-", "--", "-."), ("o", "s", "^")
# Whatever the user's own settings are, e.g. LaTeX for all text.
_our_style = matplotlib.style.context("default")
_SIZE = (4.4, 2.9)  # inches; readable on a phone
_MAX_MARKERS = 20  # per line
_MAX_LABELS = 8  # above bars
# Metrics of metrics.jsonl that are plotted.
_CURVES = {
  "loss": ("answer_loss", "halt_loss"),
  "accuracy": ("exact_accuracy", "cell_accuracy", "pass@2"),
}
# Group, prefix and line style. Accuracy in training is of two kinds.
_STYLES = {
  "loss": (("train", "", "-"), ("eval", "", "o--")),
  "accuracy": (
    ("train", "in_slot_", "-"),
    ("train", "first_step_", ":"),
    ("eval", "", "o--"),
  ),
}


@_our_style
def save_curves(rows: Sequence[Mapping[str, Any]], path: epath.Path) -> None:
  """Plots losses and accuracies over supervision steps.

  Args:
    rows: Rows of metrics.jsonl.
    path: PNG file to write.
  """
  picture = figure.Figure(figsize=(10, 4), layout="constrained")
  panels = picture.subplots(1, len(_CURVES))
  for axes, what in zip(panels, _CURVES, strict=True):
    axes.set_title(what)
    _draw_training(axes, rows, what, LIGHT)
    if axes.lines:
      axes.legend()
  with files.writing(path) as file:
    picture.savefig(file, format="png", dpi=110)


@_our_style
def training(
  rows: Sequence[Mapping[str, Any]], what: str, theme: Theme
) -> bytes:
  """Plots 'loss' or 'accuracy' over supervision steps of training.

  Args:
    rows: Rows of metrics.jsonl.
    what: Key of the curves.
    theme: Colors.

  Returns:
    An SVG.
  """
  picture, axes = _chart(theme)
  _draw_training(axes, rows, what, theme)
  axes.set_ylabel(what)
  return _svg(picture, axes, theme)


def has_curves(rows: Sequence[Mapping[str, Any]], what: str) -> bool:
  """Returns whether `training` has anything to plot."""
  return any(
    _points(rows, group, prefix + name)
    for name in _CURVES[what]
    for group, prefix, _ in _STYLES[what]
  )


def _points(
  rows: Sequence[Mapping[str, Any]], group: str, name: str
) -> list[tuple[int, float]]:
  """Returns the steps and values of a metric, where it is known."""
  return [
    (row["step"], row[name])
    for row in rows
    if row.get("group") == group and row.get(name) is not None
  ]


def _draw_training(
  axes: axes_lib.Axes,
  rows: Sequence[Mapping[str, Any]],
  what: str,
  theme: Theme,
) -> None:
  for name, color in zip(_CURVES[what], theme.series, strict=False):
    for group, prefix, style in _STYLES[what]:
      if points := _points(rows, group, prefix + name):
        label = f"{(prefix + name).replace('_', ' ')}, {group}"
        axes.plot(*zip(*points, strict=True), style, color=color, label=label)
  axes.set_xlabel("training step")
  axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=6, integer=True))
  if what == "accuracy":
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
  axes.grid(color=theme.grid, linewidth=0.6)


@_our_style
def accuracy(report: report_lib.EvalResult, theme: Theme) -> bytes:
  """Plots accuracy by number of supervision steps or rollouts; an SVG."""
  picture, axes = _chart(theme)
  names = {
    "exact_accuracy": "exact accuracy",
    "cell_accuracy": "cell accuracy",
    "halt_accuracy": "halt accuracy",
  }
  for number, (name, label) in enumerate(names.items()):
    axes.plot(
      report.numbers,
      report.means[name],
      linestyle=_LINES[number],
      marker=_MARKERS[number],
      markersize=4,
      markevery=max(1, len(report.numbers) // _MAX_MARKERS),
      color=theme.series[number],
      label=label,
      zorder=4 - number,
    )
  rollouts = report.axis == "rollouts"
  axes.set_xlabel("rollouts" if rollouts else "supervision steps")
  axes.xaxis.set_major_locator(
    ticker.MaxNLocator(nbins=8, integer=True, steps=(1, 2, 4, 5, 8, 10))
  )
  low, high = axes.get_ylim()
  axes.set_ylim(max(low, -0.03), min(high, 1 + 0.05 * (1 - low)))
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
  return _svg(picture, axes, theme)


@_our_style
def attempts(table: attempts_lib.AttemptTable | None, theme: Theme) -> bytes:
  """Plots accuracy by number of attempts, after all steps; an SVG."""
  assert table is not None, "only an evaluation with rollouts has attempts"
  picture, axes = _chart(theme)
  rows = [row for row in table.rows() if row.steps == table.steps[-1]]
  curves = {
    f"chosen by {table.choice}": [row.chosen for row in rows],
    "any correct": [row.any_ for row in rows],
  }
  numbers = [row.attempts for row in rows]
  for number, (label, shares) in enumerate(curves.items()):
    color = theme.series[number]
    axes.plot(
      numbers,
      [share.value for share in shares],
      linestyle=_LINES[number],
      marker=_MARKERS[number],
      markersize=4,
      color=color,
      label=label,
    )
    axes.fill_between(
      numbers,
      [share.low for share in shares],
      [share.high for share in shares],
      color=color,
      alpha=0.2,
      linewidth=0,
    )
  axes.set_xscale("log", base=2)
  axes.set_xticks(numbers, [str(number) for number in numbers])
  axes.set_xlabel("attempts")
  axes.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
  return _svg(picture, axes, theme)


@_our_style
def reliability(bins: calibration.Bins, theme: Theme) -> bytes:
  """Plots accuracy by confidence; an SVG."""
  picture, axes = _chart(theme)
  used = bins.counts > 0
  middles = (bins.edges[:-1] + bins.edges[1:]) / 2
  axes.bar(
    middles[used],
    bins.accuracy[used],
    width=0.8 * np.diff(bins.edges)[used],
    color=theme.series[0],
    edgecolor=theme.series[0],  # a bar of height 0 is a line
    linewidth=2,
    clip_on=False,
    label="accuracy",
  )
  top = axes.secondary_xaxis("top")
  top.set_xticks(middles[used], [_short(n) for n in bins.counts[used]])
  top.tick_params(colors=theme.ink, labelsize=7, length=0)
  top.spines["top"].set_visible(False)
  axes.plot([0, 1], [0, 1], "--", color=theme.series[1], label="calibrated")
  axes.set_xlim(0, 1)
  axes.set_ylim(0, 1)
  axes.set_xlabel("confidence (top: number of answers)")
  for axis in (axes.xaxis, axes.yaxis):
    axis.set_major_locator(ticker.MultipleLocator(0.2))
    axis.set_major_formatter(ticker.PercentFormatter(1.0))
  return _svg(picture, axes, theme)


@_our_style
def steps_used(steps: np.ndarray, theme: Theme) -> bytes:
  """Plots a histogram of the supervision steps used, [N]; an SVG."""
  picture, axes = _chart(theme)
  numbers, counts = np.unique(steps, return_counts=True)
  bars = axes.bar(numbers, counts, color=theme.series[0])
  if len(numbers) <= _MAX_LABELS:
    axes.bar_label(
      bars,
      [_short(count) for count in counts],
      fontsize=7,
      color=theme.ink,
      padding=2,
    )
  axes.set_xlabel("supervision steps")
  axes.set_ylabel("puzzles")
  axes.margins(y=0.12)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=10, integer=True))
  axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=6, integer=True))
  axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
  return _svg(picture, axes, theme)


def _short(count: int) -> str:
  """Abbreviates a number: 999 or 12.3k."""
  return str(count) if count < 1000 else f"{count / 1000:.3g}k"


def _chart(theme: Theme) -> tuple[figure.Figure, axes_lib.Axes]:
  picture = figure.Figure(figsize=_SIZE, layout="constrained")
  axes = picture.subplots()
  axes.grid(color=theme.grid, linewidth=0.6)
  axes.set_axisbelow(True)
  return picture, axes


def _svg(picture: figure.Figure, axes: axes_lib.Axes, theme: Theme) -> bytes:
  """Returns the chart as an SVG without background or fonts."""
  axes.set_facecolor("none")
  axes.tick_params(colors=theme.ink, labelsize=9)
  for label in (axes.xaxis.label, axes.yaxis.label):
    label.set_color(theme.ink)
  for spine in axes.spines.values():
    spine.set_color(theme.grid)
  if names := axes.get_legend_handles_labels()[1]:
    picture.legend(
      loc="outside upper center",
      ncols=3 if len(names) == 3 else 2,
      fontsize=8,
      frameon=False,
      labelcolor=theme.ink,
    )
  content = io.BytesIO()
  picture.savefig(content, format="svg", transparent=True)
  return content.getvalue()
