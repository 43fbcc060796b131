"""Generated mazes."""

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data.maze import generator as maze_generator
from trm_jax.data.maze import rules as maze_rules

ROWS, COLS = 16, 9


def _mazes(num_train=160, num_test=40, *, rows=ROWS, cols=COLS, seed=0):
  return maze_generator.generate_split(
    num_train, num_test, rows=rows, cols=cols, seed=seed
  )


@pytest.fixture(name="split", scope="module")
def _split():
  return _mazes()


def _first_path(question):
  """The label of a maze, [rows, cols]: each cell's parent came to it first.

  Cells look down, left, right and up, in the order in which they were reached.
  """
  (start,) = np.argwhere(question == maze_rules.START).tolist()
  (goal,) = np.argwhere(question == maze_rules.GOAL).tolist()
  reached, parent = [tuple(start)], {}
  for cell in reached:  # grows on the way
    for down, right in ((1, 0), (0, -1), (0, 1), (-1, 0)):
      new = cell[0] + down, cell[1] + right
      if not (0 <= new[0] < len(question) and 0 <= new[1] < question.shape[1]):
        continue
      if question[new] != maze_rules.WALL and new not in reached:
        reached.append(new)
        parent[new] = cell
  answer = question.copy()
  cell = parent[tuple(goal)]
  while cell != tuple(start):
    answer[cell] = maze_rules.PATH
    cell = parent[cell]
  return answer


def test_labels_are_the_first_shortest_paths(split):
  for puzzles in split:
    assert maze_rules.is_shortest_path(
      puzzles.inputs, puzzles.labels, rows=ROWS, cols=COLS
    ).all()
    for question, answer in zip(puzzles.inputs, puzzles.labels, strict=True):
      np.testing.assert_array_equal(
        answer.reshape(ROWS, COLS), _first_path(question.reshape(ROWS, COLS))
      )


@pytest.mark.parametrize("mirror", [np.fliplr, np.flipud, np.transpose])
def test_the_order_of_the_search_shows_in_these_mazes(split, mirror):
  """A mirrored search finds other ways, as short."""
  others = 0
  for question in split[0].inputs.reshape(-1, ROWS, COLS):
    mirrored = mirror(_first_path(mirror(question)))
    others += (_first_path(question) != mirrored).any()
  assert others > 0


def test_paths_are_long(split):
  for puzzles in split:
    moves = maze_rules.shortest_lengths(puzzles.inputs, rows=ROWS, cols=COLS)
    assert moves.min() >= ROWS + COLS


def test_no_two_mazes_are_equal(split):
  train, test = split
  assert (train.num_examples, test.num_examples) == (160, 40)
  questions = {row.tobytes() for part in split for row in part.inputs}
  assert len(questions) == 200
  for puzzles in split:
    assert puzzles.seq_len == ROWS * COLS
    assert not puzzles.puzzle_ids.any()
    assert puzzles.inputs.min() >= maze_rules.WALL
    assert puzzles.labels.max() <= maze_rules.PATH


def test_mazes_by_seed(split):
  for first, same, other in zip(split, _mazes(), _mazes(seed=1), strict=True):
    assert same.fingerprint() == first.fingerprint()
    assert other.fingerprint() != first.fingerprint()


def test_a_text_of_a_generated_maze_is_a_maze(split):
  puzzles = split[0]
  texts = [
    ["".join(maze_rules.CHARSET[token - 1] for token in row) for row in part]
    for part in (puzzles.inputs, puzzles.labels)
  ]
  pairs, found = maze_rules.parse_pairs(*texts, rows=ROWS, cols=COLS)
  assert not found
  np.testing.assert_array_equal(pairs[:, 0], puzzles.inputs)
  np.testing.assert_array_equal(pairs[:, 1], puzzles.labels)


@pytest.mark.parametrize("shape", [(3, 30), (30, 3), (1, 1)])
def test_mazes_that_are_too_small(shape):
  with pytest.raises(errors.UserError, match=r"too small; set config\.data"):
    _mazes(1, 1, rows=shape[0], cols=shape[1])


def test_a_search_without_end_is_given_up(monkeypatch):
  monkeypatch.setattr(maze_generator, "_WALLS", 1.0)
  with pytest.raises(
    errors.UserError, match="no maze of 16 x 9 cells was found"
  ):
    _mazes(1, 1)


def test_more_mazes_than_there_are(monkeypatch, split):
  few = iter(range(10**9))
  puzzles = split[0]

  def draw(*_):
    number = next(few) % 7
    return puzzles.inputs[number], puzzles.labels[number]

  monkeypatch.setattr(maze_generator, "_draw", draw)
  train, test = _mazes(4, 3)
  np.testing.assert_array_equal(train.inputs, puzzles.inputs[:4])
  np.testing.assert_array_equal(test.inputs, puzzles.inputs[4:7])
  with pytest.raises(errors.UserError, match="found only 7 different mazes"):
    _mazes(5, 3)
