"""One puzzle and the answers it got on the way, as a picture and as text."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from trm_jax import plots, types
from trm_jax.data import look as look_lib
from trm_jax.data import puzzle_set


@dataclasses.dataclass(frozen=True)
class Example:
  """A puzzle, its solution and its answers."""

  look: look_lib.Look
  question: np.ndarray  # [L]
  solution: np.ndarray  # [L]
  answers: Mapping[int, np.ndarray]  # supervision steps -> [L]

  def save_picture(self, path: epath.Path) -> None:
    """Draws it as a PNG."""
    plots.save_grids(
      self.question,
      {_after(step): tokens for step, tokens in self.answers.items()},
      self.solution,
      look=self.look,
      path=path,
    )

  def text(self) -> str:
    """Returns question and answers side by side, for the terminal."""
    panels = {"question": self.question} | {
      _after(step): tokens for step, tokens in self.answers.items()
    }
    panels["solution"] = self.solution
    columns = [
      [title, *self.look.text(tokens).splitlines()]
      for title, tokens in panels.items()
    ]
    widths = [max(len(line) for line in column) for column in columns]
    return "\n".join(
      "   ".join(
        cell.ljust(width) for cell, width in zip(line, widths, strict=True)
      ).rstrip()
      for line in itertools.zip_longest(*columns, fillvalue="")
    )


def _after(step: int) -> str:
  return f"step {step}"


def pick(
  look: look_lib.Look,
  batch: Mapping[str, np.ndarray],
  answers: np.ndarray,
  steps: Sequence[int],
) -> Example:
  """Picks the puzzle that was solved, and took longest.

  Args:
    look: of the grids.
    batch: `inputs`, `labels` [B, L] and `mask` [B].
    answers: [K, B, L] tokens after each supervision step.
    steps: supervision steps to keep, counted from 1.

  Returns:
    The example; some unsolved puzzle if none was solved.
  """
  labels = batch["labels"]
  known = labels != types.IGNORED_LABEL
  right = (answers == labels) | ~known
  exact = right.all(-1) & batch["mask"]
  unsolved = np.where(exact[-1], (~exact).sum(0), -1)  # [B] steps
  row = int(np.argmax(unsolved))
  kept = look.cut or (lambda tokens: tokens)
  return Example(
    look=look,
    question=batch["inputs"][row],
    solution=np.where(known, labels, puzzle_set.NO_LABEL)[row],
    answers={step: kept(answers[step - 1, row]) for step in steps},
  )
