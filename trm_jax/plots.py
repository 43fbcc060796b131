"""Pictures: training curves, and a puzzle's answer as it takes shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib import colors, figure

from trm_jax.data import atomic_file
from trm_jax.data import look as look_lib

_WRONG, _CLUE, _RIGHT = "#c62828", "#000000", "#1565c0"


def save_curves(rows: Sequence[Mapping[str, Any]], path: epath.Path) -> None:
  """Draws losses and accuracies over supervision steps.

  Args:
    rows: of metrics.jsonl.
    path: the PNG to write.
  """
  picture = figure.Figure(figsize=(10, 4), layout="constrained")
  losses, accuracies = picture.subplots(1, 2)
  for axes, names in (
    (losses, ("answer_loss", "halt_loss")),
    (accuracies, ("exact_accuracy", "cell_accuracy", "pass@2")),
  ):
    for name in names:
      for group, style in (("train", "-"), ("eval", "o--")):
        points = [
          (row["step"], row[name])
          for row in rows
          if row["group"] == group and row.get(name) is not None
        ]
        if points:
          label = f"{name.replace('_', ' ')}, {group}"
          axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set_xlabel("supervision steps")
    if axes.lines:
      axes.legend()
    axes.grid(alpha=0.3)
  losses.set_title("loss")
  accuracies.set_title("accuracy")
  _save(picture, path)


def save_grids(
  question: np.ndarray,
  answers: Mapping[str, np.ndarray],
  solution: np.ndarray,
  *,
  look: look_lib.Look,
  path: epath.Path,
) -> None:
  """Draws a question and the answers given to it, wrong cells in red.

  Args:
    question: [L] tokens.
    answers: title -> [L] tokens.
    solution: [L] tokens.
    look: of the grids.
    path: the PNG to write.
  """
  panels = {"question": question, **answers}
  if look.colours:  # wrong symbols are red, wrong colours need a comparison
    panels["solution"] = solution
  picture = figure.Figure(
    figsize=(2.6 * len(panels), 2.9), layout="constrained"
  )
  for axes, (title, tokens) in zip(
    np.atleast_1d(picture.subplots(1, len(panels))),
    panels.items(),
    strict=True,
  ):
    axes.set_title(title)
    wrong = (tokens != solution) & (title in answers)
    axes.set(
      xlim=(0, look.cols), ylim=(look.rows, 0), xticks=[], yticks=[], aspect=1
    )
    _draw_lines(axes, look)
    if look.colours:
      _draw_colours(axes, tokens, wrong, look)
    else:
      _draw_symbols(axes, question, tokens, wrong, look)
  _save(picture, path)


def _draw_lines(axes, look: look_lib.Look) -> None:
  if not look.box_rows:
    return
  for i in range(look.rows + 1):
    axes.axhline(i, color="black", lw=2 if i % look.box_rows == 0 else 0.4)
  for i in range(look.cols + 1):
    axes.axvline(i, color="black", lw=2 if i % look.box_cols == 0 else 0.4)


def _draw_colours(axes, tokens, wrong, look: look_lib.Look) -> None:
  shades = np.array([colors.to_rgb(colour) for colour in look.colours])
  shown = np.clip(tokens, 0, len(shades) - 1).reshape(look.rows, look.cols)
  axes.imshow(shades[shown], extent=(0, look.cols, look.rows, 0))
  rows, cols = np.nonzero(wrong.reshape(look.rows, look.cols))
  axes.scatter(cols + 0.5, rows + 0.5, s=6, marker="x", lw=0.7, color=_WRONG)


def _draw_symbols(axes, question, tokens, wrong, look: look_lib.Look) -> None:
  for cell, token in enumerate(tokens.tolist()):
    given = question[cell] == token
    axes.text(
      cell % look.cols + 0.5,
      cell // look.cols + 0.55,
      look.drawn(token),
      ha="center",
      va="center",
      fontsize=min(10, 120 / max(look.rows, look.cols)),
      weight="bold" if given else "normal",
      color=_WRONG if wrong[cell] else _CLUE if given else _RIGHT,
    )


def _save(picture: figure.Figure, path: epath.Path) -> None:
  with atomic_file.writing(path) as file:
    picture.savefig(file, format="png", dpi=110)
