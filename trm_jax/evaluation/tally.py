"""Counts the votes of a whole ARC test set as its answers come in."""

from collections.abc import Sequence

import numpy as np

from trm_jax import errors
from trm_jax.data import puzzle_set
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import voting


class Tally:
  """Counts the votes of a test set that comes in order, batch by batch.

  A task is finished with its last example and then forgotten, so that only one
  task's votes are in memory.
  """

  def __init__(
    self,
    tasks: Sequence[arc_tasks.ArcTask],
    *,
    puzzle_indices: np.ndarray,
    group_indices: np.ndarray,
    transforms: np.ndarray,
    colours: np.ndarray,
    num_attempts: int,
    first_group: int = 0,
  ):
    """Sets up the count.

    Args:
      tasks: One for each of the set's groups, G.
      puzzle_indices: Puzzle p has the examples [p] to [p + 1], int64 [N + 1].
      group_indices: Group g has the puzzles [g] to [g + 1], int64 [G + 1].
      transforms: Symmetry of the square of each puzzle, uint8 [N].
      colours: New colour of each colour in each puzzle, uint8 [N, 10].
      num_attempts: Candidates to hand in for each test input.
      first_group: Groups before this one were finished by an earlier run.

    Raises:
      ValueError: if the sizes contradict each other.
    """
    num_puzzles = len(puzzle_indices) - 1
    if len(group_indices) - 1 != len(tasks):
      raise ValueError(f"{len(tasks)} tasks, {len(group_indices) - 1} groups")
    if transforms.shape != (num_puzzles,) or colours.shape != (num_puzzles, 10):
      raise ValueError(
        f"{num_puzzles} puzzles, but transforms {transforms.shape} and colours"
        f" {colours.shape}"
      )
    if not 0 <= first_group <= len(tasks):
      raise ValueError(f"first_group is {first_group} of {len(tasks)}")
    if num_attempts < 1:
      raise ValueError(f"num_attempts is {num_attempts}")
    self._tasks = tasks
    self._puzzle_indices = puzzle_indices
    self._bounds = puzzle_indices[group_indices]  # group g: examples [g]..[g+1]
    self._transforms = transforms
    self._colours = colours
    self._num_attempts = num_attempts
    self._start = int(self._bounds[first_group])
    self._next: int | None = None  # example, once there was a batch
    self._group = first_group
    self._ballot: voting.Ballot | None = None  # of the group, after a vote

  @property
  def num_unfinished(self) -> int:
    """How many tasks' examples have not all come in."""
    return len(self._tasks) - self._group

  def add(
    self,
    first_example: int,
    inputs: np.ndarray,
    answers: np.ndarray,
    halt_logits: np.ndarray,
  ) -> list[voting.TaskResult]:
    """Counts a batch.

    Args:
      first_example: Number of the first row's example. The first batch may
        begin before the first unfinished group; such rows are left out.
      inputs: Tokens, uint8 [b, 900], without rows of padding.
      answers: Tokens, uint8 [b, 900].
      halt_logits: Floats [b]; their sigmoid is the confidence.

    Returns:
      The results of the tasks that are finished by it.

    Raises:
      UserError: if a halt logit is not a number.
      ValueError: if the batch does not begin where the last one ended, or a row
        is not of the example in this place.
    """
    if not len(inputs) == len(answers) == len(halt_logits):
      raise ValueError(
        f"{len(inputs)} inputs, {len(answers)} answers, {len(halt_logits)}"
        " halt logits"
      )
    end = first_example + len(inputs)
    if self._next is None:
      in_order = 0 <= first_example <= self._start
    else:
      in_order = first_example == self._next
    if not in_order or end > self._bounds[-1]:
      expected = self._start if self._next is None else self._next
      raise ValueError(
        f"a batch of the examples {first_example} to {end} of"
        f" {self._bounds[-1]}, expected {expected} next"
      )
    self._next = end
    rows = slice(max(0, self._start - first_example), None)
    return self._count(
      np.arange(first_example, end)[rows],
      inputs[rows],
      answers[rows],
      halt_logits[rows],
    )

  def _count(
    self,
    examples: np.ndarray,
    inputs: np.ndarray,
    answers: np.ndarray,
    halt_logits: np.ndarray,
  ) -> list[voting.TaskResult]:
    """As `add`, for examples of which each is to be counted."""
    if np.isnan(halt_logits).any():
      raise errors.UserError(
        "a halt logit is not a number: training has diverged, evaluate an"
        " earlier checkpoint"
      )
    puzzles = puzzle_set.puzzles_of(examples, self._puzzle_indices)
    finished = []
    for example, puzzle, question, answer, confidence in zip(
      examples.tolist(),
      puzzles.tolist(),
      arc_grids.crop(inputs),
      arc_grids.crop(answers),
      _sigmoid(halt_logits).tolist(),
      strict=True,
    ):
      if self._ballot is None:
        self._ballot = voting.Ballot(self._tasks[self._group])
      transform = int(self._transforms[puzzle])
      colours = self._colours[puzzle]
      self._ballot.add(
        arc_grids.undo(question, transform=transform, colours=colours),
        arc_grids.undo(answer, transform=transform, colours=colours),
        confidence,
      )
      if example + 1 == self._bounds[self._group + 1]:
        result = self._ballot.result(num_attempts=self._num_attempts)
        finished.append(result)
        self._ballot = None
        self._group += 1
    return finished


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  """Returns 1 / (1 + exp(-logits)) in float64, as the official evaluator."""
  with np.errstate(over="ignore"):  # exp is inf, the result 0
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
