"""Identifiers: the variant of each row of the puzzle table.

The file is the official `identifiers.json`, a JSON list of strings whose entry
0 is "<blank>". Checkpoints of other programs come with such a file.
"""

import hashlib
import json
from collections.abc import Sequence

from etils import epath

from trm_jax import errors
from trm_jax.data import files

BLANK = "<blank>"
FILE = "identifiers.json"  # the official file name


def write(path: epath.PathLike, identifiers: list[str]) -> None:
  """Writes identifiers atomically.

  Args:
    path: The file; an existing one is replaced.
    identifiers: One per row of the puzzle table.

  Raises:
    UserError: if the file cannot be written.
  """
  with files.writing(path) as file:
    file.write(json.dumps(identifiers).encode())


def digest(identifiers: list[str]) -> str:
  """Returns the hex SHA-256 of the file that `write` would write."""
  return hashlib.sha256(json.dumps(identifiers).encode()).hexdigest()


def read(path: epath.PathLike) -> list[str]:
  """Reads identifiers.

  Args:
    path: A JSON file.

  Returns:
    One string per row of the puzzle table.

  Raises:
    UserError: if the file cannot be read or is not a list of strings.
  """
  try:
    content = json.loads(path.read_bytes())
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be read: {error.strerror}"
    ) from error
  except (ValueError, RecursionError) as error:
    raise errors.UserError(
      f"{path} is not JSON: {errors.first_line(error)}"
    ) from error
  if not isinstance(content, list):
    raise errors.UserError(f"{path} does not hold a JSON list of identifiers")
  for row, entry in enumerate(content):
    if not isinstance(entry, str):
      raise errors.UserError(
        f"{path} entry {row}: {json.dumps(entry)[:60]} is not a string"
      )
  return content


def check(names: Sequence[str], *, where: str) -> None:
  """Checks that entry 0 is blank and that no entry is repeated.

  Args:
    names: Identifiers of the rows.
    where: File of the identifiers; begins an error message.

  Raises:
    UserError: with the offending entry.
  """
  if not names or names[0] != BLANK:
    first = repr(names[0][:60]) if names else "missing"
    raise errors.UserError(
      f"{where} entry 0 is {first}, expected {BLANK!r}: is it a list of "
      "identifiers?"
    )
  rows: dict[str, int] = {}
  for row, name in enumerate(names):
    if rows.setdefault(name, row) != row:
      raise errors.UserError(
        f"{where} entry {row}: {name[:100]!r} is entry {rows[name]} already"
      )
