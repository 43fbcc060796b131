"""Loads the task that the settings name."""

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import augmentation, kind, official
from trm_jax.data import task as task_lib
from trm_jax.data.arc import load as arc_load
from trm_jax.data.downloads import csv as download_csv
from trm_jax.data.grid import puzzles as grid_puzzles
from trm_jax.data.maze import generator as maze_generator
from trm_jax.data.sudoku import augmentation as sudoku_augmentation
from trm_jax.data.sudoku import generator as sudoku_generator


def load(data: config_lib.DataConfig) -> task_lib.Task:
  """Loads the task of the settings.

  Args:
    data: the settings.

  Returns:
    The task.

  Raises:
    UserError: files are missing or malformed, or settings contradict.
  """
  name = kind.of(data)
  if data.task != name:
    _check_generated(data, name)
  if name != "arc" and (data.identifiers or data.subsets or data.test_subset):
    raise errors.UserError(
      "config.data.identifiers, config.data.subsets and config.data.test_subset"
      f" have no meaning for the task {data.task!r}; leave them empty"
    )
  if name != "grid" and (data.dihedral or data.relabel or data.charset):
    raise errors.UserError(
      "config.data.dihedral, config.data.relabel and config.data.charset are"
      f" for the task 'grid'; {data.task!r} has symmetries of its own, see"
      " config.data.augmentation"
    )
  return {
    "sudoku": _sudoku,
    "maze": _maze,
    "grid": _grid,
    "arc": arc_load.load,
  }[name](data)


def _check_generated(data: config_lib.DataConfig, name: str) -> None:
  if data.source:
    raise errors.UserError(
      f"config.data.source has no meaning for the task {data.task!r}; set"
      f" config.data.task to {name!r} to train on files"
    )
  if not data.num_train or not data.num_test:
    raise errors.UserError(
      "how many puzzles shall be generated? set config.data.num_train and"
      " config.data.num_test to at least 1"
    )


def _schedule(data: config_lib.DataConfig) -> augmentation.Schedule:
  return augmentation.Schedule(data.augmentation, data.num_variants, data.seed)


def _from_csv(data: config_lib.DataConfig, load_split):
  """Loads both splits with one of `csv_puzzles`' functions."""
  return [
    load_split(
      data.source,
      cache_dir=data.cache_dir,
      split=split,
      num_puzzles=number,
      seed=data.seed,
    )
    for split, number in (("train", data.num_train), ("test", data.num_test))
  ]


def _sudoku(data: config_lib.DataConfig) -> task_lib.Task:
  box = {"box_rows": data.box_rows, "box_cols": data.box_cols}
  shown = kind.sudoku_look(data)
  if data.task == "generated_sudoku":
    train, test = sudoku_generator.generate_split(
      data.num_train,
      data.num_test,
      **box,
      num_clues=data.num_clues,
      seed=data.seed,
    )
  elif (data.box_rows, data.box_cols) != (3, 3):
    raise errors.UserError(
      "Sudoku-Extreme has boxes of 3 x 3 cells; set config.data.box_rows"
      " and config.data.box_cols to 3"
    )
  elif official.is_official(data.source):
    return official.load(data, shown, rules=None)
  else:
    train, test = _from_csv(data, download_csv.load_sudoku_extreme)
  return task_lib.Task(
    train=train,
    test=test,
    look=shown,
    augmentation=sudoku_augmentation.SudokuAugmentation(
      **box, schedule=_schedule(data)
    ),
  )


def _maze(data: config_lib.DataConfig) -> task_lib.Task:
  rows, cols = kind.maze_size(data)
  shown = kind.maze_look(data)
  rules = kind.rules_of(data)
  if data.task == "generated_maze":
    train, test = maze_generator.generate_split(
      data.num_train, data.num_test, rows=rows, cols=cols, seed=data.seed
    )
  elif official.is_official(data.source):
    return official.load(data, shown, rules)
  else:
    train, test = _from_csv(data, download_csv.load_maze_hard)
  return task_lib.Task(
    train=train,
    test=test,
    look=shown,
    augmentation=augmentation.GridAugmentation(
      rows=rows,
      cols=cols,
      dihedral=True,
      relabel=(),
      vocab_size=len(shown.symbols),
      schedule=_schedule(data),
    ),
    rules=rules,
  )


def _grid(data: config_lib.DataConfig) -> task_lib.Task:
  if not data.source:
    raise errors.UserError(
      "set config.data.source to a folder with your train.csv and test.csv"
      " (header question,answer)"
    )
  puzzles = grid_puzzles.load(
    data.source,
    grid_rows=data.grid_rows,
    grid_cols=data.grid_cols,
    charset=data.charset,
    num_train=data.num_train,
    num_test=data.num_test,
    seed=data.seed,
  )
  tokens = {
    character: token for token, character in enumerate(puzzles.charset, 1)
  }
  unknown = sorted(set(data.relabel) - set(tokens))
  if unknown:
    raise errors.UserError(
      f"config.data.relabel has {unknown[0]!r}, which is in no puzzle; the"
      f" characters are {puzzles.charset!r}"
    )
  for character in data.relabel:
    if data.relabel.count(character) > 1:
      raise errors.UserError(f"config.data.relabel has {character!r} twice")
  warnings: tuple[str, ...] = ()
  if puzzles.num_shared:
    warnings = (
      f"{puzzles.num_shared} of the {puzzles.test.num_examples} test questions"
      " are among the training questions",
    )
  return task_lib.Task(
    train=puzzles.train,
    test=puzzles.test,
    look=kind.grid_look(puzzles.rows, puzzles.cols, puzzles.charset),
    augmentation=_grid_augmentation(data, puzzles, tokens),
    notes=(
      f"grids of {puzzles.rows} x {puzzles.cols} cells over"
      f" {len(puzzles.charset)} characters: {puzzles.charset!r}",
    ),
    warnings=warnings,
  )


def _grid_augmentation(
  data: config_lib.DataConfig,
  puzzles: grid_puzzles.GridPuzzles,
  tokens: dict[str, int],
) -> augmentation.Augmentation | None:
  if not data.dihedral and not data.relabel:
    return None  # no symmetry is known of these puzzles
  return augmentation.GridAugmentation(
    rows=puzzles.rows,
    cols=puzzles.cols,
    dihedral=data.dihedral,
    relabel=tuple(tokens[character] for character in data.relabel),
    vocab_size=len(tokens) + 1,
    schedule=_schedule(data),
  )
