"""ARC as a user types it: three kinds of folders, and what is wrong in them."""

import dataclasses
import gzip
import json
import pathlib
import re
import shutil

import command_line
import folders
import numpy as np
import pytest
import scorer

from experiments import arc, custom
from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.data import tasks
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.runtime import program

SMOKE = "experiments/arc.py:smoke"


def _subsets():
  """Three tasks to learn from and two to solve, one of which asks twice."""
  subsets = arc_load.generate(3, 2, seed=0)
  task = subsets["evaluation"][0]
  twice = dataclasses.replace(task, test=(*task.test, task.train[0]))
  return subsets | {"evaluation": [twice, *subsets["evaluation"][1:]]}


@pytest.fixture(name="kaggle")
def _kaggle(tmp_path):
  folders.kaggle(tmp_path / "kaggle", _subsets())
  return tmp_path / "kaggle"


def _settings(tmp_path, source, **changes):
  return {
    "task": "arc",
    "source": str(source),
    "cache_dir": str(tmp_path / "cache"),
    "num_train": 0,
    "num_test": 0,
    "num_augmentations": 3,
  } | changes


def _flags(tmp_path, source, **changes):
  settings = _settings(tmp_path, source, **changes)
  return [
    f"--workdir={tmp_path / 'run'}",
    *(f"--config.data.{name}={value}" for name, value in settings.items()),
  ]


def _config(tmp_path, source, **changes):
  config = arc.get_config("smoke")
  config.data.update(_settings(tmp_path, source, **changes))
  config.train.batch_size = config.eval.batch_size = 8  # there are 8 devices
  return config_lib.from_config_dict(config)


def _load(tmp_path, source, **changes):
  return tasks.load(_config(tmp_path, source, **changes).data)


def _official(tmp_path, kaggle):
  """The same data set, with its variants written out."""
  folders.official(tmp_path / "official", _load(tmp_path, kaggle))
  return tmp_path / "official"


# --- what a user wants -------------------------------------------------------


@pytest.mark.slow
def test_kaggle_files_to_a_submission(tmp_path, kaggle):
  result = command_line.run(
    *_flags(tmp_path, kaggle, num_augmentations=1),
    "--config.train.num_steps=1",
    "--config.train.batch_size=2",
    "--config.eval.batch_size=2",
    "--config.eval.supervision_steps=1",
    "--config.model.recursion_cycles=1",
    "--config.model.compute_dtype=float32",
    config=SMOKE,
    compiles_fast=True,
  )
  assert result.returncode == 0, result.stderr
  assert re.fullmatch(
    r"exact_accuracy=\d\.\d{4}", result.stdout.splitlines()[-1]
  )
  assert "5 tasks, 10 variants" in result.stderr
  identifiers = json.loads((tmp_path / "run/identifiers.json").read_text())
  assert identifiers == _load(tmp_path, kaggle, num_augmentations=1).identifiers
  path = tmp_path / "run/evaluations/step_1/submission.json"
  assert str(path) in result.stdout
  tested = _subsets()["evaluation"]
  challenges = {task.name: folders.as_json(task) for task in tested}
  score = scorer.score(
    json.loads(path.read_text()),
    challenges,
    {
      name: [pair["output"] for pair in task["test"]]
      for name, task in challenges.items()
    },
  )
  assert f"pass@2 {score:.2%}" in result.stdout


def test_all_layouts_hold_the_same_puzzles(tmp_path, kaggle):
  ours = _load(tmp_path, kaggle)
  folders.repository(tmp_path / "repository", _subsets())
  theirs = [
    _load(tmp_path, tmp_path / "repository"),
    _load(tmp_path, _official(tmp_path, kaggle)),
  ]
  for other in theirs:
    assert other.identifiers == ours.identifiers
    assert other.look == ours.look
    assert set(other.learned) >= set(ours.learned)
    names = {mark for mark in other.learned if not mark.startswith("pair ")}
    assert names == {"training0", "training1", "training2"}
    for split in ("train", "test"):
      mine, same = getattr(ours, split), getattr(other, split)
      for name in ("puzzle_ids", "puzzle_indices", "group_indices"):
        np.testing.assert_array_equal(getattr(same, name), getattr(mine, name))
      for actual, expected in zip(
        folders.everything(same), folders.everything(mine), strict=True
      ):
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(
      other.augmentation_table.transforms, ours.augmentation_table.transforms
    )
    np.testing.assert_array_equal(
      other.augmentation_table.colours, ours.augmentation_table.colours
    )
    assert [
      arc_tasks.to_json(task) for task in other.augmentation_table.tasks
    ] == [arc_tasks.to_json(task) for task in ours.augmentation_table.tasks]


def test_own_tasks_in_a_file_each(tmp_path):
  subsets = {
    subset: [dataclasses.replace(t, name=f"my {t.name}") for t in members]
    for subset, members in _subsets().items()
  }
  folders.repository(tmp_path / "mine", subsets)
  config = custom.get_config("arc")
  config.data.source = str(tmp_path / "mine")
  config.data.cache_dir = str(tmp_path / "cache")
  run = program.load(config_lib.from_config_dict(config))
  names = {task.name for task in run.task.augmentation_table.tasks}
  assert names == {"my evaluation0", "my evaluation1"}
  assert run.task.num_puzzle_ids == 1 + 5 * 101
  assert run.program.test_puzzles(run.task).num_examples == 101 * (2 + 1)
  batch = next(run.program.train_batches(run.task, first_batch=0))
  assert batch["inputs"].shape == (32, 900)
  assert batch["puzzle_ids"].min() > 0
  assert batch["puzzle_ids"].max() < run.task.num_puzzle_ids


# --- what is wrong in a folder -----------------------------------------------


def _assert_nothing_half_written(tmp_path):
  assert not (tmp_path / "run").exists()
  assert not list((tmp_path / "cache").rglob("*array_record*"))
  assert not list((tmp_path / "cache").rglob("*.npz"))


def _error(tmp_path, source, **changes) -> str:
  """The error's line; nothing half-written lies around."""
  with pytest.raises(errors.UserError) as caught:
    train.train(_config(tmp_path, source, **changes), str(tmp_path / "run"))
  _assert_nothing_half_written(tmp_path)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def _change(path, change):
  """Applies a function to what a JSON file holds."""
  data = path.read_bytes()
  value = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
  folders.write_json(path, change(value))


def _with_grid(grid):
  def change(tasks_by_name):
    tasks_by_name["training1"]["train"][2]["output"] = grid
    return tasks_by_name

  return change


def _without_test(tasks_by_name):
  del tasks_by_name["training1"]["test"]
  return tasks_by_name


PLACE = "training_challenges.json.gz task 'training1'"
GRID = f"{PLACE} train pair 3: output"


@pytest.mark.parametrize(
  ("change", "text"),
  [
    (
      lambda value: json.dumps(value, indent=1).encode()[:-2],
      r"training_challenges.json.gz line \d+, column \d+: is not JSON",
    ),
    (_with_grid([[0] * 31]), f"{GRID} has 31 columns, expected 1 to 30"),
    (_with_grid([[0, 1], [2, 10]]), f"{GRID} row 2, column 2 is 10, expected"),
    (
      _with_grid([[0, 1], [2]]),
      f"{GRID} row 2 has 1 cells, but row 1 has 2",
    ),
    (_without_test, f"{PLACE}: has no test pairs"),
  ],
  ids=["broken", "31 columns", "colour 10", "ragged", "no test"],
)
def test_faults_in_a_file(tmp_path, kaggle, change, text):
  _change(kaggle / "arc-agi_training_challenges.json.gz", change)
  assert re.search(text, _error(tmp_path, kaggle))


def test_a_missing_folder_through_main(tmp_path):
  message = command_line.error_of(
    *_flags(tmp_path, tmp_path / "nowhere"), config=SMOKE
  )
  _assert_nothing_half_written(tmp_path)
  assert f"config.data.source is '{tmp_path / 'nowhere'}', which is" in message


def test_a_missing_subset(tmp_path, kaggle):
  (kaggle / "arc-agi_evaluation_challenges.json.gz").unlink()
  message = _error(tmp_path, kaggle)
  assert f"{kaggle} has no ARC subset 'evaluation'" in message


def test_subsets_without_the_one_to_test(tmp_path, kaggle):
  message = _error(tmp_path, kaggle, subsets=("training",))
  assert "config.data.test_subset is 'evaluation'; it must be one" in message


def test_identifiers_of_another_data_set(tmp_path, kaggle):
  """As another checkpoint has them; the tasks are prepared by then."""
  path = tmp_path / "identifiers.json"
  folders.write_json(path, ["<blank>", "training0", "00576224"])
  config = _config(tmp_path, kaggle, identifiers=str(path))
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path / "run"))
  message = str(caught.value)
  assert f"{path} has the identifiers of another data set" in message
  assert "the originals of 4 of 5 tasks are missing" in message
  assert "first 'training1' of the subset 'training'" in message
  assert not (tmp_path / "run").exists()


def _cut(path):
  path.write_bytes(path.read_bytes()[:-1])


def _without_last(path):
  _change(path, lambda names: names[:-1])


@pytest.mark.parametrize(
  ("name", "spoil", "text"),
  [
    ("test_puzzles.json", pathlib.Path.unlink, "cannot be read: No such file"),
    ("train/all__inputs.npy", _cut, "cannot be read, the file is damaged"),
    ("identifiers.json", _without_last, "has 20 entries, but num_puzzle"),
  ],
  ids=["missing", "truncated", "length"],
)
def test_faults_in_an_official_folder(tmp_path, kaggle, name, spoil, text):
  folder = _official(tmp_path, kaggle)
  shutil.rmtree(tmp_path / "cache")
  spoil(folder / name)
  assert f"{folder / name} {text}" in _error(tmp_path, folder)


def _task_twice(puzzles):
  puzzles["evaluation0"]["test"] *= 2
  return puzzles


def _without_task(puzzles):
  del puzzles["evaluation0"]
  return puzzles


def _exchanged(names):
  """The first variant of either test task is the other one's."""
  first, second = (names.index(f"evaluation{i}") for i in range(2))
  names[first], names[second] = names[second], names[first]
  return names


@pytest.mark.parametrize(
  ("name", "change", "text"),
  [
    (
      "test_puzzles.json",
      _task_twice,
      "test_puzzles.json does not match the test set: the task 'evaluation0'"
      " has 4 test inputs there, 2 here",
    ),
    (
      "test_puzzles.json",
      _without_task,
      "test_puzzles.json has no task 'evaluation0', which is in the test set",
    ),
    ("test_puzzles.json", list, "is not a JSON object"),
    (
      "identifiers.json",
      _exchanged,
      "of its test set has variants of 'evaluation0' and of 'evaluation1'",
    ),
    (
      "identifiers.json",
      lambda names: [*names[:-1], f"{names[-1]}0"],
      "identifiers.json entry 20: ",
    ),
  ],
  ids=["test input", "missing task", "a list", "mixed group", "name"],
)
def test_official_files_that_do_not_fit(tmp_path, kaggle, name, change, text):
  folder = _official(tmp_path, kaggle)
  _change(folder / name, change)
  with pytest.raises(errors.UserError) as caught:
    _load(tmp_path, folder)
  assert text in str(caught.value)
  assert str(folder) in str(caught.value)
  assert "\n" not in str(caught.value)
