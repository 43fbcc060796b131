"""A trained network, ready to solve puzzles; no data set is needed for it.

solver = trm_jax.load("runs/sudoku")
for answer in solver.solve([PUZZLE]):  # a string of 81 characters
  print(answer.text, answer.confidence, answer.steps, answer.valid)
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import eval_step, types
from trm_jax.data import identifiers as identifiers_lib
from trm_jax.data import kind, loader, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.inference import inputs as inputs_lib
from trm_jax.inference import outputs
from trm_jax.runtime import checkpoint_metadata, processes, restore
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import program as program_lib

_TOKENS = "carry/batch/inputs"  # name of a checkpoint's array that has L


@dataclasses.dataclass(frozen=True)
class Solved:
  """Answers to N puzzles, in NumPy."""

  answers: np.ndarray  # [N, L] uint8 tokens
  halt_logits: np.ndarray  # [N] float32
  steps: np.ndarray  # [N] int32, supervision steps that it took

  @property
  def confidence(self) -> np.ndarray:
    """That the answer is right, [N] float32 in 0..1."""
    return _confidence(self.halt_logits)


@dataclasses.dataclass(frozen=True)
class Trace:
  """Answers to N puzzles after each of K supervision steps, in NumPy."""

  answers: np.ndarray  # [K, N, L] uint8 tokens
  confidence: np.ndarray  # [K, N] float32


@dataclasses.dataclass(frozen=True)
class Answer:
  """The answer to a puzzle that was handed in."""

  text: str  # a character per cell, row after row
  grid: np.ndarray  # [rows, cols] of characters
  confidence: float  # that it is right
  steps: int  # supervision steps that it took
  valid: bool | None  # by the rules of the game; None: there are none


@dataclasses.dataclass(frozen=True)
class Solver:
  """A trained network."""

  config: config_lib.Config
  look: task_lib.Look
  rules: task_lib.Rules | None  # what makes an answer right
  identifiers: list[str]  # what each row of the puzzle table stands for
  step: int  # supervision step of the weights
  path: epath.Path  # the checkpoint
  weights: types.Weights  # the averaged ones
  program: program_lib.Program

  def solve(self, grids: Sequence[Any]) -> list[Answer]:
    """Solves puzzles as people write them: Sudokus, mazes, own grids.

    Args:
      grids: strings of a character per cell, or lists of rows; Sudokus also
        as numbers, 0 for a blank cell.

    Returns:
      An answer to each.

    Raises:
      UserError: a puzzle is malformed, or of ARC, whose tasks need their
        demonstrations: see `predict`.
    """
    if kind.of(self.config.data) == "arc":
      raise errors.UserError(
        "an ARC grid means nothing without its task: use --mode=predict with"
        " the task's JSON"
      )
    inputs = [
      inputs_lib.tokens_of(
        grid, self.look, self.config.data, where=f"puzzle {number}"
      )
      for number, grid in enumerate(grids, 1)
    ]
    if not inputs:
      return []
    tokens = np.stack(inputs)
    solved = self.solve_tokens(tokens)
    valid = self.rules.is_valid(tokens, solved.answers) if self.rules else None
    texts = outputs.texts(solved.answers, self.look)
    size = self.look.rows, self.look.cols
    return [
      Answer(
        text=text,
        grid=np.array(list(text)).reshape(size),
        confidence=float(solved.confidence[i]),
        steps=int(solved.steps[i]),
        valid=None if valid is None else bool(valid[i]),
      )
      for i, text in enumerate(texts)
    ]

  def solve_tokens(
    self, inputs: np.ndarray, puzzle_ids: np.ndarray | None = None
  ) -> Solved:
    """Solves any number of puzzles as `config.eval` says.

    Args:
      inputs: [N, L] tokens.
      puzzle_ids: [N], rows of the puzzle table; by default row 0.

    Returns:
      The answers.
    """
    results = []
    for result, count in self.results(inputs, puzzle_ids):
      last = jax.device_get(result.last)
      results.append(
        (last.answers[:count], last.halt_logits[:count], last.steps[:count])
      )
    if not results:
      return Solved(
        answers=np.zeros((0, self.program.sizes.seq_len), np.uint8),
        halt_logits=np.zeros(0, np.float32),
        steps=np.zeros(0, np.int32),
      )
    tokens, halt_logits, steps = map(np.concatenate, zip(*results, strict=True))
    return Solved(tokens, halt_logits, steps)

  def trace_tokens(
    self,
    inputs: np.ndarray,
    puzzle_ids: np.ndarray | None = None,
    *,
    supervision_steps: int | None = None,
  ) -> Trace:
    """Returns what is answered after each supervision step, none left out.

    Args:
      inputs: [N, L] tokens, at least one row.
      puzzle_ids: [N], rows of the puzzle table; by default row 0.
      supervision_steps: K; by default `config.eval.supervision_steps`.
    """
    settings = dataclasses.replace(
      self.config.eval,
      solver="fixed",
      supervision_steps=supervision_steps or self.config.eval.supervision_steps,
    )
    results = [
      jax.device_get((result.answers[:, :count], result.halt_logits[:, :count]))
      for result, count in self.results(inputs, puzzle_ids, settings)
    ]
    tokens, halt_logits = (
      np.concatenate(part, axis=1) for part in zip(*results, strict=True)
    )
    return Trace(tokens.astype(np.uint8), _confidence(halt_logits))

  def results(
    self,
    inputs: np.ndarray,
    puzzle_ids: np.ndarray | None = None,
    settings: config_lib.EvalConfig | None = None,
  ) -> Iterator[tuple[eval_step.BatchResult, int]]:
    """Yields batch after batch, and how many of its rows are no padding.

    One batch behind, so that the devices work while the host looks.

    Args:
      inputs: [N, L] tokens.
      puzzle_ids: [N], rows of the puzzle table; by default row 0.
      settings: how to solve; by default `config.eval`.
    """
    if not len(inputs):
      return
    settings = settings or self.config.eval
    mesh = self.program.mesh
    tokens = np.asarray(inputs, np.uint8)
    size = batch_size(settings, len(tokens), mesh.size)
    solve = self._solve_batch(settings, size)
    puzzles = puzzle_set.PuzzleSet.single(tokens, np.zeros_like(tokens))
    if puzzle_ids is not None:
      rows = np.asarray(puzzle_ids, np.int32)
      puzzles = dataclasses.replace(puzzles, puzzle_ids=rows)
    pending: tuple[eval_step.BatchResult, int] | None = None
    for host_batch in loader.eval_batches(puzzles, batch_size=size):
      result = solve(
        self.weights,
        mesh_lib.put_batch(host_batch, mesh),
        mesh_lib.put_rows(host_batch["mask"], mesh),
      )
      if pending:
        yield pending
      pending = result, int(host_batch["mask"].sum())
    if pending:
      yield pending

  def _solve_batch(
    self, settings: config_lib.EvalConfig, size: int
  ) -> eval_step.EvaluateBatch:
    """Returns the compiled function that solves batches of `size`."""
    if settings.solver == "adaptive":
      # Fewer puzzles than there is room for have as many slots.
      slots = min(size, settings.batch_size)
      settings = dataclasses.replace(settings, batch_size=slots)
    if settings not in self._compiled:
      config = dataclasses.replace(self.config, eval=settings)
      built = dataclasses.replace(self.program, config=config)
      self._compiled[settings] = built.predict_batch()
    return self._compiled[settings]

  @functools.cached_property
  def _compiled(
    self,
  ) -> dict[config_lib.EvalConfig, eval_step.EvaluateBatch]:
    return {}


def batch_size(
  settings: config_lib.EvalConfig, num_puzzles: int, num_devices: int
) -> int:
  """Returns how many puzzles are handed in at a time.

  A power of two where there are few, so that little is compiled; for adaptive
  halting several for each slot; a share for every device.

  Args:
    settings: the solver's.
    num_puzzles: in all.
    num_devices: on which they are solved.
  """
  most = program_lib.puzzles_at_a_time(settings)
  few = 1 << max(num_puzzles - 1, 0).bit_length()
  return -(-min(most, few) // num_devices) * num_devices


def _confidence(halt_logits: np.ndarray) -> np.ndarray:
  """Returns the sigmoid; of logits beyond float32's range, too."""
  clipped = np.clip(halt_logits.astype(np.float32), -80, 80)
  return 1 / (1 + np.exp(-clipped))


def load(
  workdir: str, config: config_lib.Config | None = None, **settings: Any
) -> Solver:
  """Loads a trained network.

  Args:
    workdir: of a training, or of an import.
    config: settings to use; `eval` says how puzzles are solved and which
      checkpoint is read, the network must be the checkpoint's. By default
      those that lie beside the checkpoint.
    **settings: of `config.eval`, instead of those there.

  Returns:
    The solver, on all devices.

  Raises:
    UserError: there is no such checkpoint, or one of another network, or a
      setting is misspelt or impossible.
  """
  if settings:
    config = config_lib.changed(
      config or restore.saved_config(workdir),
      {f"eval.{name}": value for name, value in settings.items()},
    )
  which = config.eval.checkpoint if config else "latest"
  with checkpoints_lib.Checkpoints(workdir) as checkpoints:
    return restore.chosen(
      checkpoints,
      functools.partial(_read, checkpoints, workdir, config),
      which,
      workdir,
    )


def _read(
  checkpoints: checkpoints_lib.Checkpoints,
  workdir: str,
  config: config_lib.Config | None,
  step: int,
) -> Solver:
  """Reads the checkpoint of a step."""
  saved = checkpoints.metadata(step)
  used = config or restore.settings_of(saved, workdir)
  if _TOKENS not in saved.arrays or saved.num_puzzle_ids is None:
    raise errors.UserError(
      f"the checkpoint {checkpoints.path(step)} is of a version that did not"
      " note what it takes to solve single puzzles; train on for a step"
    )
  seq_len = saved.arrays[_TOKENS].shape[1]
  shown = kind.look_of(used.data, saved.vocabulary, seq_len)
  checkpoint_metadata.check_network_fits(saved, used, shown.symbols)
  mesh = mesh_lib.make_mesh()
  built = program_lib.build(
    used,
    program_lib.Sizes(
      vocab_size=len(saved.vocabulary),
      seq_len=seq_len,
      num_puzzle_ids=saved.num_puzzle_ids,
    ),
    mesh,
  )
  names = identifiers_lib.read(restore.identifiers_path(workdir))
  if identifiers_lib.digest(names) != saved.identifiers:
    raise errors.UserError(
      f"{restore.identifiers_path(workdir)} is not the list of the rows of the"
      " puzzle table"
    )
  return Solver(
    config=used,
    look=shown,
    rules=kind.rules_of(used.data),
    identifiers=names,
    step=step,
    path=checkpoints.path(step),
    weights=checkpoints.restore_weights(
      step, built.abstract_state().averaged_weights
    ),
    program=built,
  )


# Puzzles of any number through a solver: so many at a time, and progress.


_SECONDS = 10.0  # between two lines of progress


class Portions:
  """Solves one portion after the other and tells on stderr how far it is.

  Attributes:
    size: Puzzles to solve at a time so that no slot of the solver is idle.
  """

  def __init__(self, solver: Solver, what: str, total: int | None = None):
    """Starts the clock.

    Args:
      solver: The trained network.
      what: is solved, e.g. "puzzles".
      total: how many there are, if that is known.
    """
    self.size = program_lib.puzzles_at_a_time(solver.config.eval)
    self._solver = solver
    self._what = what
    self._of = "" if total is None else f" of {total:,}"
    self._count = 0
    self._start = self._last = time.monotonic()

  def solve(self, tokens: np.ndarray, rows: np.ndarray | None = None) -> Solved:
    """Solves a portion, as `Solver.solve_tokens`.

    Raises:
      UserError: if there is not enough memory for so many at a time.
    """
    try:
      solved = self._solver.solve_tokens(tokens, rows)
    except Exception as error:
      if not errors.is_trouble(error):
        raise
      raise errors.UserError(
        f"the {self._what} cannot be solved {self.size:,} at a time; lower"
        f" config.eval.batch_size ({errors.reason(error)})"
      ) from error
    self._count += len(tokens)
    now = time.monotonic()
    if now - self._last > _SECONDS:
      self._last = now
      rate = self._count / (now - self._start)
      processes.note(
        f"{self._count:,}{self._of} {self._what} solved, {rate:,.1f} per second"
      )
    return solved
