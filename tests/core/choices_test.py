"""Which of several attempts is chosen, by hand-made tables."""

import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import choices

# Four attempts at two puzzles, answers of two cells.
HALT_LOGITS = np.array([[0.0, 5], [2, 1], [2, 1], [3, 1]], np.float32)
ANSWERS = np.array(
  [
    [[1, 1], [1, 1]],
    [[1, 2], [2, 2]],
    [[1, 1], [2, 2]],
    [[1, 2], [2, 2]],
  ]
)


def _choose(name, answers, halt_logits, *, residual=None, halted_after=None):
  shape = np.shape(halt_logits)
  candidates = choices.Candidates(
    answers=jnp.asarray(answers),
    halt_logits=jnp.asarray(halt_logits),
    residual=jnp.asarray(np.zeros(shape) if residual is None else residual),
    halted_after=jnp.asarray(
      np.full(shape, choices.NEVER) if halted_after is None else halted_after
    ),
  )
  return choices.choose(name, candidates)


def test_the_most_confident_of_the_first_attempts_is_chosen():
  chosen = _choose("confidence", ANSWERS, HALT_LOGITS)
  assert chosen.tolist() == [[0, 0], [1, 0], [1, 0], [3, 0]]


def test_the_answer_given_most_often_is_chosen():
  chosen = _choose("vote", ANSWERS, HALT_LOGITS)
  # Puzzle 0: one vote each, 1 is surer; two for [1, 1]; two each, and the
  # mean confidence in [1, 2] is higher. Puzzle 1: a tie goes to the surer
  # answer, then two and three votes beat it.
  assert chosen.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


def test_answers_that_differ_in_one_cell_are_others():
  answers = np.array([[[1, 2, 3]], [[1, 2, 4]], [[1, 2, 4]]])
  chosen = _choose("vote", answers, np.array([[9.0], [0], [0]], np.float32))
  assert chosen.tolist() == [[0], [0], [1]]


def test_equal_attempts_leave_the_first():
  same, sure = np.ones((5, 1, 3), int), np.zeros((5, 1), np.float32)
  for name in ("vote", "confidence"):
    assert _choose(name, same, sure).tolist() == [[0]] * 5


def test_votes_beat_any_confidence():
  answers = np.array([[[1]], [[2]], [[2]]])
  logits = np.array([[50.0], [-50], [-50]], np.float32)
  assert _choose("vote", answers, logits)[-1].tolist() == [1]
  assert _choose("confidence", answers, logits)[-1].tolist() == [0]


def test_many_votes_leave_the_tie_to_the_confidence():
  """Of 600 votes each, the answer is given that is surer by a little."""
  answers = np.repeat(np.array([[[1]], [[2]]]), 600, axis=0)
  logits = np.repeat(np.array([[1.0], [1.0002]], np.float32), 600, axis=0)
  assert _choose("vote", answers, logits)[-1].tolist() == [600]


def test_means_of_the_same_numbers_are_a_tie_in_any_order():
  rng = np.random.default_rng(0)
  for _ in range(50):
    logits = rng.standard_normal(8).astype(np.float32)
    answers = np.array([1] * 8 + [2] * 8).reshape(16, 1, 1)
    both = np.concatenate([logits, rng.permutation(logits)])[:, None]
    assert _choose("vote", answers, both)[-1].tolist() == [0]


def test_an_unknown_choice_is_refused():
  with pytest.raises(ValueError, match="unknown choice 'votes'"):
    _choose("votes", ANSWERS, HALT_LOGITS)


def test_the_answer_that_changed_least_is_chosen():
  residual = np.array([[np.inf, 2], [3, 1], [3, 1], [2, 4]], np.float32)
  chosen = _choose("residual", ANSWERS, HALT_LOGITS, residual=residual)
  assert chosen.tolist() == [[0, 0], [1, 1], [1, 1], [3, 1]]


def test_the_first_to_halt_is_chosen_then_the_surest():
  never = choices.NEVER
  after = np.array([[never, never], [5, never], [5, 3], [2, 3]])
  logits = np.array([[9.0, 9], [1, 9], [2, 1], [1, 1]], np.float32)
  chosen = _choose("first", ANSWERS, logits, halted_after=after)
  assert chosen.tolist() == [[0, 0], [1, 0], [2, 2], [3, 2]]
  nobody = np.full_like(after, never)
  none = _choose("first", ANSWERS, logits, halted_after=nobody)
  assert none.tolist() == [[0, 0]] * 4


def test_the_rules_choose_a_valid_answer_then_the_surest():
  valid = np.array([[0, 1, 0], [1, 1, 0], [1, 0, 0]], bool)
  logits = np.array([[9.0, 1, 1], [1, 2, 3], [2, 9, 2]])
  assert choices.by_rules(valid, logits).tolist() == [2, 1, 1]


def test_a_vote_without_answers_is_refused():
  candidates = choices.Candidates(None, HALT_LOGITS, HALT_LOGITS, HALT_LOGITS)
  with pytest.raises(ValueError, match="needs the answers"):
    choices.choose("vote", candidates)
