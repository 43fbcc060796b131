"""One puzzle and the answers it got on the way, as a picture and as text."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from trm_jax import plots, types
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
    panels["solution"] = self.solution
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


def pick(
  task: tasks.Task,
  batch: Mapping[str, np.ndarray],
  answers: np.ndarray,
  steps: Sequence[int],
) -> Example:
  """Picks the puzzle that was solved, and took longest.

  Args:
    task: of the puzzles.
    batch: `inputs`, `labels` [B, L] and `mask` [B].
    answers: [K, B, L] tokens after each supervision step.
    steps: supervision steps to keep, counted from 1.

  Returns:
    The example; some unsolved puzzle if none was solved.
  """
  labels = batch["labels"]
  right = (answers == labels) | (labels == types.IGNORED_LABEL)
  exact = right.all(-1) & batch["mask"]
  unsolved = np.where(exact[-1], (~exact).sum(0), -1)  # [B] steps
  row = int(np.argmax(unsolved))
  return Example(
    task=task,
    question=batch["inputs"][row],
    solution=labels[row],
    answers={step: answers[step - 1, row] for step in steps},
  )
