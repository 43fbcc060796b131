"""Mazes: characters to tokens, and which paths are shortest.

A maze of rows x cols cells is stored as L = rows * cols uint8 tokens, row after
row: 0 is padding and 1 to 5 are the characters of `CHARSET`, as in the official
data builder. Moves go up, down, left and right, never through a wall.
"""

import functools
from collections.abc import Sequence

import numpy as np

from trm_jax.data import characters

CHARSET = "# SGo"  # wall, open, start, goal, path
PAD, WALL, OPEN, START, GOAL, PATH = range(6)
VOCAB_SIZE = 6

ROWS = COLS = 30  # Maze-Hard
UNREACHABLE = -1


@functools.lru_cache(maxsize=16)
def _alphabet(rows: int, cols: int) -> characters.Alphabet:
  return characters.Alphabet(
    tokens=characters.token_table(
      {character: token for token, character in enumerate(CHARSET, 1)}
    ),
    rows=rows,
    cols=cols,
    size=f"{rows * cols} (open cells are spaces, which must not be stripped)",
    allowed="expected '#', ' ', 'S', 'G' or 'o'",
  )


def parse_questions(
  texts: Sequence[str], *, rows: int = ROWS, cols: int = COLS
) -> tuple[np.ndarray, characters.Errors]:
  """Parses mazes.

  Args:
    texts: n texts of L characters each: '#' wall, ' ' open, 'S' start, 'G'
      goal.
    rows: Rows of a maze.
    cols: Columns of a maze.

  Returns:
    Tokens, uint8 [n, L], and the error of each maze that has a wrong length, a
    wrong character, a path, or not exactly one start and one goal.
  """
  tokens, found = _alphabet(rows, cols).parse(texts, "question")
  for name, token in (("S", START), ("G", GOAL)):
    counts = (tokens == token).sum(axis=1)
    for i in np.flatnonzero(counts != 1).tolist():
      found.setdefault(
        i, f"question has {counts[i]} times {name!r}, expected exactly one"
      )
  marked = tokens == PATH
  for i in np.flatnonzero(marked.any(axis=1)).tolist():
    place = characters.position(int(marked[i].argmax()), cols)
    found.setdefault(
      i, f"question has 'o' at {place}; only the answer has a path"
    )
  return tokens, found


def parse_pairs(
  questions: Sequence[str],
  answers: Sequence[str],
  *,
  rows: int = ROWS,
  cols: int = COLS,
) -> tuple[np.ndarray, characters.Errors]:
  """Parses mazes and their solutions.

  Args:
    questions: As in `parse_questions`.
    answers: The same with an 'o' on every open cell of the path.
    rows: Rows of a maze.
    cols: Columns of a maze.

  Returns:
    Tokens, uint8 [n, 2, L], and the error of each pair that is malformed, whose
    answer changes more than open cells, or whose path is no route from start to
    goal.
  """
  x, found = parse_questions(questions, rows=rows, cols=cols)
  y, in_answers = _alphabet(rows, cols).parse(answers, "answer")
  found = in_answers | found
  changed = (x != y) & ~((x == OPEN) & (y == PATH))
  for i in np.flatnonzero(changed.any(axis=1)).tolist():
    at = int(changed[i].argmax())
    if i not in found:
      found[i] = (
        f"answer has {answers[i][at]!r} at {characters.position(at, cols)},"
        f" where the question has {questions[i][at]!r}: it may differ only by"
        " 'o' for ' '"
      )
  for i, answer in enumerate(y):
    error = "" if i in found else _route_error(answer, cols)
    if error:
      found[i] = error
  return np.stack([x, y], axis=1), found


def _route_error(answer: np.ndarray, cols: int) -> str:
  """Returns why the 'o' are not one path from start to goal, or ""."""
  goal = int(np.flatnonzero(answer == GOAL)[0])
  cell = int(np.flatnonzero(answer == START)[0])
  left = {goal, *np.flatnonzero(answer == PATH).tolist()}
  while cell != goal:
    steps = _neighbours(cell, cols) & left
    if len(steps) != 1:
      fault = "branches or touches itself" if steps else "breaks off"
      return (
        f"the answer's path {fault} at {characters.position(cell, cols)},"
        f" before it reaches G at {characters.position(goal, cols)}"
      )
    (cell,) = steps
    left.remove(cell)
  if left:
    return (
      f"answer has 'o' at {characters.position(min(left), cols)}, which is not"
      " on the path from S to G"
    )
  return ""


def _neighbours(cell: int, cols: int) -> set[int]:
  """Returns the cells one move away; some may be above or below the maze."""
  return {cell - cols, cell + cols} | {
    side for side in (cell - 1, cell + 1) if side // cols == cell // cols
  }


def shortest_lengths(
  questions: np.ndarray, *, rows: int = ROWS, cols: int = COLS
) -> np.ndarray:
  """Returns the length of the shortest path from start to goal.

  Args:
    questions: Tokens, integers [B, L].
    rows: Rows of a maze.
    cols: Columns of a maze.

  Returns:
    Moves, int64 [B]; -1 (`UNREACHABLE`) where there is no path.
  """
  questions = _as_grids(questions, rows, cols)
  return _moves(
    questions, (questions == OPEN) | (questions == START) | (questions == GOAL)
  )


def is_shortest_path(
  questions: np.ndarray,
  answers: np.ndarray,
  *,
  rows: int = ROWS,
  cols: int = COLS,
) -> np.ndarray:
  """Returns which answers are a shortest path; most mazes have several.

  The answer may differ from its question only in open cells that become path,
  and these must be a connection of start and goal with the fewest cells.

  Args:
    questions: Tokens of mazes with one start and one goal, integers [B, L].
    answers: Tokens, integers [B, L], of any values.
    rows: Rows of a maze.
    cols: Columns of a maze.

  Returns:
    bool [B].
  """
  shortest = shortest_lengths(questions, rows=rows, cols=cols)
  questions = _as_grids(questions, rows, cols)
  answers = _as_grids(answers, rows, cols)
  marked = (questions == OPEN) & (answers == PATH)
  unchanged = (marked | (questions == answers)).all(axis=(1, 2))
  num_marked = marked.sum(axis=(1, 2))
  ends = (questions == START) | (questions == GOAL)
  along = _moves(questions, marked | ends)
  # With as many marked cells as a shortest path needs and a path along them,
  # no marked cell is off the path.
  return (
    unchanged
    & (shortest != UNREACHABLE)
    & (num_marked == shortest - 1)
    & (along == shortest)
  )


def _as_grids(tokens: np.ndarray, rows: int, cols: int) -> np.ndarray:
  return np.asarray(tokens).reshape(-1, rows, cols)


def _moves(questions: np.ndarray, passable: np.ndarray) -> np.ndarray:
  """Searches breadth-first in all mazes at once.

  Args:
    questions: Tokens, of which start and goal are used, [B, rows, cols].
    passable: Where a path may go, bool [B, rows, cols].

  Returns:
    Moves from start to goal, int64 [B]; `UNREACHABLE` where there is none.
  """
  # With a rim of walls, all mazes make one long row in which a move is a shift
  # by 1 or by `width`, and no move leaves its maze.
  rim = ((0, 0), (1, 1), (1, 1))
  width = questions.shape[2] + 2
  free = np.pad(passable, rim)
  goal = np.pad(questions == GOAL, rim)
  frontier = np.pad(questions == START, rim)
  moves = np.full(len(questions), UNREACHABLE, np.int64)
  count = 0
  while frontier.any():
    arrived = (frontier & goal).any(axis=(1, 2))
    moves[arrived] = count
    frontier[arrived] = False
    free &= ~frontier
    frontier = _dilate(frontier, width) & free
    count += 1
  return moves


def _dilate(cells: np.ndarray, width: int) -> np.ndarray:
  """Marks the neighbours of the marked cells, bool [B, rows + 2, width]."""
  old = cells.reshape(-1)
  new = np.zeros_like(old)
  for shift in (1, width):
    new[shift:] |= old[:-shift]
    new[:-shift] |= old[shift:]
  return new.reshape(cells.shape)
