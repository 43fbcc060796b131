"""Dataclasses from plain values, every name and every type checked."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any

from trm_jax import errors

LARGEST = 2**31 - 1  # of int32, which every whole number goes to


def build(kind: Any, values: Mapping[str, Any], path: str) -> Any:
  """Builds dataclass `kind` from a mapping, group by group.

  Args:
    kind: a dataclass, whose fields may be dataclasses.
    values: of its fields, by name.
    path: of the mapping, with a dot at its end, for messages.

  Raises:
    UserError: a name is misspelled or missing, or a value has the wrong type.
  """
  if not isinstance(values, Mapping):
    raise errors.UserError(
      f"{path[:-1]} is {values!r}; it must be a group of settings"
    )
  fields = {f.name: f for f in dataclasses.fields(kind)}
  for name in values:
    if name not in fields:
      close = difflib.get_close_matches(name, fields, n=1)
      hint = f"; did you mean {path}{close[0]}?" if close else ""
      raise errors.UserError(f"there is no setting {path}{name}{hint}")
  missing = [name for name in fields if name not in values]
  if missing:
    raise errors.UserError(
      "settings without a value: " + ", ".join(path + m for m in missing)
    )
  built = {
    name: build(field.type, values[name], f"{path}{name}.")
    if dataclasses.is_dataclass(field.type)
    else _typed(path + name, field.type, values[name])
    for name, field in fields.items()
  }
  return kind(**built)


def flatten(values: Any) -> dict[str, Any]:
  """Returns {"group.name": value, ...} of a dataclass of dataclasses."""
  flat: dict[str, Any] = {}
  for name, value in dataclasses.asdict(values).items():
    if isinstance(value, dict):
      flat.update({f"{name}.{key}": knob for key, knob in value.items()})
    else:
      flat[name] = value
  return flat


def unflatten(kind: Any, flat: Mapping[str, Any], path: str) -> Any:
  """Builds a dataclass from what `flatten` returned, or from JSON."""
  values: dict[str, Any] = {}
  for name, value in flat.items():
    group, _, knob = name.rpartition(".")
    (values.setdefault(group, {}) if group else values)[knob] = value
  return build(kind, values, path)


def _typed(path: str, kind: Any, value: Any) -> Any:
  """Returns the value as the field's type; raises UserError if it is not."""
  if typing.get_origin(kind) is tuple:
    member = typing.get_args(kind)[0]
    if isinstance(value, list | tuple) and all(
      isinstance(v, member) for v in value
    ):
      return tuple(value)
  elif isinstance(value, bool) and kind is not bool:
    pass  # to Python a bool is an int
  elif isinstance(value, int) and kind in (int, float):
    if abs(value) > LARGEST:
      raise errors.UserError(
        f"{path} is {value}; the largest number here is {LARGEST}"
      )
    return kind(value)
  elif isinstance(value, kind):
    return value
  name = str(kind) if typing.get_origin(kind) else kind.__name__
  raise errors.UserError(f"{path} is {value!r}; it must be of type {name}")
