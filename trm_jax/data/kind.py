"""What is known of a kind of puzzle without any data: its look and rules."""

import functools
from collections.abc import Sequence

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.maze import rules as maze_rules
from trm_jax.data.sudoku import rules as sudoku_rules

_MAZE_COLOURS = (
  "#ffffff",  # padding
  "#303030",  # wall
  "#ffffff",  # open
  "#43a047",  # start
  "#e65100",  # goal
  "#1e88e5",  # path
)


def _cut(tokens: np.ndarray) -> np.ndarray:
  """Keeps of an answer, [900], the grid that it is read as."""
  (grid,) = arc_grids.crop(tokens[None])
  return arc_grids.encode(grid)


ARC_LOOK = task_lib.Look(
  rows=arc_grids.SIDE,
  cols=arc_grids.SIDE,
  symbols=(" ", "|", *(str(colour) for colour in range(arc_grids.NUM_COLOURS))),
  # Padding and ends, then the colours in which ARC's tasks are always shown.
  colours=(
    "#ffffff",
    "#d0d0d0",
    "#000000",
    "#0074d9",
    "#ff4136",
    "#2ecc40",
    "#ffdc00",
    "#aaaaaa",
    "#f012be",
    "#ff851b",
    "#7fdbff",
    "#870c25",
  ),
  cut=_cut,
)


def of(data: config_lib.DataConfig) -> str:
  """Returns 'sudoku', 'maze', 'arc' or 'grid'."""
  return data.task.removeprefix("generated_")


def sudoku_look(data: config_lib.DataConfig) -> task_lib.Look:
  """Returns the look of Sudokus of the settings' boxes."""
  side = sudoku_rules.side(box_rows=data.box_rows, box_cols=data.box_cols)
  return task_lib.Look(
    rows=side,
    cols=side,
    symbols=(" ", ".", *(str(digit) for digit in range(1, side + 1))),
    box_rows=data.box_rows,
    box_cols=data.box_cols,
  )


def maze_look(data: config_lib.DataConfig) -> task_lib.Look:
  """Returns the look of mazes of the settings' size."""
  rows, cols = maze_size(data)
  return task_lib.Look(
    rows=rows,
    cols=cols,
    symbols=("?", *maze_rules.CHARSET),
    colours=_MAZE_COLOURS,
  )


def maze_size(data: config_lib.DataConfig) -> tuple[int, int]:
  """Returns rows and columns; those of generated mazes may be chosen.

  Raises:
    UserError: Maze-Hard's mazes are to have another size.
  """
  size = data.grid_rows or maze_rules.ROWS, data.grid_cols or maze_rules.COLS
  if data.task == "maze" and size != (maze_rules.ROWS, maze_rules.COLS):
    raise errors.UserError(
      f"Maze-Hard has {maze_rules.ROWS} x {maze_rules.COLS} cells; leave"
      " config.data.grid_rows and config.data.grid_cols at 0"
    )
  return size


def grid_look(rows: int, cols: int, charset: Sequence[str]) -> task_lib.Look:
  """Returns the look of people's own grids over some characters."""
  return task_lib.Look(rows=rows, cols=cols, symbols=("?", *charset))


def look_of(
  data: config_lib.DataConfig, vocabulary: Sequence[str], seq_len: int
) -> task_lib.Look:
  """Returns the look of the puzzles that a network was trained on.

  Args:
    data: its settings.
    vocabulary: the character of each token.
    seq_len: L.
  """
  kind = of(data)
  if kind == "grid":
    rows = data.grid_rows or round(seq_len**0.5)
    return grid_look(rows, seq_len // rows, vocabulary[1:])
  if kind == "arc":
    return ARC_LOOK
  return sudoku_look(data) if kind == "sudoku" else maze_look(data)


def rules_of(data: config_lib.DataConfig) -> task_lib.Rules | None:
  """Returns what makes an answer right where that can be told without a label.

  Args:
    data: settings of the task.

  Returns:
    The rules of Sudokus and mazes; None for other puzzles.
  """
  kind = of(data)
  if kind == "maze":
    rows, cols = maze_size(data)
    return task_lib.Rules(
      is_valid=functools.partial(
        maze_rules.is_shortest_path, rows=rows, cols=cols
      ),
      what="valid shortest path",
    )
  if kind == "sudoku":
    box = {"box_rows": data.box_rows, "box_cols": data.box_cols}

    def is_valid(questions, answers):
      return sudoku_rules.agrees_with_clues(
        questions, answers
      ) & sudoku_rules.is_valid_solution(answers, **box)

    return task_lib.Rules(is_valid=is_valid, what="valid solution")
  return None
