"""Folders of ARC tasks, in either of the layouts that are around."""

import dataclasses
import gzip
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

from trm_jax import errors
from trm_jax.data.arc import tasks as arc_tasks


@dataclasses.dataclass(frozen=True)
class CombinedFiles:
  """A subset in the layout of the Kaggle contests: all tasks in one file.

  Attributes:
    challenges: Tasks by name, `.json` or `.json.gz`.
    solutions: Outputs of their test pairs by name; None if not known.
  """

  challenges: pathlib.Path
  solutions: pathlib.Path | None

  @property
  def paths(self) -> tuple[pathlib.Path, ...]:
    """All files of the subset."""
    if self.solutions is None:
      return (self.challenges,)
    return (self.challenges, self.solutions)

  def read(self) -> list[arc_tasks.ArcTask]:
    """Reads the tasks, in the order of the file; see `read_folder`."""
    where = self.challenges.name
    values = _load_object(self.challenges)
    if not values:
      raise errors.UserError(f"{where} has no tasks")
    solutions = self._read_solutions(values)
    return [
      arc_tasks.parse_task(
        name, value, solutions=solutions.get(name), where=where
      )
      for name, value in values.items()
    ]

  def _read_solutions(self, tasks: dict[str, Any]) -> dict[str, Any]:
    if self.solutions is None:
      return {}
    where = self.solutions.name
    values = _load_object(self.solutions)
    for name in values:
      if name not in tasks:
        raise errors.UserError(
          f"{where} task {name!r}: is not in {self.challenges.name}"
        )
    for name in tasks:
      if name not in values:
        raise errors.UserError(
          f"{where}: has no solutions for task {name!r} of "
          f"{self.challenges.name}"
        )
    return {
      name: arc_tasks.parse_solutions(name, value, where=where)
      for name, value in values.items()
    }


@dataclasses.dataclass(frozen=True)
class SeparateFiles:
  """A subset in the layout of the public repositories: one task per file.

  Attributes:
    paths: The files, sorted by name; a task is called as its file.
  """

  paths: tuple[pathlib.Path, ...]

  def read(self) -> list[arc_tasks.ArcTask]:
    """Reads the tasks, sorted by name; see `read_folder`."""
    tasks = []
    for path in self.paths:
      where = f"{path.parent.name}/{path.name}"
      value = arc_tasks.load_json(_read_bytes(path), where=where)
      tasks.append(
        arc_tasks.parse_task(path.stem, value, solutions=None, where=where)
      )
    return tasks


SubsetFiles = CombinedFiles | SeparateFiles


def find_files(source: str, subsets: Sequence[str]) -> dict[str, SubsetFiles]:
  """Finds the files of some subsets in a folder.

  Args:
    source: A folder. A subset is either `arc-agi_<subset>_challenges.json` with
      or without an `arc-agi_<subset>_solutions.json` (or .json.gz), or a folder
      `<subset>` or `data/<subset>` of `.json` files.
    subsets: Names, e.g. ("training", "evaluation").

  Returns:
    The files of each subset, in the order asked for.

  Raises:
    UserError: if the folder or a subset is missing or a subset is there twice.
  """
  folder = pathlib.Path(source).expanduser()
  if not folder.is_dir():
    raise errors.UserError(
      f"config.data.source is {source!r}, which is not a folder: expected one "
      "with ARC tasks"
    )
  return {subset: _find_subset(folder, subset) for subset in subsets}


def read_folder(
  source: str, subsets: Sequence[str]
) -> dict[str, list[arc_tasks.ArcTask]]:
  """Reads some subsets of a folder.

  Args:
    source: A folder as in `find_files`.
    subsets: Names, e.g. ("training", "evaluation").

  Returns:
    The tasks of each subset, in the order of the file or sorted by name.

  Raises:
    UserError: in one line with file, task and pair, for anything that is not
      as it should.
  """
  return {
    subset: files.read()
    for subset, files in find_files(source, subsets).items()
  }


def _find_subset(folder: pathlib.Path, subset: str) -> SubsetFiles:
  if subset in ("", "..") or pathlib.PurePath(subset).name != subset:
    raise errors.UserError(
      f"{subset!r} cannot be the name of a subset of ARC tasks"
    )
  combined = f"arc-agi_{subset}_challenges.json"
  challenges = _either(folder, combined)
  subfolders = [
    path
    for path in (folder / subset, folder / "data" / subset)
    if path.is_dir()
  ]
  found = ([challenges] if challenges else []) + subfolders
  if not found:
    raise errors.UserError(
      f"there is no ARC subset {subset!r} in {folder}: neither {combined} nor "
      f"{combined}.gz nor a folder {subset} or data/{subset} with .json files"
      f"{_others(folder)}"
    )
  if len(found) > 1:
    raise errors.UserError(
      f"the ARC subset {subset!r} is in {folder} twice, as "
      f"{found[0].relative_to(folder)} and {found[1].relative_to(folder)}: "
      "remove the one that is not to be used"
    )
  if challenges:
    solutions = _either(folder, f"arc-agi_{subset}_solutions.json")
    return CombinedFiles(challenges=challenges, solutions=solutions)
  paths = sorted(
    (
      path
      for path in found[0].glob("*.json")
      if not path.name.startswith(".")  # what file managers leave behind
    ),
    key=lambda path: path.stem,
  )
  if not paths:
    raise errors.UserError(f"there is no .json file in {found[0]}")
  return SeparateFiles(paths=tuple(paths))


def _others(folder: pathlib.Path) -> str:
  """Says which subsets there are instead, for the end of an error."""
  names = {
    path.name.removeprefix("arc-agi_").split("_challenges.json")[0]
    for path in folder.glob("arc-agi_*_challenges.json*")
  }
  for parent in (folder, folder / "data"):
    names |= {path.parent.name for path in parent.glob("*/*.json")}
  if not names:
    return ""
  return (
    f"; there are {', '.join(sorted(names))}: choose by config.data.subsets and"
    " config.data.test_subset"
  )


def _either(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  """Finds a file that may be gzipped."""
  plain, gzipped = folder / name, folder / f"{name}.gz"
  if plain.is_file() and gzipped.is_file():
    raise errors.UserError(
      f"both {plain.name} and {gzipped.name} are in {folder}: remove the one "
      "that is not to be used"
    )
  return next((path for path in (plain, gzipped) if path.is_file()), None)


def _load_object(path: pathlib.Path) -> dict[str, Any]:
  value = arc_tasks.load_json(_read_bytes(path), where=path.name)
  if not isinstance(value, dict):
    raise errors.UserError(
      f"{path.name}: is not an object at its top level, expected one with an "
      "entry for each task"
    )
  return value


def _read_bytes(path: pathlib.Path) -> bytes:
  opener = gzip.open if path.suffix == ".gz" else open
  try:
    with opener(path, "rb") as file:
      return file.read()
  except (EOFError, zlib.error, OSError) as error:
    raise errors.UserError(
      f"{path.name}: cannot be read, the file is damaged or not accessible "
      f"({error})"
    ) from error
