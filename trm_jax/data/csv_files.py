"""Puzzles in CSV files: a folder's files, and their checked rows."""

import csv
import dataclasses
import gzip
import pathlib
import zlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from trm_jax import errors

HEADER = ("source", "question", "answer", "rating")
SPLITS = ("train", "test")


class ParsePair(Protocol):
  """Turns the characters of one puzzle into tokens, and checks them."""

  def __call__(
    self, question: str, answer: str, *, where: str
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns question and answer, uint8 [L] each.

    Args:
      question: The puzzle's characters.
      answer: The characters of its solution.
      where: Begins the text of a UserError, e.g. "train.csv line 17".
    """
    ...


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a CSV file.

  Attributes:
    source: Where the puzzle comes from, free text.
    question: Tokens of the puzzle, uint8 [L].
    answer: Tokens of its solution, uint8 [L].
    rating: Difficulty. In the public files, guesses of a reference solver for
      a Sudoku and moves of the shortest path for a maze.
  """

  source: str
  question: np.ndarray
  answer: np.ndarray
  rating: int


def find_files(source: str) -> dict[str, pathlib.Path]:
  """Finds the CSV file of each split in a folder.

  Args:
    source: A folder with `train.csv[.gz]` and `test.csv[.gz]`.

  Returns:
    The file of every split.

  Raises:
    UserError: if the folder or a file is missing or a file is there twice.
  """
  folder = pathlib.Path(source).expanduser()
  if not folder.is_dir():
    raise errors.UserError(
      f"config.data.source is {source!r}, which is not a folder: expected one "
      "with train.csv and test.csv (or .csv.gz)"
    )
  files = {}
  for split in SPLITS:
    names = (f"{split}.csv", f"{split}.csv.gz")
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
      raise errors.UserError(
        f"neither {names[0]} nor {names[1]} is in {folder}"
      )
    if len(found) > 1:
      raise errors.UserError(
        f"both {names[0]} and {names[1]} are in {folder}: remove the one that "
        "is not to be used"
      )
    files[split] = found[0]
  return files


def read_lines(path: pathlib.Path) -> Iterator[str]:
  """Yields the lines of a text file.

  Args:
    path: A file in UTF-8, gzipped if it is called `.gz`.

  Yields:
    Lines with their ends, without a byte order mark.

  Raises:
    UserError: with file name and line, if it cannot be read or is not UTF-8.
  """
  for number, line in enumerate(read_bytes(path), 1):
    try:
      yield decode(line, number)
    except UnicodeDecodeError as error:
      raise errors.UserError(
        f"{path.name} line {number}: not UTF-8 text"
      ) from error


def decode(line: bytes, number: int, faulty: str = "strict") -> str:
  """Returns a line as text.

  Args:
    line: In UTF-8.
    number: From 1; spreadsheets put a byte order mark in front of the first.
    faulty: What becomes of other bytes: `errors` of `bytes.decode`.
  """
  return line.decode("utf-8-sig" if number == 1 else "utf-8", faulty)


def read_bytes(path: pathlib.Path) -> Iterator[bytes]:
  """Yields the lines of a file, with their ends.

  Args:
    path: A file, gzipped if it is called `.gz`.

  Raises:
    UserError: with file name and line, if it cannot be read.
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


def read_csv(path: pathlib.Path, parse_pair: ParsePair) -> Iterator[Row]:
  """Yields the checked rows of a CSV one by one, whatever its size.

  Args:
    path: A `.csv` or `.csv.gz` file with the header
      `source,question,answer,rating`.
    parse_pair: Makes tokens of question and answer.

  Yields:
    Rows in the order of the file; empty lines are passed over.

  Raises:
    UserError: with file name and line, for anything that is not as it should.
  """
  path = pathlib.Path(path)
  reader = csv.reader(read_lines(path), strict=True)
  expected = ",".join(HEADER)
  num_rows = 0
  try:
    header = next(reader, None)
    if header is None:
      raise errors.UserError(
        f"{path.name} is empty, expected the header {expected}"
      )
    if tuple(header) != HEADER:
      raise errors.UserError(
        f"{path.name} line 1: the header is {','.join(header)[:80]!r}, "
        f"expected {expected}"
      )
    for columns in reader:
      if not columns:
        continue
      yield _parse_row(
        columns, parse_pair, where=f"{path.name} line {reader.line_num}"
      )
      num_rows += 1
  except csv.Error as error:
    raise errors.UserError(
      f"{path.name} line {reader.line_num}: is not CSV ({error})"
    ) from error
  if not num_rows:
    raise errors.UserError(f"{path.name} has a header but no puzzles")


def _parse_row(columns: list[str], parse_pair: ParsePair, *, where: str) -> Row:
  if len(columns) != len(HEADER):
    raise errors.UserError(
      f"{where}: has {len(columns)} columns, expected {len(HEADER)}"
    )
  source, question, answer, rating = columns
  try:
    number = np.int32(int(rating))
  except (ValueError, OverflowError) as error:
    raise errors.UserError(
      f"{where}: rating {rating[:40]!r} is not a whole number"
    ) from error
  x, y = parse_pair(question, answer, where=where)
  return Row(source=source, question=x, answer=y, rating=int(number))
