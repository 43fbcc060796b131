r"""Prediction for user-provided puzzles: questions in, answers out.

python -m trm_jax.main --mode=predict --workdir=RUN --input=puzzles.csv \
  --output=answers.csv
"""

import dataclasses
from collections.abc import Iterable, Iterator
from concurrent import futures

import numpy as np

from trm_jax import errors
from trm_jax.data import tasks
from trm_jax.inference import inputs, outputs, predict_arc
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import processes
from trm_jax.runtime import program as program_lib
from trm_jax.terminal import progress

_MAX_INVALID = 10_000  # rows that are read if none can be solved


def predict_file(
  solver: solver_lib.Solver,
  input_path: str,
  output_path: str,
  draw: outputs.Draw | None = None,
) -> None:
  """Answers the puzzles of a file, a pipe or the command line.

  For Sudokus, mazes and custom grids, writes a CSV with one row per row of the
  input, in order, and the columns `outputs.HEADER`: the question as it was
  written, the answer, the network's confidence in it, the supervision steps
  taken, whether it is valid by the rules of the game ("yes", "no", or empty
  without rules), and what is wrong with a row that could not be read. An answer
  is the network's even where it contradicts the question. ARC tasks are handled
  by `predict_arc`.

  Nothing else goes to standard output, and nothing is written before all
  puzzles are solved.

  Args:
    solver: The trained network.
    input_path: As `inputs.read_blocks` or `inputs.read_tasks` takes it.
    output_path: As for `outputs.writing`.
    draw: Draws the first puzzles, after the answers have been written.

  Raises:
    UserError: nothing can be read or written; or, after the answers have been
      written, some rows were invalid.
  """
  if tasks.get(solver.config.data).is_arc:
    predict_arc.predict_tasks(solver, input_path, output_path, draw)
    return
  summary = _Summary()
  with (
    outputs.writing(output_path, input_path=input_path) as file,
    progress.Progress("puzzles") as shown,
  ):
    file.write(outputs.csv_lines([outputs.HEADER]))
    blocks = inputs.read_blocks(
      input_path,
      solver.look,
      solver.config.data,
      num_rows=program_lib.puzzles_at_a_time(solver.config.eval),
    )
    for block, predictions in _solved(solver, blocks):
      valid = solver.valid(predictions)
      summary.add(block, predictions, valid)
      file.write(outputs.csv_lines(_rows(solver, block, predictions, valid)))
      shown.update(summary.num_rows)
      if summary.num_rows > _MAX_INVALID:
        summary.check_any_answered("the first")
    summary.check_any_answered("all")
  place = outputs.place(output_path)
  processes.log_once(summary.text(solver, place))
  if draw:
    draw(summary.first_puzzles)
  elif not outputs.is_standard(output_path):
    processes.log_once("next: --pictures=FOLDER draws the first puzzles")
  summary.check_all_answered(place)


def _solved(
  solver: solver_lib.Solver, blocks: Iterable[inputs.Block]
) -> Iterator[tuple[inputs.Block, solver_lib.Predictions]]:
  """Yields each block with its answers, while the next one is being solved."""
  with futures.ThreadPoolExecutor(1) as pool:
    pending = None
    for block in blocks:
      following = block, pool.submit(solver.solve_tokens, block.tokens)
      if pending is not None:
        yield pending[0], pending[1].result()
      pending = following
    if pending is not None:
      yield pending[0], pending[1].result()


def _rows(
  solver: solver_lib.Solver,
  block: inputs.Block,
  predictions: solver_lib.Predictions,
  valid: np.ndarray | None,
) -> Iterator[tuple[str, ...]]:
  """Yields the rows of the CSV; see `outputs.HEADER`."""
  if valid is None:
    words = [""] * len(block.tokens)
  else:
    words = ["yes" if is_valid else "no" for is_valid in valid]
  cells = zip(
    outputs.texts(predictions.answers, solver.look),
    [f"{confidence:.4f}" for confidence in predictions.confidence],
    [str(steps) for steps in predictions.steps],
    words,
    strict=True,
  )
  for text, fault in zip(block.texts, block.faults, strict=True):
    if fault:
      yield (text, "", "", "", "", fault)
    else:
      yield (text, *next(cells), "")


@dataclasses.dataclass
class _Summary:
  """What is reported at the end.

  Attributes:
    num_rows: Rows of the input.
    num_invalid: Those that could not be read.
    first_fault: What is wrong with the first of them.
    num_valid: Answers that are valid by the rules; None without rules.
    confidence: Sum over the answers.
    steps: Sum over the answers.
    first_puzzles: Puzzles to be drawn, at most `outputs.MOST_DRAWN`.
  """

  num_rows: int = 0
  num_invalid: int = 0
  first_fault: str = ""
  num_valid: int | None = None
  confidence: float = 0.0
  steps: int = 0
  first_puzzles: list[outputs.DrawnPuzzle] = dataclasses.field(
    default_factory=list
  )

  def add(
    self,
    block: inputs.Block,
    predictions: solver_lib.Predictions,
    valid: np.ndarray | None,
  ) -> None:
    """Adds a block."""
    tokens = iter(block.tokens)
    for number, fault in enumerate(block.faults, self.num_rows + 1):
      if fault:
        self.num_invalid += 1
        self.first_fault = self.first_fault or fault
      elif len(self.first_puzzles) < outputs.MOST_DRAWN:
        self.first_puzzles.append(
          outputs.DrawnPuzzle(name=f"puzzle_{number}", tokens=next(tokens))
        )
    self.num_rows += len(block.faults)
    self.confidence += float(predictions.confidence.sum(dtype=np.float64))
    self.steps += int(predictions.steps.sum())
    if valid is not None:
      self.num_valid = (self.num_valid or 0) + int(valid.sum())

  def text(self, solver: solver_lib.Solver, place: str) -> str:
    """Returns a line about all answers."""
    count = self.num_rows - self.num_invalid
    parts = [f"{count:,} puzzle{'s' * (count != 1)} answered by {solver.path}"]
    if self.num_valid is not None:
      assert solver.rules is not None
      share = self.num_valid / count
      parts.append(
        f"{self.num_valid:,} ({share:.2%}) of them a {solver.rules.what}"
      )
    parts.append(f"mean confidence {self.confidence / count:.1%}")
    parts.append(f"mean ACT steps {self.steps / count:.1f}")
    return f"{', '.join(parts)}: {place}"

  def check_any_answered(self, which: str) -> None:
    """Raises UserError if all rows so far were invalid."""
    if self.num_invalid < self.num_rows:
      return
    if self.num_rows == 1:
      raise errors.UserError(self.first_fault)
    raise errors.UserError(
      f"{which} {self.num_rows:,} rows were invalid, nothing is written; first"
      f" {self.first_fault}"
    )

  def check_all_answered(self, place: str) -> None:
    """Raises UserError if some rows were invalid."""
    if self.num_invalid:
      raise errors.UserError(
        f"{self.num_invalid:,} of {self.num_rows:,} rows were invalid (first"
        f" {self.first_fault}); the answers to the others are in {place}, see"
        " its column `error`"
      )
