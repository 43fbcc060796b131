"""What is told of answers to ARC tasks in a file of its own."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from trm_jax import errors, voting
from trm_jax.data import answers, arc_tasks, atomic_file

_ANSWERED = frozenset(("in_table", "test"))  # what is said of a task
_FAULTY = frozenset(("error",))
_DIGITS = 6  # of fractions; no more are exact


@dataclasses.dataclass(frozen=True)
class Place:
  """Where details stand.

  Attributes:
    path: NAME_details.json for NAME.json.
    told: Ends the line that says what was written.
  """

  path: epath.Path
  told: str

  @classmethod
  def beside(cls, output_path: str, input_path: str) -> "Place | None":
    """Finds a place beside answers; None if these are printed.

    Args:
      output_path: As for `answers.writing`.
      input_path: Likewise.

    Raises:
      UserError: if something else stands there that would be lost.
    """
    if answers.is_standard(output_path):
      return None
    output = epath.Path(output_path).expanduser()
    if answers.is_input(output.parent, input_path):
      raise errors.UserError(
        f"--output is {output_path!r}, which is in the folder --input, where"
        " all .json files are tasks: name a file elsewhere"
      )
    name = output.name.removesuffix(".gz").removesuffix(".json")
    path = output.with_name(f"{name}_details.json")
    is_there = path.exists()
    problem = ""
    if answers.is_input(path, input_path):
      problem = "is the --input"
    elif is_there and not _has_details(path):
      problem = "is there and is something else"
    if problem:
      raise errors.UserError(
        f"--output is {output_path!r}, but {path.name}, which would get the"
        f" details, {problem}: name another file"
      )
    replaced = ", in place of an earlier one" if is_there else ""
    return cls(path=path, told=f"; details: {path}{replaced}")

  def write(self, details: Mapping[str, Any]) -> None:
    """Writes what `of_answered` and `of_faults` say of tasks, by name."""
    with atomic_file.writing(self.path) as file:
      file.write(json.dumps(details, indent=1).encode())


def _has_details(path: epath.Path) -> bool:
  """Tells whether a file says of tasks what is said here, and no more."""
  try:
    value = arc_tasks.load_json(path.read_bytes(), where=path.name)
  except (errors.UserError, OSError):
    return False
  return isinstance(value, dict) and all(
    isinstance(entry, dict) and entry.keys() in (_ANSWERED, _FAULTY)
    for entry in value.values()
  )


def ranked(result: voting.InputResult) -> list[tuple[int, float]]:
  """Returns votes and mean confidence of each attempt."""
  last = len(result.leaders) - 1
  return [result.leaders[min(i, last)] for i in range(voting.NUM_ATTEMPTS)]


def of_answered(
  result: voting.TaskResult, steps: Sequence[float], *, in_table: bool
) -> dict[str, Any]:
  """Returns what is said of an answered task, of JSON's types.

  Args:
    result: Attempts and votes.
    steps: Supervision steps on average, of each test input.
    in_table: Whether the puzzle table has rows for it.
  """
  return {
    "in_table": in_table,
    "test": [
      {
        "attempts": [
          {"votes": votes, "confidence": round(confidence, _DIGITS)}
          for votes, confidence in ranked(one)
        ],
        "votes": one.num_votes,
        "candidates": one.num_candidates,
        "steps": round(average, _DIGITS),
      }
      for one, average in zip(result.inputs, steps, strict=True)
    ],
  }


def of_faults(faults: Mapping[str, str]) -> dict[str, Any]:
  """Returns what is said of tasks that could not be read, by name."""
  return {name: {"error": fault} for name, fault in faults.items()}
