"""One puzzle and the answers it got on the way, as a picture and as text."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from etils import epath

from trm_jax import plots
from trm_jax.data import tasks


@dataclasses.dataclass(frozen=True)
class Example:
  """A puzzle, its solution and its answers."""

  task: tasks.Task
  question: np.ndarray  # [L]
  solution: np.ndarray  # [L]
  answers: Mapping[int, np.ndarray]  # supervision steps -> [L]

  def save_picture(self, path: epath.Path) -> None:
    """Draws it as a PNG."""
    plots.save_sudoku(
      self.question,
      {_after(step): tokens for step, tokens in self.answers.items()},
      self.solution,
      box_rows=self.task.box_rows,
      box_cols=self.task.box_cols,
      path=path,
    )

  def text(self) -> str:
    """Returns question and answers side by side, for the terminal."""
    panels = {"question": self.question} | {
      _after(step): tokens for step, tokens in self.answers.items()
    }
    columns = [
      [title, *self.task.format_grid(tokens).splitlines()]
      for title, tokens in panels.items()
    ]
    widths = [max(len(line) for line in column) for column in columns]
    return "\n".join(
      "   ".join(
        cell.ljust(width) for cell, width in zip(line, widths, strict=True)
      ).rstrip()
      for line in zip(*columns, strict=True)
    )


def _after(step: int) -> str:
  return f"step {step}"
