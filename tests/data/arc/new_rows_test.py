"""Rows for tasks that a list of identifiers lacks, after all of its own."""

import dataclasses

import folders
import numpy as np
import pytest

from experiments import arc_adapt
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import identifiers, tasks
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import plan as arc_plan

NUM_TRAIN, NUM_OLD, NUM_ALL = 3, 2, 4  # tasks to train on, old and all to solve
OLD_VARIANTS, VARIANTS = 4, 6  # of each task, beside the original


def _data(**changes):
  """Those of an adaptation to generated tasks, of which two are new."""
  config = arc_adapt.get_config("smoke")
  config.data.update(
    num_train=NUM_TRAIN, num_test=NUM_ALL, num_augmentations=VARIANTS
  )
  config.data.update(changes)
  return config_lib.from_config_dict(config).data


def _old_names(**changes):
  data = _data(
    num_test=NUM_OLD,
    num_augmentations=OLD_VARIANTS,
    new_rows="",
    identifiers="",
    **changes,
  )
  return tasks.load(data).identifiers


@pytest.fixture(name="old", scope="module")
def _old(tmp_path_factory):
  """A workdir with nothing but its list; the rows are in an order of its own.

  Two of them are of a task that the data do not have.
  """
  workdir = tmp_path_factory.mktemp("old")
  names = [*_old_names()[1:], "elsewhere", "elsewhere|||t1|||0123456789"]
  np.random.default_rng(0).shuffle(names)
  identifiers.write(workdir / "identifiers.json", ["<blank>", *names])
  return workdir


def _names(workdir):
  return identifiers.read(workdir / "identifiers.json")


def _tasks_of(names):
  return {name.split("|||")[0] for name in names}


def _new_tasks():
  everything = arc_load.generate(NUM_TRAIN, NUM_ALL, seed=_data().seed)
  return everything["evaluation"][NUM_OLD:]


def test_new_tasks_get_rows_after_all_others(old):
  task = tasks.load(_data(identifiers=str(old)))
  names = _names(old)
  assert task.identifiers[: len(names)] == names
  # As a plan of these tasks alone has them.
  plan = arc_plan.build(
    {"training": [], "evaluation": _new_tasks()},
    num_augmentations=VARIANTS,
    rng=np.random.RandomState(_data().seed),
  )
  new = task.identifiers[len(names) :]
  assert new == plan.identifiers()[1:]
  assert len(new) == 2 * (1 + VARIANTS)
  assert _tasks_of(new) == {"evaluation2", "evaluation3"}
  identifiers.check(task.identifiers, where="all")


def test_puzzles_have_the_rows_of_their_variants(old):
  """Old tasks keep their variants, however many new ones are to have."""
  task = tasks.load(_data(identifiers=str(old)))
  first_new = len(_names(old))
  for puzzles in (task.train, task.test):
    for group, member in enumerate(puzzles.tasks):
      rows = puzzles.puzzle_ids[slice(*puzzles.group_indices[group:][:2])]
      is_new = member.name in _tasks_of(task.identifiers[first_new:])
      assert len(rows) == 1 + (VARIANTS if is_new else OLD_VARIANTS)
      assert ((rows >= first_new) == is_new).all()
      assert _tasks_of(task.identifiers[row] for row in rows) == {member.name}
      assert task.identifiers[rows[0]] == member.name
  tested = [member.name for member in task.augmentation_table.tasks]
  assert sorted(tested) == [f"evaluation{i}" for i in range(NUM_ALL)]


def test_the_list_of_all_rows_gives_the_same_rows(old, tmp_path):
  """So a run that has begun does not need the old one."""
  first = tasks.load(_data(identifiers=str(old)))
  path = tmp_path / "identifiers.json"
  identifiers.write(path, first.identifiers)
  for there in (tmp_path, path):
    again = tasks.load(_data(identifiers=str(there)))
    assert again.identifiers == first.identifiers
    assert again.train.fingerprint() == first.train.fingerprint()
    assert again.test.fingerprint() == first.test.fingerprint()


def test_files_give_the_same_rows_as_generated_tasks(old, tmp_path):
  """Also with a plan that is read from the cache."""
  subsets = arc_load.generate(NUM_TRAIN, NUM_ALL, seed=_data().seed)
  folders.repository(tmp_path / "files", subsets)
  generated = tasks.load(_data(identifiers=str(old)))
  for _ in range(2):
    task = tasks.load(
      _data(
        task="arc",
        source=str(tmp_path / "files"),
        cache_dir=str(tmp_path / "cache"),
        num_train=0,
        num_test=0,
        identifiers=str(old),
      )
    )
    assert task.identifiers == generated.identifiers
  assert len(list((tmp_path / "cache").rglob("*.npz"))) == 1


def test_the_seed_draws_new_variants_only(old):
  there = len(_names(old))
  some, other = (
    tasks.load(_data(identifiers=str(old), seed=seed)) for seed in (42, 43)
  )
  assert some.identifiers[:there] == other.identifiers[:there]
  assert some.identifiers[there:] != other.identifiers[there:]


# --- what is wrong -----------------------------------------------------------


def _error(**changes) -> str:
  with pytest.raises(errors.UserError) as caught:
    tasks.load(_data(**changes))
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_without_the_setting_new_tasks_are_an_error(old):
  message = _error(identifiers=str(old), new_rows="")
  assert (
    "the originals of 2 of 7 tasks are missing, first 'evaluation2'" in message
  )


def test_new_rows_of_no_run():
  message = _error()
  assert "config.data.new_rows 'mean' adds rows to a trained table" in message
  assert "--config.checkpoint.init_from" in message


def test_a_list_that_is_not_there(tmp_path):
  missing = tmp_path / "missing"
  assert f"{missing} does not exist; expected the workdir of a run or its" in (
    _error(identifiers=str(missing))
  )
  assert f"{tmp_path / 'identifiers.json'} does not exist; expected" in (
    _error(identifiers=str(tmp_path))
  )


def test_variants_without_their_original(tmp_path):
  path = tmp_path / "identifiers.json"
  identifiers.write(path, [*_old_names(), "evaluation3|||t1|||0123456789"])
  message = _error(identifiers=str(tmp_path))
  assert message.startswith(f"{path} has the identifiers of another data set")
  assert (
    "the originals of 1 of 7 tasks are missing, first 'evaluation3'" in message
  )


def test_a_new_task_in_two_subsets(old, monkeypatch):
  generate = arc_load.generate

  def twice(*args, **kwargs):
    subsets = generate(*args, **kwargs)
    again = dataclasses.replace(subsets["evaluation"][-1])
    return subsets | {"training": [*subsets["training"], again]}

  monkeypatch.setattr(arc_load, "generate", twice)
  message = _error(identifiers=str(old))
  assert "the ARC task 'evaluation3' is in several subsets" in message


def test_a_folder_whose_rows_are_written_down(tmp_path, old):
  subsets = {"training": [], "evaluation": _new_tasks()}
  del subsets["training"]
  folders.repository(tmp_path / "files", subsets)
  data = {
    "task": "arc",
    "source": str(tmp_path / "files"),
    "cache_dir": str(tmp_path / "cache"),
    "subsets": ("evaluation",),
    "num_train": 0,
    "num_test": 0,
    "new_rows": "",
    "identifiers": "",
  }
  folders.official(tmp_path / "official", tasks.load(_data(**data)))
  data |= {
    "source": str(tmp_path / "official"),
    "new_rows": "mean",
    "identifiers": str(old),
  }
  assert f"{tmp_path / 'official'} is a data set of the official builder" in (
    _error(**data)
  )


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    ({"new_rows": "men"}, "data.new_rows is 'men'; choose one of mean, zeros"),
  ],
)
def test_settings_that_cannot_be(changes, text):
  with pytest.raises(errors.UserError) as caught:
    _data(**changes)
  assert text in str(caught.value)
