"""Golden case 10: votes, pass@k and submissions of the official evaluator."""

import itertools

import golden_support as golden
import numpy as np
import pytest

from trm_jax.data import puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import voting

PLACEHOLDERS = [{"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]}]


@pytest.fixture(scope="module", name="case")
def _case():
  return golden.load("case10_arc")


def _tasks(case):
  return {
    name: arc_tasks.ArcTask(
      name=name,
      train=(),
      test=tuple(
        arc_tasks.Pair(
          input=np.array(pair["input"], np.uint8),
          output=np.array(pair["output"], np.uint8),
        )
        for pair in task["test"]
      ),
      test_first=False,
    )
    for name, task in golden.json_of(case, "eval/test_puzzles").items()
  }


def _count(case, *, num_attempts=2, num_batches=None):
  """Counts the first batches and returns a result of every task."""
  tasks = _tasks(case)
  batch_size, num_rows = int(case["eval/batch_size"]), int(case["eval/n_valid"])
  if num_batches is not None:
    num_rows = min(num_rows, num_batches * batch_size)
  identifiers = golden.json_of(case, "eval/identifiers")
  ids = case["eval/puzzle_identifiers"][:num_rows]
  assert (ids > 0).all()
  # One puzzle for each run of equal ids, one group for each run of one task.
  runs = [(key, len(list(run))) for key, run in itertools.groupby(ids.tolist())]
  variants = [
    arc_grids.parse_name(identifiers[puzzle_id], where="identifiers")
    for puzzle_id, _ in runs
  ]
  groups = [
    (name, len(list(run))) for name, run in itertools.groupby(variants, _name)
  ]
  assert len(dict(groups)) == len(groups)
  tokens = case["eval/inputs"][:num_rows].astype(np.uint8)
  whole = puzzle_set.PuzzleSet(
    inputs=tokens,
    labels=tokens,
    puzzle_ids=np.array([puzzle_id for puzzle_id, _ in runs], np.int32),
    puzzle_indices=np.cumsum([0] + [size for _, size in runs]),
    group_indices=np.cumsum([0] + [size for _, size in groups]),
  )
  counter = voting.VoteCounter(
    task_lib.AugmentationTable(
      tasks=tuple(tasks[name] for name, _ in groups),
      transforms=np.array([transform for _, transform, _ in variants]),
      colours=np.array([list(map(int, c)) for _, _, c in variants], np.uint8),
    ),
    puzzle_set.select(whole, num_groups=0, num_augmentations=0),
    num_attempts=num_attempts,
  )
  results = {}
  for start in range(0, num_rows, batch_size):
    rows = slice(start, min(start + batch_size, num_rows))
    finished = counter.add(
      case["eval/inputs"][rows],
      case["eval/preds"][rows],
      case["eval/q_halt_logits"][rows],
      np.ones(rows.stop - rows.start, int),
    )
    results.update({result.name: result for result in finished})
  assert counter.num_unfinished == 0
  return [
    results.get(name)
    or voting.TaskVotes(task).result(num_attempts=num_attempts)
    for name, task in tasks.items()
  ]


def _name(variant):
  return variant[0]


def _assert_same(case, run, results):
  """Compares with an official run, which leaves out what has no votes."""
  expected = golden.json_of(case, f"eval/{run}/metrics")
  ks = [int(name.removeprefix("ARC/pass@")) for name in expected]
  passed = voting.pass_at(results, ks=ks)
  assert {f"ARC/pass@{k}": value for k, value in passed.items()} == expected
  handed_in = voting.submission(results)
  answered = {
    result.name: [
      entry
      for entry, vote in zip(handed_in[result.name], result.inputs, strict=True)
      if vote.num_votes
    ]
    for result in results
  }
  assert answered == golden.json_of(case, f"eval/{run}/submission")


def test_one_evaluation(case):
  results = _count(case)
  _assert_same(case, "single", results)
  unanswered = {
    result.name: result.num_unanswered
    for result in results
    if result.num_unanswered
  }
  assert unanswered == {"p4_no_predictions": 1}
  handed_in = voting.submission(results)
  assert handed_in["p4_no_predictions"] == PLACEHOLDERS


def test_three_attempts(case):
  _assert_same(case, "K3", _count(case, num_attempts=3))


def test_two_hosts_count_as_one(case):
  """The official ranks' votes are put together rank by rank.

  That changes only who was first seen, and no full tie of this case crosses
  ranks. Ours are counted in the order of examples.
  """
  _assert_same(case, "two_ranks", _count(case))


def test_an_evaluation_knows_nothing_of_the_one_before(case):
  """It officially does by default, which changes the metrics."""
  _count(case)
  results = _count(case, num_batches=2)
  _assert_same(case, "second_eval_not_aggregated", results)
  aggregated = golden.json_of(case, "eval/second_eval_aggregated/metrics")
  passed = voting.pass_at(results, ks=(1, 1000))
  for k, value in passed.items():
    assert value != aggregated[f"ARC/pass@{k}"]
