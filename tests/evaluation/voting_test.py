"""Votes on ARC answers, pass@k and the submission."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import scorer

from trm_jax import errors
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
  ballot = voting.Ballot(task)
  for vote in votes:
    ballot.add(*vote)
  return ballot.result(num_attempts=num_attempts)


@pytest.mark.parametrize(
  ("votes", "ranking"),
  [
    # More votes beat more confidence.
    ([(A, 0.9), (B, 0.1), (B, 0.2)], [B, A]),
    # Equal votes: the mean confidence decides, not the largest.
    ([(A, 0.9), (B, 0.6), (A, 0.1), (B, 0.6)], [B, A]),
    # Equal in both: the first seen, also if its last vote came late.
    ([(C, 0.5), (A, 0.25), (B, 0.5), (A, 0.75), (B, 0.5)], [A, B, C]),
    # The same colours in another shape are another answer.
    ([(A, 0.2), (A.T, 0.4), (A.T, 0.4), (A, 0.4)], [A.T, A]),
    # No grid at all is an answer, too.
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


def test_leaders_tell_votes_and_mean_confidence():
  votes = [(D, A, 0.5), (D, B, 0.25), (D, A, 1.0)]
  votes += [(D, np.full((1, k), 9), 0.125) for k in range(3, 9)]
  result = _result(_task((D, C)), votes)
  (vote,) = result.inputs
  assert vote.leaders[:3] == ((2, 0.75), (1, 0.25), (1, 0.125))
  assert len(vote.leaders) == voting.NUM_LEADERS < vote.num_candidates == 8
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


def test_question_of_another_task():
  with pytest.raises(errors.UserError, match="ARC task 'T7' is none"):
    voting.Ballot(_task((A, B), name="T7")).add(B, A, 0.5)


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
  left = []
  for answer, _ in votes:
    if answer not in left:
      left.append(answer)
  ranking = []
  while left:
    best = None
    for answer in left:
      own = [confidence for other, confidence in votes if other == answer]
      merit = (len(own), sum(own) / len(own))
      if best is None or merit > best[0]:
        best = (merit, answer)
    ranking.append(best[1])
    left.remove(best[1])
  return ranking, {k: solution in ranking[:k] for k in ks}


KS = (1, 2, 3)


def _random_election(rng, name):
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
    *(_random_election(rng, str(k)) for k in range(200)), strict=True
  )
  leaders = [vote.leaders for result in results for vote in result.inputs]
  assert sum(len(set(merits)) < len(merits) for merits in leaders) > 20  # ties
  assert sum(result.num_unanswered for result in results) > 5
  passed = voting.pass_at(results, ks=KS)
  for k, value in passed.items():
    assert math.isclose(value, sum(share[k] for share in shares) / 200)
  assert 0.1 < passed[1] < passed[2] < passed[3] < 0.95
  handed_in = json.loads(json.dumps(voting.submission(results)))
  assert math.isclose(
    scorer.score(handed_in, _challenges(tasks), _solutions(tasks)), passed[2]
  )


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


@pytest.fixture(name="election")
def _election():
  """Two tasks, one with two test inputs, and their results."""
  tasks = [_task((A, B), name="one"), _task((A, C), (B, D), name="two")]
  votes = [(A, C, 0.9), (A, B, 0.1)]
  return tasks, [_result(task, votes) for task in tasks]


def test_submission(election):
  nothing = [[0, 0], [0, 0]]
  first = {"attempt_1": [[3, 4]], "attempt_2": [[2, 3]]}
  assert voting.submission(election[1]) == {
    "one": [first],
    "two": [first, {"attempt_1": nothing, "attempt_2": nothing}],
  }


def test_written_submission(tmp_path, election):
  tasks, results = election
  paths = [
    tmp_path / name for name in ("submission", "challenges", "solutions")
  ]
  paths[0].write_text("an older one")
  voting.write_submission(str(paths[0]), results)
  assert json.loads(paths[0].read_text()) == voting.submission(results)
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
def test_the_scorer_refuses_what_kaggle_would(change, text, election):
  tasks, results = election
  handed_in = voting.submission(results)
  change(handed_in)
  with pytest.raises(ValueError, match=text):
    scorer.score(handed_in, _challenges(tasks), _solutions(tasks))
