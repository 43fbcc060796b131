"""Counting the votes of a test set that comes batch by batch."""

import math

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import tally as tally_lib
from trm_jax.evaluation import voting


class _Set:
  """A test set of three tasks with random answers, laid out as for a run."""

  def __init__(self, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [3, 1, 5]  # variants of each task
    self.tasks, self.undone = [], []
    inputs, answers, transforms, colours = [], [], [], []
    puzzle_sizes = []
    for number, size in enumerate(sizes):
      pairs = [
        (_random_grid(rng), _random_grid(rng)) for _ in range(number + 1)
      ]
      task = arc_tasks.ArcTask(
        name=f"task{number}",
        train=(),
        test=tuple(arc_tasks.Pair(input=x, output=y) for x, y in pairs),
        test_first=False,
      )
      self.tasks.append(task)
      for _ in range(size):
        variant = {
          "transform": int(rng.integers(8)),
          "colours": np.append(0, 1 + rng.permutation(9)).astype(np.uint8),
        }
        transforms.append(variant["transform"])
        colours.append(variant["colours"])
        puzzle_sizes.append(len(pairs))
        for question, solution in pairs:
          answer = solution if rng.random() < 0.4 else _random_grid(rng)
          self.undone.append((number, question, answer))
          inputs.append(arc_grids.encode(arc_grids.apply(question, **variant)))
          answers.append(arc_grids.encode(arc_grids.apply(answer, **variant)))
    self.inputs, self.answers = np.stack(inputs), np.stack(answers)
    self.logits = rng.normal(size=len(inputs)).astype(np.float32)
    self.layout = {
      "puzzle_indices": np.append(0, np.cumsum(puzzle_sizes)),
      "group_indices": np.append(0, np.cumsum(sizes)),
      "transforms": np.array(transforms, np.uint8),
      "colours": np.stack(colours),
    }
    self.bounds = [0, 3, 5, 20]  # first example of each task, and the end

  def tally(self, **changes):
    arguments = {"num_attempts": 2, **self.layout, **changes}
    return tally_lib.Tally(self.tasks, **arguments)

  def rows(self, start, end):
    """Arguments of `add` for these examples."""
    rows = slice(start, end)
    return start, self.inputs[rows], self.answers[rows], self.logits[rows]

  def expected(self):
    ballots = [voting.Ballot(task) for task in self.tasks]
    for (number, question, answer), logit in zip(
      self.undone, self.logits.tolist(), strict=True
    ):
      ballots[number].add(question, answer, 1 / (1 + math.exp(-logit)))
    return [ballot.result(num_attempts=2) for ballot in ballots]


def _random_grid(rng):
  height, width = rng.integers(1, 31, 2)
  return rng.integers(0, 10, (height, width), np.uint8)


def _assert_same(results, expected):
  """Compares all, the mean confidences within rounding of exp."""
  for one, other in zip(results, expected, strict=True):
    assert one.name == other.name
    for a, b in zip(one.inputs, other.inputs, strict=True):
      assert a.attempts == b.attempts
      assert (a.rank, a.num_votes) == (b.rank, b.num_votes)
      np.testing.assert_allclose(a.leaders, b.leaders, rtol=1e-14)


def test_a_set_at_once():
  some = _Set()
  count = some.tally()
  results = count.add(*some.rows(0, 20))
  _assert_same(results, some.expected())
  assert count.num_unfinished == 0
  assert voting.pass_at(results)[1000] > 0


@pytest.mark.parametrize("size", [1, 3, 4, 7, 20])
def test_in_batches_and_resumed_at_any_task(size):
  some = _Set(seed=size)
  whole = some.tally().add(*some.rows(0, 20))
  for first_group in range(4):
    start = some.bounds[first_group]
    # From the batch on in which the first unfinished task begins, and from an
    # earlier one on.
    for begin in {start // size * size, 0}:
      count = some.tally(first_group=first_group)
      results = []
      for first in range(begin, 20, size):
        end = min(first + size, 20)
        new = count.add(*some.rows(first, end))
        results += new
        # As soon as its last example is in.
        assert [result.name for result in new] == [
          task.name
          for g, task in enumerate(some.tasks)
          if g >= first_group and first < some.bounds[g + 1] <= end
        ]
      assert results == whole[first_group:]
      assert count.num_unfinished == 0


def test_a_second_count_knows_nothing_of_the_first():
  some = _Set()
  first = some.tally().add(*some.rows(0, 20))
  some.tally().add(*some.rows(0, 4))
  assert some.tally().add(*some.rows(0, 20)) == first


@pytest.mark.parametrize(
  ("first_group", "parts"),
  [
    (0, [(1, 5)]),  # begins too late
    (1, [(4, 9)]),  # within the first unfinished task
    (0, [(0, 5), (6, 9)]),  # gap
    (0, [(0, 5), (4, 9)]),  # overlap
    (0, [(0, 5), (0, 5)]),  # again
    (2, [(0, 2), (3, 9)]),  # gap among rows that are left out
  ],
)
def test_batches_out_of_order(first_group, parts):
  some = _Set()
  count = some.tally(first_group=first_group)
  for part in parts[:-1]:
    count.add(*some.rows(*part))
  with pytest.raises(ValueError, match=r"expected \d+ next"):
    count.add(*some.rows(*parts[-1]))


def test_rows_that_cannot_be():
  some = _Set()
  first, inputs, answers, logits = some.rows(0, 20)
  with pytest.raises(ValueError, match="0 to 21 of 20"):
    some.tally().add(
      0, *(np.concatenate([a, a[:1]]) for a in (inputs, answers, logits))
    )
  with pytest.raises(ValueError, match="20 inputs, 19 answers, 20 halt"):
    some.tally().add(first, inputs, answers[1:], logits)
  with pytest.raises(errors.UserError, match="ARC task 'task0' is none"):
    some.tally().add(first, inputs[::-1], answers, logits)
  logits[3] = np.nan
  with pytest.raises(errors.UserError, match="halt logit is not a number"):
    some.tally().add(first, inputs, answers, logits)


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    ({"group_indices": np.array([0, 4, 9])}, "3 tasks, 2 groups"),
    ({"transforms": np.zeros(8, np.uint8)}, "9 puzzles, but transforms"),
    ({"colours": np.zeros((9, 9), np.uint8)}, "9 puzzles, but transforms"),
    ({"first_group": 4}, "first_group is 4 of 3"),
  ],
)
def test_layouts_that_cannot_be(changes, text):
  with pytest.raises(ValueError, match=text):
    _Set().tally(**changes)


def test_no_attempts():
  with pytest.raises(ValueError, match="num_attempts is 0"):
    _Set().tally(num_attempts=0)


def test_extreme_confidences():
  some = _Set()
  logits = np.full(20, -np.inf, np.float32)
  logits[:3] = [np.inf, -2000, 2000]
  results = some.tally().add(0, some.inputs, some.answers, logits)
  (vote,) = results[0].inputs
  assert sum(count * mean for count, mean in vote.leaders) == 2.0
  assert all(mean == 0 for _, mean in results[2].inputs[0].leaders)
