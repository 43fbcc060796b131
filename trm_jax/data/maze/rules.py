"""Mazes: characters to tokens, and which paths are shortest.

A maze of rows x cols cells is kept as one row of L = rows * cols uint8 tokens:
0 is padding and 1 to 5 are the characters of `CHARSET`, as in the official data
builder. A move goes up, down, left or right, never through a wall.
"""

import numpy as np

from trm_jax import errors

CHARSET = "# SGo"  # wall, open, start, goal, path
PAD, WALL, OPEN, START, GOAL, PATH = range(6)
VOCAB_SIZE = 6

ROWS = COLS = 30  # of Maze-Hard
UNREACHABLE = -1

_BAD = 255  # stands for a character that means nothing
_TO_TOKEN = bytes(
  CHARSET.index(chr(code)) + 1 if chr(code) in CHARSET else _BAD
  for code in range(256)
)


def _place(cell: int, cols: int) -> str:
  return (
    f"position {cell + 1} (row {cell // cols + 1}, column {cell % cols + 1})"
  )


def _parse(
  text: str, rows: int, cols: int, what: str, where: str
) -> np.ndarray:
  if len(text) != rows * cols:
    raise errors.UserError(
      f"{where}: {what} has {len(text)} characters, expected {rows * cols}"
      " (an open cell is a space: none may be stripped)"
    )
  # "replace" turns whatever is not ASCII into one "?", which is bad as well.
  codes = text.encode("ascii", "replace").translate(_TO_TOKEN)
  if _BAD in codes:
    at = codes.index(_BAD)
    raise errors.UserError(
      f"{where}: {what} has {text[at]!r} at {_place(at, cols)}, expected '#', "
      "' ', 'S', 'G' or 'o'"
    )
  return np.frombuffer(codes, np.uint8)


def parse_question(
  text: str, *, where: str, rows: int = ROWS, cols: int = COLS
) -> np.ndarray:
  """Turns a maze's characters into tokens.

  Args:
    text: rows * cols characters: '#' wall, ' ' open, 'S' start, 'G' goal.
    where: Begins the text of an error, e.g. "mazes.csv line 3".
    rows: Rows of the maze.
    cols: Columns of the maze.

  Returns:
    Tokens, uint8 [L].

  Raises:
    UserError: on a wrong length, a bad character, a path that is already there,
      or unless there is exactly one start and one goal.
  """
  tokens = _parse(text, rows, cols, "question", where)
  for name, token in (("S", START), ("G", GOAL)):
    count = int((tokens == token).sum())
    if count != 1:
      raise errors.UserError(
        f"{where}: question has {count} times {name!r}, expected exactly one"
      )
  marked = np.flatnonzero(tokens == PATH)
  if marked.size:
    raise errors.UserError(
      f"{where}: question has 'o' at {_place(int(marked[0]), cols)}; only the "
      "answer has a path"
    )
  return tokens


def parse_pair(
  question: str,
  answer: str,
  *,
  where: str,
  rows: int = ROWS,
  cols: int = COLS,
) -> tuple[np.ndarray, np.ndarray]:
  """Turns a maze and its solution into tokens.

  Args:
    question: As in `parse_question`.
    answer: The same, with an 'o' on every open cell of the path.
    where: Begins the text of an error, e.g. "train.csv line 17".
    rows: Rows of the maze.
    cols: Columns of the maze.

  Returns:
    Question and answer tokens, both uint8 [L].

  Raises:
    UserError: if either is malformed, the answer differs from the question in
      more than open cells, or its path is no route from start to goal.
  """
  x = parse_question(question, where=where, rows=rows, cols=cols)
  y = _parse(answer, rows, cols, "answer", where)
  wrong = np.flatnonzero((x != y) & ~((x == OPEN) & (y == PATH)))
  if wrong.size:
    at = int(wrong[0])
    raise errors.UserError(
      f"{where}: answer has {answer[at]!r} at {_place(at, cols)}, where the "
      f"question has {question[at]!r}: it may differ only by 'o' for ' '"
    )
  _check_route(y, cols, where)
  return x, y


def _check_route(answer: np.ndarray, cols: int, where: str) -> None:
  """Raises a UserError unless the 'o' are one way from start to goal."""
  goal = int(np.flatnonzero(answer == GOAL)[0])
  cell = int(np.flatnonzero(answer == START)[0])
  left = {goal, *np.flatnonzero(answer == PATH).tolist()}
  while cell != goal:
    steps = _neighbours(cell, cols) & left
    if len(steps) != 1:
      fault = "branches or touches itself" if steps else "breaks off"
      raise errors.UserError(
        f"{where}: the answer's path {fault} at {_place(cell, cols)}, before "
        f"it gets from S to G at {_place(goal, cols)}"
      )
    (cell,) = steps
    left.remove(cell)
  if left:
    raise errors.UserError(
      f"{where}: answer has 'o' at {_place(min(left), cols)}, which is not on "
      "the path from S to G"
    )


def _neighbours(cell: int, cols: int) -> set[int]:
  """Lists the cells one move away; some may be above or below the maze."""
  return {cell - cols, cell + cols} | {
    side for side in (cell - 1, cell + 1) if side // cols == cell // cols
  }


def shortest_lengths(
  questions: np.ndarray, *, rows: int = ROWS, cols: int = COLS
) -> np.ndarray:
  """Finds how many moves the shortest path from start to goal has.

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
  """Tells which answers are a shortest path; most mazes have many of them.

  An answer counts if it differs from its question only in open cells that have
  become path, if these alone connect start and goal, and if they are as few as
  can be.

  Args:
    questions: Tokens of mazes with one start and one goal, integers [B, L].
    answers: Tokens, integers [B, L]; may be anything a network comes up with.
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
  # As many marked cells as a shortest path needs, and a way along them: then
  # none of them is beside the way.
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
    Moves from start to goal, int64 [B]; `UNREACHABLE` where there is no way.
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
