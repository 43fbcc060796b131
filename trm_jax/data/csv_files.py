"""Rows of text files: the one reader of data sets and of user input.

Data sets are read strictly: the first malformed line raises. User input is read
tolerantly: a malformed line is an error of its own row, and the rest is read.
"""

import csv
import gzip
import pathlib
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import characters, files, puzzle_set

SPLITS = ("train", "test")
PAIR = ("question", "answer")  # columns of a data set

_ROWS_PER_BLOCK = 10_000
_ROWS_BETWEEN_PROGRESS = 500_000

# Turns questions and answers into tokens, uint8 [n, 2, L], and finds errors.
ParsePairs = Callable[
  [Sequence[str], Sequence[str]], tuple[np.ndarray, characters.Errors]
]


class Line(NamedTuple):
  """A line of text.

  Attributes:
    where: Begins an error message, e.g. "train.csv line 17".
    text: Without its line end; replacement characters for what is not UTF-8.
    error: That the line is not UTF-8, or "".
  """

  where: str
  text: str
  error: str


class Row(NamedTuple):
  """A row of a CSV file.

  Attributes:
    where: Begins an error message, e.g. "train.csv line 17".
    texts: The columns that were asked for.
    error: Why the row cannot be used, or "".
  """

  where: str
  texts: tuple[str, ...]
  error: str = ""


def find_files(source: str) -> dict[str, pathlib.Path]:
  """Finds the CSV file of each split in a folder.

  Args:
    source: A folder with `train.csv[.gz]` and `test.csv[.gz]`.

  Returns:
    The file of each split.

  Raises:
    UserError: if the folder or a file is missing, or a file exists twice.
  """
  folder = pathlib.Path(source).expanduser()
  if not folder.is_dir():
    raise errors.UserError(
      f"config.data.source is {source!r}, which is not a folder: expected one "
      "with train.csv and test.csv (or .csv.gz)"
    )
  found = {}
  for split in SPLITS:
    path = files.plain_or_gzipped(folder, f"{split}.csv")
    if path is None:
      raise errors.UserError(
        f"{folder} has neither {split}.csv nor {split}.csv.gz"
      )
    found[split] = path
  return found


def read_bytes(path: pathlib.Path) -> Iterator[bytes]:
  """Yields the lines of a file with their ends.

  Args:
    path: A file; gzipped if its name ends in `.gz`.

  Raises:
    UserError: with file name and line, if the file cannot be read.
  """
  opener = gzip.open if path.suffix == ".gz" else open
  number = 0
  try:
    with opener(path, "rb") as file:
      for line in file:
        number += 1
        yield line
  except (EOFError, zlib.error, OSError) as error:
    raise errors.UserError(
      f"{path.name} line {number + 1}: cannot be read, "
      f"the file is damaged or not accessible ({error})"
    ) from error


def decode(content: Iterable[bytes], name: str) -> Iterator[Line]:
  """Decodes lines of UTF-8, those that are something else included.

  Args:
    content: Lines with their ends.
    name: The file's name, for error messages.

  Yields:
    The lines as text.
  """
  # Spreadsheets put a byte order mark in front of the first line.
  encoding = "utf-8-sig"
  for number, line in enumerate(content, 1):
    where = f"{name} line {number}"
    error = ""
    try:
      text = line.decode(encoding)
    except UnicodeDecodeError:
      text = line.decode(encoding, "replace")
      error = f"{where}: not UTF-8 text"
    encoding = "utf-8"
    # Spaces are not stripped: a maze may end in open cells.
    yield Line(where, text.removesuffix("\n").removesuffix("\r"), error)


def read_rows(
  content: Iterable[bytes],
  name: str,
  columns: Sequence[str],
  *,
  strict: bool = True,
) -> Iterator[Row]:
  """Yields the rows of a CSV, of whatever size.

  Args:
    content: Lines with their ends; the first is the header.
    name: The file's name, for error messages.
    columns: Names of the columns to return; all others are ignored.
    strict: Whether the first malformed row raises. If not, it is yielded with
      its error, and each line is one row: a quotation mark left open does not
      swallow the lines below.

  Yields:
    At least one row, in the order of the file; empty lines are skipped.

  Raises:
    UserError: with file name and line, if the header does not name each column
      once or there are no rows.
  """
  lines = decode(content, name)
  records = _strict_records(lines, name) if strict else _tolerant(lines)
  wanted = f"one {' and one '.join(map(repr, columns))}"
  header = next(records, None)
  if header is None:
    raise errors.UserError(f"{name} is empty: expected a header with {wanted}")
  names = [text.strip() for text in header.texts]
  if any(names.count(column) != 1 for column in columns):
    found = ", ".join(map(repr, names))[:200] or "none"
    raise errors.UserError(
      header.error
      or f"{header.where}: the columns are {found}; expected {wanted}"
    )
  places = [names.index(column) for column in columns]
  empty = True
  for where, texts, error, raw in records:
    if not texts and not error:
      continue
    empty = False
    if not error and len(texts) != len(names):
      error = f"{where}: has {len(texts)} columns, the header {len(names)}"
    if not error:
      yield Row(where, tuple([texts[place] for place in places]))
    elif strict:
      raise errors.UserError(error)
    else:
      shown = [texts[place] if place < len(texts) else raw for place in places]
      yield Row(where, tuple(shown), error)
  if empty:
    raise errors.UserError(f"{name} has a header but no puzzles")


class _Record(NamedTuple):
  """All cells of a row; none where it is not CSV, but then its raw text."""

  where: str
  texts: list[str]
  error: str = ""
  raw: str = ""


def _strict_records(lines: Iterable[Line], name: str) -> Iterator[_Record]:
  """Yields the records of a CSV; quoted cells may span lines."""
  reader = csv.reader(map(_checked_text, lines), strict=True)
  try:
    for texts in reader:
      yield _Record(f"{name} line {reader.line_num}", texts)
  except csv.Error as error:
    raise errors.UserError(
      f"{name} line {reader.line_num}: is not CSV ({error})"
    ) from error


def _checked_text(line: Line) -> str:
  if line.error:
    raise errors.UserError(line.error)
  return line.text + "\n"


def _tolerant(lines: Iterable[Line]) -> Iterator[_Record]:
  """Yields each line as a record of its own."""
  for where, text, error in lines:
    try:
      texts = next(csv.reader([text], strict=True), [])
    except csv.Error as problem:
      error = f"{where}: is not CSV ({problem})"
      yield _Record(where, [], error, raw=text)
    else:
      yield _Record(where, texts, error)


def read_blocks(path: pathlib.Path) -> Iterator[list[Row]]:
  """Yields questions and answers of a data set's file, 10,000 rows at a time.

  Args:
    path: A `.csv` or `.csv.gz` file with the columns of `PAIR`.

  Raises:
    UserError: with file name and line, for the first malformed row.
  """
  block: list[Row] = []
  try:
    rows = read_rows(read_bytes(path), path.name, PAIR)
    for count, row in enumerate(rows, 1):
      block.append(row)
      if len(block) == _ROWS_PER_BLOCK:
        yield block
        block = []
      if count % _ROWS_BETWEEN_PROGRESS == 0:
        text = f"reading {path.name}: {count:,} puzzles"
        print(text, file=sys.stderr, flush=True)
  except errors.UserError:
    if block:
      yield block  # a malformed puzzle in it comes first
    raise
  if block:
    yield block


def parse_block(rows: Sequence[Row], parse_pairs: ParsePairs) -> np.ndarray:
  """Parses a block of a data set.

  Args:
    rows: Questions and answers, n.
    parse_pairs: Turns them into tokens.

  Returns:
    Tokens, uint8 [n, 2, L].

  Raises:
    UserError: with file name and line, for the first malformed puzzle.
  """
  questions, answers = zip(*(row.texts for row in rows), strict=True)
  tokens, found = parse_pairs(questions, answers)
  if found:
    first = min(found)
    raise errors.UserError(f"{rows[first].where}: {found[first]}")
  return tokens


def choose(
  data: config_lib.DataConfig, *, split: str, total: int
) -> np.ndarray:
  """Draws the puzzles of a split without replacement.

  Args:
    data: Settings: how many puzzles (0 for all), and the seed.
    split: "train" or "test".
    total: Puzzles in the split.

  Returns:
    Their indices, rising, int64.

  Raises:
    UserError: if the split has fewer puzzles.
  """
  count = data.num_train if split == "train" else data.num_test
  if not 0 <= count <= total:
    raise errors.UserError(
      f"config.data.num_{split} asks for {count} puzzles, but the {split} set"
      f" has {total}; ask for fewer, or 0 for all"
    )
  if not count:
    return np.arange(total)
  rng = np.random.default_rng([data.seed, SPLITS.index(split)])
  return np.sort(rng.choice(total, count, replace=False))


def load(
  data: config_lib.DataConfig, parse_pairs: ParsePairs
) -> tuple[puzzle_set.PuzzleSet, puzzle_set.PuzzleSet]:
  """Loads the puzzles of a folder into memory.

  Args:
    data: Settings. `source` is a folder with `train.csv[.gz]` and
      `test.csv[.gz]`, whose headers name the columns `question` and `answer`;
      others are ignored.
    parse_pairs: Turns questions and answers into tokens.

  Returns:
    The training and the test set.

  Raises:
    UserError: on missing or malformed files, or if there are too few puzzles.
  """
  sets = []
  for split, path in find_files(data.source).items():
    pairs = np.concatenate(
      [parse_block(block, parse_pairs) for block in read_blocks(path)]
    )
    chosen = choose(data, split=split, total=len(pairs))
    sets.append(puzzle_set.PuzzleSet.of_pairs(pairs, chosen))
  train, test = sets
  return train, test
