"""Puzzles that people hand in: one of them, or a file or pipe full of them.

Questions are read as strictly as training data, but one that is not as it
should be does not keep the others from being solved.
"""

import dataclasses
import itertools
import numbers
from collections.abc import Iterator
from typing import Any

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import kind
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.maze import rules as maze_rules
from trm_jax.data.sudoku import rules as sudoku_rules
from trm_jax.inference import question_rows

_LONGEST = 1000  # characters of a bad row that are shown

# --- one puzzle --------------------------------------------------------------


def tokens_of(
  puzzle: Any, look: task_lib.Look, data: config_lib.DataConfig, where: str
) -> np.ndarray:
  """Turns a puzzle into what a network reads.

  Args:
    puzzle: A text with one character per cell, row after row; or rows (lists,
      strings, a 2-D array) of characters; for Sudoku also of digits, 0 for a
      blank. An ARC grid is rows of colours, numbers from 0 to 9.
    look: Of the puzzles that the network was trained on.
    data: Its settings.
    where: Begins the text of an error, e.g. "puzzles.csv line 3".

  Returns:
    Tokens, uint8 [L].

  Raises:
    UserError: in one line, for anything that is not as it should be.
  """
  task = kind.of(data)
  if task == "arc":
    return arc_grids.encode(_colours(puzzle, where))
  if isinstance(puzzle, str):
    text = puzzle
  else:
    text = _joined(puzzle, look, where, takes_digits=task == "sudoku")
  if task == "sudoku":
    return sudoku_rules.parse_question(
      text, box_rows=data.box_rows, box_cols=data.box_cols, where=where
    )
  if task == "maze":
    return maze_rules.parse_question(
      text, where=where, rows=look.rows, cols=look.cols
    )
  return _characters(text, look, where)


def _characters(text: str, look: task_lib.Look, where: str) -> np.ndarray:
  """Returns the tokens of a text over the network's own vocabulary."""
  size = look.rows * look.cols
  if len(text) != size:
    raise errors.UserError(
      f"{where}: question has {len(text)} characters, expected {size} "
      f"({look.rows} x {look.cols})"
    )
  # The first symbol only stands for padding in pictures.
  numbered = {character: i for i, character in enumerate(look.symbols) if i}
  try:
    return np.array([numbered[character] for character in text], np.uint8)
  except KeyError as error:
    at = text.index(error.args[0])
    raise errors.UserError(
      f"{where}: question has {text[at]!r} at position {at + 1} (row "
      f"{at // look.cols + 1}, column {at % look.cols + 1}), which is not "
      f"among the characters learned: {''.join(look.symbols[1:])!r}"
    ) from error


def _joined(
  rows: Any, look: task_lib.Look, where: str, *, takes_digits: bool
) -> str:
  """Returns the text of a grid that is written as rows."""
  try:
    cells = [list(row) for row in rows]
  except TypeError as error:
    raise errors.UserError(
      f"{where}: is neither a text nor rows of cells, but {_shown(rows)}"
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


def _character(cell: Any, where: str, takes_digits: bool) -> str:
  if isinstance(cell, str) and len(cell) == 1:
    return cell
  if takes_digits and _is_whole(cell) and 0 <= cell <= 9:
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


def _is_whole(value: Any) -> bool:
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _shown(value: Any) -> str:
  """Writes a value as one line of not more than a few characters."""
  text = " ".join(repr(value).split())
  return text if len(text) <= 60 else f"{text[:60]}..."


# --- many puzzles ------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Block:
  """Some rows of an input, one after another.

  Attributes:
    texts: Of each row what it asks, as it was written, n; of one that cannot be
      solved and is endless, only the beginning.
    faults: Of each row why it cannot be solved, or "", n.
    tokens: Of the rows without a fault, in their order, uint8 [m, L].
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
    source: As `question_rows.find` takes it.
    look: Of the puzzles that the network was trained on.
    data: Its settings.
    num_rows: Of a block; the last one may have fewer.

  Yields:
    All rows, at least one.

  Raises:
    UserError: as for `question_rows.find`; bad puzzles are faults of a block.
  """
  rows = question_rows.find(source, size=look.rows * look.cols)
  while group := list(itertools.islice(rows, num_rows)):
    yield _block(group, look, data)


def _block(
  rows: list[question_rows.Row],
  look: task_lib.Look,
  data: config_lib.DataConfig,
) -> Block:
  faults, tokens = [], []
  for row in rows:
    fault = row.fault
    if not fault:
      try:
        tokens.append(tokens_of(row.text, look, data, row.where))
      except errors.UserError as error:
        fault = str(error)
    faults.append(fault)
  return Block(
    texts=tuple(
      _beginning(row.text) if fault else row.text
      for row, fault in zip(rows, faults, strict=True)
    ),
    faults=tuple(faults),
    tokens=np.array(tokens, np.uint8).reshape(-1, look.rows * look.cols),
  )


def _beginning(text: str) -> str:
  return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
