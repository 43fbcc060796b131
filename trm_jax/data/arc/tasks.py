"""ARC tasks: pairs of grids of colours, and the JSON files they come in."""

import dataclasses
import difflib
import gzip
import json
import pathlib
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from trm_jax import errors
from trm_jax.data import files
from trm_jax.data.arc import grids as arc_grids

# JSON and file names may contain lone surrogates, which UTF-8 cannot encode.
_SURROGATE = re.compile("[\ud800-\udfff]")

_FORM = "an object with train and test, two lists of pairs of input and output"
# Of the names of two files, from which one is taken for a misspelt other.
_ALIKE = 0.9


@dataclasses.dataclass(frozen=True)
class Pair:
  """A question and its answer.

  Attributes:
    input: Colours 0..9, uint8 [h, w] with 1 <= h, w <= 30.
    output: The same with its own shape; None if unknown.
  """

  input: np.ndarray
  output: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class ArcTask:
  """One task: pairs that demonstrate a rule, and inputs to apply it to.

  Attributes:
    name: Identifier, e.g. "007bbfb7".
    train: Demonstration pairs, all with outputs.
    test: Pairs to solve.
    test_first: Whether the file has "test" before "train"; the official builder
      keeps that order among the examples of a training task.
  """

  name: str
  train: tuple[Pair, ...]
  test: tuple[Pair, ...]
  test_first: bool


def parse_task(
  name: str,
  value: Any,
  *,
  solutions: Sequence[np.ndarray | None] | None,
  where: str,
) -> ArcTask:
  """Validates one task of a JSON file.

  Args:
    name: Identifier of the task.
    value: JSON value: an object with `train` and `test`, lists of objects with
      `input` and `output`. The output of a test pair may be missing or null.
    solutions: Outputs of the test pairs from another file, if there is one;
      None where unknown.
    where: Begins an error message, usually the file name.

  Returns:
    The task.

  Raises:
    UserError: with file, task and pair, if the task is malformed or two sources
      of an output disagree.
  """
  if not name or arc_grids.SEPARATOR in name or _SURROGATE.search(name):
    raise errors.UserError(
      f"{where}: {name!r} cannot be the name of a task: it is empty or"
      f" contains {arc_grids.SEPARATOR!r} or a lone surrogate"
    )
  where = f"{where} task {name!r}"
  if not isinstance(value, dict):
    raise errors.UserError(f"{where}: is {_kind(value)}, expected {_FORM}")
  if value and not {"train", "test"} & value.keys():
    raise errors.UserError(
      f"{where}: has {_shown(list(value))}, expected {_FORM}"
    )
  train = _parse_pairs(value, "train", where)
  test = _parse_pairs(value, "test", where)
  for number, pair in enumerate(train, 1):
    if pair.output is None:
      raise errors.UserError(f"{where} train pair {number}: has no output")
  if solutions is not None:
    test = _solved(test, solutions, where)
  keys = list(value)
  return ArcTask(
    name=name,
    train=train,
    test=test,
    test_first=keys.index("test") < keys.index("train"),
  )


def _parse_pairs(
  value: dict[str, Any], part: str, where: str
) -> tuple[Pair, ...]:
  pairs = value.get(part, [])
  if not isinstance(pairs, list):
    raise errors.UserError(
      f"{where}: {part} is {_kind(pairs)}, expected a list of pairs"
    )
  if not pairs:
    raise errors.UserError(f"{where}: has no {part} pairs")
  return tuple(
    _parse_pair(pair, f"{where} {part} pair {number}:")
    for number, pair in enumerate(pairs, 1)
  )


def _parse_pair(pair: Any, where: str) -> Pair:
  if not isinstance(pair, dict):
    raise errors.UserError(
      f"{where} is {_kind(pair)}, expected an object with input and output"
    )
  if "input" not in pair:
    raise errors.UserError(f"{where} has no input")
  output = pair.get("output")
  return Pair(
    input=_parse_grid(pair["input"], f"{where} input"),
    output=None if output is None else _parse_grid(output, f"{where} output"),
  )


def _parse_grid(value: Any, where: str) -> np.ndarray:
  """Returns the colours of a grid, uint8 [h, w]."""
  if not isinstance(value, list):
    raise errors.UserError(
      f"{where} is {_kind(value)}, expected a list of rows of colours"
    )
  if not 1 <= len(value) <= arc_grids.SIDE:
    raise errors.UserError(
      f"{where} has {len(value)} rows, expected 1 to {arc_grids.SIDE}"
    )
  for number, row in enumerate(value, 1):
    if not isinstance(row, list):
      raise errors.UserError(
        f"{where} row {number} is {_kind(row)}, expected a list of colours"
      )
    if len(row) != len(value[0]):
      raise errors.UserError(
        f"{where} row {number} has {len(row)} cells, but row 1 has "
        f"{len(value[0])}"
      )
    for column, colour in enumerate(row, 1):
      # type(), as True is an instance of int.
      if type(colour) is not int or not 0 <= colour < arc_grids.NUM_COLOURS:
        raise errors.UserError(
          f"{where} row {number}, column {column} is {_shown(colour)}, "
          "expected a colour, a whole number from 0 to 9"
        )
  if not 1 <= len(value[0]) <= arc_grids.SIDE:
    raise errors.UserError(
      f"{where} has {len(value[0])} columns, expected 1 to {arc_grids.SIDE}"
    )
  return np.array(value, np.uint8)


def _parse_solutions(value: Any, where: str) -> list[np.ndarray | None]:
  """Returns the outputs of one task in a solutions file, uint8 [h, w] each."""
  if not isinstance(value, list):
    raise errors.UserError(
      f"{where}: is {_kind(value)}, expected a list of grids"
    )
  return [
    None if grid is None else _parse_grid(grid, f"{where} solution {number}:")
    for number, grid in enumerate(value, 1)
  ]


def _solved(
  test: tuple[Pair, ...], solutions: Sequence[np.ndarray | None], where: str
) -> tuple[Pair, ...]:
  """Returns the test pairs with the outputs that are known."""
  if len(solutions) != len(test):
    raise errors.UserError(
      f"{where}: has {len(test)} test inputs, but there are {len(solutions)} "
      "solutions"
    )
  solved: list[Pair] = []
  for pair, solution in zip(test, solutions, strict=True):
    if solution is None:
      solution = pair.output
    elif pair.output is not None and not np.array_equal(pair.output, solution):
      raise errors.UserError(
        f"{where} test pair {len(solved) + 1}: its output differs from the"
        " solutions file"
      )
    solved.append(Pair(input=pair.input, output=solution))
  return tuple(solved)


def _kind(value: Any) -> str:
  """Describes a JSON value."""
  if isinstance(value, dict):
    return "an object"
  return "a list" if isinstance(value, list) else _shown(value)


def _shown(value: Any) -> str:
  """Returns the JSON of a value, truncated."""
  return json.dumps(value)[:40]


def load_json(data: bytes, *, where: str) -> Any:
  """Parses JSON strictly.

  Args:
    data: JSON in UTF-8.
    where: Begins an error message, usually the file name.

  Returns:
    The value; objects keep the order of their keys.

  Raises:
    UserError: if the text is not JSON (with line and column), not UTF-8, or has
      a key twice, one of which would be lost.
  """

  def refuse_repeated_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = {}
    for key, item in items:
      if key in value:
        raise errors.UserError(f"{where}: has the key {key[:80]!r} twice")
      value[key] = item
    return value

  try:
    text = data.decode("utf-8-sig")  # editors put a byte order mark in front
  except UnicodeDecodeError as error:
    raise errors.UserError(
      f"{where}: not UTF-8 text (byte {error.start + 1})"
    ) from error
  try:
    return json.loads(text, object_pairs_hook=refuse_repeated_keys)
  except json.JSONDecodeError as error:
    raise errors.UserError(
      f"{where} line {error.lineno}, column {error.colno}: is not JSON "
      f"({error.msg})"
    ) from error
  except (ValueError, RecursionError) as error:  # endless digits or brackets
    raise errors.UserError(
      f"{where}: cannot be read as JSON ({errors.first_line(error)})"
    ) from error


def to_json(task: ArcTask) -> str:
  """Returns a task as one line of JSON, which `from_json` reads."""
  parts = {
    "train": [_pair_to_json(pair) for pair in task.train],
    "test": [_pair_to_json(pair) for pair in task.test],
  }
  order = ("test", "train") if task.test_first else ("train", "test")
  value = {"name": task.name} | {part: parts[part] for part in order}
  return json.dumps(value, separators=(",", ":"))


def _pair_to_json(pair: Pair) -> dict[str, list[list[int]]]:
  grids = {"input": pair.input.tolist()}
  if pair.output is not None:
    grids["output"] = pair.output.tolist()
  return grids


def from_json(text: str | bytes) -> ArcTask:
  """Reads the JSON of `to_json`."""
  value = json.loads(text)
  return parse_task(
    value["name"], value, solutions=None, where="a prepared record"
  )


# --- files -------------------------------------------------------------------


def read_folder(
  source: str, subsets: Sequence[str]
) -> dict[str, list[ArcTask]]:
  """Reads some subsets of a folder.

  Args:
    source: A folder. A subset is either `arc-agi_<subset>_challenges.json` with
      or without an `arc-agi_<subset>_solutions.json` (or .json.gz), or a folder
      `<subset>` or `data/<subset>` of `.json` files or, as ConceptARC, of
      folders of them.
    subsets: Names, e.g. ("training", "evaluation").

  Returns:
    The tasks of each subset in the order asked for; those of a subset in the
    order of the file or sorted by name.

  Raises:
    UserError: if the folder or a subset is missing, if a subset exists twice,
      or, with file, task and pair, if a task is malformed.
  """
  folder = pathlib.Path(source).expanduser()
  if not folder.is_dir():
    raise errors.UserError(
      f"config.data.source is {source!r}, which is not a folder: expected one "
      "with ARC tasks"
    )
  found = {subset: _find_subset(folder, subset) for subset in subsets}
  return {
    subset: _read_separate(path)
    if path.is_dir()
    else _read_combined(path, _find_solutions(folder, subset))
    for subset, path in found.items()
  }


def _find_subset(folder: pathlib.Path, subset: str) -> pathlib.Path:
  """Returns the challenges file or the folder of a subset."""
  if subset in ("", "..") or pathlib.PurePath(subset).name != subset:
    raise errors.UserError(
      f"{subset!r} cannot be the name of a subset of ARC tasks"
    )
  combined = f"arc-agi_{subset}_challenges.json"
  challenges = files.plain_or_gzipped(folder, combined)
  found = [challenges] if challenges else []
  found += [
    path
    for path in (folder / subset, folder / "data" / subset)
    if path.is_dir()
  ]
  if not found:
    misspelt = _misspelt(folder, combined)
    raise errors.UserError(
      f"{folder} has no ARC subset {subset!r}: neither {combined} nor "
      f"{combined}.gz nor a folder {subset} or data/{subset} with .json files"
      + (f"; rename {misspelt}" if misspelt else _others(folder))
    )
  if len(found) > 1:
    raise errors.UserError(
      f"{folder} has the ARC subset {subset!r} twice, as "
      f"{found[0].relative_to(folder)} and {found[1].relative_to(folder)}: "
      "remove one of them"
    )
  return found[0]


def _find_solutions(folder: pathlib.Path, subset: str) -> pathlib.Path | None:
  name = f"arc-agi_{subset}_solutions.json"
  path = files.plain_or_gzipped(folder, name)
  misspelt = "" if path else _misspelt(folder, name)
  if misspelt:
    raise errors.UserError(
      f"{folder} has no {name}, but {misspelt}: rename it, or move it away if"
      " the answers shall be unknown"
    )
  return path


def _misspelt(folder: pathlib.Path, name: str) -> str:
  """Returns the file that is probably meant to be `name`, or ""."""
  names = [
    path.name
    for path in folder.iterdir()
    if not re.fullmatch(
      r"arc-agi_.+_(challenges|solutions)\.json(\.gz)?", path.name
    )
  ]
  return next(iter(difflib.get_close_matches(name, names, 1, _ALIKE)), "")


def _others(folder: pathlib.Path) -> str:
  """Returns the end of an error message: which subsets there are."""
  names = {
    path.name.removeprefix("arc-agi_").split("_challenges.json")[0]
    for path in folder.glob("arc-agi_*_challenges.json*")
  }
  for parent in (folder, folder / "data"):
    names |= {path.parent.name for path in parent.glob("*/*.json")}
  if not names:
    return ""
  return (
    f"; available are {', '.join(sorted(names))}: set config.data.subsets and"
    " config.data.test_subset"
  )


def _read_combined(
  challenges: pathlib.Path, solutions: pathlib.Path | None
) -> list[ArcTask]:
  """Reads a subset in the layout of Kaggle's contests, in the file's order."""
  where = challenges.name
  tasks = _load_object(challenges)
  if not tasks:
    raise errors.UserError(f"{where} has no tasks")
  answers = _load_object(solutions) if solutions else dict.fromkeys(tasks)
  told = solutions.name if solutions else ""
  for name in answers:
    if name not in tasks:
      raise errors.UserError(f"{told} task {name!r}: is not in {where}")
  for name in tasks:
    if name not in answers:
      raise errors.UserError(
        f"{told}: has no solutions for task {name!r} of {where}"
      )
  return [
    parse_task(
      name,
      value,
      solutions=_parse_solutions(answers[name], f"{told} task {name!r}")
      if solutions
      else None,
      where=where,
    )
    for name, value in tasks.items()
  ]


def _read_separate(folder: pathlib.Path) -> list[ArcTask]:
  """Reads a subset in the layout of the public repositories, sorted by name."""
  paths = _json_files(folder)
  if not paths:
    inner = [path for path in folder.iterdir() if path.is_dir()]
    paths = [path for each in inner for path in _json_files(each)]
  if not paths:
    raise errors.UserError(f"{folder} has no .json files")
  found: dict[str, ArcTask] = {}
  for path in sorted(paths, key=lambda path: (path.stem, path)):
    where = str(path.relative_to(folder.parent))
    if path.stem in found:
      raise errors.UserError(f"{where}: a second task {path.stem!r}")
    value = load_json(_read_bytes(path), where=where)
    found[path.stem] = parse_task(path.stem, value, solutions=None, where=where)
  return list(found.values())


def _json_files(folder: pathlib.Path) -> list[pathlib.Path]:
  return [
    path
    for path in folder.iterdir()
    if path.suffix.lower() == ".json"
    and not path.name.startswith(".")  # what file managers leave behind
  ]


def _load_object(path: pathlib.Path) -> dict[str, Any]:
  value = load_json(_read_bytes(path), where=path.name)
  if not isinstance(value, dict):
    raise errors.UserError(
      f"{path.name}: the top level is not an object with an entry per task"
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
