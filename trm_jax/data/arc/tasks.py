"""ARC tasks as they are written down: grids of colours, in pairs."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from trm_jax import errors

MAX_SIDE = 30
NUM_COLOURS = 10

# Between the name and the symmetry in the identifier of a varied task.
_RESERVED = "|||"
# JSON and names of files may have halves of characters, which UTF-8 has not.
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Pair:
  """A question and its answer.

  Attributes:
    input: Colours 0..9, uint8 [h, w] with 1 <= h, w <= 30.
    output: The same of another shape, or None if it is not known.
  """

  input: np.ndarray
  output: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class ArcTask:
  """One task: pairs that show a rule, and inputs to apply it to.

  Attributes:
    name: Identifier, e.g. "007bbfb7".
    train: Pairs that show the rule; their outputs are always known.
    test: Pairs to solve.
    test_first: Whether the file names "test" before "train"; the official
      builder keeps that order among a training task's examples.
  """

  name: str
  train: tuple[Pair, ...]
  test: tuple[Pair, ...]
  test_first: bool


def parse_task(
  name: str,
  value: Any,
  *,
  solutions: Sequence[np.ndarray] | None,
  where: str,
) -> ArcTask:
  """Checks one task of a JSON file.

  Args:
    name: Identifier of the task.
    value: What the JSON says: an object with `train` and `test`, lists of
      objects with `input` and `output`. A test pair may lack its output.
    solutions: Outputs of the test pairs from another file; None if there are
      none.
    where: Begins the text of an error, usually the name of the file.

  Returns:
    The task.

  Raises:
    UserError: that names file, task and pair, for anything that is not as it
      should, or if two sources of an output disagree.
  """
  if not name or _RESERVED in name or _SURROGATE.search(name):
    raise errors.UserError(
      f"{where}: {name!r} cannot be the name of a task: it is empty, or has "
      f"{_RESERVED!r} or half of a character in it"
    )
  where = f"{where} task {name!r}"
  if not isinstance(value, dict):
    raise errors.UserError(
      f"{where}: is {_kind(value)}, expected an object with train and test"
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


def parse_solutions(
  name: str, value: Any, *, where: str
) -> tuple[np.ndarray, ...]:
  """Checks one task's entry of a file of solutions.

  Args:
    name: Identifier of the task.
    value: What the JSON says: a list of grids.
    where: Begins the text of an error, usually the name of the file.

  Returns:
    Outputs of the test pairs in their order, each uint8 [h, w].

  Raises:
    UserError: that names file, task and solution.
  """
  where = f"{where} task {name!r}"
  if not isinstance(value, list):
    raise errors.UserError(
      f"{where}: is {_kind(value)}, expected a list of grids"
    )
  return tuple(
    _parse_grid(grid, f"{where} solution {number}:")
    for number, grid in enumerate(value, 1)
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
    raise errors.UserError(f"{where}: is a task without {part} pairs")
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
  return Pair(
    input=_parse_grid(pair["input"], f"{where} input"),
    output=_parse_grid(pair["output"], f"{where} output")
    if "output" in pair
    else None,
  )


def _parse_grid(value: Any, where: str) -> np.ndarray:
  """Returns the colours of a grid, uint8 [h, w]."""
  if not isinstance(value, list):
    raise errors.UserError(
      f"{where} is {_kind(value)}, expected a list of rows of colours"
    )
  if not 1 <= len(value) <= MAX_SIDE:
    raise errors.UserError(
      f"{where} has {len(value)} rows, expected 1 to {MAX_SIDE}"
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
      if type(colour) is not int or not 0 <= colour < NUM_COLOURS:
        raise errors.UserError(
          f"{where} row {number}, column {column} is {_shown(colour)}, "
          "expected a colour, a whole number from 0 to 9"
        )
  if not 1 <= len(value[0]) <= MAX_SIDE:
    raise errors.UserError(
      f"{where} has {len(value[0])} columns, expected 1 to {MAX_SIDE}"
    )
  return np.array(value, np.uint8)


def _solved(
  test: tuple[Pair, ...], solutions: Sequence[np.ndarray], where: str
) -> tuple[Pair, ...]:
  """Gives the test pairs their outputs."""
  if len(solutions) != len(test):
    raise errors.UserError(
      f"{where}: has {len(test)} test inputs, but there are {len(solutions)} "
      "solutions"
    )
  for number, (pair, solution) in enumerate(
    zip(test, solutions, strict=True), 1
  ):
    if pair.output is not None and not np.array_equal(pair.output, solution):
      raise errors.UserError(
        f"{where} test pair {number}: has an output that is not the solution "
        "given for it"
      )
  return tuple(
    Pair(input=pair.input, output=solution)
    for pair, solution in zip(test, solutions, strict=True)
  )


def _kind(value: Any) -> str:
  """Says what a JSON value is."""
  if isinstance(value, dict):
    return "an object"
  if isinstance(value, list):
    return "a list"
  return _shown(value)


def _shown(value: Any) -> str:
  """Writes a JSON value as its file does, not more than a few characters."""
  return json.dumps(value)[:40]


def load_json(data: bytes, *, where: str) -> Any:
  """Reads a JSON text, strictly.

  Args:
    data: The text in UTF-8.
    where: Begins the text of an error, usually the name of the file.

  Returns:
    Its value; objects keep the order of their keys.

  Raises:
    UserError: if it is no JSON (with line and column), no UTF-8, or names a key
      twice, of which one would be lost.
  """

  def refuse_repeated_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    value = {}
    for key, item in items:
      if key in value:
        raise errors.UserError(f"{where}: the key {key[:80]!r} is there twice")
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
  """Writes a task as one line of JSON, which `from_json` reads."""
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
  """Reads what `to_json` has written."""
  value = json.loads(text)
  return parse_task(
    value["name"], value, solutions=None, where="a prepared record"
  )
