"""Grids as text."""

import numpy as np

from trm_jax.data import task as task_lib


def _look(rows, cols, **options):
  return task_lib.Look(rows=rows, cols=cols, symbols=tuple(" .1234"), **options)


def test_boxes_have_lines_between_them():
  square = _look(4, 4, box_rows=2, box_cols=2)
  tokens = np.array([[2, 1, 1, 5], [1, 1, 2, 1], [1, 2, 1, 4], [5, 1, 1, 1]])
  assert square.text(tokens) == (
    "1 . | . 4\n. . | 1 .\n----+----\n. 1 | . 3\n4 . | . ."
  )
  wide = _look(6, 6, box_rows=2, box_cols=3).text(np.ones(36, int)).split("\n")
  assert {len(line) for line in wide} == {13}
  assert wide[2] == "------+------"


def test_padding_at_the_end_is_left_out():
  tokens = np.array([[2, 1, 0], [1, 3, 0], [0, 0, 0]])
  assert _look(3, 3).text(tokens.reshape(-1)) == "1.\n.2"
  tokens[0] = 0
  assert _look(3, 3).text(tokens.reshape(-1)) == "\n.2"


def test_what_is_no_token_is_a_question_mark():
  assert _look(1, 3).text(np.array([5, 6, -100])) == "4??"
