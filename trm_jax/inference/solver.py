"""A trained network that solves puzzles without a data set.

solver = trm_jax.load("runs/sudoku")
for answer in solver.solve([PUZZLE]):  # a string of 81 characters
  print(answer.text, answer.confidence, answer.steps, answer.valid)
"""

import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import choices, eval_step, solve_batch, types
from trm_jax.data import identifiers as identifiers_lib
from trm_jax.data import loader, puzzle_set, tasks
from trm_jax.data import task as task_lib
from trm_jax.evaluation import evaluate, report
from trm_jax.inference import inputs as inputs_lib
from trm_jax.inference import outputs
from trm_jax.runtime import checkpoint_metadata, processes, restore
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import program as program_lib


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Answers to N puzzles, in NumPy.

  Attributes:
    questions: Tokens, uint8 [N, L].
    answers: Tokens, uint8 [N, L].
    halt_logits: float32 [N].
    steps: Supervision steps taken, int32 [N].
  """

  questions: np.ndarray
  answers: np.ndarray
  halt_logits: np.ndarray
  steps: np.ndarray

  @property
  def confidence(self) -> np.ndarray:
    """Probability that the answer is correct, float32 [N]."""
    return _sigmoid(self.halt_logits)


@dataclasses.dataclass(frozen=True)
class Trace:
  """Answers to N puzzles after each of K supervision steps, in NumPy.

  Attributes:
    answers: Tokens, uint8 [K, N, L].
    confidence: float32 [K, N].
  """

  answers: np.ndarray
  confidence: np.ndarray


@dataclasses.dataclass(frozen=True)
class Answer:
  """The answer to a user-provided puzzle.

  Attributes:
    text: One character per cell, row after row.
    grid: Characters, [rows, cols].
    confidence: Probability that the answer is correct.
    steps: Supervision steps taken.
    valid: Whether it is valid by the rules of the game; None without rules.
  """

  text: str
  grid: np.ndarray
  confidence: float
  steps: int
  valid: bool | None


@dataclasses.dataclass(frozen=True, repr=False)
class Solver:
  """A trained network.

  Attributes:
    config: The settings; `eval` says how puzzles are solved.
    look: Vocabulary and shape of the puzzles.
    rules: The rules of the game, if there are any.
    identifiers: The name of each row of the puzzle table.
    step: Supervision step of the weights.
    path: The checkpoint's folder.
    weights: The averaged weights.
    program: The network and its compiled functions.
  """

  config: config_lib.Config
  look: task_lib.Look
  rules: task_lib.Rules | None
  identifiers: list[str]
  step: int
  path: epath.Path
  weights: types.Weights
  program: program_lib.Program
  _compiled: dict[config_lib.EvalConfig, eval_step.EvaluateBatch] = (
    dataclasses.field(default_factory=dict, init=False, repr=False)
  )

  def __repr__(self) -> str:
    return (
      f"Solver({str(self.path)!r}: {self.config.data.task},"
      f" {self.look.rows} x {self.look.cols} cells,"
      f" {self.config.eval.solver} solver)"
    )

  def solve(
    self, grids: Iterable[Any], *, verbose: bool = False
  ) -> list[Answer]:
    """Solves Sudokus, mazes or custom grids.

    Args:
      grids: Strings with one character per cell, lists of rows, or an array of
        any library, [N, rows, cols] or [N, L]; Sudokus also as numbers, 0 for a
        blank cell. A single string or array [rows, cols] is one puzzle.
      verbose: Whether to log how long it took, to stderr.

    Returns:
      One answer per puzzle.

    Raises:
      UserError: a puzzle is malformed, or of ARC, where a grid means nothing
        without its task.
    """
    if tasks.get(self.config.data).is_arc:
      raise errors.UserError(
        "an ARC grid means nothing without its task: use --mode=predict with"
        " the task's JSON"
      )
    shape = getattr(grids, "shape", None)
    if isinstance(grids, str) or shape == (self.look.rows, self.look.cols):
      grids = [grids]
    start = time.monotonic()
    tokens = [
      inputs_lib.tokens_of(
        grid, self.look, self.config.data, where=f"puzzle {number}"
      )
      for number, grid in enumerate(grids, 1)
    ]
    if not tokens:
      return []
    predictions = self.solve_tokens(np.stack(tokens))
    if verbose:
      seconds = time.monotonic() - start
      processes.log_once(
        f"solved {len(tokens):,} puzzle{'s' * (len(tokens) != 1)} in"
        f" {seconds:.1f} s, {len(tokens) / seconds:,.1f} puzzles/s"
      )
    valid = self.valid(predictions)
    texts = outputs.texts(predictions.answers, self.look)
    return [
      Answer(
        text=text,
        grid=np.array(list(text)).reshape(self.look.rows, self.look.cols),
        confidence=float(predictions.confidence[i]),
        steps=int(predictions.steps[i]),
        valid=None if valid is None else bool(valid[i]),
      )
      for i, text in enumerate(texts)
    ]

  def valid(self, predictions: Predictions) -> np.ndarray | None:
    """Returns which answers are valid, bool [N]; None without rules."""
    if not self.rules:
      return None
    if not len(predictions.answers):
      return np.zeros(0, bool)
    return self.rules.is_valid(predictions.questions, predictions.answers)

  def solve_tokens(
    self, inputs: np.ndarray, puzzle_ids: np.ndarray | None = None
  ) -> Predictions:
    """Solves N puzzles as `config.eval` says.

    Args:
      inputs: Tokens, [N, L].
      puzzle_ids: Rows of the puzzle table, [N]; by default row 0.
    """
    if not len(inputs):
      tokens = np.zeros((0, self.program.sizes.seq_len), np.uint8)
      none = np.zeros(0, np.int32)
      return Predictions(tokens, tokens, none.astype(np.float32), none)
    batches = list(self.solve_puzzles(_puzzles(inputs, puzzle_ids)))
    return Predictions(
      *(
        np.concatenate([getattr(batch, field.name) for batch in batches])
        for field in dataclasses.fields(Predictions)
      )
    )

  def solve_puzzles(self, puzzles: puzzle_set.Puzzles) -> Iterator[Predictions]:
    """Yields the predictions for a set of puzzles, batch by batch.

    Raises:
      UserError: a batch does not fit in memory.
    """
    try:
      for result in self.batch_results(puzzles):
        last = self._by_rules(jax.device_get(result.last))
        yield Predictions(
          questions=last.questions[last.rows],
          answers=last.answers[last.rows],
          halt_logits=last.halt_logits[last.rows],
          steps=last.steps[last.rows],
        )
    except Exception as error:
      if not errors.is_trouble(error):
        raise
      raise errors.UserError(
        "the puzzles cannot be solved"
        f" {program_lib.puzzles_at_a_time(self.config.eval):,} at a time; lower"
        f" config.eval.batch_size ({errors.reason(error)})"
      ) from error

  def _by_rules(self, last: Any) -> Any:
    """Lets the rules choose among attempts, if the settings say so.

    Args:
      last: `eval_step.Answers` in NumPy.
    """
    chosen_by = self.config.eval.rollout_selection
    made = last.attempts
    if made is None or chosen_by != solve_batch.RULES or self.rules is None:
      return last
    valid = report.valid_attempts(self.rules, last.questions, made["answers"])
    chosen = choices.by_rules(valid, made["halt_logits"])
    answers, halt_logits, steps = (
      made[name][chosen, np.arange(len(chosen))]
      for name in ("answers", "halt_logits", "steps")
    )
    return dataclasses.replace(
      last, answers=answers, halt_logits=halt_logits, steps=steps
    )

  def trace_tokens(
    self,
    inputs: np.ndarray,
    puzzle_ids: np.ndarray | None = None,
    *,
    supervision_steps: int | None = None,
  ) -> Trace:
    """Returns the answers after every supervision step, without halting.

    Args:
      inputs: Tokens, [N, L] with N > 0.
      puzzle_ids: Rows of the puzzle table, [N]; by default row 0.
      supervision_steps: K; by default `config.eval.supervision_steps`.
    """
    settings = dataclasses.replace(
      self.config.eval,
      solver="fixed",
      supervision_steps=supervision_steps or self.config.eval.supervision_steps,
    )
    results = jax.device_get(
      [
        (result.answers, result.halt_logits, result.last.rows)
        for result in self.batch_results(_puzzles(inputs, puzzle_ids), settings)
      ]
    )
    answers, halt_logits = (
      np.concatenate([result[part][:, result[2]] for result in results], axis=1)
      for part in range(2)
    )
    return Trace(answers.astype(np.uint8), _sigmoid(halt_logits))

  def batch_results(
    self,
    puzzles: puzzle_set.Puzzles,
    settings: config_lib.EvalConfig | None = None,
  ) -> Iterator[eval_step.BatchResult]:
    """Yields the results on the devices, batch by batch.

    Args:
      puzzles: At least one.
      settings: How to solve them; by default `config.eval`.
    """
    settings = settings or self.config.eval
    mesh = self.program.mesh
    size = batch_size(settings, puzzles.num_examples, mesh.size)
    solved = evaluate.solve_batches(
      self._solve_batch(settings, size),
      self.weights,
      loader.eval_batches(puzzles, batch_size=size),
      mesh,
    )
    return (result for _, result in solved)

  def _solve_batch(
    self, settings: config_lib.EvalConfig, size: int
  ) -> eval_step.EvaluateBatch:
    """Returns the compiled function that solves batches of `size`."""
    if settings.solver == "adaptive":
      # With fewer puzzles than slots, as many slots as puzzles.
      slots = min(size, settings.batch_size)
      settings = dataclasses.replace(settings, batch_size=slots)
    if settings not in self._compiled:
      config = dataclasses.replace(self.config, eval=settings)
      built = dataclasses.replace(self.program, config=config)
      self._compiled[settings] = built.predict_batch(self.look)
    return self._compiled[settings]


def batch_size(
  settings: config_lib.EvalConfig, num_puzzles: int, num_devices: int
) -> int:
  """Returns the number of puzzles in a batch.

  A power of two for few puzzles, to limit the number of compilations; several
  puzzles per slot with adaptive halting; a multiple of the number of devices.

  Args:
    settings: `config.eval`.
    num_puzzles: Number of puzzles in all.
    num_devices: Number of devices that solve them.
  """
  most = program_lib.puzzles_at_a_time(settings)
  few = 1 << max(num_puzzles - 1, 0).bit_length()
  return -(-min(most, few) // num_devices) * num_devices


def _puzzles(
  inputs: np.ndarray, puzzle_ids: np.ndarray | None
) -> puzzle_set.PuzzleSet:
  """Returns unlabelled puzzles of one example each."""
  tokens = np.asarray(inputs, np.uint8)
  puzzles = puzzle_set.PuzzleSet.single(tokens, np.zeros_like(tokens))
  if puzzle_ids is None:
    return puzzles
  rows = np.asarray(puzzle_ids, np.int32)
  return dataclasses.replace(puzzles, puzzle_ids=rows)


def _sigmoid(halt_logits: np.ndarray) -> np.ndarray:
  """Returns the sigmoid in float32, also of extreme logits."""
  clipped = np.clip(halt_logits.astype(np.float32), -80, 80)
  return 1 / (1 + np.exp(-clipped))


def load(
  workdir: str, config: config_lib.Config | None = None, **settings: Any
) -> Solver:
  """Loads a trained network on all devices.

  Args:
    workdir: Folder of a training run, an import or published weights.
    config: Settings to use: `eval` says how puzzles are solved and which
      checkpoint is read; `model` must be the checkpoint's. By default those
      saved with the checkpoint.
    **settings: Overrides of `config.eval`.

  Raises:
    UserError: there is no such checkpoint, or it is of another network, or a
      setting is misspelt or impossible.
  """
  if settings:
    config = config_lib.changed(
      config or restore.saved_config(workdir),
      {f"eval.{name}": value for name, value in settings.items()},
    )
  which = config.eval.checkpoint if config else "latest"
  with restore.open_weights(workdir) as checkpoints:
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
  look = tasks.look(used.data, saved.vocabulary, saved.seq_len)
  checkpoint_metadata.check_network_fits(saved, used, look.symbols)
  program = program_lib.build(
    used,
    program_lib.DataSpec.of_look(look, saved.num_puzzle_ids),
    mesh_lib.make_mesh(),
  )
  path = restore.identifiers_path(workdir)
  names = identifiers_lib.read(path)
  if identifiers_lib.digest(names) != saved.identifiers:
    raise errors.UserError(
      f"{path} does not list the rows of the checkpoint's puzzle table"
    )
  return Solver(
    config=used,
    look=look,
    rules=tasks.rules(used.data),
    identifiers=names,
    step=step,
    path=checkpoints.path(step),
    weights=checkpoints.restore_weights(
      step, program.abstract_state().ema_weights
    ),
    program=program,
  )
