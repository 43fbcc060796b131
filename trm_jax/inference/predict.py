r"""People's own puzzles through a trained network: questions in, answers out.

python -m trm_jax.main --mode=predict --workdir=RUN --input=puzzles.csv \
  --output=answers.csv
"""

from collections.abc import Iterator

import numpy as np

from trm_jax import errors
from trm_jax.data import kind
from trm_jax.inference import inputs, outputs, predict_arc
from trm_jax.inference import pictures as prediction_pictures
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import processes


def predict_file(
  solver: solver_lib.Solver, input_path: str, output_path: str, pictures: str
) -> None:
  """Answers the puzzles of a file, a pipe or the command line.

  Sudokus, mazes and own grids come out as a CSV with one row for each of the
  input's, in its order, and the columns `answers.HEADER`: the question as it
  was written, the answer, the network's confidence in it, the supervision steps
  it took and whether it is right by the rules of the game ("yes", "no", or
  empty where there are none). An answer is what the network said, even where
  it contradicts the question. A row that cannot be read has its fault in the
  column `error` instead. ARC's tasks are answered by `predict_arc`.

  Nothing else is printed to standard output, and nothing is written before all
  is solved.

  Args:
    solver: The trained network.
    input_path: As `question_rows.find` and `arc_questions.read` take it.
    output_path: As for `answers.writing`.
    pictures: Folder for pictures of the first puzzles (see `predict_pictures`),
      or "".

  Raises:
    UserError: if nothing can be read or written; or, when the answers have been
      written, if some rows could not be read.
  """
  if kind.of(solver.config.data) == "arc":
    predict_arc.predict_tasks(solver, input_path, output_path, pictures)
    return
  summary = _Summary()
  album = _Album()
  portion = solver_lib.Portions(solver, "puzzles")
  with outputs.writing(output_path, input_path=input_path) as file:
    file.write(outputs.csv_lines([outputs.HEADER]))
    for block in inputs.read_blocks(
      input_path,
      solver.look,
      solver.config.data,
      num_rows=portion.size,
    ):
      album.add(block)
      solved = portion.solve(block.tokens)
      valid = _valid(solver, block.tokens, solved.answers)
      summary.add(block, solved, valid)
      file.write(outputs.csv_lines(_rows(solver, block, solved, valid)))
    summary.check_any_answered()
  place = outputs.place(output_path)
  processes.note(summary.text(solver, place))
  if pictures:
    prediction_pictures.draw(solver, album.puzzles, pictures)
  summary.check_all_answered(place)


def _valid(
  solver: solver_lib.Solver, asked: np.ndarray, said: np.ndarray
) -> np.ndarray | None:
  """Tells which answers the rules allow, bool [m]; None if there are none."""
  if not solver.rules:
    return None
  if not len(asked):
    return np.zeros(0, bool)
  return solver.rules.is_valid(asked, said)


def _rows(
  solver: solver_lib.Solver,
  block: inputs.Block,
  solved: solver_lib.Solved,
  valid: np.ndarray | None,
) -> Iterator[tuple[str, ...]]:
  """Yields the rows of the CSV; see `answers.HEADER`."""
  if valid is None:
    words = [""] * len(block.tokens)
  else:
    words = ["yes" if right else "no" for right in valid]
  cells = zip(
    outputs.texts(solved.answers, solver.look),
    [f"{confidence:.4f}" for confidence in solved.confidence],
    [str(steps) for steps in solved.steps],
    words,
    strict=True,
  )
  for text, fault in zip(block.texts, block.faults, strict=True):
    if fault:
      yield (text, "", "", "", "", fault)
    else:
      yield (text, *next(cells), "")


class _Summary:
  """What is told at the end."""

  def __init__(self):
    self._num_rows = 0
    self._num_bad = 0
    self._first_fault = ""
    self._num_valid: int | None = None  # None: there are no rules
    self._confidence = 0.0
    self._steps = 0

  def add(
    self,
    block: inputs.Block,
    solved: solver_lib.Solved,
    valid: np.ndarray | None,
  ) -> None:
    """Counts a block."""
    faults = [fault for fault in block.faults if fault]
    self._num_rows += len(block.faults)
    self._num_bad += len(faults)
    self._first_fault = self._first_fault or next(iter(faults), "")
    self._confidence += float(solved.confidence.sum(dtype=np.float64))
    self._steps += int(solved.steps.sum())
    if valid is not None:
      self._num_valid = (self._num_valid or 0) + int(valid.sum())

  def text(self, solver: solver_lib.Solver, place: str) -> str:
    """Returns a line about all answers."""
    count = self._num_rows - self._num_bad
    parts = [f"{count:,} puzzle{'s' * (count != 1)} answered by {solver.path}"]
    if self._num_valid is not None:
      assert solver.rules is not None
      share = self._num_valid / count
      parts.append(
        f"{self._num_valid:,} ({share:.2%}) of them a {solver.rules.what}"
      )
    parts.append(f"mean confidence {self._confidence / count:.1%}")
    parts.append(f"{self._steps / count:.1f} supervision steps on average")
    return f"{', '.join(parts)}: {place}"

  def check_any_answered(self) -> None:
    """Raises UserError if no row could be read."""
    if self._num_bad < self._num_rows:
      return
    if self._num_rows == 1:
      raise errors.UserError(self._first_fault)
    raise errors.UserError(
      f"none of {self._num_rows:,} rows could be read, nothing is written;"
      f" first {self._first_fault}"
    )

  def check_all_answered(self, place: str) -> None:
    """Raises UserError if some rows could not be read."""
    if self._num_bad:
      raise errors.UserError(
        f"{self._num_bad:,} of {self._num_rows:,} rows could not be read (first"
        f" {self._first_fault}); the others' answers are in {place}, with the"
        " faults in its column error"
      )


class _Album:
  """The first puzzles that can be read, for pictures.

  Attributes:
    puzzles: At most `predict_pictures.MOST`.
  """

  def __init__(self):
    self.puzzles: list[prediction_pictures.Puzzle] = []
    self._num_rows = 0

  def add(self, block: inputs.Block) -> None:
    """Takes what it wants of a block."""
    numbers = [
      number
      for number, fault in enumerate(block.faults, self._num_rows + 1)
      if not fault
    ]
    self._num_rows += len(block.faults)
    wanted = prediction_pictures.MOST - len(self.puzzles)
    for number, tokens in zip(numbers[:wanted], block.tokens, strict=False):
      self.puzzles.append(
        prediction_pictures.Puzzle(name=f"puzzle_{number}", tokens=tokens)
      )
