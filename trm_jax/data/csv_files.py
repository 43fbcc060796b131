"""Rows of text files: the one reader of data sets and of user input.

Data sets are read strictly: the first malformed line raises. User input is read
tolerantly: a malformed line is an error of its own row, and the rest is read.
"""

import collections
import contextlib
import csv
import io
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import characters, files, puzzle_set, text_lines
from trm_jax.data.text_lines import Line
from trm_jax.terminal import progress

SPLITS = ("train", "test")
PAIR = ("question", "answer")  # columns of a data set

# What a column may be called, in lower case; the first that is found counts.
ALIASES: Mapping[str, Sequence[str]] = {
  "question": (
    *("question", "questions", "puzzle", "puzzles"),
    *("quiz", "quizzes"),
  ),
  "answer": ("answer", "answers", "solution", "solutions"),
}
DELIMITERS = ",;\t"

_ROWS_PER_BLOCK = 10_000
_MAX_LINES_OF_RECORD = 40  # after the first: a grid in a quoted cell

# Turns questions and answers into tokens, uint8 [n, 2, L], and finds errors.
ParsePairs = Callable[
  [Sequence[str], Sequence[str]], tuple[np.ndarray, characters.Errors]
]


class Row(NamedTuple):
  """A row of a file.

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


class Header(NamedTuple):
  """The header of a CSV.

  Attributes:
    delimiter: What separates the columns.
    places: Where the columns are that were asked for.
    num_columns: Number of all columns.
  """

  delimiter: str
  places: list[int]
  num_columns: int


def find_header(text: str, columns: Sequence[str]) -> Header | None:
  """Finds columns in a line; None if it does not name each of them once.

  Args:
    text: The line, with commas, semicolons or tabs.
    columns: Names, of `ALIASES`; upper and lower case are the same.
  """
  for delimiter in DELIMITERS:
    try:
      cells = next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error:  # too long
      return None
    names = [cell.strip().lower() for cell in cells]
    found = [
      next((name for name in ALIASES[column] if name in names), column)
      for column in columns
    ]
    if all(names.count(name) == 1 for name in found):
      return Header(delimiter, list(map(names.index, found)), len(names))
  return None


def read_rows(
  lines: Iterable[Line],
  name: str,
  columns: Sequence[str],
  *,
  strict: bool = True,
) -> Iterator[Row]:
  """Yields the rows of a CSV, of whatever size.

  Args:
    lines: The first is the header, below empty lines and Excel's "sep=;".
    name: The file's name, for error messages.
    columns: Names of the columns to return; all others are ignored.
    strict: Whether the first malformed row raises. If not, it is yielded with
      its error, and a quotation mark left open does not swallow the lines
      below.

  Yields:
    At least one row, in the order of the file; empty lines are skipped.

  Raises:
    UserError: with file name and line, if the header does not name each column
      once or there are no rows.
  """
  lines = iter(lines)
  wanted = f"one {' and one '.join(map(repr, columns))}"
  first = next((line for line in lines if not is_preamble(line.text)), None)
  if first is None:
    raise errors.UserError(f"{name} is empty: expected a header with {wanted}")
  header = find_header(first.text, columns)
  if header is None:
    found = characters.shown(first.text)
    raise errors.UserError(
      first.error
      or f"{first.where}: the columns are {found}; expected {wanted}"
    )
  records = _strict_records if strict else _tolerant_records
  empty = True
  for where, texts, error in records(lines, header):
    if not texts and not error:
      continue
    empty = False
    has_all = len(texts) == header.num_columns or not strict
    if not error and not (has_all and len(texts) > max(header.places)):
      error = (
        f"{where}: has {len(texts)} columns, the header {header.num_columns}"
      )
    if error and strict:
      raise errors.UserError(error)
    shown_texts = [
      texts[place] if place < len(texts) else "" for place in header.places
    ]
    yield Row(where, tuple(shown_texts), error)
  if empty:
    raise errors.UserError(f"{name} has a header but no puzzles")


def is_preamble(text: str) -> bool:
  """Returns whether a line above a header says nothing: empty, or "sep=;"."""
  return not text.strip() or text.lower().startswith("sep=")


def _strict_records(lines: Iterable[Line], header: Header) -> Iterator[Row]:
  """Yields the records of a CSV; quoted cells may span lines."""
  where = ""

  def checked() -> Iterator[str]:
    nonlocal where
    for line in lines:
      where = line.where
      if line.error:
        raise errors.UserError(line.error)
      yield f"{line.text}\n"

  try:
    for texts in csv.reader(checked(), delimiter=header.delimiter, strict=True):
      yield Row(where, tuple(texts))
  except csv.Error as error:
    raise errors.UserError(f"{where}: is not CSV ({error})") from error


def _tolerant_records(lines: Iterable[Line], header: Header) -> Iterator[Row]:
  """Yields each line as a record; of several lines only if they are one."""
  left: collections.deque[Line] = collections.deque()
  lines = iter(lines)
  while line := left.popleft() if left else next(lines, None):
    try:
      yield Row(line.where, _cells(line.text, header), line.error)
      continue
    except csv.Error as error:
      problem = f"{line.where}: is not CSV ({error})"
    # A quoted cell may go on below, up to where the marks are even.
    record, num_more = line.text, 0
    while record.count('"') % 2 and num_more < _MAX_LINES_OF_RECORD:
      if num_more == len(left):
        left.extend(itertools.islice(lines, 1))
      if num_more == len(left):
        break
      record += f"\n{left[num_more].text}"
      num_more += 1
    more = [left[i].text for i in range(num_more)]
    if more and _is_one(record, more, header):
      for _ in more:
        left.popleft()
      yield Row(line.where, _cells(record, header))
    else:
      yield Row(line.where, (line.text,) * header.num_columns, problem)


def _is_one(record: str, more: Sequence[str], header: Header) -> bool:
  """Returns whether lines are one record: none of `more` is one by itself."""
  try:
    if len(_cells(record, header)) != header.num_columns:
      return False
  except csv.Error:
    return False
  # The last one up to where the quotation ends.
  parts = [*more[:-1], more[-1].rpartition('"')[0]]
  for text in parts if header.num_columns > 1 else ():
    with contextlib.suppress(csv.Error):
      if len(_cells(text, header)) == header.num_columns:
        return False
  return True


def _cells(text: str, header: Header) -> tuple[str, ...]:
  """Splits the text of a record; raises csv.Error."""
  content = io.StringIO(text, newline="")
  reader = csv.reader(content, delimiter=header.delimiter, strict=True)
  return tuple(next(reader, ()))


def read_blocks(path: pathlib.Path) -> Iterator[list[Row]]:
  """Yields questions and answers of a data set's file, 10,000 rows at a time.

  Args:
    path: A `.csv` or `.csv.gz` file with the columns of `PAIR`.

  Raises:
    UserError: with file name and line, for the first malformed row.
  """
  block: list[Row] = []
  with progress.Progress(f"puzzles of {path.name}", verb="read") as shown_rows:
    try:
      rows = read_rows(text_lines.read_lines(path), path.name, PAIR)
      for count, row in enumerate(rows, 1):
        block.append(row)
        if len(block) == _ROWS_PER_BLOCK:
          shown_rows.update(count)
          yield block
          block = []
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
