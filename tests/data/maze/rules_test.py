"""Mazes: characters, routes and shortest paths."""

import collections
import re

import numpy as np
import pytest

from trm_jax.data.maze import rules as maze_rules

# The shortest path has 5 moves; the way around the other side has 9.
QUESTION = (
  "S    ",
  " ### ",
  " ### ",
  "  G  ",
)
LEFT = (
  "S    ",
  "o### ",
  "o### ",
  "ooG  ",
)
AROUND = (
  "Soooo",
  " ###o",
  " ###o",
  "  Goo",
)
SHAPE = {"rows": 4, "cols": 5}

DOWN_LEFT_RIGHT_UP = ((1, 0), (0, -1), (0, 1), (-1, 0))


def _parse(question, answer, shape=SHAPE):
  pairs, found = maze_rules.parse_pairs(
    ["".join(question)], ["".join(answer)], **shape
  )
  assert not found
  return pairs[0]


def _is_shortest(question, *answers):
  """Whether each of the answers, tokens or texts, is a shortest path."""
  x = np.stack([_tokens(question)] * len(answers))
  y = np.stack([_tokens(answer) for answer in answers])
  return maze_rules.is_shortest_path(x, y, **SHAPE).tolist()


def _tokens(lines):
  if isinstance(lines, np.ndarray):
    return lines
  return np.array([maze_rules.CHARSET.index(c) + 1 for c in "".join(lines)])


def _changed(lines, row, column, character):
  changed = [list(line) for line in lines]
  changed[row][column] = character
  return tuple("".join(line) for line in changed)


def _random_maze(rng, rows, cols, walls):
  """A question with one start and one goal, as characters [rows, cols]."""
  cells = rng.choice(list("# "), (rows, cols), p=(walls, 1 - walls))
  start, goal = rng.choice(rows * cols, 2, replace=False)
  cells.flat[start], cells.flat[goal] = "S", "G"
  return cells


def _search(cells, directions):
  """Breadth-first search, cell by cell.

  Returns:
    Moves from S to G, or -1; and the maze with the path of those who first came
    to each cell.
  """
  (start,) = zip(*np.nonzero(cells == "S"), strict=True)
  parents = {start: None}
  queue = collections.deque([(start, 0)])
  while queue:
    cell, moves = queue.popleft()
    if cells[cell] == "G":
      solved, step = cells.copy(), parents[cell]
      while step != start:
        solved[step] = "o"
        step = parents[step]
      return moves, solved
    for down, right in directions:
      new = cell[0] + down, cell[1] + right
      inside = 0 <= new[0] < cells.shape[0] and 0 <= new[1] < cells.shape[1]
      if inside and cells[new] != "#" and new not in parents:
        parents[new] = cell
        queue.append((new, moves + 1))
  return -1, cells


def test_tokens_are_places_in_the_charset():
  x, y = _parse(QUESTION, LEFT)
  assert x.dtype == y.dtype == np.uint8
  assert x[:7].tolist() == [3, 2, 2, 2, 2, 2, 1]
  assert y[-5:].tolist() == [5, 5, 4, 2, 2]
  assert maze_rules.VOCAB_SIZE == 6
  assert maze_rules.PAD not in x


def test_spaces_at_the_ends_are_cells():
  x, _ = _parse((" S", "G "), (" S", "Go"), {"rows": 2, "cols": 2})
  assert x.tolist() == [
    maze_rules.OPEN,
    maze_rules.START,
    maze_rules.GOAL,
    maze_rules.OPEN,
  ]


def test_maze_hard_is_30_by_30():
  text = "S" + " " * 898 + "G"
  tokens, found = maze_rules.parse_questions([text, text[1:], text])
  assert tokens.shape == (3, 900)
  assert list(found) == [1]
  assert "899 characters, expected 900 (open cells are spaces" in found[1]


def test_any_route_will_do_as_long_as_it_is_one():
  _parse(QUESTION, AROUND)
  _parse(("SG", "  "), ("SG", "  "), {"rows": 2, "cols": 2})


@pytest.mark.parametrize(
  ("question", "answer", "text"),
  [
    (QUESTION[1:], LEFT, "question has 15 characters, expected 20"),
    (QUESTION, (*LEFT, "#"), "answer has 21 characters, expected 20"),
    (
      _changed(QUESTION, 2, 4, "x"),
      LEFT,
      r"question has 'x' at position 15 \(row 3, column 5\), expected '#', ' '",
    ),
    (_changed(QUESTION, 3, 1, "ü"), LEFT, "question has 'ü' at position 17 "),
    (_changed(QUESTION, 0, 0, " "), LEFT, "question has 0 times 'S'"),
    (_changed(QUESTION, 0, 1, "G"), LEFT, "question has 2 times 'G'"),
    (
      _changed(QUESTION, 1, 0, "o"),
      LEFT,
      r"question has 'o' at position 6 \(row 2, column 1\)",
    ),
    (
      QUESTION,
      _changed(LEFT, 1, 2, "o"),
      r"answer has 'o' at position 8 \(row 2, column 3\), where the question"
      " has '#'",
    ),
    (QUESTION, _changed(LEFT, 3, 2, " "), "answer has ' ' at position 18 "),
    (QUESTION, _changed(LEFT, 0, 1, "S"), "answer has 'S' at position 2 "),
    (
      QUESTION,
      _changed(LEFT, 2, 0, " "),
      r"the answer's path breaks off at position 6 \(row 2, column 1\)",
    ),
    (QUESTION, QUESTION, r"breaks off at position 1 \(row 1, column 1\)"),
    (
      QUESTION,
      _changed(LEFT, 0, 1, "o"),
      r"branches or touches itself at position 1 \(row 1, column 1\)",
    ),
    (
      QUESTION,
      _changed(LEFT, 0, 4, "o"),
      r"answer has 'o' at position 5 \(row 1, column 5\), which is not on",
    ),
    # The end of a row is not beside the start of the next.
    (
      ("  S", "G  "),
      ("  S", "G  "),
      "breaks off at position 3",
    ),
  ],
)
def test_faults_are_named(question, answer, text):
  shape = {"rows": 2, "cols": 3} if len(question) == 2 else SHAPE
  _, found = maze_rules.parse_pairs(
    ["".join(question)] * 2, ["".join(answer)] * 2, **shape
  )
  assert list(found) == [0, 1]
  assert re.search(text, found[0])
  assert "\n" not in found[0]


def test_only_shortest_paths_count():
  outside = _tokens(LEFT).copy()
  outside[1] = 99
  padding = _tokens(LEFT).copy()
  padding[1] = maze_rules.PAD
  for answer, right in (
    (LEFT, True),
    (AROUND, False),  # longer
    (QUESTION, False),  # none
    (_changed(LEFT, 0, 1, "o"), False),  # and a cell beside it
    (_changed(LEFT, 2, 0, " "), False),  # a gap
    (_changed(_changed(LEFT, 2, 0, " "), 0, 1, "o"), False),  # right number
    (_changed(LEFT, 1, 1, " "), False),  # a wall gone
    (_changed(LEFT, 1, 1, "o"), False),  # through a wall
    (_changed(LEFT, 3, 2, "o"), False),  # over the goal
    (_changed(LEFT, 0, 0, " "), False),
    (_changed(LEFT, 3, 4, "G"), False),
    (outside, False),
    (padding, False),
  ):
    assert _is_shortest(QUESTION, answer) == [right], answer


def test_start_beside_goal_and_no_way_at_all():
  beside = ("SG   ", *QUESTION[1:3], "     ")
  assert _is_shortest(beside, beside, _changed(beside, 1, 0, "o")) == [
    True,
    False,
  ]
  walled = _changed(_changed(QUESTION, 2, 0, "#"), 2, 4, "#")
  assert _is_shortest(walled, walled, LEFT) == [False, False]
  lengths = maze_rules.shortest_lengths(
    np.stack([_tokens(beside), _tokens(walled)]), **SHAPE
  )
  assert lengths.tolist() == [1, maze_rules.UNREACHABLE]


def test_a_path_found_the_other_way_round_counts_as_well():
  cells = np.array([list("S  "), list("   "), list("  G")])
  _, label = _search(cells, DOWN_LEFT_RIGHT_UP)
  _, mirrored = _search(cells, DOWN_LEFT_RIGHT_UP[::-1])
  assert (label != mirrored).any()
  x, y, z = (
    _tokens(["".join(row) for row in grid]) for grid in (cells, label, mirrored)
  )
  valid = maze_rules.is_shortest_path(
    np.stack([x, x]), np.stack([y, z]), rows=3, cols=3
  )
  assert valid.tolist() == [True, True]


@pytest.mark.parametrize(
  ("rows", "cols", "walls"), [(30, 30, 0.3), (7, 11, 0.4), (1, 9, 0.2)]
)
def test_agrees_with_a_search_cell_by_cell(rows, cols, walls):
  rng = np.random.default_rng(0)
  shape = {"rows": rows, "cols": cols}
  questions, answers, lengths = [], [], []
  for i in range(60):
    cells = _random_maze(rng, rows, cols, walls)
    length, solved = _search(cells, np.roll(DOWN_LEFT_RIGHT_UP, i, axis=0))
    questions.append(_tokens(["".join(row) for row in cells]))
    answers.append(_tokens(["".join(row) for row in solved]))
    lengths.append(length)
    if length != maze_rules.UNREACHABLE:
      _parse(cells.ravel(), solved.ravel(), shape)
  questions, answers = np.stack(questions), np.stack(answers)
  found = maze_rules.shortest_lengths(questions, **shape)
  assert found.dtype == np.int64
  assert found.tolist() == lengths
  assert len(set(lengths)) > 3
  assert -1 in lengths
  reachable = found != maze_rules.UNREACHABLE
  valid = maze_rules.is_shortest_path(questions, answers, **shape)
  np.testing.assert_array_equal(valid, reachable)
  # A path with one cell less or one open cell more is none; each maze is
  # judged by itself.
  for i in np.flatnonzero(found > 1):
    for token, other in (
      (maze_rules.PATH, maze_rules.OPEN),
      (maze_rules.OPEN, maze_rules.PATH),
    ):
      spoilt = answers.copy()
      cells = np.flatnonzero(spoilt[i] == token)
      if cells.size:
        spoilt[i, rng.choice(cells)] = other
        expected = reachable.copy()
        expected[i] = False
        np.testing.assert_array_equal(
          maze_rules.is_shortest_path(questions, spoilt, **shape), expected
        )
