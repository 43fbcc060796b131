"""User-provided puzzles: a single one, a file or pipe of many, ARC tasks.

Questions are validated as strictly as training data, but a malformed one does
not keep the others from being solved.
"""

import dataclasses
import gzip
import itertools
import numbers
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import csv_files, identifiers, tasks, text_lines
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.inference import puzzle_text

STANDARD = "-"  # as a path: standard input or output

_COLUMN = "question"
_STDIN = "standard input"
_MAX_SHOWN = 1000  # characters of a malformed row
_PARTS = ("train", "test")
_NAMELESS = "task"

# --- one puzzle --------------------------------------------------------------


def tokens_of(
  puzzle: Any, look: task_lib.Look, data: config_lib.DataConfig, where: str
) -> np.ndarray:
  """Converts a puzzle to tokens.

  Args:
    puzzle: A text with one character per cell, row after row, or as
      `puzzle_text` takes it; or rows (lists, strings) or an array (of NumPy,
      JAX, ...; [rows, cols] or [L]) of characters; for Sudoku also of digits, 0
      for a blank. An ARC grid is rows of colours, integers from 0 to 9.
    look: The look of the puzzles that the network was trained on.
    data: The network's settings.
    where: Begins an error message, e.g. "puzzles.csv line 3".

  Returns:
    Tokens, uint8 [L].

  Raises:
    UserError: if the puzzle is malformed.
  """
  task_type = tasks.get(data)
  if not task_type.parse_questions:
    return arc_grids.encode(_colours(puzzle, where))
  if isinstance(puzzle, str):
    puzzle = puzzle_text.cells_of(puzzle, form_of(look, data))
  else:
    puzzle = _joined(puzzle, look, where, takes_digits=task_type.digits)
  tokens, found = task_type.parse_questions([puzzle], data, look)
  if found:
    raise errors.UserError(f"{where}: {found[0]}")
  return tokens[0]


def _joined(
  rows: Any, look: task_lib.Look, where: str, *, takes_digits: bool
) -> str:
  """Returns the text of a grid that is given as rows."""
  size = look.rows * look.cols
  try:
    rows = _without_arrays(rows)
    if len(rows) == size and not any(hasattr(row, "__len__") for row in rows):
      rows = [rows[i : i + look.cols] for i in range(0, size, look.cols)]
    cells = [[_without_arrays(cell) for cell in row] for row in rows]
  except TypeError as error:
    raise errors.UserError(
      f"{where}: is {_shown(rows)}, expected a text or rows of cells"
    ) from error
  lengths = {len(row) for row in cells}
  if len(cells) != look.rows or lengths != {look.cols}:
    found = " or ".join(map(str, sorted(lengths))) or "no"
    raise errors.UserError(
      f"{where}: has {len(cells)} rows of {found} cells, expected {look.rows} "
      f"of {look.cols}"
    )
  return "".join(
    _character(cell, f"{where}: row {i}, column {j}", takes_digits)
    for i, row in enumerate(cells, 1)
    for j, cell in enumerate(row, 1)
  )


def _without_arrays(value: Any) -> Any:
  """Returns an array of any library as lists or a number; others as is."""
  is_array = hasattr(value, "__array__") and not isinstance(value, np.generic)
  return np.asarray(value).tolist() if is_array else value


def _character(cell: Any, where: str, takes_digits: bool) -> str:
  if isinstance(cell, str) and len(cell) == 1:
    return cell
  is_whole = isinstance(cell, numbers.Integral) and not isinstance(cell, bool)
  if takes_digits and is_whole and 0 <= cell <= 9:
    return str(int(cell))
  expected = "a digit or a character" if takes_digits else "a character"
  raise errors.UserError(f"{where} is {_shown(cell)}, expected {expected}")


def _colours(rows: Any, where: str) -> np.ndarray:
  """Returns an ARC grid, uint8 [h, w]."""
  problem = (
    f"{where}: is {_shown(rows)}, expected 1 to {arc_grids.SIDE} rows of 1 to "
    f"{arc_grids.SIDE} colours, whole numbers from 0 to"
    f" {arc_grids.NUM_COLOURS - 1}"
  )
  try:
    grid = np.asarray(rows)
  except ValueError as error:  # rows of several lengths
    raise errors.UserError(problem) from error
  is_grid = grid.ndim == 2 and grid.dtype.kind in "iu" and grid.size
  if (
    not is_grid
    or max(grid.shape) > arc_grids.SIDE
    or grid.min() < 0
    or grid.max() >= arc_grids.NUM_COLOURS
  ):
    raise errors.UserError(problem)
  return grid.astype(np.uint8)


def _shown(value: Any) -> str:
  """Returns a value as a short line."""
  text = " ".join(repr(value).split())
  return text if len(text) <= 60 else f"{text[:60]}..."


# --- many puzzles ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Block:
  """Consecutive rows of an input.

  Attributes:
    texts: The question of each row as it was written, without separators, n;
      only the beginning of a long one that is malformed.
    faults: Why each row cannot be solved, or "", n.
    tokens: The rows without a fault, in order, uint8 [m, L].
  """

  texts: tuple[str, ...]
  faults: tuple[str, ...]
  tokens: np.ndarray


def read_blocks(
  source: str,
  look: task_lib.Look,
  data: config_lib.DataConfig,
  *,
  num_rows: int,
) -> Iterator[Block]:
  """Reads the rows of an input block by block, whatever its size.

  Args:
    source: One of
      - a file (gzipped if its name ends in .gz) as `puzzle_text.find_rows`
        takes it: a puzzle per line, a row of a puzzle per line, or a CSV with a
        column `question`;
      - "-" for the same on standard input;
      - a puzzle itself, if there is no file of that name.
    look: The look of the puzzles that the network was trained on.
    data: The network's settings.
    num_rows: Rows per block; the last may have fewer.

  Yields:
    All rows, at least one.

  Raises:
    UserError: if the input does not exist, is damaged or has no rows. A
      malformed row is a fault of its block.
  """
  parse_questions = tasks.get(data).parse_questions
  assert parse_questions is not None, "ARC tasks are read by read_tasks"
  rows = _find_rows(source, form_of(look, data))
  while group := list(itertools.islice(rows, num_rows)):
    texts = [row.texts[0] for row in group]
    tokens, found = parse_questions(texts, data, look)
    faults = [
      row.error or (f"{row.where}: {found[i]}" if i in found else "")
      for i, row in enumerate(group)
    ]
    yield Block(
      texts=tuple(
        f"{text[:_MAX_SHOWN]}..." if fault and len(text) > _MAX_SHOWN else text
        for text, fault in zip(texts, faults, strict=True)
      ),
      faults=tuple(faults),
      tokens=tokens[[not fault for fault in faults]],
    )


def form_of(
  look: task_lib.Look, data: config_lib.DataConfig
) -> puzzle_text.Form:
  """Returns how people write the puzzles of a task."""
  return puzzle_text.Form(look, is_sudoku=tasks.get(data).digits)


def _find_rows(source: str, form: puzzle_text.Form) -> Iterator[csv_files.Row]:
  """Finds the rows of an input."""
  path = pathlib.Path(os.path.expanduser(source))
  if source == STANDARD:
    return puzzle_text.find_rows(_stdin_lines(), _STDIN, form)
  if os.path.isdir(path):
    raise errors.UserError(
      f"--input is {source!r}, which is a folder: name a file in it"
    )
  if os.path.exists(path):
    return puzzle_text.find_rows(text_lines.read_lines(path), path.name, form)
  text = puzzle_text.cells_of(source, form)
  size = form.look.rows * form.look.cols
  if len(text) == size:
    return iter([csv_files.Row("--input", (text,))])
  raise errors.UserError(
    f"--input is {source[:100]!r}: there is no such file, nor is it a puzzle "
    f"of {size} characters (it has {len(source)})"
  )


def _stdin_lines() -> Iterator[text_lines.Line]:
  with errors.user_error_context(f"{_STDIN} cannot be read"):
    if sys.stdin is None:
      raise errors.UserError(f"{_STDIN} is closed: name a file as --input")
    yield from text_lines.decode(sys.stdin.buffer, _STDIN)


# --- ARC tasks ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Tasks:
  """User-provided ARC tasks.

  Attributes:
    tasks: The valid tasks, in order.
    faults: Why each of the others is malformed, by name.
  """

  tasks: tuple[arc_tasks.ArcTask, ...]
  faults: dict[str, str]


def read_tasks(source: str) -> Tasks:
  """Reads ARC tasks.

  Args:
    source: One of
      - a JSON file (gzipped if its name ends in .gz) with one task, {"train":
        [{"input": ..., "output": ...}, ...], "test": [{"input": ...}, ...]},
        whose name is the file name;
      - one with many, {NAME: task, ...}, as in Kaggle's challenges;
      - "-" for either on standard input, where a single task may have a "name";
      - a folder of files NAME.json, with one task each.

  Returns:
    The tasks; at least one task or one fault.

  Raises:
    UserError: if the input does not exist or is none of these.
  """
  path = pathlib.Path(os.path.expanduser(source))
  if source == STANDARD:
    with errors.user_error_context(f"{_STDIN} cannot be read"):
      content = sys.stdin.buffer.read()
    return _parse_tasks(content, _STDIN, _NAMELESS)
  if os.path.isdir(path):
    return _read_folder(path)
  if not os.path.exists(path):
    raise errors.UserError(
      f"--input is {source[:100]!r}: there is no such file or folder; expected"
      " the JSON of one or many ARC tasks, or a folder of NAME.json"
    )
  name = path.name.removesuffix(".gz").removesuffix(".json")
  return _parse_tasks(_bytes(path), path.name, name)


def _read_folder(folder: pathlib.Path) -> Tasks:
  paths = sorted(
    path for path in folder.glob("*.json") if not path.name.startswith(".")
  )
  if not paths:
    raise errors.UserError(f"{folder} has no .json files")
  found, faults = [], {}
  for path in paths:
    try:
      value = arc_tasks.load_json(_bytes(path), where=path.name)
      found.append(_parse_task(path.stem, value, path.name))
    except errors.UserError as error:
      faults[path.stem] = str(error)
  return Tasks(tasks=tuple(found), faults=faults)


def _bytes(path: pathlib.Path) -> bytes:
  opener = gzip.open if path.suffix == ".gz" else open
  with (
    errors.user_error_context(f"{path.name} cannot be read"),
    opener(path, "rb") as file,
  ):
    return file.read()


def _parse_tasks(content: bytes, where: str, name: str) -> Tasks:
  """Parses JSON with one task, called `name`, or with many."""
  value = arc_tasks.load_json(content, where=where)
  if not isinstance(value, dict):
    raise errors.UserError(
      f"{where}: the top level is not an object, expected an ARC task with"
      " train and test, or an object of tasks by name"
    )
  if not value:
    raise errors.UserError(f"{where} has no tasks")
  # A task's parts are lists; a task is an object, even if called "test".
  if any(isinstance(value.get(part), list) for part in _PARTS):
    given = value.get("name")
    single = given if name == _NAMELESS and isinstance(given, str) else name
    value = {single: value}
  found, faults = [], {}
  for member, task in value.items():
    try:
      found.append(_parse_task(member, task, where))
    except errors.UserError as error:
      faults[member] = str(error)
  return Tasks(tasks=tuple(found), faults=faults)


def _parse_task(name: str, value: Any, where: str) -> arc_tasks.ArcTask:
  if name == identifiers.BLANK:
    raise errors.UserError(
      f"{where}: {name!r} cannot be the name of a task: it is the name of the"
      " blank row"
    )
  return arc_tasks.parse_task(name, value, solutions=None, where=where)
