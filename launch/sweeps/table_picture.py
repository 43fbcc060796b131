"""A paper's table and ours as a picture."""

import io
from collections.abc import Sequence

import matplotlib
from matplotlib import figure

from launch.sweeps import table_results


def draw(results: Sequence[table_results.RowResult]) -> bytes:
  """Returns a PNG: each run's evaluations, and its end beside the paper's."""
  height = max(3.6, 0.6 + 0.32 * len(results))
  picture = figure.Figure(figsize=(11, height), layout="constrained")
  curves, ends = picture.subplots(1, 2)
  shades = matplotlib.colormaps["viridis"]
  for place, result in enumerate(results):
    colour = shades(place / max(len(results) - 1, 1))
    _draw_curves(curves, result, colour)
    _draw_ends(ends, result, colour, place)
  curves.set(xlabel="supervision steps", ylabel="% of test puzzles")
  curves.set_title("evaluations", fontsize=10)
  ends.set_yticks(range(len(results)), [result.name for result in results])
  ends.invert_yaxis()  # the first row on top, as in the table
  ends.set(xlabel="% of test puzzles")
  ends.set_title("paper (ring), ours (dot), ours so far (cross)", fontsize=10)
  for panel in (curves, ends):
    panel.grid(alpha=0.3)
  if curves.lines:
    curves.legend(fontsize=7)
  out = io.BytesIO()
  picture.savefig(out, format="png", dpi=110)
  return out.getvalue()


def _draw_curves(panel, result: table_results.RowResult, colour) -> None:
  label = result.name
  for run in result.runs:
    if run.curve:
      panel.plot(
        list(run.curve),
        list(run.curve.values()),
        "o-",
        markersize=3,
        color=colour,
        label=label,
      )
      label = "_"  # once in the legend


def _draw_ends(
  panel, result: table_results.RowResult, colour, place: int
) -> None:
  if result.row.paper.accuracy is not None:
    panel.plot(
      [result.row.paper.accuracy], [place], "o", mfc="none", color="black"
    )
  for run in result.runs:
    if run.accuracy is not None:
      panel.plot([run.accuracy], [place], "o", color=colour)
    elif run.latest is not None:
      panel.plot([run.latest], [place], "x", color=colour)
