"""What an ARC task is made of, and what is told of it."""

import dataclasses

import numpy as np
import pytest

from experiments import arc
from trm_jax import config as config_lib
from trm_jax.data import identifiers, tasks
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.runtime import program

DATA = {
  "subsets": ("training", "evaluation"),
  "test_subset": "evaluation",
  "num_train": 3,
  "num_test": 2,
  "num_augmentations": 4,
}


def _config(**changes):
  config = arc.get_config("smoke")
  config.data.update(DATA | changes)
  return config_lib.from_config_dict(config)


def _load(**changes):
  return tasks.load(_config(**changes).data)


def test_a_generated_arc():
  task = _load()
  assert (task.vocab_size, task.seq_len) == (12, 900)
  assert task.num_puzzle_ids == 1 + 5 * 5
  assert task.test.num_puzzles == 2 * 5
  names = [mark for mark in task.learned if not mark.startswith("pair ")]
  assert names == ["training0", "training1", "training2"]
  assert {member.name for member in task.augmentation_table.tasks} == {
    "evaluation0",
    "evaluation1",
  }
  assert task.notes == ("5 tasks, 25 variants, the originals among them",)
  assert task.warnings == ()
  without = _load(augmentation="none")
  assert without.num_puzzle_ids == 1 + 5


def test_an_answer_is_shown_as_it_is_read():
  task = _load()
  grid = np.array([[1, 2], [3, 4]], np.uint8)
  answer = arc_grids.encode(grid)
  answer[-1] = 7  # beside the grid, not read
  shown = task.look.cut(answer)
  np.testing.assert_array_equal(shown, arc_grids.encode(grid))
  assert task.look.text(shown) == "12|\n34|\n||"


def _replaced(monkeypatch, change):
  """Generated tasks become other ones."""
  generate = arc_load.generate
  monkeypatch.setattr(
    arc_load,
    "generate",
    lambda *args, **kwargs: change(generate(*args, **kwargs)),
  )


def _pair(inputs, outputs):
  return arc_tasks.Pair(
    input=np.array(inputs, np.uint8), output=np.array(outputs, np.uint8)
  )


def test_tasks_of_few_variants_are_named(monkeypatch):
  black = _pair([[0]], [[0]])  # turned and recoloured it is the same
  line = _pair([[0, 0]], [[0]])  # may lie or stand

  def change(subsets):
    first, second, third = subsets["training"]
    return subsets | {
      "training": [
        first,
        dataclasses.replace(second, train=(line,), test=(line,)),
        dataclasses.replace(third, train=(black,), test=(black,)),
      ]
    }

  _replaced(monkeypatch, change)
  task = _load()
  assert len(task.notes) == 2
  assert task.notes[1].startswith("2 ")
  assert task.notes[1].endswith("fewer than 5: training2 1, training1 2")


def test_only_some_of_many_tasks_are_named(monkeypatch):
  black = _pair([[0]], [[0]])
  _replaced(
    monkeypatch,
    lambda subsets: (
      subsets
      | {
        "training": [
          dataclasses.replace(task, train=(black,), test=(black,))
          for task in subsets["training"]
        ]
      }
    ),
  )
  task = _load(num_train=6)
  named = [f"training{i} 1" for i in range(6)]
  text = task.notes[1]
  assert text.startswith("6 ")
  assert text.endswith(", ...")
  assert sum(name in text for name in named) == 5


def test_unknown_answers_and_unused_rows_are_told(tmp_path, monkeypatch):
  plain = _load()
  path = tmp_path / "identifiers.json"
  names = [*plain.identifiers, "elsewhere", "elsewhere|||t1|||0123456789"]
  identifiers.write(path, names)

  def change(subsets):
    first, *others = subsets["training"]
    (pair,) = first.test
    unknown = dataclasses.replace(pair, output=None)
    return subsets | {
      "training": [dataclasses.replace(first, test=(unknown,)), *others]
    }

  _replaced(monkeypatch, change)
  task = _load(identifiers=str(path))
  assert task.identifiers == names
  assert task.notes[1:] == (
    "2 rows of the puzzle table belong to tasks that are not in the data; they"
    " stay unchanged",
    "1 test pairs of training tasks have no known answer and are left out",
  )
  assert task.train.num_examples == plain.train.num_examples - 5
  assert task.train.puzzle_ids.max() < len(plain.identifiers)


# --- test answers among the training tasks -----------------------------------


def _leaked_by_name(subsets):
  """A task of the same name with other grids, as a corrected version has."""
  task = dataclasses.replace(
    subsets["training"][0], name=subsets["evaluation"][1].name
  )
  return subsets | {"training": [task, *subsets["training"][1:]]}


def _leaked_by_grids(subsets):
  task = dataclasses.replace(subsets["evaluation"][1], name="under_cover")
  return subsets | {"training": [task, *subsets["training"][1:]]}


def _same_question_only(subsets):
  """The same test input with another output is another puzzle."""
  task = subsets["evaluation"][1]
  (pair,) = task.test
  other = dataclasses.replace(pair, output=(pair.output + 1) % 10)
  task = dataclasses.replace(task, name="alike", train=(other,), test=(other,))
  return subsets | {"training": [task, *subsets["training"][1:]]}


@pytest.mark.parametrize("change", [_leaked_by_name, _leaked_by_grids])
def test_leaked_answers_are_a_reason_to_doubt(monkeypatch, change):
  _replaced(monkeypatch, change)
  run = program.load(_config())
  (warning,) = run.task.warnings
  assert warning.startswith(
    "training saw the test answers of 1 of the 2 evaluation tasks"
    " (evaluation1): "
  )


def test_no_leak_no_warning(monkeypatch):
  _replaced(monkeypatch, _same_question_only)
  run = program.load(_config())
  assert run.task.warnings == ()


# --- generated tasks ---------------------------------------------------------


def _rules(task):
  """Each transform, with its colours, that turns all inputs into outputs."""
  found = []
  pairs = (*task.train, *task.test)
  for transform in range(arc_grids.NUM_TRANSFORMS):
    colours: dict[int, set[int]] = {}
    fits = True
    for pair in pairs:
      turned = arc_grids.dihedral(pair.input, transform)
      fits &= turned.shape == pair.output.shape
      if fits:
        for old, new in zip(turned.flat, pair.output.flat, strict=True):
          colours.setdefault(int(old), set()).add(int(new))
    if fits and all(len(new) == 1 for new in colours.values()):
      values = [new for (new,) in colours.values()]
      if len(set(values)) == len(values):
        found.append((transform, colours))
  return found


def test_a_rule_explains_every_pair_of_a_generated_task():
  subsets = arc_load.generate(20, 10, seed=0)
  assert list(subsets) == ["training", "evaluation"]
  transforms = set()
  for subset, members in subsets.items():
    assert [task.name for task in members] == [
      f"{subset}{i}" for i in range(20 if subset == "training" else 10)
    ]
    for task in members:
      assert (len(task.train), len(task.test)) == (3, 1)
      rules = _rules(task)
      assert rules
      transforms |= {transform for transform, _ in rules}
      for pair in (*task.train, *task.test):
        assert all(2 <= side <= 5 for side in pair.input.shape)
        assert pair.input.dtype == pair.output.dtype == np.uint8
  assert transforms == set(range(arc_grids.NUM_TRANSFORMS))


def test_generated_tasks_by_seed():
  def texts(seed):
    subsets = arc_load.generate(4, 2, seed=seed)
    return [
      arc_tasks.to_json(task) for tasks in subsets.values() for task in tasks
    ]

  assert texts(0) == texts(0)
  assert not set(texts(0)) & set(texts(1))
  assert len(set(texts(0))) == 6
