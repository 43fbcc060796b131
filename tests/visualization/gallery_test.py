"""What is kept of an evaluation's answers: numbers of all, a few whole."""

import math

import numpy as np
import pytest

from trm_jax.core import eval_step, types
from trm_jax.visualization import gallery

L = 3
KINDS = {  # name -> which puzzles, and whether the surest come first
  "Most confident, and right": ("exact", True),
  "Most confident, yet wrong": ("wrong", True),
  "Least confident, yet right": ("exact", False),
  "Most confident, solution not known": ("unknown", True),
}


def _answers(count, seed=0):
  """Random answers; about a third is right, a sixth has no solution."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(1, 4, (count, L)).astype(np.int32)
  answers = np.where(rng.random((count, 1)) < 0.4, labels, 9)
  labels[rng.random(count) < 1 / 6] = types.IGNORED_LABEL
  labels[:, 0][rng.random(count) < 0.3] = types.IGNORED_LABEL
  # Few values: there are equals.
  logits = rng.integers(-3, 4, count).astype(np.float32)
  return eval_step.Answers(
    questions=rng.integers(1, 4, (count, L)).astype(np.uint8),
    labels=labels,
    answers=answers.astype(np.uint8),
    halt_logits=logits,
    steps=rng.integers(1, 17, count).astype(np.int32),
    rows=rng.random(count) < 0.9,
  )


def _part(answers, rows):
  return eval_step.Answers(**{n: v[rows] for n, v in vars(answers).items()})


def _gallery(answers, batch_size, keep=4):
  kept = gallery.Gallery(keep=keep)
  for start in range(0, len(answers.rows), batch_size):
    kept.observe(_part(answers, slice(start, start + batch_size)))
  return kept


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_the_first_of_each_kind_are_kept_however_they_were_batched(batch_size):
  answers = _answers(60)
  kept = _gallery(answers, batch_size)
  real = _part(answers, answers.rows)
  known = (real.labels != types.IGNORED_LABEL).any(-1)
  agrees = (real.answers == real.labels) | (real.labels == types.IGNORED_LABEL)
  exact = agrees.all(-1) & known
  which = {"exact": exact, "wrong": known & ~exact, "unknown": ~known}
  assert set(kept.exhibits) == set(KINDS)
  for name, (among, surest) in KINDS.items():
    sign = -1 if surest else 1
    wanted = sorted(
      np.flatnonzero(which[among]).tolist(),
      key=lambda row: (sign * real.halt_logits[row], row),
    )[:4]
    exhibits = kept.exhibits[name]
    assert [exhibit.number for exhibit in exhibits] == wanted
    for exhibit, row in zip(exhibits, wanted, strict=True):
      np.testing.assert_array_equal(exhibit.question, real.questions[row])
      np.testing.assert_array_equal(exhibit.answer, real.answers[row])
      assert exhibit.steps == real.steps[row]
      assert exhibit.confidence == pytest.approx(
        1 / (1 + math.exp(-real.halt_logits[row]))
      )
      if known[row]:
        solution = np.where(real.labels[row] < 0, 0, real.labels[row])
        np.testing.assert_array_equal(exhibit.solution, solution)
      else:
        assert exhibit.solution is None


def test_numbers_of_all_puzzles_are_kept_but_of_padding():
  answers = _answers(60)
  seen = _gallery(answers, 7).seen
  assert len(seen.exact) == answers.rows.sum()
  np.testing.assert_array_equal(seen.steps, answers.steps[answers.rows])
  judged = seen.judged
  assert len(judged.exact) == seen.known.sum() < len(seen.exact)
  assert judged.known.all()
  assert not seen.exact[~seen.known].any()


def test_kinds_without_a_puzzle_are_left_out():
  answers = _answers(8)
  wrong = answers.replace(
    labels=np.full((8, L), 5, np.int32), rows=np.full(8, True)
  )
  assert set(_gallery(wrong, 8).exhibits) == {"Most confident, yet wrong"}


def test_grids_are_kept_of_a_few_puzzles_only():
  kept = _gallery(_answers(500), 10, keep=2)
  assert sum(map(len, kept.exhibits.values())) == 8


def _seen(confidence, exact):
  count = len(confidence)
  return gallery.Seen(
    confidence=np.array(confidence),
    steps=np.ones(count, np.int32),
    known=np.full(count, True),
    exact=np.array(exact),
  )


def test_confusion_counts_belief_against_truth():
  right, wrong = True, False
  seen = _seen(
    [0.5, 0.9, 0.7, 0.49, 0.1, 1.0], [right, right, wrong, right, wrong, right]
  )
  assert gallery.confusion(seen).tolist() == [[3, 1], [1, 1]]


def test_reliability_is_not_known_where_there_is_no_answer():
  seen = _seen([0.0, 0.24, 0.25, 1.0, 1.0], [False, True, True, True, False])
  bins = gallery.reliability(seen, bins=4)
  assert bins.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
  assert bins.counts.tolist() == [2, 1, 0, 2]
  np.testing.assert_allclose(bins.confidence, [0.12, 0.25, np.nan, 1.0])
  np.testing.assert_allclose(bins.accuracy, [0.5, 1.0, np.nan, 0.5])


def test_a_confidence_that_is_no_number_is_neither_belief_nor_doubt():
  seen = _seen([0.9, np.nan, np.nan], [True, True, False]).judged
  assert gallery.confusion(seen).tolist() == [[1, 0], [0, 0]]
  assert gallery.reliability(seen, bins=2).counts.tolist() == [0, 1]


def test_logits_beyond_all_bounds_are_certainty():
  answers = _answers(4).replace(
    halt_logits=np.array([-1e5, 1e5, 0, 1], np.float32),
    rows=np.full(4, True),
  )
  confidence = _gallery(answers, 4).seen.confidence
  assert confidence[:3].tolist() == [0.0, 1.0, 0.5]
