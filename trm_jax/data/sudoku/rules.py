"""Sudoku: characters to tokens, and the rules of the game.

A grid has n x n cells, n = box_rows * box_cols (9x9 is (3, 3), 6x6 is (2, 3),
4x4 is (2, 2)), and is stored as L = n * n uint8 tokens, row after row: 0 is
padding, 1 a blank cell and d + 1 the digit d, as in the official data builder.
"""

import functools
from collections.abc import Sequence

import numpy as np

from trm_jax import errors
from trm_jax.data import characters

PAD = 0
BLANK = 1
BLANKS = ".0*_-xX? "  # how people write a blank cell

_MAX_SIDE = 9  # one character per digit


def side(box_rows: int, box_cols: int) -> int:
  """Returns n, the number of cells in a row; UserError unless 2 <= n <= 9."""
  n = box_rows * box_cols
  if box_rows < 1 or box_cols < 1 or not 2 <= n <= _MAX_SIDE:
    raise errors.UserError(
      f"boxes of {box_rows} x {box_cols} cells do not make a Sudoku: "
      f"box_rows * box_cols has to be between 2 and {_MAX_SIDE}"
    )
  return n


@functools.lru_cache(maxsize=16)
def units(box_rows: int, box_cols: int) -> np.ndarray:
  """Returns the cells of every unit.

  Args:
    box_rows: Rows of a box.
    box_cols: Columns of a box.

  Returns:
    Cell indices, int [3n, n]: n rows, then n columns, then n boxes.
  """
  n = side(box_rows, box_cols)
  cells = np.arange(n * n).reshape(n, n)
  split = cells.reshape(n // box_rows, box_rows, n // box_cols, box_cols)
  boxes = split.transpose(0, 2, 1, 3).reshape(n, n)
  result = np.concatenate([cells, cells.T, boxes])
  result.setflags(write=False)  # cached: callers share it
  return result


@functools.lru_cache(maxsize=16)
def _alphabet(n: int) -> characters.Alphabet:
  digits = {str(digit): digit + BLANK for digit in range(1, n + 1)}
  return characters.Alphabet(
    tokens=characters.token_table({**dict.fromkeys(BLANKS, BLANK), **digits}),
    rows=n,
    cols=n,
    size=str(n * n),
    allowed=f"expected a digit from 1 to {n}, or '.' or '0' for a blank",
  )


@functools.lru_cache(maxsize=16)
def _bits(n: int) -> np.ndarray:
  """Returns one bit per digit's token and 0 for all others, uint16 [256]."""
  bits = np.zeros(256, np.uint16)
  bits[BLANK + 1 : n + 2] = 1 << np.arange(n)
  return bits


def _add_repeats(
  tokens: np.ndarray,
  found: characters.Errors,
  *,
  box_rows: int,
  box_cols: int,
  what: str,
) -> None:
  """Adds the first unit with a repeated digit to the errors of each grid."""
  n = side(box_rows, box_cols)
  in_units = _bits(n)[tokens[:, units(box_rows, box_cols)]]
  # A sum of bits is their union if and only if none is there twice.
  repeats = in_units.sum(axis=-1) != np.bitwise_or.reduce(in_units, axis=-1)
  for i in np.flatnonzero(repeats.any(axis=1)).tolist():
    unit = int(repeats[i].argmax())
    cells = tokens[i, units(box_rows, box_cols)[unit]]
    digit = np.bincount(cells, minlength=n + 2)[BLANK + 1 :].argmax() + 1
    name = f"{('row', 'column', 'box')[unit // n]} {unit % n + 1}"
    found.setdefault(
      i, f"{what} has the digit {digit} more than once in {name}"
    )


def parse_questions(
  texts: Sequence[str], *, box_rows: int, box_cols: int
) -> tuple[np.ndarray, characters.Errors]:
  """Parses puzzles.

  Args:
    texts: n texts of L characters each, '.' or '0' for a blank cell.
    box_rows: Rows of a box.
    box_cols: Columns of a box.

  Returns:
    Tokens, uint8 [n, L], and the error of each puzzle that has a wrong length,
    a wrong character, or clues that break the rules.
  """
  box = {"box_rows": box_rows, "box_cols": box_cols}
  tokens, found = _alphabet(side(**box)).parse(texts, "question")
  _add_repeats(tokens, found, what="question", **box)
  return tokens, found


def parse_pairs(
  questions: Sequence[str],
  answers: Sequence[str],
  *,
  box_rows: int,
  box_cols: int,
) -> tuple[np.ndarray, characters.Errors]:
  """Parses puzzles and their solutions.

  Args:
    questions: n texts of L characters each, '.' or '0' for a blank cell.
    answers: n texts of L digits each.
    box_rows: Rows of a box.
    box_cols: Columns of a box.

  Returns:
    Tokens, uint8 [n, 2, L], and the error of each pair that is malformed, whose
    answer is incomplete or breaks the rules, or whose answer contradicts a
    clue.
  """
  box = {"box_rows": box_rows, "box_cols": box_cols}
  x, found = _alphabet(side(**box)).parse(questions, "question")
  y, in_answers = _alphabet(side(**box)).parse(answers, "answer")
  found = in_answers | found
  for i in np.flatnonzero((y == BLANK).any(axis=1)).tolist():
    at = int((y[i] == BLANK).argmax())
    found.setdefault(i, f"answer has a blank at position {at + 1}")
  _add_repeats(y, found, what="answer", **box)
  for i in np.flatnonzero(~agrees_with_clues(x, y)).tolist():
    at = int(((x[i] != BLANK) & (x[i] != y[i])).argmax())
    found.setdefault(
      i,
      f"the clue {int(x[i, at]) - 1} at position {at + 1} contradicts the "
      f"answer, which has {int(y[i, at]) - 1} there",
    )
  return np.stack([x, y], axis=1), found


def is_valid_solution(
  tokens: np.ndarray, *, box_rows: int, box_cols: int
) -> np.ndarray:
  """Returns which grids are complete and obey the rules.

  Args:
    tokens: Grids, integers [..., L].
    box_rows: Rows of a box.
    box_cols: Columns of a box.

  Returns:
    bool [...].
  """
  n = side(box_rows, box_cols)
  # A unit is correct if its n cells have the bits of all n digits.
  in_units = _bits(n)[np.asarray(tokens)[..., units(box_rows, box_cols)]]
  seen = np.bitwise_or.reduce(in_units, axis=-1)
  return (seen == (1 << n) - 1).all(axis=-1)


def agrees_with_clues(question: np.ndarray, answer: np.ndarray) -> np.ndarray:
  """Returns whether the answer keeps all clues; [..., L] to bool [...]."""
  return ((question == BLANK) | (question == answer)).all(axis=-1)
