"""The tasks "maze" (Maze-Hard) and "generated_maze"."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import (
  augmentation,
  characters,
  csv_files,
  official,
  puzzle_set,
)
from trm_jax.data import task as task_lib
from trm_jax.data.maze import generator, rules

_COLOURS = (
  "#ffffff",  # padding
  "#303030",  # wall
  "#ffffff",  # open
  "#43a047",  # start
  "#e65100",  # goal
  "#1e88e5",  # path
)


def _size(data: config_lib.DataConfig) -> tuple[int, int]:
  """Returns rows and columns; only generated mazes may have another size."""
  size = data.grid_rows or rules.ROWS, data.grid_cols or rules.COLS
  if data.task == "maze" and size != (rules.ROWS, rules.COLS):
    raise errors.UserError(
      f"Maze-Hard has {rules.ROWS} x {rules.COLS} cells; leave"
      " config.data.grid_rows and config.data.grid_cols at 0"
    )
  return size


def _look(data: config_lib.DataConfig, *_) -> task_lib.Look:
  rows, cols = _size(data)
  return task_lib.Look(
    rows=rows, cols=cols, symbols=("?", *rules.CHARSET), colours=_COLOURS
  )


def _rules(data: config_lib.DataConfig) -> task_lib.Rules:
  rows, cols = _size(data)
  return task_lib.Rules(
    is_valid=functools.partial(rules.is_shortest_path, rows=rows, cols=cols),
    what="valid shortest path",
  )


def _symmetries(
  data: config_lib.DataConfig, look: task_lib.Look
) -> augmentation.BySymmetry:
  return augmentation.GridAugmentation(
    rows=look.rows,
    cols=look.cols,
    dihedral=True,
    relabel=(),
    vocab_size=len(look.symbols),
    sampler=augmentation.VariantSampler.from_settings(data),
  )


def _parse_questions(
  texts: Sequence[str], data: config_lib.DataConfig, look: task_lib.Look
) -> tuple[np.ndarray, characters.Errors]:
  del data
  return rules.parse_questions(texts, rows=look.rows, cols=look.cols)


def _load(data: config_lib.DataConfig) -> task_lib.Task:
  look = _look(data)
  if official.is_official(data.source):
    return official.load(data, look, _rules(data))
  if data.source:
    train, test = csv_files.load(data, rules.parse_pairs)
  else:
    # Imported late: only the public download needs TFDS.
    from trm_jax.data.downloads import csv as download_csv

    train, test = download_csv.load(download_csv.MazeHard, data)
  return _task(data, look, train, test)


def _generate(data: config_lib.DataConfig) -> task_lib.Task:
  rows, cols = _size(data)
  train, test = generator.generate_split(
    data.num_train, data.num_test, rows=rows, cols=cols, seed=data.seed
  )
  return _task(data, _look(data), train, test)


def _task(
  data: config_lib.DataConfig,
  look: task_lib.Look,
  train: puzzle_set.PuzzleSet,
  test: puzzle_set.PuzzleSet,
) -> task_lib.Task:
  return task_lib.Task(
    train=train,
    test=test,
    look=look,
    augmentation=_symmetries(data, look),
    rules=_rules(data),
  )


MAZE = task_lib.TaskType(
  load=_load,
  look=_look,
  rules=_rules,
  symmetries=_symmetries,
  parse_questions=_parse_questions,
  own_settings=("source",),
)
GENERATED = dataclasses.replace(
  MAZE, load=_generate, own_settings=(), file_task="maze"
)
