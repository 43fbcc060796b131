"""ARC tasks: what is parsed and refused, and the files they come in."""

import copy
import gzip
import json

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


def test_null_is_an_unknown_output():
  null = _changed("test", 0, "output", to=None)
  assert _grids(_parse(null)) == _grids(_parse(TASK))
  own = _changed("test", 0, "output", to=SOLUTIONS[0])
  grid = np.array(SOLUTIONS[1], np.uint8)
  assert _grids(_parse(own, solutions=[None, None])) == _grids(_parse(own))
  assert _grids(_parse(own, solutions=[None, grid]))[-1] == SOLUTIONS[1]


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
    (_lacking("train"), "has no train pairs"),
    (_changed("train", to=[]), "has no train pairs"),
    (_lacking("test"), "has no test pairs"),
    (_changed("test", to={}), "test is an object, expected a list of pairs"),
    (
      _changed("train", 1, to=[]),
      "train pair 2: is a list, expected an object",
    ),
    (_lacking("train", 1, "input"), "train pair 2: has no input"),
    (_lacking("train", 1, "output"), "train pair 2: has no output"),
    (_lacking("test", 1, "input"), "test pair 2: has no input"),
    (_changed("train", 0, "output", to=None), "train pair 1: has no output"),
    (
      {"examples": [[[[1]], [[2]]]]},  # as in BARC
      'has ["examples"], expected an object with train and test, two lists',
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
  with pytest.raises(errors.UserError, match="test pair 2: its output differs"):
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
    (b'{"b": 1, "a": {"x": 1, "x": 1}}', "a.json: has the key 'x' twice"),
    (b"[" * 100_000, "a.json: cannot be read as JSON"),
    (b"9" * 10_000, "a.json: cannot be read as JSON"),
  ],
)
def test_json_is_read_strictly(data, text):
  with pytest.raises(errors.UserError, match=text) as caught:
    arc_tasks.load_json(data, where="a.json")
  assert "\n" not in str(caught.value)


# --- files -------------------------------------------------------------------

FILE_TASK = {
  "train": [{"input": [[1, 2]], "output": [[3]]}],
  "test": [{"input": [[5, 6]]}, {"input": [[8]]}],
}


def _with_output(grid):
  """FILE_TASK with an output of its first test pair."""
  first, second = FILE_TASK["test"]
  return FILE_TASK | {"test": [first | {"output": grid}, second]}


def _write(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  data = value if isinstance(value, bytes) else json.dumps(value).encode()
  path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _read(folder, *subsets):
  return arc_tasks.read_folder(str(folder), subsets)


def test_combined_files(tmp_path):
  own = _with_output([[4]])
  _write(
    tmp_path / "arc-agi_training_challenges.json",
    {"b": FILE_TASK, "a": FILE_TASK},
  )
  _write(
    tmp_path / "arc-agi_training_solutions.json.gz",
    {"a": SOLUTIONS, "b": SOLUTIONS[::-1]},
  )
  _write(tmp_path / "arc-agi_my own_challenges.json.gz", {"c": own})
  tasks = _read(tmp_path, "my own", "training")
  assert list(tasks) == ["my own", "training"]
  assert [task.name for task in tasks["training"]] == ["b", "a"]  # as the file
  assert _grids(tasks["training"][0])[2:] == [
    [[5, 6]],
    [[0]],
    [[8]],
    [[6], [5]],
  ]
  assert _grids(tasks["my own"][0])[2:] == [[[5, 6]], [[4]], [[8]], None]


@pytest.mark.parametrize("above", ["", "data"])
def test_separate_files(tmp_path, above):
  for name in ("b", "a10", "a", ".hidden"):
    _write(tmp_path / above / "concept" / f"{name}.json", FILE_TASK)
  _write(tmp_path / above / "concept" / "notes.txt", b"")
  (tasks,) = _read(tmp_path, "concept").values()
  assert [task.name for task in tasks] == ["a", "a10", "b"]
  assert _grids(tasks[1]) == [[[1, 2]], [[3]], [[5, 6]], None, [[8]], None]


def test_folders_of_folders_and_capital_endings(tmp_path):
  for path in ("Above/b.json", "Above/a1.json", "Below/a.JSON"):
    _write(tmp_path / "concept" / path, FILE_TASK)
  (tasks,) = _read(tmp_path, "concept").values()
  assert [task.name for task in tasks] == ["a", "a1", "b"]
  _write(tmp_path / "concept/Below/b.json", FILE_TASK)
  with pytest.raises(errors.UserError, match=r"Below/b.json: a second task"):
    _read(tmp_path, "concept")


def test_misspelt_files_are_named(tmp_path):
  _write(tmp_path / "arc-agi_x_challenge.json", {"a": FILE_TASK})
  _write(tmp_path / "arc-agi_x2_solutions.json", {"a": SOLUTIONS})  # another's
  with pytest.raises(
    errors.UserError, match=r"; rename arc-agi_x_challenge\.j"
  ):
    _read(tmp_path, "x")
  _write(tmp_path / "arc-agi_x_challenges.json", {"a": FILE_TASK})
  assert _grids(_read(tmp_path, "x")["x"][0])[3] is None
  _write(tmp_path / "arc-agi-x_solutions.json", {"a": SOLUTIONS})
  with pytest.raises(errors.UserError, match=r"but arc-agi-x_\w+.json: rename"):
    _read(tmp_path, "x")


def test_missing_or_ambiguous_files_are_named(tmp_path):
  with pytest.raises(errors.UserError, match="nowhere', which is not a folder"):
    _read(tmp_path / "nowhere", "training")
  with pytest.raises(
    errors.UserError,
    match=r"has no ARC subset 'training': neither "
    r"arc-agi_training_challenges.json nor arc-agi_training_challenges.json.gz "
    r"nor a folder training or data/training",
  ):
    _read(tmp_path, "training")
  challenges = tmp_path / "arc-agi_training_challenges.json"
  _write(challenges, {"a": FILE_TASK})
  _write(challenges.with_suffix(".json.gz"), {"a": FILE_TASK})
  with pytest.raises(errors.UserError, match=r"has both .*json and .*json.gz"):
    _read(tmp_path, "training")
  challenges.with_suffix(".json.gz").unlink()
  (tmp_path / "training").mkdir()
  with pytest.raises(
    errors.UserError, match=r"twice, as arc-agi_training_\w+.json and training:"
  ):
    _read(tmp_path, "training")
  challenges.unlink()
  with pytest.raises(errors.UserError, match=r".*training has no .json files"):
    _read(tmp_path, "training")
  for name in ("", "../training", "data/training", ".."):
    with pytest.raises(
      errors.UserError, match="cannot be the name of a subset"
    ):
      _read(tmp_path, name)


@pytest.mark.parametrize(
  ("challenges", "solutions", "text"),
  [
    ([FILE_TASK], None, "challenges.json: the top level is not an object"),
    ({}, None, "challenges.json has no tasks"),
    (b'{"a":', None, "challenges.json line 1, column 6: is not JSON"),
    (
      {"a": FILE_TASK},
      {"a": SOLUTIONS, "z": SOLUTIONS},
      "solutions.json task 'z': is not in arc-agi_x_challenges.json",
    ),
    (
      {"a": FILE_TASK, "b": FILE_TASK},
      {"a": SOLUTIONS},
      "solutions.json: has no solutions for task 'b' of arc-agi_x_challenges",
    ),
    (
      {"a": FILE_TASK},
      {"a": SOLUTIONS[:1]},
      "challenges.json task 'a': has 2 test inputs, but there are 1 solutions",
    ),
    (
      {"a": FILE_TASK},
      {"a": [[[1]], [[1, 11]]]},
      "solutions.json task 'a' solution 2: row 1, column 2 is 11, expected",
    ),
    (
      {"a": FILE_TASK},
      {"a": {}},
      "solutions.json task 'a': is an object, expected",
    ),
    ({"a": FILE_TASK}, [], "solutions.json: the top level is not an object"),
  ],
)
def test_faults_of_combined_files(tmp_path, challenges, solutions, text):
  _write(tmp_path / "arc-agi_x_challenges.json", challenges)
  if solutions is not None:
    _write(tmp_path / "arc-agi_x_solutions.json", solutions)
  with pytest.raises(errors.UserError) as caught:
    _read(tmp_path, "x")
  assert str(caught.value).startswith(f"arc-agi_x_{text}")
  assert "\n" not in str(caught.value)


def test_faults_of_files(tmp_path):
  _write(tmp_path / "x" / "a.json", {"train": FILE_TASK["train"]})
  with pytest.raises(
    errors.UserError, match=r"^x/a.json task 'a': has no test"
  ):
    _read(tmp_path, "x")
  path = tmp_path / "arc-agi_y_challenges.json.gz"
  path.write_bytes(gzip.compress(json.dumps({"a": FILE_TASK}).encode())[:-12])
  with pytest.raises(errors.UserError, match=r"^arc-.*json.gz: cannot be read"):
    _read(tmp_path, "y")
  path.write_bytes(json.dumps({"a": FILE_TASK}).encode())
  with pytest.raises(errors.UserError, match=r"^arc-.*json.gz: cannot be read"):
    _read(tmp_path, "y")
