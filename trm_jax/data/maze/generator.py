"""Generates small random mazes."""

import collections

import numpy as np

from trm_jax import errors
from trm_jax.data import puzzle_set
from trm_jax.data.maze import rules as maze_rules

_WALLS = 0.3  # fraction of the cells
_MAX_TRIES = 1000  # for one maze; most mazes take a handful
_MAX_REPEATS = 1000  # in a row; then there are no new mazes left

# Maze-Hard's labels are the paths of a breadth-first search that visits
# neighbours in this order.
_DOWN_LEFT_RIGHT_UP = ((1, 0), (0, -1), (0, 1), (-1, 0))


def generate_split(
  num_train: int, num_test: int, *, rows: int, cols: int, seed: int
) -> tuple[puzzle_set.PuzzleSet, puzzle_set.PuzzleSet]:
  """Generates mazes, all different.

  Args:
    num_train: Number of training mazes.
    num_test: Number of test mazes.
    rows: Rows of a maze, at least 4.
    cols: Columns of a maze, at least 4.
    seed: Seed of the draws.

  Returns:
    The training and the test set; tokens as in `maze.rules`.

  Raises:
    UserError: if the mazes are too small or there are too few different ones.
  """
  if min(rows, cols) < 4:
    raise errors.UserError(
      f"mazes of {rows} x {cols} cells are too small; set"
      " config.data.grid_rows and config.data.grid_cols to at least 4"
    )
  rng = np.random.default_rng(seed)
  pairs: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
  repeats = 0
  while len(pairs) < num_train + num_test:
    question, answer = _draw(rng, rows, cols)
    found = len(pairs)
    pairs.setdefault(question.tobytes(), (question, answer))
    repeats = 0 if len(pairs) > found else repeats + 1
    if repeats == _MAX_REPEATS:
      raise errors.UserError(
        f"found only {found} different mazes of {rows} x {cols} cells, too few"
        f" for {num_train} training and {num_test} test mazes: ask for fewer,"
        " or choose a larger config.data.grid_rows and config.data.grid_cols"
      )
  questions = np.stack([question for question, _ in pairs.values()])
  answers = np.stack([answer for _, answer in pairs.values()])
  return (
    puzzle_set.PuzzleSet.single(questions[:num_train], answers[:num_train]),
    puzzle_set.PuzzleSet.single(questions[num_train:], answers[num_train:]),
  )


def _draw(
  rng: np.random.Generator, rows: int, cols: int
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a maze whose path is longer than rows + cols: uint8 [L] each."""
  for _ in range(_MAX_TRIES):
    walls = rng.random((rows, cols)) < _WALLS
    start = (int(rng.integers(rows)), int(rng.integers(cols)))
    walls[start] = False
    parents = _search(walls, start)
    goal = next(reversed(parents))  # found last, so one of the farthest
    path = [goal]
    while path[-1] != start:
      path.append(parents[path[-1]])
    if len(path) > rows + cols:
      break
  else:
    raise errors.UserError(
      f"no maze of {rows} x {cols} cells was found; choose a larger"
      " config.data.grid_rows and config.data.grid_cols"
    )
  question = np.where(walls, maze_rules.WALL, maze_rules.OPEN).astype(np.uint8)
  question[start], question[goal] = maze_rules.START, maze_rules.GOAL
  answer = question.copy()
  for cell in path[1:-1]:
    answer[cell] = maze_rules.PATH
  return question.ravel(), answer.ravel()


def _search(
  walls: np.ndarray, start: tuple[int, int]
) -> dict[tuple[int, int], tuple[int, int]]:
  """Returns the parent of each reachable cell, nearest first."""
  parents = {start: start}
  queue = collections.deque([start])
  while queue:
    row, col = queue.popleft()
    for down, right in _DOWN_LEFT_RIGHT_UP:
      cell = (row + down, col + right)
      inside = 0 <= cell[0] < walls.shape[0] and 0 <= cell[1] < walls.shape[1]
      if inside and not walls[cell] and cell not in parents:
        parents[cell] = (row, col)
        queue.append(cell)
  return parents
