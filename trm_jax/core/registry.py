"""Looks up named variants: token mixers, gates, recurrences, losses, ..."""

from collections.abc import Mapping
from typing import TypeVar

_T = TypeVar("_T")


def get(entries: Mapping[str, _T], name: str, *, kind: str) -> _T:
  """Returns the entry called `name`.

  Args:
    entries: the known ones by name.
    name: of the entry.
    kind: what the entries are, for the error message.

  Raises:
    ValueError: there is no such entry; the message names the known ones.
  """
  if name not in entries:
    raise ValueError(
      f"unknown {kind} {name!r}; choose one of {', '.join(entries)}"
    )
  return entries[name]
