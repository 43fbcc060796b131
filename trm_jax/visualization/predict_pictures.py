"""Pictures of the first puzzles being solved: a PNG of the steps, and a GIF."""

import re
from collections.abc import Sequence

import numpy as np
from etils import epath

from trm_jax.data import files
from trm_jax.inference import outputs
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import processes
from trm_jax.visualization import animation

_MOST_STEPS = 8  # in a PNG
_MOST_CHARACTERS = 50  # of a file's name; file systems take 255 bytes


def check_writable(folder: str) -> None:
  """Raises UserError if no picture can be written to the folder."""
  files.check_writable(epath.Path(folder).expanduser() / "puzzle_1.png")


def draw(
  solver: solver_lib.Solver,
  folder: str,
  puzzles: Sequence[outputs.DrawnPuzzle],
) -> None:
  """Draws NAME.png and NAME.gif of each of the first `outputs.MOST_DRAWN`.

  They show the answers after a fixed number of steps; with adaptive halting or
  rollouts, the answer that is written may be another one.

  Args:
    solver: The trained network.
    folder: Where to write; made if missing.
    puzzles: The puzzles, in order.

  Raises:
    UserError: a picture cannot be written.
  """
  puzzles = puzzles[: outputs.MOST_DRAWN]
  trace = solver.trace_tokens(
    np.stack([puzzle.tokens for puzzle in puzzles]),
    np.array([puzzle.row for puzzle in puzzles], np.int32),
  )
  path = epath.Path(folder).expanduser()
  names = _file_names([puzzle.name for puzzle in puzzles])
  num_written = 0
  try:
    for i, (puzzle, name) in enumerate(zip(puzzles, names, strict=True)):
      answers = animation.AnswerTrace(
        look=solver.look,
        question=puzzle.tokens,
        answers=trace.answers[:, i],
        confidence=trace.confidence[:, i],
        solution=None,
      )
      for ending, draw_file in (("png", _png), ("gif", animation.gif)):
        with files.writing(path / f"{name}.{ending}") as file:
          file.write(draw_file(answers))
        num_written += 1
  finally:
    # After an interruption, too: the user should know of every file.
    processes.log_once(
      f"{num_written} pictures of the first {len(puzzles)} puzzles (at most"
      f" {outputs.MOST_DRAWN}): {path}"
    )


def _png(trace: animation.AnswerTrace) -> bytes:
  steps = trace.key_steps(_MOST_STEPS)
  return animation.png(animation.draw_steps(trace, steps))


def _file_names(names: Sequence[str]) -> list[str]:
  """Returns safe file names, distinct also where case does not count."""
  found: dict[str, str] = {}  # by what a file system may take for the same
  for name in names:
    # The name of a task may contain a path.
    safe = re.sub(r"[^\w-]", "_", name)[:_MOST_CHARACTERS]
    new, number = safe, 1
    while new.casefold() in found:
      number += 1
      new = f"{safe}_{number}"
    found[new.casefold()] = new
  return list(found.values())
