"""ARC tasks that people hand in: one, a file of many, or a folder."""

import dataclasses
import gzip
import os
import pathlib
import sys
from typing import Any

from trm_jax import errors
from trm_jax.data import identifiers
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.inference import question_rows

_PARTS = ("train", "test")
_NAMELESS = "task"


@dataclasses.dataclass(frozen=True)
class Tasks:
  """What was handed in.

  Attributes:
    tasks: Those that could be read, in order.
    faults: Why each of the others could not be, by its name.
  """

  tasks: tuple[arc_tasks.ArcTask, ...]
  faults: dict[str, str]


def read(source: str) -> Tasks:
  """Reads the tasks of an input.

  Args:
    source: One of
      - a JSON file (gzipped if called .gz) with one task, {"train": [{"input":
        ..., "output": ...}, ...], "test": [{"input": ...}, ...]}, which is
        called as the file;
      - one with many, {NAME: task, ...}, as Kaggle's challenges;
      - "-" for one of these on standard input, where a task that stands alone
        may say its "name";
      - a folder of files NAME.json, with one task each.

  Returns:
    The tasks, at least one, or one fault.

  Raises:
    UserError: if there is no such input, or it is none of these.
  """
  path = pathlib.Path(os.path.expanduser(source))
  if source == question_rows.STANDARD:
    with errors.told("standard input cannot be read"):
      content = sys.stdin.buffer.read()
    return _parse(content, "standard input", _NAMELESS)
  if os.path.isdir(path):
    return _read_folder(path)
  if not os.path.exists(path):
    raise errors.UserError(
      f"--input is {source[:100]!r}: there is no such file or folder; expected"
      " the JSON of one or many ARC tasks, or a folder of NAME.json"
    )
  return _parse(_bytes(path), path.name, _stem(path))


def _read_folder(folder: pathlib.Path) -> Tasks:
  paths = sorted(
    path for path in folder.glob("*.json") if not path.name.startswith(".")
  )
  if not paths:
    raise errors.UserError(f"there is no .json file in {folder}")
  tasks, faults = [], {}
  for path in paths:
    try:
      value = arc_tasks.load_json(_bytes(path), where=path.name)
      tasks.append(_task(path.stem, value, path.name))
    except errors.UserError as error:
      faults[path.stem] = str(error)
  return Tasks(tasks=tuple(tasks), faults=faults)


def _stem(path: pathlib.Path) -> str:
  return path.name.removesuffix(".gz").removesuffix(".json")


def _bytes(path: pathlib.Path) -> bytes:
  opener = gzip.open if path.suffix == ".gz" else open
  with errors.told(f"{path.name} cannot be read"), opener(path, "rb") as file:
    return file.read()


def _parse(data: bytes, where: str, name: str) -> Tasks:
  """Reads a JSON text with one task, called `name`, or with many."""
  value = arc_tasks.load_json(data, where=where)
  if not isinstance(value, dict):
    raise errors.UserError(
      f"{where}: is not an object at its top level, expected an ARC task with"
      " train and test, or an object of tasks by name"
    )
  if not value:
    raise errors.UserError(f"{where} has no tasks")
  # A task's parts are lists, and a task is none, even if it is called "test".
  if any(isinstance(value.get(part), list) for part in _PARTS):
    said = value.get("name")
    alone = said if name == _NAMELESS and isinstance(said, str) else name
    value = {alone: value}
  tasks, faults = [], {}
  for member, content in value.items():
    try:
      tasks.append(_task(member, content, where))
    except errors.UserError as error:
      faults[member] = str(error)
  return Tasks(tasks=tuple(tasks), faults=faults)


def _task(name: str, value: Any, where: str) -> arc_tasks.ArcTask:
  if name == identifiers.BLANK:
    raise errors.UserError(
      f"{where}: {name!r} cannot be the name of a task: it is that of the row"
      " without one"
    )
  return arc_tasks.parse_task(name, value, solutions=None, where=where)
