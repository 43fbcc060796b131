"""One puzzle and the answers it got on the way, as a picture and as text."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from trm_jax import types
from trm_jax.data import atomic_file, puzzle_set
from trm_jax.data import look as look_lib
from trm_jax.show import pictures

# What an answer is called, by the report's axis.
_TITLES = {
  "steps": "step {}",
  "rollouts": "best of {}",
  "adaptive": "answer",
}


@dataclasses.dataclass(frozen=True)
class Example:
  """A puzzle, its solution and its answers."""

  look: look_lib.Look
  question: np.ndarray  # [L]
  solution: np.ndarray  # [L]
  answers: Mapping[str, np.ndarray]  # title -> [L]

  def save_picture(self, path: epath.Path) -> None:
    """Draws it as a PNG."""
    known = (self.solution != puzzle_set.NO_LABEL).any()
    thinking = pictures.Thinking(
      look=self.look,
      question=self.question,
      answers=np.stack(list(self.answers.values())),
      confidence=None,
      solution=self.solution if known else None,
    )
    image = pictures.still(
      thinking, range(1, len(self.answers) + 1), titles=tuple(self.answers)
    )
    with atomic_file.writing(path) as file:
      file.write(pictures.png(image))

  def text(self) -> str:
    """Returns question and answers side by side, for the terminal."""
    panels = {"question": self.question, **self.answers}
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


def pick(
  look: look_lib.Look,
  batch: Mapping[str, np.ndarray],
  answers: np.ndarray,
  shown: Sequence[int],
  *,
  axis: str = "steps",
  numbers: Sequence[int] | None = None,
) -> Example:
  """Picks the puzzle that was solved, and took longest.

  Args:
    look: of the grids.
    batch: `inputs`, `labels` [B, L] and `mask` [B].
    answers: [K, B, L] tokens, e.g. after each supervision step.
    shown: numbers of the answers to keep.
    axis: what the numbers count; see `report.Report`.
    numbers: K, of the answers; by default 1, 2, ...

  Returns:
    The example; some unsolved puzzle if none was solved.
  """
  labels = batch["labels"]
  known = labels != types.IGNORED_LABEL
  right = (answers == labels) | ~known
  exact = right.all(-1) & batch["mask"]
  unsolved = np.where(exact[-1], (~exact).sum(0), -1)  # [B] steps
  row = int(np.argmax(unsolved))
  places = list(numbers or range(1, len(answers) + 1))
  kept = look.cut or (lambda tokens: tokens)
  return Example(
    look=look,
    question=batch["inputs"][row],
    solution=np.where(known, labels, puzzle_set.NO_LABEL)[row],
    answers={
      _TITLES[axis].format(number): kept(answers[places.index(number), row])
      for number in shown
    },
  )
