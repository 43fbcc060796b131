"""Rows of puzzles that people hand in, in whatever form; nothing is parsed."""

import csv
import dataclasses
import itertools
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator

from trm_jax import errors
from trm_jax.data import csv_files

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
      Empty lines are passed over; nothing is ever stripped from a puzzle. A
      row is one line: what is quoted ends on its line, too.
    size: Characters of a puzzle, which tell it from a header or a name.

  Returns:
    All rows, at least one.

  Raises:
    UserError: if there is no such input, it has no rows or is not what its name
      says; while rows are taken from what is returned, if the file is damaged.
      A line that is not UTF-8 or not CSV is the fault of one row.
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
    return _rows(csv_files.read_bytes(file), file.name, size)
  if len(source) == size:
    return iter([Row(where="--input", text=source)])
  raise errors.UserError(
    f"--input is {source[:100]!r}: there is no such file, nor is it a puzzle "
    f"of {size} characters (it has {len(source)})"
  )


@dataclasses.dataclass(frozen=True)
class _Line:
  """A line of an input.

  Attributes:
    where: Begins the text of an error, e.g. "puzzles.csv line 3".
    text: Without its end; other characters stand for what is not UTF-8.
    fault: That it is not UTF-8, or "".
  """

  where: str
  text: str
  fault: str


def _stdin_lines() -> Iterator[bytes]:
  with errors.told(f"{_STDIN} cannot be read"):
    yield from sys.stdin.buffer


def _decoded(lines: Iterable[bytes], name: str) -> Iterator[_Line]:
  """Yields lines as text, also those that are none."""
  for number, line in enumerate(lines, 1):
    where = f"{name} line {number}"
    fault = ""
    try:
      text = csv_files.decode(line, number)
    except UnicodeDecodeError:
      text = csv_files.decode(line, number, "replace")
      fault = f"{where}: not UTF-8 text"
    # No blank is taken off: a maze may end in open cells.
    text = text.removesuffix("\n").removesuffix("\r")
    yield _Line(where=where, text=text, fault=fault)


def _rows(content: Iterable[bytes], name: str, size: int) -> Iterator[Row]:
  """Yields the rows of a text that may be a CSV; at least one."""
  lines = _decoded(content, name)
  first = next(lines, None)
  if first is None:
    raise errors.UserError(f"{name} is empty: expected puzzles")
  is_csv = name.lower().endswith((".csv", ".csv.gz")) or (
    _is_header(first.text, size)
  )
  if is_csv:
    rows = _csv_rows(first, lines)
  else:
    rows = _text_rows(itertools.chain([first], lines))
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


def _text_rows(lines: Iterable[_Line]) -> Iterator[Row]:
  for line in lines:
    if line.text:
      yield Row(where=line.where, text=line.text, fault=line.fault)


def _csv_rows(header: _Line, lines: Iterable[_Line]) -> Iterator[Row]:
  names = [column.strip() for column in _columns(header)]
  if names.count(COLUMN) != 1:
    found = ", ".join(map(repr, names))[:200] or "none"
    raise errors.UserError(
      header.fault
      or f"{header.where}: the columns are {found}; expected one {COLUMN!r}"
    )
  place = names.index(COLUMN)
  for line in lines:
    try:
      columns = _columns(line)
    except errors.UserError as error:
      yield Row(where=line.where, text=line.text, fault=str(error))
      continue
    if not columns:
      continue
    fault = line.fault
    if not fault and len(columns) != len(names):
      fault = (
        f"{line.where}: has {len(columns)} columns, the header {len(names)}"
      )
    text = columns[place] if place < len(columns) else ""
    yield Row(where=line.where, text=text, fault=fault)


def _columns(line: _Line) -> list[str]:
  """Parses a line alone: a quotation mark left open takes no other with it."""
  try:
    return next(csv.reader([line.text], strict=True), [])
  except csv.Error as error:
    raise errors.UserError(f"{line.where}: is not CSV ({error})") from error
