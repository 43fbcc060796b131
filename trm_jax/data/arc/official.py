"""ARC data sets written by the official builder, which has all variants."""

import dataclasses
import pathlib

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import identifiers, official, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import leakage
from trm_jax.data.arc import tasks as arc_tasks

_TEST_PUZZLES = "test_puzzles.json"


def load(data: config_lib.DataConfig, look: task_lib.Look) -> task_lib.Task:
  """Opens a data set without reading it into memory.

  Args:
    data: Settings; `source` is the folder.
    look: The task's look.

  Raises:
    UserError: as `official.load`, or if test_puzzles.json is missing, damaged
      or of other puzzles.
  """
  if data.new_rows:
    raise errors.UserError(
      f"config.data.new_rows: {data.source} is a data set of the official"
      " builder, whose rows are fixed; use a folder of ARC's JSON files"
    )
  task = official.load(data, look, rules=None)
  table = _augmentation_table(data.source, task.test, task.identifiers)
  names = {name.split(arc_grids.SEPARATOR)[0] for name in task.identifiers[1:]}
  tested = {member.name for member in table.tasks}
  pairs = _learned_pairs(task.train)
  marks = [*sorted(names - tested), *map(leakage.mark, pairs)]
  return dataclasses.replace(
    task,
    augmentation_table=table,
    learned=tuple(marks),
    warnings=tuple(filter(None, [leakage.warning(table.tasks, marks)])),
  )


def _augmentation_table(
  source: str, test: puzzle_set.Puzzles, names: list[str]
) -> task_lib.AugmentationTable:
  """Reads the augmentations of the test split.

  Args:
    source: The folder.
    test: Its test split.
    names: Its identifiers.
  """
  folder = pathlib.Path(source).expanduser()
  path = folder / _TEST_PUZZLES
  values = official.read_object(path, f"{source} must have {_TEST_PUZZLES}")
  tasks = {
    name: arc_tasks.parse_task(name, value, solutions=None, where=str(path))
    for name, value in values.items()
  }
  task_of, transforms, colours = arc_grids.parse_names(
    names, test.puzzle_ids.tolist(), where=f"{folder}/{identifiers.FILE}"
  )
  chosen = []
  for group in range(test.num_groups):
    first, end = test.group_indices[group : group + 2].tolist()
    members = sorted(set(task_of[first:end]))
    name = members[0]
    if len(members) > 1:
      raise errors.UserError(
        f"{source} is inconsistent: by its identifiers.json, group {group} of"
        f" its test set has variants of {name!r} and of {members[1]!r}"
      )
    if name not in tasks:
      raise errors.UserError(
        f"{path} has no task {name!r}, which is in the test set by"
        " identifiers.json: they belong to two data sets"
      )
    sizes = np.diff(test.puzzle_indices[first : end + 1])
    wrong = sizes[sizes != len(tasks[name].test)]
    if wrong.size:
      raise errors.UserError(
        f"{path} does not match the test set: the task {name!r} has"
        f" {len(tasks[name].test)} test inputs there, {wrong[0]} here"
      )
    chosen.append(tasks[name])
  result = task_lib.AugmentationTable(
    tasks=tuple(chosen), transforms=transforms, colours=colours
  )
  _check_variants(source, test, result)
  return result


def _check_variants(
  source: str, test: puzzle_set.Puzzles, made: task_lib.AugmentationTable
) -> None:
  """Raises UserError unless variants match their identifiers.

  Only the first and the last variant of each task are checked, which is enough
  to find mixed-up files. The evaluation checks each of them.
  """
  ends = np.stack([test.group_indices[:-1], test.group_indices[1:] - 1], axis=1)
  for group, puzzles in enumerate(ends.tolist()):
    task = made.tasks[group]
    for puzzle in puzzles:
      first, end = test.puzzle_indices[puzzle : puzzle + 2].tolist()
      examples = np.arange(first, end)
      inputs, _ = test.fetch(examples, np.full(len(examples), puzzle))
      for grid, pair in zip(arc_grids.crop(inputs), task.test, strict=True):
        original = arc_grids.invert(
          grid,
          transform=int(made.transforms[puzzle]),
          colours=made.colours[puzzle],
        )
        if not np.array_equal(original, pair.input):
          raise errors.UserError(
            f"{source} is inconsistent: puzzle {puzzle} of its test set"
            f" is not the variant of {task.name!r} by identifiers.json and"
            " test_puzzles.json"
          )


def _learned_pairs(train: puzzle_set.Puzzles) -> list[arc_tasks.Pair]:
  """Returns the pairs of all originals, the first puzzle of each group."""
  originals = train.group_indices[:-1]
  sizes = np.diff(train.puzzle_indices)[originals]
  examples = np.concatenate(
    [
      np.arange(
        train.puzzle_indices[puzzle], train.puzzle_indices[puzzle] + size
      )
      for puzzle, size in zip(originals.tolist(), sizes.tolist(), strict=True)
    ]
  )
  inputs, labels = train.fetch(examples, np.repeat(originals, sizes))
  return [
    arc_tasks.Pair(input=arc_grids.find(x), output=arc_grids.find(y))
    for x, y in zip(inputs, labels, strict=True)
  ]
