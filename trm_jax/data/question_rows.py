"""Rows of puzzles that people hand in, in whatever form; nothing is parsed."""

import csv
import dataclasses
import itertools
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

from trm_jax import errors
from trm_jax.data import puzzle_csv

STANDARD = "-"  # in place of a path: standard input or output
COLUMN = "question"

_STDIN = "standard input"


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of an input.

  Attributes:
    where: Begins the text of an error, e.g. "puzzles.csv line 3".
    text: What it asks, as it was written.
    fault: What is wrong with the row, or "".
  """

  where: str
  text: str
  fault: str = ""


def find(source: str, *, size: int) -> Iterator[Row]:
  """Finds the rows of an input, whatever its size.

  Args:
    source: One of
      - a file whose name ends in .csv or .csv.gz, with a header that names a
        column `question`; other columns are not looked at;
      - another file (gzipped if called .gz), with one puzzle in each line, or a
        CSV as above;
      - "-" for standard input, with one or the other;
      - a puzzle itself, if there is no file of that name.
      Empty lines are passed over; nothing is ever stripped from a puzzle.
    size: Characters of a puzzle, which tell it from a header or a name.

  Returns:
    All rows, at least one.

  Raises:
    UserError: if there is no such input, it has no rows or is not what its name
      says; the rest of it, while rows are taken from what is returned.
  """
  path = os.path.expanduser(source)
  if source == STANDARD:
    return _rows(_stdin_lines(), _STDIN, size)
  if os.path.isdir(path):
    raise errors.UserError(
      f"--input is {source!r}, which is a folder: name a file in it"
    )
  if os.path.exists(path):
    file = pathlib.Path(path)
    return _rows(puzzle_csv.read_lines(file), file.name, size)
  if len(source) == size:
    return iter([Row(where="--input", text=source)])
  raise errors.UserError(
    f"--input is {source[:100]!r}: there is no such file, nor is it a puzzle "
    f"of {size} characters (it has {len(source)})"
  )


def _stdin_lines() -> Iterator[str]:
  """Yields the lines of standard input; as `puzzle_csv.read_lines`."""
  for number, line in enumerate(sys.stdin.buffer, 1):
    try:
      yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
      raise errors.UserError(
        f"{_STDIN} line {number}: not UTF-8 text"
      ) from error


def _rows(lines: Iterator[str], name: str, size: int) -> Iterator[Row]:
  """Yields the rows of a text that may be a CSV; at least one."""
  first = next(lines, None)
  if first is None:
    raise errors.UserError(f"{name} is empty: expected puzzles")
  lines = itertools.chain([first], lines)
  is_csv = name.lower().endswith((".csv", ".csv.gz")) or (
    _is_header(_without_end(first), size)
  )
  rows = (_csv_rows if is_csv else _text_rows)(lines, name)
  first_row = next(rows, None)
  if first_row is None:
    raise errors.UserError(
      f"{name} has {'a header but ' if is_csv else ''}no puzzles"
    )
  return itertools.chain([first_row], rows)


def _is_header(line: str, size: int) -> bool:
  """Tells the header of a CSV from a puzzle, right or wrong, of own text."""
  if len(line) == size:
    return False
  try:
    columns = next(csv.reader([line]), [])
  except csv.Error:  # endless
    return False
  return COLUMN in columns or len(columns) > 1


def _text_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
  for number, line in enumerate(lines, 1):
    text = _without_end(line)
    if text:
      yield Row(where=f"{name} line {number}", text=text)


def _without_end(line: str) -> str:
  """Takes off a line's end and no blank: a maze may end in open cells."""
  return line.removesuffix("\n").removesuffix("\r")


def _csv_rows(lines: Iterable[str], name: str) -> Iterator[Row]:
  reader = csv.reader(lines, strict=True)
  try:
    header = [column.strip() for column in next(reader)]
    if header.count(COLUMN) != 1:
      found = ", ".join(map(repr, header))[:200] or "none"
      raise errors.UserError(
        f"{name} line 1: the columns are {found}; expected one {COLUMN!r}"
      )
    place = header.index(COLUMN)
    for columns in reader:
      if not columns:
        continue
      where = f"{name} line {reader.line_num}"
      text = columns[place] if place < len(columns) else ""
      fault = ""
      if len(columns) != len(header):
        fault = f"{where}: has {len(columns)} columns, the header {len(header)}"
      yield Row(where=where, text=text, fault=fault)
  except csv.Error as error:
    raise errors.UserError(
      f"{name} line {reader.line_num}: is not CSV ({error})"
    ) from error
