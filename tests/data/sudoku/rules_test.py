"""Sudoku tokens and rules."""

import re

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data.sudoku import rules as sudoku_rules

BOX = {"box_rows": 2, "box_cols": 2}
QUESTION = "1..4" + "..1." + ".1.3" + "4..."
ANSWER = "1234" + "3412" + "2143" + "4321"


def _parse(question=QUESTION, answer=ANSWER):
  pairs, found = sudoku_rules.parse_pairs([question], [answer], **BOX)
  return found or pairs[0]


def test_tokens_are_digit_plus_one_and_blank_one():
  x, y = _parse()
  assert x.dtype == np.uint8
  assert x.tolist()[:8] == [2, 1, 1, 5, 1, 1, 2, 1]
  assert (y - 1).tolist() == [int(c) for c in ANSWER]
  np.testing.assert_array_equal(_parse(QUESTION.replace(".", "0"))[0], x)


def test_units_of_rectangular_boxes():
  units = sudoku_rules.units(2, 3)
  assert units.shape == (18, 6)
  assert units[1].tolist() == [6, 7, 8, 9, 10, 11]
  assert units[6 + 1].tolist() == [1, 7, 13, 19, 25, 31]
  assert units[12 + 1].tolist() == [3, 4, 5, 9, 10, 11]
  for kind in units.reshape(3, 36):
    assert sorted(kind) == list(range(36))


@pytest.mark.parametrize(
  ("question", "answer", "text"),
  [
    (QUESTION[1:], ANSWER, "question has 15 characters, expected 16"),
    (QUESTION, ANSWER + "1", "answer has 17 characters, expected 16"),
    (
      QUESTION[:5] + "a" + QUESTION[6:],
      ANSWER,
      r"question has 'a' at position 6 \(row 2, column 2\)",
    ),
    (QUESTION[:-1] + "5", ANSWER, "question has '5' at position 16 "),
    (QUESTION[:-1] + "é", ANSWER, "question has 'é' at position 16 "),
    (QUESTION, ANSWER[:-1] + ".", "answer has a blank at position 16"),
    (
      QUESTION,
      "1234" + "2143" + "3412" + "4321",
      "answer has the digit 1 more than once in box 1",
    ),
    (
      QUESTION,
      "1234" + "3412" + "2413" + "4321",
      "answer has the digit 4 more than once in column 2",
    ),
    (
      "3" + QUESTION[1:],
      ANSWER,
      "the clue 3 at position 1 contradicts the answer, which has 1",
    ),
  ],
)
def test_bad_pairs_name_the_fault(question, answer, text):
  found = _parse(question, answer)
  assert re.match(text, found[0])
  # In the company of others.
  pairs, found = sudoku_rules.parse_pairs(
    [QUESTION, question, QUESTION, question], [ANSWER, answer] * 2, **BOX
  )
  assert list(found) == [1, 3]
  assert re.match(text, found[1])
  np.testing.assert_array_equal(pairs[2], _parse())


def test_question_alone_with_repeated_clue_is_refused():
  tokens, found = sudoku_rules.parse_questions(
    ["1..1" + "." * 12, QUESTION], **BOX
  )
  assert found == {0: "question has the digit 1 more than once in row 1"}
  np.testing.assert_array_equal(tokens[1], _parse()[0])


def test_only_sides_of_two_to_nine():
  with pytest.raises(errors.UserError, match="between 2 and 9"):
    sudoku_rules.side(3, 4)
  with pytest.raises(errors.UserError, match="between 2 and 9"):
    sudoku_rules.side(1, 1)


def test_validity_of_a_batch():
  _, y = _parse()
  swapped = y.copy()
  swapped[[0, 1]] = y[[1, 0]]  # rows stay right, columns do not
  blank = y.copy()
  blank[3] = sudoku_rules.BLANK
  padded = y.copy()
  padded[3] = sudoku_rules.PAD
  too_big = y.copy()
  too_big[y == 5] = 6
  grids = np.stack([y, swapped, blank, padded, too_big])
  valid = sudoku_rules.is_valid_solution(grids, **BOX)
  assert valid.tolist() == [True, False, False, False, False]
