"""Plans of ARC variants kept in files."""

import dataclasses

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import plan as arc_plan


def _tasks(seed=0):
  return arc_load.generate(3, 2, seed=seed)


def _built():
  rng = np.random.RandomState(0)
  return arc_plan.build(_tasks(), num_augmentations=5, rng=rng)


def _assert_equal(actual, expected):
  for field in dataclasses.fields(arc_plan.VariantTable):
    a, b = getattr(actual, field.name), getattr(expected, field.name)
    np.testing.assert_array_equal(a, b, err_msg=field.name)
    assert type(a) is type(b)


def _cached(folder, *, tasks=None, num_augmentations=5, seed=0):
  return arc_plan.cached(
    _tasks() if tasks is None else tasks,
    num_augmentations=num_augmentations,
    seed=seed,
    folder=folder,
  )


def test_built_once(tmp_path, capfd):
  folder = tmp_path / "new" / "folder"
  _assert_equal(_cached(folder), _built())
  first = capfd.readouterr()
  assert first.out == ""
  assert first.err == ("drawing the variants of 5 tasks, once: up to 5 each\n")
  _assert_equal(_cached(folder), _built())
  assert capfd.readouterr() == ("", "")
  assert len(list(folder.iterdir())) == 1


def _one_cell_changed():
  tasks = _tasks()
  task = tasks["evaluation"][-1]
  x = task.test[-1].input.copy()
  x.flat[-1] ^= 1
  pair = dataclasses.replace(task.test[-1], input=x)
  tasks["evaluation"][-1] = dataclasses.replace(task, test=(pair,))
  return tasks


def _answer_forgotten():
  tasks = _tasks()
  task = tasks["evaluation"][0]
  pair = dataclasses.replace(task.test[0], output=None)
  tasks["evaluation"][0] = dataclasses.replace(task, test=(pair,))
  return tasks


@pytest.mark.parametrize(
  "changed",
  [
    {"num_augmentations": 6},
    {"seed": 1},
    {"tasks": _tasks(seed=1)},
    {"tasks": _one_cell_changed()},
    {"tasks": _answer_forgotten()},
    {"tasks": {s.upper(): t for s, t in _tasks().items()}},
    {"tasks": dict(reversed(_tasks().items()))},
    {"tasks": {s: t[::-1] for s, t in _tasks().items()}},
  ],
)
def test_what_changes_is_built_anew(tmp_path, changed):
  _cached(tmp_path)
  _cached(tmp_path, **changed)
  assert len(list(tmp_path.iterdir())) == 2


def _cut(content):
  return content[: len(content) // 2]


def _bit_flipped(content):
  middle = len(content) // 2
  return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize(
  "damage", [_cut, _bit_flipped, lambda content: b"", lambda content: b"junk"]
)
def test_damaged_file(tmp_path, damage):
  _cached(tmp_path)
  (path,) = tmp_path.iterdir()
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(errors.UserError) as caught:
    _cached(tmp_path)
  assert f"{path} is damaged" in str(caught.value)
  assert "delete that file" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_file_with_an_array_that_does_not_fit(tmp_path):
  _cached(tmp_path)
  (path,) = tmp_path.iterdir()
  with np.load(path) as file:
    arrays = dict(file)
  for name, array in (
    ("rows", arrays["rows"][:-1]),
    ("rows", arrays["rows"] - 1),
    ("colours", arrays["colours"].astype(np.int64)),
    ("group_indices", arrays["group_indices"][::-1]),
    ("num_rows", np.array(3)),
  ):
    np.savez(path, **{**arrays, name: array})
    with pytest.raises(errors.UserError, match="is damaged"):
      _cached(tmp_path)


def test_no_pickles(tmp_path):
  _cached(tmp_path)
  (path,) = tmp_path.iterdir()
  np.savez(path, rows=np.array([object()]))
  with pytest.raises(errors.UserError, match="is damaged"):
    _cached(tmp_path)


def test_folder_that_cannot_be(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match=r"cannot write .*file"):
    _cached(tmp_path / "file" / "folder")


@pytest.mark.parametrize(
  "bad", [{"num_augmentations": -1}, {"seed": -1}, {"seed": 2**32}]
)
def test_numbers_out_of_range(tmp_path, bad):
  with pytest.raises(errors.UserError, match="number of variants is"):
    _cached(tmp_path, **bad)
