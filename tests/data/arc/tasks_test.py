"""ARC tasks: what is read, and what is refused."""

import copy

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data.arc import tasks as arc_tasks

TASK = {
  "train": [
    {"input": [[0, 1, 2], [3, 4, 5]], "output": [[9]]},
    {"input": [[7]], "output": [[1, 1], [2, 2]]},
  ],
  "test": [{"input": [[5, 6]]}, {"input": [[8]]}],
}
SOLUTIONS = [[[6], [5]], [[0]]]


def _parse(value, *, name="t", solutions=None):
  return arc_tasks.parse_task(name, value, solutions=solutions, where="a.json")


def _changed(*path, to):
  """TASK with one place changed."""
  value = copy.deepcopy(TASK)
  place = value
  for step in path[:-1]:
    place = place[step]
  place[path[-1]] = to
  return value


def _lacking(*path):
  value = copy.deepcopy(TASK)
  place = value
  for step in path[:-1]:
    place = place[step]
  del place[path[-1]]
  return value


def _grids(task):
  return [
    None if grid is None else grid.tolist()
    for pair in task.train + task.test
    for grid in (pair.input, pair.output)
  ]


def test_grids_and_order():
  task = _parse(TASK)
  assert task.name == "t"
  assert task.train[0].input.dtype == np.uint8
  assert task.train[0].input.shape == (2, 3)
  assert _grids(task) == [
    *([[0, 1, 2], [3, 4, 5]], [[9]]),
    *([[7]], [[1, 1], [2, 2]]),
    *([[5, 6]], None),
    *([[8]], None),
  ]
  assert not task.test_first
  assert _parse(dict(reversed(TASK.items()))).test_first


def test_outputs_of_test_pairs_may_be_anywhere():
  solutions = [np.array(grid, np.uint8) for grid in SOLUTIONS]
  own = _changed("test", 0, "output", to=SOLUTIONS[0])
  assert _grids(_parse(own))[4:] == [[[5, 6]], [[6], [5]], [[8]], None]
  for value in (TASK, own):
    task = _parse(value, solutions=solutions)
    assert _grids(task)[4:] == [[[5, 6]], [[6], [5]], [[8]], [[0]]]


@pytest.mark.parametrize("side", [1, 30])
def test_largest_and_smallest_grid(side):
  grid = np.arange(side * side).reshape(side, side) % 10
  task = _parse(_changed("train", 0, "input", to=grid.tolist()))
  np.testing.assert_array_equal(task.train[0].input, grid)


@pytest.mark.parametrize(
  ("value", "text"),
  [
    ([], "is a list, expected an object with train and test"),
    (None, "is null, expected an object with train and test"),
    (_lacking("train"), "is a task without train pairs"),
    (_changed("train", to=[]), "is a task without train pairs"),
    (_lacking("test"), "is a task without test pairs"),
    (_changed("test", to={}), "test is an object, expected a list of pairs"),
    (
      _changed("train", 1, to=[]),
      "train pair 2: is a list, expected an object",
    ),
    (_lacking("train", 1, "input"), "train pair 2: has no input"),
    (_lacking("train", 1, "output"), "train pair 2: has no output"),
    (_lacking("test", 1, "input"), "test pair 2: has no input"),
    (
      _changed("test", 0, "output", to=None),
      "test pair 1: output is null, expected a list of rows",
    ),
    (
      _changed("train", 0, "input", to="12"),
      'train pair 1: input is "12", expected a list of rows',
    ),
    (
      _changed("train", 0, "output", to=[[1], 2]),
      "train pair 1: output row 2 is 2, expected a list of colours",
    ),
    (
      _changed("train", 0, "input", to=[[1, 2], [3, 4], [5]]),
      "train pair 1: input row 3 has 1 cells, but row 1 has 2",
    ),
    (
      _changed("train", 0, "input", to=[]),
      "input has 0 rows, expected 1 to 30",
    ),
    (
      _changed("train", 0, "input", to=[[]]),
      "input has 0 columns, expected 1 to 30",
    ),
    (
      _changed("train", 0, "input", to=[[0] * 31]),
      "train pair 1: input has 31 columns, expected 1 to 30",
    ),
    (
      _changed("test", 1, "input", to=[[0]] * 31),
      "test pair 2: input has 31 rows, expected 1 to 30",
    ),
  ],
)
def test_faults_are_named(value, text):
  with pytest.raises(errors.UserError) as caught:
    _parse(value)
  assert str(caught.value).startswith("a.json task 't'")
  assert text in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("colour", "shown"),
  [
    (10, "10"),
    (-1, "-1"),
    (1.0, "1.0"),
    (1.5, "1.5"),
    (True, "true"),
    (None, "null"),
    ("3", '"3"'),
    ([1], "[1]"),
    (float("nan"), "NaN"),
    (10**30, "1" + "0" * 30),
  ],
)
def test_what_is_no_colour(colour, shown):
  value = _changed("train", 0, "input", 1, 2, to=colour)
  with pytest.raises(errors.UserError) as caught:
    _parse(value)
  assert str(caught.value) == (
    f"a.json task 't' train pair 1: input row 2, column 3 is {shown}, expected"
    " a colour, a whole number from 0 to 9"
  )


@pytest.mark.parametrize("name", ["", "a|||t1", "a\udcff", "\ud83d"])
def test_names_that_cannot_be(name):
  message = "cannot be the name of a task"
  with pytest.raises(errors.UserError, match=message) as caught:
    _parse(TASK, name=name)
  str(caught.value).encode()  # can be told


def test_solutions_that_do_not_fit():
  grid = np.zeros((1, 1), np.uint8)
  for number in (0, 1, 3):
    with pytest.raises(
      errors.UserError, match=f"2 test inputs, but there are {number} solutions"
    ):
      _parse(TASK, solutions=[grid] * number)
  own = _changed("test", 1, "output", to=[[5]])
  with pytest.raises(errors.UserError, match="test pair 2: has an output that"):
    _parse(own, solutions=[grid, grid])


def test_json_keeps_everything():
  for value in (TASK, dict(reversed(TASK.items()))):
    task = _parse(value, name='a "b" ü', solutions=None)
    text = arc_tasks.to_json(task)
    again = arc_tasks.from_json(text.encode())
    assert "\n" not in text
    assert (again.name, again.test_first) == (task.name, task.test_first)
    assert _grids(again) == _grids(task)


@pytest.mark.parametrize(
  ("data", "text"),
  [
    (b'{"a": [1,\n 2,,]}', "a.json line 2, column 4: is not JSON"),
    (b"", "a.json line 1, column 1: is not JSON"),
    (b'{"a": "\xff"}', r"a.json: not UTF-8 text \(byte 8\)"),
    (b'{"b": 1, "a": {"x": 1, "x": 1}}', "a.json: the key 'x' is there twice"),
    (b"[" * 100_000, "a.json: cannot be read as JSON"),
    (b"9" * 10_000, "a.json: cannot be read as JSON"),
  ],
)
def test_json_is_read_strictly(data, text):
  with pytest.raises(errors.UserError, match=text) as caught:
    arc_tasks.load_json(data, where="a.json")
  assert "\n" not in str(caught.value)
