"""Anybody's own puzzles: CSV files with a question and an answer in each row.

A grid is written row by row, one character (Unicode code point) per cell. The
characters of a data set, in order, are its tokens 1 to n; 0 is padding.
"""

import csv
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterator

import numpy as np

from trm_jax import errors
from trm_jax.data import csv_files, puzzle_set

_MAX_SIDE = 30
_MAX_CHARACTERS = 254
_NUM_CODE_POINTS = 0x110000
_ROWS_AT_ONCE = 10_000
_PARTS = ("question", "answer")


@dataclasses.dataclass(frozen=True)
class GridPuzzles:
  """A data set of grids.

  Attributes:
    train: Puzzles to learn from.
    test: Puzzles to evaluate on.
    charset: The characters of the tokens 1 to n.
    rows: Rows of a grid.
    cols: Columns of a grid; L = rows * cols.
    num_shared: Puzzles of `test` whose question is one of `train`'s, too: right
      answers to them may be learnt by heart.
  """

  train: puzzle_set.PuzzleSet
  test: puzzle_set.PuzzleSet
  charset: str
  rows: int
  cols: int
  num_shared: int


def load(
  source: str,
  *,
  grid_rows: int,
  grid_cols: int,
  charset: str,
  num_train: int,
  num_test: int,
  seed: int,
) -> GridPuzzles:
  """Loads a folder's puzzles.

  Args:
    source: A folder with `train.csv[.gz]` and `test.csv[.gz]`, whose headers
      name the columns `question` and `answer`; others are ignored.
    grid_rows: Rows of a grid, up to 30.
    grid_cols: Columns of a grid; 0 for both: a square of the first question's
      number of characters.
    charset: The characters that may occur, in the order of their tokens; empty
      for all that do occur, sorted by code point.
    num_train: How many training puzzles to draw without replacement, in the
      order of the file; 0 for all.
    num_test: The same of test puzzles.
    seed: Of these draws.

  Returns:
    The data set.

  Raises:
    UserError: on missing or malformed files, grids of several sizes, characters
      outside the charset, a question with two answers in one file, or if there
      are fewer puzzles than asked for.
  """
  files = csv_files.find_files(source)
  alphabet = _Alphabet(charset)
  rows = _read_rows(files["train"])
  first = next(rows)
  shape = _shape(first, grid_rows, grid_cols)
  train_pairs = _read_pairs(itertools.chain([first], rows), shape, alphabet)
  test_pairs = _read_pairs(_read_rows(files["test"]), shape, alphabet)
  tokens = alphabet.finish()
  train, test = (
    _build(tokens[_draw(pairs, split=split, num_puzzles=number, seed=seed)])
    for split, pairs, number in (
      ("train", train_pairs, num_train),
      ("test", test_pairs, num_test),
    )
  )
  known = {question.tobytes() for question in train.inputs}
  return GridPuzzles(
    train=train,
    test=test,
    charset=alphabet.characters,
    rows=shape.rows,
    cols=shape.cols,
    num_shared=sum(question.tobytes() in known for question in test.inputs),
  )


def _draw(
  pairs: np.ndarray, *, split: str, num_puzzles: int, seed: int
) -> np.ndarray:
  """Returns the drawn pairs of [N, 2, L], in their order."""
  total = len(pairs)
  if not 0 <= num_puzzles <= total:
    raise errors.UserError(
      f"config.data.num_{split} asks for {num_puzzles} puzzles, but the"
      f" {split} set has {total}; ask for fewer, or 0 for all"
    )
  if not num_puzzles:
    return pairs
  rng = np.random.default_rng([seed, csv_files.SPLITS.index(split)])
  return pairs[np.sort(rng.choice(total, num_puzzles, replace=False))]


def _build(pairs: np.ndarray) -> puzzle_set.PuzzleSet:
  return puzzle_set.PuzzleSet.single(
    np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
  )


# --- rows --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Row:
  """One line of a file.

  Attributes:
    where: Begins the text of an error, e.g. "train.csv line 17".
    texts: Question and answer.
  """

  where: str
  texts: tuple[str, str]


def _read_rows(path: pathlib.Path) -> Iterator[_Row]:
  """Yields a file's rows, at least one; empty lines are passed over."""
  reader = csv.reader(csv_files.read_lines(path), strict=True)
  empty = True
  try:
    header = next(reader, [])
    places = [_place(header, part, path) for part in _PARTS]
    for columns in reader:
      if not columns:
        continue
      where = f"{path.name} line {reader.line_num}"
      if len(columns) != len(header):
        raise errors.UserError(
          f"{where}: has {len(columns)} columns, the header {len(header)}"
        )
      empty = False
      yield _Row(where, (columns[places[0]], columns[places[1]]))
  except csv.Error as error:
    raise errors.UserError(
      f"{path.name} line {reader.line_num}: is not CSV ({error})"
    ) from error
  if empty:
    raise errors.UserError(f"{path.name} has a header but no puzzles")


def _place(header: list[str], name: str, path: pathlib.Path) -> int:
  if header.count(name) != 1:
    raise errors.UserError(
      f"{path.name} line 1: the header is {','.join(header)[:80]!r}, expected "
      "one column 'question' and one column 'answer'"
    )
  return header.index(name)


# --- size --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Shape:
  """The one size of all grids.

  Attributes:
    rows: Rows of a grid.
    cols: Columns of a grid.
    reason: Why it is that one, for the text of an error.
  """

  rows: int
  cols: int
  reason: str

  def check(self, row: _Row) -> None:
    size = self.rows * self.cols
    for part, text in zip(_PARTS, row.texts, strict=True):
      if len(text) != size:
        raise errors.UserError(
          f"{row.where}: {part} has {len(text)} characters, expected {size} "
          f"({self.rows} x {self.cols}, {self.reason})"
        )


def _shape(first: _Row, grid_rows: int, grid_cols: int) -> _Shape:
  """Takes the size from the settings or, if they say 0, the first row."""
  if grid_rows or grid_cols:
    if not all(1 <= n <= _MAX_SIDE for n in (grid_rows, grid_cols)):
      raise errors.UserError(
        f"config.data.grid_rows is {grid_rows} and config.data.grid_cols "
        f"{grid_cols}, expected 1 to {_MAX_SIDE} each, or 0 for both"
      )
    reason = "config.data.grid_rows x config.data.grid_cols"
    return _Shape(grid_rows, grid_cols, reason)
  size = len(first.texts[0])
  side = math.isqrt(size)
  if side**2 != size or not 1 <= side <= _MAX_SIDE:
    raise errors.UserError(
      f"{first.where}: question has {size} characters, which make no square of "
      f"1 x 1 to {_MAX_SIDE} x {_MAX_SIDE} cells: set config.data.grid_rows and"
      " config.data.grid_cols"
    )
  return _Shape(side, side, f"as in {first.where}")


# --- characters --------------------------------------------------------------


def _codes(text: str) -> np.ndarray:
  """Returns the code points of a text, uint32 [len(text)]."""
  return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


class _Alphabet:
  """Numbers characters from 1 on: those of a charset, or as they come.

  Attributes:
    characters: Those with a number, in its order.
  """

  def __init__(self, charset: str):
    if len(charset) > _MAX_CHARACTERS:
      raise errors.UserError(
        f"config.data.charset has {len(charset)} characters, at most "
        f"{_MAX_CHARACTERS} are supported"
      )
    for character in charset:
      if charset.count(character) > 1:
        raise errors.UserError(f"config.data.charset has {character!r} twice")
    self.characters = charset
    self._given = bool(charset)
    self._numbers = np.zeros(_NUM_CODE_POINTS, np.uint8)  # 0: without a number
    self._numbers[_codes(charset)] = np.arange(1, len(charset) + 1)

  def number(self, block: list[_Row], shape: _Shape) -> np.ndarray:
    """Returns the numbers of n rows' characters, uint8 [n, 2, L]."""
    codes = _codes("".join(text for row in block for text in row.texts))
    numbers = self._numbers[codes]
    unknown = np.flatnonzero(numbers == 0)
    if unknown.size:
      new, first = np.unique(codes[unknown], return_index=True)
      order = np.argsort(first)
      room = 0 if self._given else _MAX_CHARACTERS - len(self.characters)
      if len(new) > room:
        raise self._error(block, shape, int(unknown[first[order[room]]]))
      begin = len(self.characters) + 1
      self._numbers[new[order]] = np.arange(begin, begin + len(new))
      self.characters += "".join(map(chr, new[order]))
      numbers = self._numbers[codes]
    return numbers.reshape(len(block), len(_PARTS), -1)

  def _error(
    self, block: list[_Row], shape: _Shape, place: int
  ) -> errors.UserError:
    text, at = divmod(place, shape.rows * shape.cols)
    row, part = divmod(text, len(_PARTS))
    reason = (
      "which is not in config.data.charset"
      if self._given
      else f"beside {_MAX_CHARACTERS} others, and no more are supported"
    )
    return errors.UserError(
      f"{block[row].where}: {_PARTS[part]} has {block[row].texts[part][at]!r} "
      f"at position {at + 1} (row {at // shape.cols + 1}, column "
      f"{at % shape.cols + 1}), {reason}"
    )

  def finish(self) -> np.ndarray:
    """Sorts characters that were numbered as they came.

    Returns:
      The token of every number given out so far, uint8 [n + 1].
    """
    tokens = np.zeros(len(self.characters) + 1, np.uint8)
    order = np.arange(len(self.characters))
    if not self._given:
      order = np.argsort(_codes(self.characters))
    tokens[order + 1] = np.arange(1, len(order) + 1)
    self.characters = "".join(self.characters[i] for i in order)
    return tokens


def _read_pairs(
  rows: Iterator[_Row], shape: _Shape, alphabet: _Alphabet
) -> np.ndarray:
  """Returns questions and answers as numbers, uint8 [N, 2, L]."""
  blocks = []
  first_of: dict[bytes, tuple[bytes, str]] = {}
  while block := list(itertools.islice(rows, _ROWS_AT_ONCE)):
    for row in block:
      shape.check(row)
    blocks.append(alphabet.number(block, shape))
    for row, (question, answer) in zip(block, blocks[-1], strict=True):
      found = (answer.tobytes(), row.where)
      known, where = first_of.setdefault(question.tobytes(), found)
      if known != found[0]:
        raise errors.UserError(
          f"{row.where}: has the question of {where} with another answer"
        )
  return np.concatenate(blocks)
