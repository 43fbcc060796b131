"""Characters to tokens, for whole blocks of puzzles at a time."""

import dataclasses
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

NUM_CODE_POINTS = 0x110000

# What is wrong with some rows of a block, by their index.
Errors = dict[int, str]


def code_points(text: str) -> np.ndarray:
  """Returns the code points of a text, uint32 [len(text)]."""
  return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def token_table(tokens: Mapping[str, int]) -> np.ndarray:
  """Returns the token of each code point, uint8 [0x110000]; 0 for the rest."""
  table = np.zeros(NUM_CODE_POINTS, np.uint8)
  for character, token in tokens.items():
    table[ord(character)] = token
  return table


def shown(text: str) -> str:
  """Returns a text for an error message: quoted, at most 40 characters."""
  return repr(text if len(text) <= 40 else f"{text[:40]}...")


def hint(text: str, length: int) -> str:
  """Returns advice on a text of the wrong length, or "".

  Args:
    text: What should be a puzzle.
    length: Its number of characters; 0 if that is not known.
  """
  is_rounded = re.fullmatch(r"\d[\d.,]*[Ee]\+?\d+", text)
  has_lost_zeros = text.isdigit() and length // 2 < len(text) < length
  if is_rounded or has_lost_zeros:
    return " (has a spreadsheet taken it for a number? import it as text)"
  if any(map(unicodedata.combining, text)):
    return " (its accents are characters of their own: normalize it to NFC)"
  return ""


def position(cell: int, cols: int) -> str:
  """Returns where a cell is, for an error message; all counted from 1."""
  return (
    f"position {cell + 1} (row {cell // cols + 1}, column {cell % cols + 1})"
  )


@dataclasses.dataclass(frozen=True)
class Alphabet:
  """The characters that grids of one size are written in.

  Attributes:
    tokens: Token of each code point, uint8 [0x110000]; 0: not allowed.
    rows: Rows of a grid.
    cols: Columns of a grid; L = rows * cols.
    size: Ends the error about a wrong length, e.g. "81" or "6 (2 x 3)".
    allowed: Ends the error about any other character, e.g. "expected '#'".
  """

  tokens: np.ndarray
  rows: int
  cols: int
  size: str
  allowed: str

  def parse(self, texts: Sequence[str], what: str) -> tuple[np.ndarray, Errors]:
    """Parses grids of one character per cell, row after row.

    Args:
      texts: The grids, n.
      what: What they are: "question" or "answer".

    Returns:
      Tokens, uint8 [n, L], and the first error of each malformed grid, whose
      tokens are undefined.
    """
    length = self.rows * self.cols
    errors: Errors = {}
    whole = list(texts)
    for i, text in enumerate(texts):
      if len(text) != length:
        errors[i] = (
          f"{what} has {len(text)} characters, expected {self.size}:"
          f" {shown(text)}{hint(text, length)}"
        )
        whole[i] = "\0" * length
    codes = code_points("".join(whole))
    tokens = self.tokens[codes].reshape(len(whole), length)
    if not tokens.all():
      for i in np.flatnonzero((tokens == 0).any(axis=1)).tolist():
        cell = int(tokens[i].argmin())
        errors.setdefault(
          i,
          f"{what} has {whole[i][cell]!r} at {position(cell, self.cols)}, "
          f"{self.allowed}",
        )
    return tokens, errors
