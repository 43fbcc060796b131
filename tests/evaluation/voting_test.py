"""Votes on ARC answers, pass@k and the submission."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import scorer

from trm_jax import errors
from trm_jax.data import puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import voting

A, B, C, D = (np.array([[k, k + 1]], np.uint8) for k in range(1, 5))
EMPTY = np.zeros((0, 0), np.uint8)


def _task(*pairs, name="task"):
  return arc_tasks.ArcTask(
    name=name,
    train=(),
    test=tuple(arc_tasks.Pair(input=x, output=y) for x, y in pairs),
    test_first=False,
  )


def _result(task, votes, *, num_attempts=2):
  counted = voting.TaskVotes(task)
  for vote in votes:
    counted.add(*vote)
  return counted.result(num_attempts=num_attempts)


@pytest.mark.parametrize(
  ("votes", "ranking"),
  [
    # More votes beat more confidence.
    ([(A, 0.9), (B, 0.1), (B, 0.2)], [B, A]),
    # Equal votes: the mean confidence decides, not the largest.
    ([(A, 0.9), (B, 0.6), (A, 0.1), (B, 0.6)], [B, A]),
    # Full ties: the first seen, also if its last vote came late.
    ([(C, 0.5), (A, 0.25), (B, 0.5), (A, 0.75), (B, 0.5)], [A, B, C]),
    # The same colours in another shape are another answer.
    ([(A, 0.2), (A.T, 0.4), (A.T, 0.4), (A, 0.4)], [A.T, A]),
    # An empty grid is an answer, too.
    ([(EMPTY, 0.2), (A, 0.4), (EMPTY, 0.2)], [EMPTY, A]),
  ],
)
def test_ranking(votes, ranking):
  task = _task((D, ranking[-1]))
  (vote,) = _result(
    task, [(D, *vote) for vote in votes], num_attempts=len(ranking)
  ).inputs
  assert vote.attempts == tuple(grid.tolist() for grid in ranking)
  assert vote.rank == len(ranking) - 1
  assert (vote.num_votes, vote.num_candidates) == (len(votes), len(ranking))


def test_leaders_have_votes_mean_confidence_and_inputs_mean_steps():
  votes = [(D, A, 0.5, 2), (D, B, 0.25, 3), (D, A, 1.0, 4)]
  votes += [(D, np.full((1, k), 9), 0.125, 6) for k in range(3, 9)]
  result = _result(_task((D, C)), votes)
  (vote,) = result.inputs
  assert vote.leaders[:3] == ((2, 0.75), (1, 0.25), (1, 0.125))
  assert len(vote.leaders) == voting.NUM_LEADERS < vote.num_candidates == 8
  assert vote.steps == 5.0
  assert vote.known
  assert vote.rank is None
  assert result.num_unanswered == 0


def test_too_few_candidates_or_none():
  task = _task((A, B), (C, D))
  votes = [(A, C, 0.5), (A, B, 0.75)]
  result = _result(task, votes, num_attempts=3)
  assert result.inputs[0].attempts == (B.tolist(), C.tolist(), B.tolist())
  assert result.inputs[1].attempts == ([[0, 0], [0, 0]],) * 3
  assert result.inputs[1].rank is None
  assert result.num_unanswered == 1
  assert voting.pass_at([result], ks=(1,)) == {1: 0.5}


def test_an_unanswered_input_is_wrong_even_if_zeros_are_right():
  task = _task((A, np.array(voting.PLACEHOLDER, np.uint8)))
  assert voting.pass_at([_result(task, [])], ks=(1000,)) == {1000: 0.0}


def test_equal_test_inputs_share_their_votes():
  result = _result(_task((A, B), (A, C)), [(A, B, 0.5), (A, C, 0.75)])
  first, second = result.inputs
  assert first.attempts == second.attempts == (C.tolist(), B.tolist())
  assert (first.rank, second.rank) == (1, 0)
  assert first.num_votes == second.num_votes == 2


def test_pass_at_k():
  votes = [(A, B, 0.9), (A, C, 0.8), (A, D, 0.7)]
  results = [
    _result(_task((A, B)), votes),
    _result(_task((A, D)), votes),
    _result(_task((A, C), (B, C)), votes),
    _result(_task((A, A)), votes),
  ]
  expected = {1: 1 / 4, 2: 1.5 / 4, 3: 2.5 / 4, 1000: 2.5 / 4}
  assert voting.pass_at(results, ks=(1, 2, 3, 1000)) == expected
  assert tuple(voting.pass_at(results)) == (1, 2, 5, 10, 100, 1000)


def test_unknown_solutions():
  votes = [(A, B, 0.9)]
  unknown = _result(_task((A, None)), votes)
  partly = _result(_task((A, B), (B, None)), votes)
  right = _result(_task((A, B)), votes)
  assert [r.known for r in (unknown, partly, right)] == [False, False, True]
  assert unknown.inputs[0].rank is None
  assert unknown.inputs[0].attempts == (B.tolist(),) * 2
  assert voting.pass_at([unknown, partly]) == {}
  assert voting.pass_at([unknown, partly, right], ks=(1,)) == {1: 1.0}
  assert len(voting.submission([unknown])["task"]) == 1


def _reference(votes, solution, ks):
  """Ranking and hits of one test input, by counting again and again."""
  left = list(dict.fromkeys(answer for answer, _ in votes))
  merits = {}
  for answer in left:
    own = [confidence for other, confidence in votes if other == answer]
    merits[answer] = (len(own), sum(own) / len(own))
  ranking = []
  while left:
    best = max(left, key=merits.get)  # the first of equals
    ranking.append(best)
    left.remove(best)
  return ranking, {k: solution in ranking[:k] for k in ks}


KS = (1, 2, 3)


def _random_vote(rng, name):
  """One task with its result and, by k, the share that should be solved."""
  solutions = rng.integers(0, 4, rng.integers(1, 4))
  questions = [
    np.zeros((1, size), np.uint8) for size in range(1, len(solutions) + 1)
  ]
  answers = [np.array([[k, 0]], np.uint8) for k in range(4)]
  task = _task(
    *((q, answers[s]) for q, s in zip(questions, solutions, strict=True)),
    name=name,
  )
  votes = [
    (int(rng.integers(len(solutions))), int(rng.integers(4)), float(confidence))
    for confidence in rng.integers(0, 5, rng.integers(0, 16)) / 4
  ]
  result = _result(task, [(questions[q], answers[a], c) for q, a, c in votes])
  shares = dict.fromkeys(KS, 0.0)
  for place, solution in enumerate(solutions.tolist()):
    own = [(a, c) for q, a, c in votes if q == place]
    ranking, hits = _reference(own, solution, KS)
    attempts = ranking[:2] + ranking[:1] * (2 - len(ranking))
    expected = [answers[a].tolist() for a in attempts]
    assert list(result.inputs[place].attempts) == (
      expected or [voting.PLACEHOLDER] * 2
    )
    for k, hit in hits.items():
      shares[k] += hit / len(solutions)
  return task, result, shares


def test_random_votes():
  """Against counting again and again, and against the scorer."""
  rng = np.random.default_rng(0)
  tasks, results, shares = zip(
    *(_random_vote(rng, str(k)) for k in range(200)), strict=True
  )
  leaders = [vote.leaders for result in results for vote in result.inputs]
  assert sum(len(set(merits)) < len(merits) for merits in leaders) > 20  # ties
  assert sum(result.num_unanswered for result in results) > 5
  passed = voting.pass_at(results, ks=KS)
  for k, value in passed.items():
    assert math.isclose(value, sum(share[k] for share in shares) / 200)
  assert 0.1 < passed[1] < passed[2] < passed[3] < 0.95
  submission = json.loads(json.dumps(voting.submission(results)))
  assert math.isclose(
    scorer.score(submission, _challenges(tasks), _solutions(tasks)), passed[2]
  )


# --- the submission ----------------------------------------------------------


def _solutions(tasks):
  return {
    task.name: [pair.output.tolist() for pair in task.test] for task in tasks
  }


def _challenges(tasks):
  return {
    task.name: {
      "train": [],
      "test": [{"input": pair.input.tolist()} for pair in task.test],
    }
    for task in tasks
  }


@pytest.fixture(name="votes")
def _votes():
  """Two tasks, one with two test inputs, and their results."""
  tasks = [_task((A, B), name="one"), _task((A, C), (B, D), name="two")]
  votes = [(A, C, 0.9), (A, B, 0.1)]
  return tasks, [_result(task, votes) for task in tasks]


def test_written_submission(tmp_path, votes):
  tasks, results = votes
  paths = [
    tmp_path / name for name in ("submission", "challenges", "solutions")
  ]
  paths[0].write_text("an older one")
  voting.write_submission(str(paths[0]), results)
  nothing = [[0, 0], [0, 0]]
  first = {"attempt_1": [[3, 4]], "attempt_2": [[2, 3]]}
  assert json.loads(paths[0].read_text()) == {
    "one": [first],
    "two": [first, {"attempt_1": nothing, "attempt_2": nothing}],
  }
  assert list(tmp_path.iterdir()) == paths[:1]
  paths[1].write_text(json.dumps(_challenges(tasks)))
  paths[2].write_text(json.dumps(_solutions(tasks)))
  done = subprocess.run(
    [sys.executable, scorer.__file__, *paths],
    capture_output=True,
    check=True,
    text=True,
  )
  assert float(done.stdout) == voting.pass_at(results)[2] == 0.75


def test_submission_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("no folder")
  with pytest.raises(
    errors.UserError, match=r"cannot write .*submission\.json"
  ):
    voting.write_submission(tmp_path / "file" / "submission.json", [])


@pytest.mark.parametrize(
  ("change", "text"),
  [
    (lambda s: s.pop("two"), "tasks: two"),
    (lambda s: s.update(more=[]), "tasks: more"),
    (lambda s: s["two"].pop(), "two: 1 entries and 2 solutions"),
    (lambda s: s["one"][0].pop("attempt_2"), r"has \['attempt_1'\]"),
  ],
)
def test_the_scorer_refuses_what_kaggle_would(change, text, votes):
  tasks, results = votes
  submission = voting.submission(results)
  change(submission)
  with pytest.raises(ValueError, match=text):
    scorer.score(submission, _challenges(tasks), _solutions(tasks))


# --- a test set, batch by batch ----------------------------------------------

BOUNDS = [0, 3, 5, 20]  # first example of each task, and the end


class _Set:
  """A test set of three tasks with random predictions."""

  def __init__(self, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [3, 1, 5]  # variants of each task
    tasks, self.inverted = [], []
    questions, answers, transforms, colours, puzzle_sizes = [], [], [], [], []
    for number, size in enumerate(sizes):
      pairs = [
        (_random_grid(rng), _random_grid(rng)) for _ in range(number + 1)
      ]
      tasks.append(_task(*pairs, name=f"task{number}"))
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
          self.inverted.append((number, question, answer))
          questions.append(
            arc_grids.encode(arc_grids.apply(question, **variant))
          )
          answers.append(arc_grids.encode(arc_grids.apply(answer, **variant)))
    self.questions, self.answers = np.stack(questions), np.stack(answers)
    self.logits = rng.normal(size=len(questions)).astype(np.float32)
    self.steps = rng.integers(1, 17, len(questions))
    self.table = task_lib.AugmentationTable(
      tasks=tuple(tasks),
      transforms=np.array(transforms, np.uint8),
      colours=np.stack(colours),
    )
    whole = puzzle_set.PuzzleSet(
      inputs=self.questions,
      labels=self.questions,
      puzzle_ids=np.arange(9, dtype=np.int32),
      puzzle_indices=np.append(0, np.cumsum(puzzle_sizes)),
      group_indices=np.append(0, np.cumsum(sizes)),
    )
    self.puzzles = puzzle_set.select(whole, num_groups=0, num_augmentations=0)

  def counter(self, **arguments):
    return voting.VoteCounter(self.table, self.puzzles, **arguments)

  def rows(self, start, end):
    """Arguments of `add` for these examples."""
    arrays = self.questions, self.answers, self.logits, self.steps
    return [array[start:end] for array in arrays]

  def expected(self):
    votes = [voting.TaskVotes(task) for task in self.table.tasks]
    for (number, question, answer), logit, steps in zip(
      self.inverted, self.logits.tolist(), self.steps.tolist(), strict=True
    ):
      votes[number].add(question, answer, 1 / (1 + math.exp(-logit)), steps)
    return [task.result() for task in votes]


def _random_grid(rng):
  height, width = rng.integers(1, 31, 2)
  return rng.integers(0, 10, (height, width), np.uint8)


def test_a_set_at_once():
  some = _Set()
  counter = some.counter()
  results = counter.add(*some.rows(0, 20))
  for one, other in zip(results, some.expected(), strict=True):
    assert one.name == other.name
    for a, b in zip(one.inputs, other.inputs, strict=True):
      assert (a.attempts, a.rank) == (b.attempts, b.rank)
      assert (a.num_votes, a.steps) == (b.num_votes, b.steps)
      # Within rounding of exp.
      np.testing.assert_allclose(a.leaders, b.leaders, rtol=1e-14)
  assert counter.num_unfinished == 0
  assert voting.pass_at(results)[1000] > 0
  again = [
    voting.TaskResult.from_json(json.loads(json.dumps(result.to_json())))
    for result in results
  ]
  assert again == results


@pytest.mark.parametrize("size", [1, 4, 7, 20])
def test_in_batches_and_resumed_at_any_task(size):
  some = _Set(seed=size)
  whole = some.counter().add(*some.rows(0, 20))
  for first_task in range(4):
    # From the batch on in which the first unfinished task begins, and from an
    # earlier one on.
    for begin in {BOUNDS[first_task] // size * size, 0}:
      counter = some.counter(first_task=first_task, first_example=begin)
      results = []
      for first in range(begin, 20, size):
        end = min(first + size, 20)
        new = counter.add(*some.rows(first, end))
        results += new
        # As soon as its last example is in.
        assert [result.name for result in new] == [
          task.name
          for g, task in enumerate(some.table.tasks)
          if g >= first_task and first < BOUNDS[g + 1] <= end
        ]
      assert results == whole[first_task:]
      assert counter.num_unfinished == 0


def test_the_first_variants_of_the_first_tasks():
  some = _Set()
  some.puzzles = puzzle_set.select(
    some.puzzles.whole, num_groups=2, num_augmentations=2
  )
  results = some.counter().add(
    *(array[[0, 1, 3, 4]] for array in some.rows(0, 20))
  )
  assert [result.inputs[0].num_votes for result in results] == [2, 1]


def test_predictions_that_cannot_be_counted():
  some = _Set()
  questions, answers, logits, steps = some.rows(0, 20)
  doubled = [np.concatenate([a, a[:1]]) for a in some.rows(0, 20)]
  with pytest.raises(ValueError, match="21 of 20 examples"):
    some.counter().add(*doubled)
  with pytest.raises(ValueError, match="shorter"):
    some.counter().add(questions, answers[1:], logits, steps)
  with pytest.raises(errors.UserError, match="ARC task 'task0' is none"):
    some.counter().add(questions[::-1], answers, logits, steps)
  # Example 4, as if it were example 5.
  with pytest.raises(errors.UserError, match="ARC task 'task2' is none"):
    some.counter(first_task=2, first_example=5).add(*some.rows(4, 9))
  logits[3] = np.nan
  with pytest.raises(errors.UserError, match="halt logit is NaN"):
    some.counter().add(questions, answers, logits, steps)


def test_tables_and_beginnings_that_do_not_fit():
  some = _Set()
  with pytest.raises(ValueError, match="first_example is 4, expected 0 to 3"):
    some.counter(first_task=1, first_example=4)
  some.table = task_lib.AugmentationTable(
    tasks=some.table.tasks[:2],
    transforms=some.table.transforms,
    colours=some.table.colours,
  )
  with pytest.raises(ValueError, match="3 groups of 9 puzzles"):
    some.counter()


def test_extreme_confidences():
  some = _Set()
  some.logits = np.full(20, -np.inf, np.float32)
  some.logits[:3] = [np.inf, -2000, 2000]
  results = some.counter().add(*some.rows(0, 20))
  (vote,) = results[0].inputs
  assert sum(count * mean for count, mean in vote.leaders) == 2.0
  assert all(mean == 0 for _, mean in results[2].inputs[0].leaders)
