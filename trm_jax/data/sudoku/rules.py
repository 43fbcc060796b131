"""Sudoku: characters to tokens, and the rules of the game.

A grid has n x n cells, n = box_rows * box_cols (9x9 is (3, 3), 6x6 is (2, 3),
4x4 is (2, 2)), and is kept as one row of L = n * n uint8 tokens: 0 is padding,
1 is a blank cell and d + 1 is the digit d, as in the official data builder.
"""

import functools

import numpy as np

from trm_jax import errors

PAD = 0
BLANK = 1

_BAD = 255  # stands for a character that means nothing
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


def vocab_size(box_rows: int, box_cols: int) -> int:
  """Returns the number of tokens: padding, blank and n digits."""
  return side(box_rows, box_cols) + 2


@functools.lru_cache(maxsize=16)
def units(box_rows: int, box_cols: int) -> np.ndarray:
  """Lists the cells of every unit.

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
def _character_table(n: int) -> bytes:
  table = bytearray([_BAD] * 256)
  table[ord(".")] = table[ord("0")] = BLANK
  for digit in range(1, n + 1):
    table[ord(str(digit))] = digit + 1
  return bytes(table)


def _parse(text: str, n: int, what: str, where: str) -> np.ndarray:
  if len(text) != n * n:
    raise errors.UserError(
      f"{where}: {what} has {len(text)} characters, expected {n * n}"
    )
  # "replace" turns whatever is not ASCII into one "?", which is bad as well.
  codes = text.encode("ascii", "replace").translate(_character_table(n))
  if _BAD in codes:
    at = codes.index(_BAD)
    raise errors.UserError(
      f"{where}: {what} has {text[at]!r} at position {at + 1} (row "
      f"{at // n + 1}, column {at % n + 1}), expected '.', '0' or a digit "
      f"from 1 to {n}"
    )
  return np.frombuffer(codes, np.uint8)


def _unit_name(index: int, n: int) -> str:
  return f"{('row', 'column', 'box')[index // n]} {index % n + 1}"


def _check_no_repeats(
  tokens: np.ndarray, box_rows: int, box_cols: int, what: str, where: str
) -> None:
  """Raises a UserError that names the first unit with a repeated digit."""
  n = box_rows * box_cols
  for index, cells in enumerate(units(box_rows, box_cols)):
    counts = np.bincount(tokens[cells], minlength=n + 2)[BLANK + 1 :]
    if counts.max() > 1:
      raise errors.UserError(
        f"{where}: {what} has the digit {counts.argmax() + 1} more than once "
        f"in {_unit_name(index, n)}"
      )


def parse_question(
  text: str, *, box_rows: int, box_cols: int, where: str
) -> np.ndarray:
  """Turns a puzzle's characters into tokens.

  Args:
    text: n * n characters, '.' or '0' for a blank cell.
    box_rows: Rows of a box.
    box_cols: Columns of a box.
    where: Begins the text of an error, e.g. "puzzles.csv line 3".

  Returns:
    Tokens, uint8 [L].

  Raises:
    UserError: on a wrong length, a bad character or clues that break the rules.
  """
  tokens = _parse(text, side(box_rows, box_cols), "question", where)
  _check_no_repeats(tokens, box_rows, box_cols, "question", where)
  return tokens


def parse_pair(
  question: str, answer: str, *, box_rows: int, box_cols: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
  """Turns a puzzle and its solution into tokens.

  Args:
    question: n * n characters, '.' or '0' for a blank cell.
    answer: n * n digits.
    box_rows: Rows of a box.
    box_cols: Columns of a box.
    where: Begins the text of an error, e.g. "train.csv line 17".

  Returns:
    Question and answer tokens, both uint8 [L].

  Raises:
    UserError: if either is malformed, the answer has a blank or breaks the
      rules, or a clue contradicts the answer.
  """
  n = side(box_rows, box_cols)
  x = _parse(question, n, "question", where)
  y = _parse(answer, n, "answer", where)
  if not is_valid_solution(y, box_rows=box_rows, box_cols=box_cols):
    blanks = np.flatnonzero(y == BLANK)
    if blanks.size:
      raise errors.UserError(
        f"{where}: answer has a blank at position {blanks[0] + 1}"
      )
    _check_no_repeats(y, box_rows, box_cols, "answer", where)
  if not agrees_with_clues(x, y):
    at = int(np.flatnonzero((x != BLANK) & (x != y))[0])
    raise errors.UserError(
      f"{where}: the clue {x[at] - 1} at position {at + 1} contradicts the "
      f"answer, which has {y[at] - 1} there"
    )
  return x, y


def is_valid_solution(
  tokens: np.ndarray, *, box_rows: int, box_cols: int
) -> np.ndarray:
  """Tells which grids are full and keep the rules.

  Args:
    tokens: Grids, integers [..., L].
    box_rows: Rows of a box.
    box_cols: Columns of a box.

  Returns:
    bool [...].
  """
  n = side(box_rows, box_cols)
  # One bit per token: a unit is right when its n cells set all n digit bits.
  bits = np.zeros(256, np.uint16)
  bits[BLANK + 1 : n + 2] = 1 << np.arange(n)
  in_units = bits[np.asarray(tokens)[..., units(box_rows, box_cols)]]
  seen = np.bitwise_or.reduce(in_units, axis=-1)
  return (seen == (1 << n) - 1).all(axis=-1)


def agrees_with_clues(question: np.ndarray, answer: np.ndarray) -> np.ndarray:
  """Tells whether every clue of [..., L] stands in the answer: bool [...]."""
  return ((question == BLANK) | (question == answer)).all(axis=-1)
