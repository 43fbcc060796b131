"""The registry of tasks: what `config.data.task` may name.

A new task is a `task.TaskType` in a module of its own and a line in `TASKS`.
"""

from collections.abc import Sequence

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import augmentation, files
from trm_jax.data import task as task_lib
from trm_jax.data.arc import load as arc_load
from trm_jax.data.grid import puzzles as grid_puzzles
from trm_jax.data.maze import task as maze_task
from trm_jax.data.sudoku import task as sudoku_task

TASKS: dict[str, task_lib.TaskType] = {
  "sudoku": sudoku_task.SUDOKU,
  "generated_sudoku": sudoku_task.GENERATED,
  "maze": maze_task.MAZE,
  "generated_maze": maze_task.GENERATED,
  "arc": arc_load.ARC,
  "generated_arc": arc_load.GENERATED,
  "grid": grid_puzzles.GRID,
}

# Settings that only some tasks read; each is empty or False if not used.
_OWN_SETTINGS = sorted(
  {name for task_type in TASKS.values() for name in task_type.own_settings}
)


def get(data: config_lib.DataConfig) -> task_lib.TaskType:
  """Returns the type of the task; UserError if the name is unknown."""
  if data.task not in TASKS:
    raise errors.UserError(
      f"config.data.task is {data.task!r}, expected one of {', '.join(TASKS)}"
    )
  return TASKS[data.task]


def load(data: config_lib.DataConfig) -> task_lib.Task:
  """Loads the task that the settings name.

  Args:
    data: Settings.

  Returns:
    The task.

  Raises:
    UserError: if files are missing or malformed, or settings contradict.
  """
  task_type = get(data)
  files.check_scheme(data.source, buckets=False)
  files.check_scheme(data.identifiers)
  for name in _OWN_SETTINGS:
    if getattr(data, name) and name not in task_type.own_settings:
      raise errors.UserError(_unused(data, name, task_type))
  if task_type.file_task and not (data.num_train and data.num_test):
    raise errors.UserError(
      f"the task {data.task!r} generates its puzzles: set config.data.num_train"
      " and config.data.num_test to at least 1"
    )
  return task_type.load(data)


def _unused(
  data: config_lib.DataConfig, name: str, task_type: task_lib.TaskType
) -> str:
  if name == "source":
    advice = (
      f"set config.data.task to {task_type.file_task!r} to train on files"
    )
  else:
    advice = "leave it empty"
    if name in ("dihedral", "relabel"):
      advice = "its symmetries are known, see config.data.augmentation"
  return f"config.data.{name} has no effect on the task {data.task!r}: {advice}"


def look(
  data: config_lib.DataConfig,
  vocabulary: Sequence[str] = (),
  seq_len: int = 0,
) -> task_lib.Look:
  """Returns what the puzzles look like that a network was trained on.

  Args:
    data: The network's settings.
    vocabulary: The character of each token; only the task 'grid' needs it.
    seq_len: L; only the task 'grid' needs it.
  """
  return get(data).look(data, vocabulary, seq_len)


def attempt_tables(
  data: config_lib.DataConfig, look_: task_lib.Look, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the symmetries under which a puzzle is attempted several times.

  Args:
    data: Settings.
    look_: Look of the puzzles.
    count: Number of attempts.

  Returns:
    Tables as of `augmentation.attempt_tables`.

  Raises:
    UserError: the puzzles have no known symmetries.
  """
  symmetries = get(data).symmetries(data, look_)
  if symmetries is None:
    declare = ""
    if "dihedral" in get(data).own_settings:
      declare = " (declare them by config.data.dihedral or config.data.relabel)"
    raise errors.UserError(
      "config.eval.rollout_variation 'symmetries' needs puzzles with known"
      f" symmetries{declare}; the task {data.task!r} has none: choose noise or"
      " starts"
    )
  return augmentation.attempt_tables(symmetries, count)


def rules(data: config_lib.DataConfig) -> task_lib.Rules | None:
  """Returns the rules that judge an answer without a label, if there are any.

  Args:
    data: Settings.
  """
  return get(data).rules(data)
