"""Votes on the answers to an ARC task, pass@k and Kaggle's submission.

Every variant of a task answers each of the task's test inputs. With the
variant undone, equal answers to the same input are votes for one candidate.
Candidates are ranked by their votes, then by the mean confidence in them; the
first k of them are the k attempts.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files
from trm_jax.data.arc import tasks as arc_tasks

# What Kaggle's sample submission holds in place of every answer.
PLACEHOLDER = [[0, 0], [0, 0]]
NUM_ATTEMPTS = 2  # Kaggle's number, and the paper's score
PASS_KS = (1, 2, 5, 10, 100, 1000)
NUM_LEADERS = 5  # candidates of which a result tells the votes

Grid = list[list[int]]  # rows of colours, as JSON has them


@dataclasses.dataclass(frozen=True)
class InputResult:
  """The vote on one test input.

  Attributes:
    attempts: First candidates of the ranking, as many as were asked for. The
      first is repeated where there are too few; `PLACEHOLDER` without a vote.
    known: Whether the right answer is known.
    rank: Place of the right answer among the candidates, from 0; None if no
      vote is for it or it is not known.
    num_votes: Votes for all candidates.
    num_candidates: Different answers.
    leaders: Votes for, and mean confidence in, each of the first candidates.
  """

  attempts: tuple[Grid, ...]
  known: bool
  rank: int | None
  num_votes: int
  num_candidates: int
  leaders: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class TaskResult:
  """The votes on one task.

  Attributes:
    name: Of the task.
    inputs: One result for each test input, in the task's order.
  """

  name: str
  inputs: tuple[InputResult, ...]

  @property
  def known(self) -> bool:
    """Whether the right answers to all test inputs are known."""
    return all(result.known for result in self.inputs)

  @property
  def num_unanswered(self) -> int:
    """How many test inputs got no vote at all."""
    return sum(not result.num_votes for result in self.inputs)

  def solved_within(self, k: int) -> float:
    """Returns the share of test inputs with the right answer in the first k."""
    right = [
      result.rank is not None and result.rank < k for result in self.inputs
    ]
    return sum(right) / len(right)

  def to_json(self) -> dict[str, Any]:
    """Returns what `from_json` reads, of JSON's types."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> "TaskResult":
    """Builds the result that `to_json` took apart.

    Args:
      value: As json.loads gives it.

    Returns:
      The result, equal to the one that was written.

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


@dataclasses.dataclass(slots=True)
class _Votes:
  """For one candidate."""

  count: int = 0
  confidence: float = 0.0  # sum

  @property
  def merit(self) -> tuple[int, float]:
    """Votes and mean confidence: what decides the ranking."""
    return self.count, self.confidence / self.count


class Ballot:
  """The votes on one task while they come in."""

  def __init__(self, task: arc_tasks.ArcTask):
    """Opens the vote; test inputs that are equal share their votes."""
    self._task = task
    # Of each test input; candidates are in the order they were first seen in.
    self._votes: dict[bytes, dict[bytes, _Votes]] = {
      _key(pair.input): {} for pair in task.test
    }

  def add(
    self, question: np.ndarray, answer: np.ndarray, confidence: float
  ) -> None:
    """Counts one vote; the order of calls decides between equals.

    Args:
      question: A test input of the task, colours, uint8 [h, w].
      answer: Colours, uint8 [h, w], perhaps empty.
      confidence: That the answer is right, 0..1.

    Raises:
      UserError: if the task has no such test input.
    """
    candidates = self._votes.get(_key(question))
    if candidates is None:
      raise errors.UserError(
        f"a puzzle named as a variant of the ARC task {self._task.name!r} is"
        " none: turned back, its question is no test input of the task; the"
        " files of the data set are not of one build"
      )
    votes = candidates.setdefault(_key(answer), _Votes())
    votes.count += 1
    votes.confidence += confidence

  def result(self, *, num_attempts: int) -> TaskResult:
    """Returns the outcome of the votes so far.

    Args:
      num_attempts: Candidates to hand in for each test input.
    """
    return TaskResult(
      name=self._task.name,
      inputs=tuple(
        _input_result(self._votes[_key(pair.input)], pair.output, num_attempts)
        for pair in self._task.test
      ),
    )


def _input_result(
  votes: Mapping[bytes, _Votes], solution: np.ndarray | None, num_attempts: int
) -> InputResult:
  # A stable sort: among equals, the first seen comes first.
  ranking = sorted(votes, key=lambda key: votes[key].merit, reverse=True)
  attempts = [_grid(key) for key in ranking[:num_attempts]]
  missing = num_attempts - len(attempts)
  attempts += [attempts[0] if attempts else PLACEHOLDER] * missing
  right = None if solution is None else _key(solution)
  return InputResult(
    attempts=tuple(attempts),
    known=right is not None,
    rank=ranking.index(right) if right and right in votes else None,
    num_votes=sum(candidate.count for candidate in votes.values()),
    num_candidates=len(ranking),
    leaders=tuple(votes[key].merit for key in ranking[:NUM_LEADERS]),
  )


def _key(grid: np.ndarray) -> bytes:
  """Returns a grid's size and colours, one byte each."""
  return bytes(grid.shape) + np.asarray(grid, np.uint8).tobytes()


def _grid(key: bytes) -> Grid:
  """Returns the grid of a key."""
  return np.frombuffer(key[2:], np.uint8).reshape(key[0], key[1]).tolist()


def pass_at(
  results: Iterable[TaskResult], *, ks: Sequence[int] = PASS_KS
) -> dict[int, float]:
  """Computes pass@k: the mean over tasks of the share of inputs solved.

  A test input is solved if the right answer is among its first k candidates.

  Args:
    results: Of all tasks. One whose solutions are not all known is left out:
      the share of its inputs that is solved cannot be known either.
    ks: Values of k.

  Returns:
    pass@k by k; empty if the solutions of no task are known.
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
  """Returns what Kaggle's ARC Prize takes: attempts by task and test input."""
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
  """Writes a submission.json, whole or not at all.

  Args:
    path: A file; an older one is replaced.
    results: Of all tasks.

  Raises:
    UserError: if it cannot be written.
  """
  with files.writing(epath.Path(path).expanduser()) as file:
    file.write(json.dumps(submission(results)).encode())
