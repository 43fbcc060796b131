"""What each task is made of, and which settings it refuses."""

import dataclasses

import folders
import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import tasks
from trm_jax.data.maze import rules as maze_rules

ARC = {
  "task": "generated_arc",
  "subsets": ("training", "evaluation"),
  "test_subset": "evaluation",
  "num_train": 3,
  "num_test": 2,
  "num_augmentations": 4,
}
FILES = ARC | {"task": "arc", "num_train": 0, "num_test": 0}


def _error(**changes) -> str:
  with pytest.raises(errors.UserError) as caught:
    tasks.load(folders.data(**changes))
  assert "\n" not in str(caught.value)
  return str(caught.value)


# --- settings that contradict ------------------------------------------------


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    ({"task": "chess"}, "data.task is 'chess', expected one of sudoku, gener"),
    ({"subsets": ("a",)}, "subsets has no effect on the task 'sudoku': leave"),
    ({"task": "maze", "test_subset": "a"}, "no effect on the task 'maze'"),
    ({"task": "grid", "identifiers": "a"}, "no effect on the task 'grid'"),
    ({"new_rows": "mean"}, "data.new_rows has no effect on the task 'sudoku'"),
    (
      {"task": "generated_sudoku", "source": "here"},
      "config.data.source has no effect on the task 'generated_sudoku': set"
      " config.data.task to 'sudoku'",
    ),
    (ARC | {"source": "here"}, "set config.data.task to 'arc' to train on"),
    (
      {"task": "generated_maze", "num_test": 0},
      "'generated_maze' generates its puzzles: set config.data.num_train and",
    ),
    (ARC | {"num_train": 0}, "'generated_arc' generates its puzzles: set"),
    (
      {"box_rows": 2},
      "Sudoku-Extreme has boxes of 3 x 3 cells; set config.data.box_rows",
    ),
    (
      {"task": "maze", "grid_cols": 31 - 2},
      "Maze-Hard has 30 x 30 cells; leave config.data.grid_rows and",
    ),
    ({"task": "grid"}, "set config.data.source to a folder with your train"),
    ({"dihedral": True}, "config.data.dihedral has no effect on the task 'sud"),
    ({"task": "maze", "relabel": "S"}, "its symmetries are known, see config"),
    (
      {"charset": "123"},
      "data.charset has no effect on the task 'sudoku': lea",
    ),
    (
      ARC | {"augmentation": "endless"},
      "their number is fixed: set config.data.augmentation to 'fixed' or",
    ),
    (
      ARC | {"test_subset": "evaluation2"},
      "config.data.test_subset is 'evaluation2'; it must be one of"
      " config.data.subsets ('training', 'evaluation')",
    ),
    (ARC | {"subsets": ()}, "it must be one of config.data.subsets ()"),
    (
      ARC | {"subsets": ("training", "evaluation", "training")},
      "('training', 'evaluation', 'training') names a subset twice",
    ),
    (
      FILES | {"num_train": 1},
      "config.data.num_train and config.data.num_test have no effect on ARC;",
    ),
    (
      ARC | {"subsets": ("evaluation", "training")},
      "the task 'generated_arc' has the subsets ('training', 'evaluation')",
    ),
    (
      ARC | {"identifiers": "/nowhere.json"},
      "config.data.identifiers: /nowhere.json does not exist; expected the",
    ),
  ],
)
def test_settings_that_contradict(changes, text):
  assert text in _error(**changes)


# --- Sudokus and mazes -------------------------------------------------------


def test_a_generated_sudoku():
  task = tasks.load(
    folders.data(
      task="generated_sudoku",
      box_rows=2,
      box_cols=3,
      num_clues=12,
      num_train=5,
      num_test=3,
    )
  )
  assert (task.train.num_examples, task.test.num_examples) == (5, 3)
  assert "".join(task.look.symbols) == " .123456"
  assert (task.vocab_size, task.seq_len, task.num_puzzle_ids) == (8, 36, 1)
  assert (task.rules, task.augmentation_table, task.notes) == (None, None, ())


def test_a_generated_maze():
  task = tasks.load(
    folders.data(
      task="generated_maze",
      grid_rows=5,
      grid_cols=7,
      num_train=4,
      num_test=3,
      augmentation="endless",
    )
  )
  assert (task.look.rows, task.look.cols) == (5, 7)
  assert "".join(task.look.symbols) == "?# SGo"
  assert (task.vocab_size, task.seq_len) == (maze_rules.VOCAB_SIZE, 35)
  inputs, labels = folders.everything(task.test)
  assert task.rules.is_valid(inputs, labels).all()
  assert not task.rules.is_valid(inputs, inputs).any()
  # Variants of a maze are mazes, whose labels are shortest paths.
  varied = False
  for number in range(5):
    x, y = task.augmentation(
      *folders.everything(task.train),
      batch_index=number,
      rows=np.arange(4),
      puzzle_indices=np.arange(4),
    )
    assert task.rules.is_valid(x, y).all()
    varied |= (x != task.train.inputs).any()
  assert varied


def test_shared_questions_are_a_reason_to_doubt(tmp_path):
  for name, rows in (("train", "ab,ba\naa,bb\n"), ("test", "ab,ba\nbb,aa\n")):
    (tmp_path / f"{name}.csv").write_text("question,answer\n" + rows)
  changes = {
    "task": "grid",
    "source": str(tmp_path),
    "grid_rows": 1,
    "grid_cols": 2,
    "num_train": 0,
  }
  task = tasks.load(folders.data(**changes))
  assert task.notes == ("grids of 1 x 2 cells over 2 characters: 'ab'",)
  assert task.warnings == (
    "1 of the 2 test questions are among the training questions",
  )
  assert task.augmentation is None
  (tmp_path / "test.csv").write_text("question,answer\nbb,aa\n")
  task = tasks.load(
    folders.data(**changes, relabel="ab", augmentation="endless")
  )
  assert task.warnings == ()
  assert task.augmentation.relabel == (1, 2)
  assert not task.augmentation.dihedral


# --- folders of the official builders ----------------------------------------


SUDOKU = {"num_train": 0, "num_test": 0}


@pytest.fixture(name="sudokus")
def _sudokus(tmp_path):
  generated = tasks.load(
    folders.data(task="generated_sudoku", num_clues=40, num_train=3, num_test=2)
  )
  folders.official(tmp_path / "official", generated)
  return tmp_path / "official", generated


def test_an_official_folder_of_sudokus(sudokus):
  folder, generated = sudokus
  task = tasks.load(folders.data(source=str(folder), num_train=3))
  for split in ("train", "test"):
    for actual, expected in zip(
      folders.everything(getattr(task, split)),
      folders.everything(getattr(generated, split)),
      strict=True,
    ):
      np.testing.assert_array_equal(actual, expected)
  assert task.look == generated.look
  assert task.augmentation is None
  assert task.augmentation_table is None
  (note,) = task.notes
  assert note.startswith(f"{folder} is a data set of the official builders")


def test_official_folders_of_other_grids(tmp_path):
  """Sudokus by their boxes, any other by its characters."""
  box = {"box_rows": 2, "box_cols": 3}
  generated = tasks.load(
    folders.data(
      task="generated_sudoku", num_clues=14, num_train=2, num_test=1, **box
    )
  )
  folders.official(tmp_path, generated)
  source = {"source": str(tmp_path), **SUDOKU}
  assert (
    "has 8 tokens and 36 cells, expected 11 and 81: is config.data.task the"
    " right one? Sudokus of other sizes need config.data.box_rows and box_cols;"
  ) in _error(**source)
  by_box = tasks.load(folders.data(**source, **box))
  assert by_box.look == generated.look
  own = {**source, "task": "grid"}
  assert "set config.data.charset to the characters of" in _error(**own)
  by_charset = tasks.load(folders.data(**own, charset=".123456"))
  assert by_charset.look.symbols[1:] == generated.look.symbols[1:]
  assert (by_charset.look.rows, by_charset.look.cols) == (6, 6)
  assert "has 36 cells: set config.data.grid_rows and" in _error(
    **own, charset=".123456", grid_rows=5
  )
  for task in (by_box, by_charset):
    for split in ("train", "test"):
      for actual, expected in zip(
        folders.everything(getattr(task, split)),
        folders.everything(getattr(generated, split)),
        strict=True,
      ):
        np.testing.assert_array_equal(actual, expected)


def test_official_folders_that_do_not_fit(sudokus, tmp_path):
  folder, generated = sudokus
  source = {"source": str(folder)}
  assert (
    f"{folder} has 11 tokens and 81 cells, expected 6 and 900: is"
    " config.data.task the right one?"
  ) in _error(**source, **SUDOKU, task="maze")
  assert (
    f"config.data.num_train asks for 1000 puzzles, but {folder} was built"
    " with 3; set it to 0"
  ) in _error(**source)
  assert "config.data.num_test asks for 3 puzzles" in _error(
    **source, num_train=0, num_test=3
  )
  other = dataclasses.replace(generated, identifiers=["<blank>", "more"])
  folders.official(tmp_path / "other", other)
  (folder / "test").rename(tmp_path / "unused")
  (tmp_path / "other" / "test").rename(folder / "test")
  assert (
    f"the train and test sets in {folder} differ in vocabulary, length or"
    " number of puzzle identifiers"
  ) in _error(**source, **SUDOKU)


def test_an_official_folder_has_its_own_identifiers(tmp_path):
  folders.official(tmp_path, tasks.load(folders.data(**ARC)))
  files = FILES | {"source": str(tmp_path)}
  assert tasks.load(folders.data(**files)).num_puzzle_ids == 1 + 5 * 5
  message = _error(**files, identifiers="other.json")
  assert "has its own identifiers.json; leave config.data" in message


# --- the registry ------------------------------------------------------------


def test_a_new_task_is_one_entry(monkeypatch):
  own = dataclasses.replace(tasks.TASKS["grid"], load=lambda data: data.relabel)
  monkeypatch.setitem(tasks.TASKS, "own", own)
  assert tasks.load(folders.data(task="own", relabel="ab")) == "ab"
  assert "no effect on the task 'own'" in _error(task="own", subsets=("a",))


def test_every_task_has_a_look_and_every_generated_one_files():
  for name, task_type in tasks.TASKS.items():
    data = folders.data(task=name)
    look = tasks.look(data, vocabulary=(" ", "a", "b"), seq_len=36)
    assert look.rows * look.cols >= 36
    assert task_type.is_arc == name.endswith("arc")
    assert (task_type.file_task in tasks.TASKS) == name.startswith("generated")
    rules = tasks.rules(data)
    assert (rules is None) == (name in ("arc", "generated_arc", "grid"))
