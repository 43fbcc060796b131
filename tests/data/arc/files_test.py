"""Folders of ARC tasks, in either layout."""

import gzip
import json

import pytest

from trm_jax import errors
from trm_jax.data.arc import files as arc_files

TASK = {
  "train": [{"input": [[1, 2]], "output": [[3]]}],
  "test": [{"input": [[5, 6]]}, {"input": [[8]]}],
}
SOLUTIONS = [[[6], [5]], [[0]]]


def _with_output(grid):
  """TASK with an output of its first test pair."""
  first, second = TASK["test"]
  return TASK | {"test": [first | {"output": grid}, second]}


def _grids(task):
  return [
    None if grid is None else grid.tolist()
    for pair in task.train + task.test
    for grid in (pair.input, pair.output)
  ]


def _write(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  data = value if isinstance(value, bytes) else json.dumps(value).encode()
  path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _read(folder, *subsets):
  return arc_files.read_folder(str(folder), subsets)


def test_combined_files(tmp_path):
  own = _with_output([[4]])
  _write(tmp_path / "arc-agi_training_challenges.json", {"b": TASK, "a": TASK})
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
    _write(tmp_path / above / "concept" / f"{name}.json", TASK)
  _write(tmp_path / above / "concept" / "notes.txt", b"")
  (tasks,) = _read(tmp_path, "concept").values()
  assert [task.name for task in tasks] == ["a", "a10", "b"]
  assert _grids(tasks[1]) == [[[1, 2]], [[3]], [[5, 6]], None, [[8]], None]


def test_missing_or_ambiguous_files_are_named(tmp_path):
  with pytest.raises(errors.UserError, match="nowhere', which is not a folder"):
    _read(tmp_path / "nowhere", "training")
  with pytest.raises(
    errors.UserError,
    match=r"no ARC subset 'training' in .*: neither "
    r"arc-agi_training_challenges.json nor arc-agi_training_challenges.json.gz "
    r"nor a folder training or data/training",
  ):
    _read(tmp_path, "training")
  challenges = tmp_path / "arc-agi_training_challenges.json"
  _write(challenges, {"a": TASK})
  _write(challenges.with_suffix(".json.gz"), {"a": TASK})
  with pytest.raises(
    errors.UserError, match=r"both .*json and .*json.gz are in"
  ):
    _read(tmp_path, "training")
  challenges.with_suffix(".json.gz").unlink()
  (tmp_path / "training").mkdir()
  with pytest.raises(
    errors.UserError, match=r"twice, as arc-agi_training_\w+.json and training:"
  ):
    _read(tmp_path, "training")
  challenges.unlink()
  with pytest.raises(errors.UserError, match=r"no .json file in .*training"):
    _read(tmp_path, "training")
  for name in ("", "../training", "data/training", ".."):
    with pytest.raises(
      errors.UserError, match="cannot be the name of a subset"
    ):
      _read(tmp_path, name)


@pytest.mark.parametrize(
  ("challenges", "solutions", "text"),
  [
    ([TASK], None, "challenges.json: is not an object at its top level"),
    ({}, None, "challenges.json has no tasks"),
    (b'{"a":', None, "challenges.json line 1, column 6: is not JSON"),
    (
      {"a": TASK},
      {"a": SOLUTIONS, "z": SOLUTIONS},
      "solutions.json task 'z': is not in arc-agi_x_challenges.json",
    ),
    (
      {"a": TASK, "b": TASK},
      {"a": SOLUTIONS},
      "solutions.json: has no solutions for task 'b' of arc-agi_x_challenges",
    ),
    (
      {"a": TASK},
      {"a": SOLUTIONS[:1]},
      "challenges.json task 'a': has 2 test inputs, but there are 1 solutions",
    ),
    (
      {"a": TASK},
      {"a": [[[1]], [[1, 11]]]},
      "solutions.json task 'a' solution 2: row 1, column 2 is 11, expected",
    ),
    ({"a": TASK}, {"a": {}}, "solutions.json task 'a': is an object, expected"),
    ({"a": TASK}, [], "solutions.json: is not an object at its top level"),
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
  _write(tmp_path / "x" / "a.json", {"train": TASK["train"]})
  with pytest.raises(
    errors.UserError, match=r"^x/a.json task 'a': is a task without test"
  ):
    _read(tmp_path, "x")
  path = tmp_path / "arc-agi_y_challenges.json.gz"
  path.write_bytes(gzip.compress(json.dumps({"a": TASK}).encode())[:-12])
  with pytest.raises(errors.UserError, match=r"^arc-.*json.gz: cannot be read"):
    _read(tmp_path, "y")
  path.write_bytes(json.dumps({"a": TASK}).encode())
  with pytest.raises(errors.UserError, match=r"^arc-.*json.gz: cannot be read"):
    _read(tmp_path, "y")
