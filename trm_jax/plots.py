"""Pictures: training curves, and a puzzle's answer as it takes shape."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from matplotlib import figure

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
    (accuracies, ("exact_accuracy", "cell_accuracy")),
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


def save_sudoku(
  question: np.ndarray,
  answers: Mapping[str, np.ndarray],
  solution: np.ndarray,
  *,
  box_rows: int,
  box_cols: int,
  path: epath.Path,
) -> None:
  """Draws a question and the answers given to it, wrong digits in red.

  Args:
    question: [L] tokens.
    answers: title -> [L] tokens.
    solution: [L] tokens.
    box_rows: rows of a box.
    box_cols: columns of a box.
    path: the PNG to write.
  """
  panels = {"question": question, **answers}
  picture = figure.Figure(
    figsize=(2.6 * len(panels), 2.9), layout="constrained"
  )
  for axes, (title, tokens) in zip(
    np.atleast_1d(picture.subplots(1, len(panels))),
    panels.items(),
    strict=True,
  ):
    axes.set_title(title)
    _draw_grid(axes, question, tokens, solution, box_rows, box_cols)
  _save(picture, path)


def _draw_grid(axes, question, tokens, solution, box_rows, box_cols) -> None:
  side = box_rows * box_cols
  axes.set(xlim=(0, side), ylim=(side, 0), xticks=[], yticks=[], aspect=1)
  for i in range(side + 1):
    axes.axhline(i, color="black", lw=2 if i % box_rows == 0 else 0.4)
    axes.axvline(i, color="black", lw=2 if i % box_cols == 0 else 0.4)
  for cell, token in enumerate(tokens):
    if token < 2:  # padding or blank
      continue
    is_clue = question[cell] == token
    right = token == solution[cell]
    axes.text(
      cell % side + 0.5,
      cell // side + 0.55,
      str(token - 1),
      ha="center",
      va="center",
      weight="bold" if is_clue else "normal",
      color=_CLUE if is_clue else _RIGHT if right else _WRONG,
    )


def _save(picture: figure.Figure, path: epath.Path) -> None:
  with path.open("wb") as file:
    picture.savefig(file, format="png", dpi=110)
