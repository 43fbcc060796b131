"""Pictures of the first puzzles being solved: all steps, and a GIF."""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from etils import epath

from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import processes

MOST = 20  # puzzles that are drawn

_MOST_STEPS = 8  # in a picture that does not move
_LONGEST = 50  # characters of a name; file systems take 255 bytes with all


@dataclasses.dataclass(frozen=True)
class Puzzle:
  """What is to be drawn.

  Attributes:
    name: Of the files.
    tokens: The question, uint8 [L].
    row: Of the puzzle table.
  """

  name: str
  tokens: np.ndarray
  row: int = 0


def draw(
  solver: solver_lib.Solver, puzzles: Sequence[Puzzle], folder: str
) -> None:
  """Draws NAME.png and NAME.gif of how each of the first `MOST` is solved.

  Shown is what is answered after each of a fixed number of steps; a solver that
  stops early or tries several times may have written another answer.

  Args:
    solver: The trained network.
    puzzles: In order.
    folder: Where to; is made if it is not there.

  Raises:
    UserError: if a picture cannot be written.
  """
  # Imported late: only who wants pictures needs what draws them.
  from trm_jax.visualization import animation

  chosen = puzzles[:MOST]
  trace = solver.trace_tokens(
    np.stack([puzzle.tokens for puzzle in chosen]),
    np.array([puzzle.row for puzzle in chosen], np.int32),
  )
  path = epath.Path(folder).expanduser()
  names = _file_names([puzzle.name for puzzle in chosen])
  num_written = 0
  try:
    for number, (puzzle, name) in enumerate(zip(chosen, names, strict=True)):
      answer_trace = animation.AnswerTrace(
        look=solver.look,
        question=puzzle.tokens,
        answers=trace.answers[:, number],
        confidence=trace.confidence[:, number],
        solution=None,
      )
      animation.save_steps(
        answer_trace,
        path / f"{name}.png",
        steps=answer_trace.key_steps(_MOST_STEPS),
      )
      num_written += 1
      animation.save_gif(answer_trace, path / f"{name}.gif")
      num_written += 1
  finally:
    # Also of those before an interruption: nothing is there untold.
    processes.note(
      f"{num_written} pictures of the first {len(chosen)} puzzles (at most"
      f" {MOST}): {path}"
    )


def _file_names(names: Sequence[str]) -> list[str]:
  """Returns names that files may have, no two alike in any file system."""
  # A task may be called like a path that leads elsewhere.
  safe = [re.sub(r"[^\w-]", "_", name)[:_LONGEST] for name in names]
  taken: set[str] = set()
  for i, name in enumerate(safe):
    number = 1
    while safe[i].casefold() in taken:
      number += 1
      safe[i] = f"{name}_{number}"
    taken.add(safe[i].casefold())
  return safe
