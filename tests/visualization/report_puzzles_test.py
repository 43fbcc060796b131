"""What a report keeps of an evaluation, and which puzzles it shows."""

import math

import jax
import numpy as np
import pytest

from trm_jax.core import eval_step, types
from trm_jax.data import task as task_lib
from trm_jax.visualization import animation, report_puzzles

L = 3
CATEGORIES = {  # name -> members, whether the most confident come first
  "Correct, highest confidence": ("exact", True),
  "Incorrect, highest confidence": ("wrong", True),
  "Correct, lowest confidence": ("exact", False),
  "No known solution, highest confidence": ("unknown", True),
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
  return jax.tree.map(lambda array: array[rows], answers)


def _collect(answers, batch_size, keep=4):
  kept = report_puzzles.Collector(keep=keep)
  for start in range(0, len(answers.rows), batch_size):
    kept.observe(_part(answers, slice(start, start + batch_size)))
  return kept


@pytest.mark.parametrize("batch_size", [1, 7, 60])
def test_the_first_of_each_category_are_kept_in_batches_of_any_size(batch_size):
  answers = _answers(60)
  kept = _collect(answers, batch_size)
  real = _part(answers, answers.rows)
  known = (real.labels != types.IGNORED_LABEL).any(-1)
  agrees = (real.answers == real.labels) | (real.labels == types.IGNORED_LABEL)
  exact = agrees.all(-1) & known
  which = {"exact": exact, "wrong": known & ~exact, "unknown": ~known}
  assert set(kept.puzzles) == set(CATEGORIES)
  for name, (among, first) in CATEGORIES.items():
    sign = -1 if first else 1
    wanted = sorted(
      np.flatnonzero(which[among]).tolist(),
      key=lambda row: (sign * real.halt_logits[row], row),
    )[:4]
    puzzles = kept.puzzles[name]
    assert [puzzle.index for puzzle in puzzles] == wanted
    for puzzle, row in zip(puzzles, wanted, strict=True):
      np.testing.assert_array_equal(puzzle.question, real.questions[row])
      np.testing.assert_array_equal(puzzle.answer, real.answers[row])
      assert puzzle.steps == real.steps[row]
      assert puzzle.confidence == pytest.approx(
        1 / (1 + math.exp(-real.halt_logits[row]))
      )
      if known[row]:
        solution = np.where(real.labels[row] < 0, 0, real.labels[row])
        np.testing.assert_array_equal(puzzle.solution, solution)
      else:
        assert puzzle.solution is None


def test_statistics_cover_all_puzzles_but_no_padding():
  answers = _answers(60)
  stats = _collect(answers, 7).stats
  assert len(stats.exact) == answers.rows.sum()
  np.testing.assert_array_equal(stats.steps, answers.steps[answers.rows])
  rated = stats.rated
  assert len(rated.exact) == stats.known.sum() < len(stats.exact)
  assert rated.known.all()
  assert not stats.exact[~stats.known].any()


def test_empty_categories_are_left_out():
  answers = _answers(8)
  wrong = answers.replace(
    labels=np.full((8, L), 5, np.int32), rows=np.full(8, True)
  )
  assert set(_collect(wrong, 8).puzzles) == {"Incorrect, highest confidence"}


def test_grids_of_a_few_puzzles_only_are_kept():
  kept = _collect(_answers(500), 10, keep=2)
  assert sum(map(len, kept.puzzles.values())) == 8


def test_huge_logits_are_certainty():
  answers = _answers(4).replace(
    halt_logits=np.array([-1e5, 1e5, 0, 1], np.float32),
    rows=np.full(4, True),
  )
  confidence = _collect(answers, 4).stats.confidence
  assert confidence[:3].tolist() == [0.0, 1.0, 0.5]


def test_diverged_puzzles_rank_last():
  answers = _answers(20)
  answers = answers.replace(
    halt_logits=np.where(np.arange(20) % 2, answers.halt_logits, np.nan),
    labels=answers.answers.astype(np.int32),
    rows=np.full(20, True),
  )
  kept = _collect(answers, 3, keep=10)
  for puzzles in kept.puzzles.values():
    assert not any(math.isnan(puzzle.confidence) for puzzle in puzzles)


def _shown(name, *, answers=2, changes=True, verdict="correct", has_steps=True):
  tokens = np.ones((answers, L), np.uint8)
  if changes:
    tokens[0] = 2
  trace = animation.AnswerTrace(
    look=task_lib.Look(rows=1, cols=L, symbols=tuple("0123")),
    question=tokens[-1],
    answers=tokens,
    confidence=None,
    solution=None,
  )
  return report_puzzles.ShownPuzzle(name, None, trace, has_steps, verdict)


def test_the_correct_puzzle_with_the_most_changes_is_animated():
  dull = _shown("dull", changes=False)
  wrong = _shown("wrong", verdict="incorrect")
  single = _shown("single", answers=1)
  hidden = _shown("hidden", has_steps=False)
  most = report_puzzles.most_interesting
  assert most([dull, wrong, single, hidden, _shown("best")]).name == "best"
  assert most([wrong, dull]).name == "dull"
  assert most([single, hidden]) is None
