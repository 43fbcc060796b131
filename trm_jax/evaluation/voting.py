"""Majority voting over the variants of ARC tasks; NumPy only.

Every variant of a task predicts an answer to each test input. After inverting
the variant's augmentation, equal answers to the same input are votes for one
candidate. Candidates are ranked by their number of votes, then by their mean
confidence; the first k candidates are the k attempts.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks

# Kaggle's sample submission has this in place of every answer.
PLACEHOLDER = [[0, 0], [0, 0]]
NUM_ATTEMPTS = 2  # Kaggle's number, and the paper's score
PASS_KS = (1, 2, 5, 10, 100, 1000)
NUM_LEADERS = 5  # candidates whose votes are kept in a result

Grid = list[list[int]]  # rows of colours, as in JSON


@dataclasses.dataclass(frozen=True)
class InputResult:
  """The outcome of the vote on one test input.

  Attributes:
    attempts: The first candidates of the ranking, as many as were requested.
      The first is repeated if there are too few; `PLACEHOLDER` without a vote.
    known: Whether the correct answer is known.
    rank: 0-based rank of the correct answer among the candidates; None if it
      has no vote or is not known.
    num_votes: Votes for all candidates.
    num_candidates: Number of different answers.
    leaders: Votes and mean confidence of each of the first candidates.
    steps: Mean number of supervision steps behind a vote; 0 without a vote.
  """

  attempts: tuple[Grid, ...]
  known: bool
  rank: int | None
  num_votes: int
  num_candidates: int
  leaders: tuple[tuple[int, float], ...]
  steps: float = 0.0


@dataclasses.dataclass(frozen=True)
class TaskResult:
  """The outcome of the vote on one task.

  Attributes:
    name: The task's name.
    inputs: One result per test input, in the task's order.
  """

  name: str
  inputs: tuple[InputResult, ...]

  @property
  def known(self) -> bool:
    """Whether the correct answers to all test inputs are known."""
    return all(result.known for result in self.inputs)

  @property
  def num_unanswered(self) -> int:
    """Number of test inputs without any vote."""
    return sum(not result.num_votes for result in self.inputs)

  def solved_within(self, k: int) -> float:
    """Returns the share of test inputs solved by the first k candidates."""
    correct = [
      result.rank is not None and result.rank < k for result in self.inputs
    ]
    return sum(correct) / len(correct)

  def to_json(self) -> dict[str, Any]:
    """Returns the JSON value that `from_json` reads."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> "TaskResult":
    """Reads the value written by `to_json`; the result equals the original.

    Raises:
      KeyError, TypeError, ValueError: the value is something else.
    """
    inputs = []
    for fields in value["inputs"]:
      attempts = tuple(fields["attempts"])
      leaders = tuple((votes, mean) for votes, mean in fields["leaders"])
      inputs.append(
        InputResult(**{**fields, "attempts": attempts, "leaders": leaders})
      )
    return cls(name=value["name"], inputs=tuple(inputs))


# --- counting ----------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class _Candidate:
  """The votes for one answer; confidence and steps are sums over them."""

  votes: int = 0
  confidence: float = 0.0
  steps: int = 0

  @property
  def merit(self) -> tuple[int, float]:
    """Votes and mean confidence, by which candidates are ranked."""
    return self.votes, self.confidence / self.votes


class TaskVotes:
  """Votes on one task while they come in."""

  def __init__(self, task: arc_tasks.ArcTask):
    """Starts without votes; test inputs that are equal share theirs."""
    self._task = task
    # By test input, then by answer in the order of the first vote.
    self._candidates: dict[bytes, dict[bytes, _Candidate]] = {
      _key(pair.input): {} for pair in task.test
    }

  def add(
    self,
    question: np.ndarray,
    answer: np.ndarray,
    confidence: float,
    steps: int = 0,
  ) -> None:
    """Adds one vote; the order of the calls breaks full ties.

    Args:
      question: A test input of the task, colours, uint8 [h, w].
      answer: Colours, uint8 [h, w], possibly empty.
      confidence: Probability that the answer is correct, 0..1.
      steps: Supervision steps behind the answer.

    Raises:
      UserError: the task has no such test input.
    """
    candidates = self._candidates.get(_key(question))
    if candidates is None:
      raise errors.UserError(
        f"a puzzle named as a variant of the ARC task {self._task.name!r} is"
        " none: with its augmentation inverted, its question is not a test"
        " input of the task; the files of the data set are not of one build"
      )
    candidate = candidates.setdefault(_key(answer), _Candidate())
    candidate.votes += 1
    candidate.confidence += confidence
    candidate.steps += steps

  def result(self, *, num_attempts: int = NUM_ATTEMPTS) -> TaskResult:
    """Returns the outcome of the votes so far.

    Args:
      num_attempts: Attempts to submit per test input.
    """
    return TaskResult(
      name=self._task.name,
      inputs=tuple(
        _input_result(
          self._candidates[_key(pair.input)], pair.output, num_attempts
        )
        for pair in self._task.test
      ),
    )


def _input_result(
  candidates: Mapping[bytes, _Candidate],
  solution: np.ndarray | None,
  num_attempts: int,
) -> InputResult:
  # The sort is stable: full ties go to the first seen.
  ranking = sorted(
    candidates, key=lambda key: candidates[key].merit, reverse=True
  )
  attempts = [_grid(key) for key in ranking[:num_attempts]]
  missing = num_attempts - len(attempts)
  attempts += [attempts[0] if attempts else PLACEHOLDER] * missing
  correct = None if solution is None else _key(solution)
  num_votes = sum(candidate.votes for candidate in candidates.values())
  num_steps = sum(candidate.steps for candidate in candidates.values())
  return InputResult(
    attempts=tuple(attempts),
    known=correct is not None,
    rank=ranking.index(correct) if correct and correct in ranking else None,
    num_votes=num_votes,
    num_candidates=len(ranking),
    leaders=tuple(candidates[key].merit for key in ranking[:NUM_LEADERS]),
    steps=num_steps / max(num_votes, 1),
  )


def _key(grid: np.ndarray) -> bytes:
  """Returns a grid's size and colours, one byte each."""
  return bytes(grid.shape) + np.asarray(grid, np.uint8).tobytes()


def _grid(key: bytes) -> Grid:
  """Returns the grid of a key."""
  return np.frombuffer(key[2:], np.uint8).reshape(key[0], key[1]).tolist()


class VoteCounter:
  """Turns the predictions for a test set, in order, into results per task."""

  def __init__(
    self,
    table: task_lib.AugmentationTable,
    puzzles: puzzle_set.Subset,
    *,
    first_task: int = 0,
    first_example: int = 0,
    num_attempts: int = NUM_ATTEMPTS,
  ):
    """Starts the count.

    Args:
      table: Tasks and augmentations of the whole test set.
      puzzles: The part of it that is predicted.
      first_task: Skip the tasks before this one; their results are known.
      first_example: The first example predicted, at or before the first of
        `first_task`.
      num_attempts: Attempts to submit per test input.

    Raises:
      ValueError: the table is of another test set, or an example is missing.
    """
    whole = puzzles.whole
    sizes = len(table.tasks), len(table.transforms), len(table.colours)
    if sizes != (whole.num_groups, whole.num_puzzles, whole.num_puzzles):
      raise ValueError(
        f"a table of {sizes} tasks, transforms and colours for"
        f" {whole.num_groups} groups of {whole.num_puzzles} puzzles"
      )
    # Task g has the examples bounds[g] to bounds[g + 1].
    self._bounds = puzzles.puzzle_indices[puzzles.group_indices]
    self._start = int(self._bounds[first_task])
    if not 0 <= first_example <= self._start:
      raise ValueError(
        f"first_example is {first_example}, expected 0 to {self._start}"
      )
    self._table = table
    self._puzzles = puzzles
    self._num_attempts = num_attempts
    self._next = first_example
    self._task = first_task
    self._votes: TaskVotes | None = None  # of the current task

  @property
  def num_unfinished(self) -> int:
    """Number of tasks whose predictions are not complete."""
    return len(self._bounds) - 1 - self._task

  def add(
    self,
    questions: np.ndarray,
    answers: np.ndarray,
    halt_logits: np.ndarray,
    steps: np.ndarray,
  ) -> list[TaskResult]:
    """Counts the predictions for the next b examples.

    Args:
      questions: Tokens, uint8 [b, 900].
      answers: Tokens, uint8 [b, 900].
      halt_logits: Floats [b]; their sigmoid is the confidence.
      steps: Supervision steps behind each answer, integers [b].

    Returns:
      The results of the tasks completed by these examples.

    Raises:
      UserError: a halt logit is NaN.
      ValueError: the examples are more than there are, or a row is missing.
    """
    first, self._next = self._next, self._next + len(questions)
    if self._next > self._bounds[-1]:
      raise ValueError(
        f"predictions for {self._next} of {self._bounds[-1]} examples"
      )
    known = max(0, self._start - first)  # rows of tasks whose result is known
    if np.isnan(halt_logits[known:]).any():
      raise errors.UserError(
        "a halt logit is NaN: training has diverged, evaluate an earlier"
        " checkpoint"
      )
    examples = np.arange(first + known, self._next)
    places = puzzle_set.puzzles_of(examples, self._puzzles.puzzle_indices)
    finished = []
    for example, puzzle, question, answer, confidence, num_steps in zip(
      examples.tolist(),
      self._puzzles.puzzles[places].tolist(),
      arc_grids.crop(questions[known:]),
      arc_grids.crop(answers[known:]),
      _sigmoid(halt_logits[known:]).tolist(),
      steps[known:].tolist(),
      strict=True,
    ):
      if self._votes is None:
        self._votes = TaskVotes(self._table.tasks[self._task])
      invert = functools.partial(
        arc_grids.invert,
        transform=int(self._table.transforms[puzzle]),
        colours=self._table.colours[puzzle],
      )
      self._votes.add(invert(question), invert(answer), confidence, num_steps)
      if example + 1 == self._bounds[self._task + 1]:
        finished.append(self._votes.result(num_attempts=self._num_attempts))
        self._votes = None
        self._task += 1
    return finished


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  """Returns 1 / (1 + exp(-logits)) in float64, as the official evaluator."""
  with np.errstate(over="ignore"):  # exp is inf, the result 0
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))


# --- scores ------------------------------------------------------------------


def pass_at(
  results: Iterable[TaskResult], *, ks: Sequence[int] = PASS_KS
) -> dict[int, float]:
  """Computes pass@k: the mean over tasks of the share of inputs solved.

  A test input is solved if the correct answer is among its first k candidates.

  Args:
    results: The results of all tasks; those with an unknown solution are left
      out.
    ks: Values of k.

  Returns:
    pass@k by k; empty if no task's solutions are known.
  """
  known = [result for result in results if result.known]
  if not known:
    return {}
  return {
    k: sum(result.solved_within(k) for result in known) / len(known) for k in ks
  }


def submission(
  results: Iterable[TaskResult],
) -> dict[str, list[dict[str, Grid]]]:
  """Returns an ARC Prize submission: attempts by task and test input."""
  return {
    task.name: [
      {
        f"attempt_{number}": grid
        for number, grid in enumerate(result.attempts, start=1)
      }
      for result in task.inputs
    ]
    for task in results
  }


def write_submission(
  path: epath.PathLike, results: Iterable[TaskResult]
) -> None:
  """Writes a submission.json atomically, in place of an older one.

  Raises:
    UserError: the file cannot be written.
  """
  with files.writing(epath.Path(path).expanduser()) as file:
    file.write(json.dumps(submission(results)).encode())
