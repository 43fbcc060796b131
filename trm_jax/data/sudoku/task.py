"""The tasks "sudoku" (Sudoku-Extreme) and "generated_sudoku"."""

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
from trm_jax.data.sudoku import augmentation as sudoku_augmentation
from trm_jax.data.sudoku import generator, rules


def _box(data: config_lib.DataConfig) -> dict[str, int]:
  return {"box_rows": data.box_rows, "box_cols": data.box_cols}


def _look(data: config_lib.DataConfig, *_) -> task_lib.Look:
  side = rules.side(**_box(data))
  return task_lib.Look(
    rows=side,
    cols=side,
    symbols=(" ", ".", *(str(digit) for digit in range(1, side + 1))),
    interchangeable=tuple(range(2, side + 2)),
    box_rows=data.box_rows,
    box_cols=data.box_cols,
  )


def _rules(data: config_lib.DataConfig) -> task_lib.Rules:
  box = _box(data)

  def is_valid(questions, answers):
    return rules.agrees_with_clues(
      questions, answers
    ) & rules.is_valid_solution(answers, **box)

  return task_lib.Rules(is_valid=is_valid, what="valid solution")


def _symmetries(
  data: config_lib.DataConfig, look: task_lib.Look
) -> augmentation.BySymmetry:
  del look
  return sudoku_augmentation.SudokuAugmentation(
    **_box(data), sampler=augmentation.VariantSampler.from_settings(data)
  )


def _parse_questions(
  texts: Sequence[str], data: config_lib.DataConfig, look: task_lib.Look
) -> tuple[np.ndarray, characters.Errors]:
  del look
  return rules.parse_questions(texts, **_box(data))


def _load(data: config_lib.DataConfig) -> task_lib.Task:
  look = _look(data)
  if official.is_official(data.source):
    return official.load(data, look, rules=None)
  if data.source:
    parse_pairs = functools.partial(
      rules.parse_pairs, box_rows=data.box_rows, box_cols=data.box_cols
    )
    train, test = csv_files.load(data, parse_pairs)
  elif (data.box_rows, data.box_cols) != (3, 3):
    raise errors.UserError(
      "Sudoku-Extreme has boxes of 3 x 3 cells; set config.data.box_rows"
      " and config.data.box_cols to 3, or config.data.source to a folder of"
      " other Sudokus"
    )
  else:
    # Imported late: only the public download needs TFDS.
    from trm_jax.data.downloads import csv as download_csv

    train, test = download_csv.load(download_csv.SudokuExtreme, data)
  return _task(data, look, train, test)


def _generate(data: config_lib.DataConfig) -> task_lib.Task:
  look = _look(data)
  train, test = generator.generate_split(
    data.num_train,
    data.num_test,
    **_box(data),
    num_clues=data.num_clues,
    seed=data.seed,
  )
  return _task(data, look, train, test)


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
  )


SUDOKU = task_lib.TaskType(
  load=_load,
  look=_look,
  rules=_rules,
  symmetries=_symmetries,
  parse_questions=_parse_questions,
  digits=True,
  own_settings=("source",),
)
GENERATED = dataclasses.replace(
  SUDOKU, load=_generate, own_settings=(), file_task="sudoku"
)
