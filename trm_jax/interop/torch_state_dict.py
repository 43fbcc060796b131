"""Finds the state dict in what a checkpoint file holds."""

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trm_jax import errors
from trm_jax.interop import nano_trm, torch_names, torch_reader

# The last batch's part of the puzzle table; some forks save it, too.
_CACHE = ("puzzle_emb.local_weights", "puzzle_emb.local_ids")
_AVERAGED = re.compile(r"(^|[_.])(ema|shadow|averaged?)([_.]|$)", re.IGNORECASE)
_MAX_DEPTH = 4  # of dicts around the state dict
_MAX_SHOWN = 3  # state dicts in a message
_MAX_TENSORS = 6  # of a file without a state dict, in a message


def find(tree: Any, *, where: str) -> tuple[dict[str, np.ndarray], str]:
  """Finds the state dict in the contents of a file.

  Args:
    tree: a state dict, or dicts around one or more. Averaged weights are
      preferred; tensors they lack, as the puzzle table, are the model's own.
    where: the file, for error messages.

  Returns:
    The state dict, by names without prefix, and a phrase that says which.

  Raises:
    UserError: there is none, or the choice is ambiguous.
  """
  found = dict(_state_dicts(tree, (), set(), where))
  averaged = [place for place in found if any(map(_AVERAGED.search, place))]
  plain = [place for place in found if place not in averaged]
  if not found:
    raise errors.UserError(
      f"{where} holds no weights of a TRM: no dict in it has"
      f" {torch_names.ANSWER_HEAD} or {torch_names.INITIAL_Y}, but"
      f" {_tensors_in(tree)}"
    )
  for places in (averaged, plain):
    if len(places) > 1:
      names = " and ".join(map(_quoted, places[:_MAX_SHOWN]))
      raise errors.UserError(
        f"{where} holds several state dicts, {names}"
        f"{', ...' if len(places) > _MAX_SHOWN else ''}; save only the one you"
        " want"
      )
  if not averaged:
    return found[plain[0]], f"the state dict {_quoted(plain[0])}"
  state_dict = found[averaged[0]]
  own = {
    name: value
    for place in plain
    for name, value in found[place].items()
    if name not in state_dict
  }
  taken = f"the averaged weights {_quoted(averaged[0])}"
  if own:
    taken += f", and {', '.join(sorted(own))} of {_quoted(plain[0])}"
  return {**state_dict, **own}, taken


def _state_dicts(
  tree: Any, place: tuple[str, ...], seen: set[int], where: str
) -> Iterator[tuple[tuple[str, ...], dict[str, np.ndarray]]]:
  """Yields the state dicts in a tree and the keys that lead to them."""
  if not isinstance(tree, dict) or len(place) > _MAX_DEPTH or id(tree) in seen:
    return
  seen.add(id(tree))
  tensors = {
    key: value
    for key, value in tree.items()
    if isinstance(key, str) and isinstance(value, np.ndarray)
  }
  if any(torch_names.is_official(_official_name(key)) for key in tensors):
    named = _with_official_names(tensors, where)
    yield place, nano_trm.with_continue_row(named)
    return
  for key, value in tree.items():
    yield from _state_dicts(value, (*place, str(key)), seen, where)


def _official_name(name: str) -> str:
  return nano_trm.official_name(torch_names.without_prefix(name))


def _tensors_in(tree: Any) -> str:
  """Names the first tensors of a tree with their shapes."""
  found: dict[str, np.ndarray] = {}
  level = [("", tree)]
  for _ in range(_MAX_DEPTH):
    dicts = {id(v): (name, v) for name, v in level if isinstance(v, dict)}
    level = [
      (f"{name}/{key}" if name else str(key), value)
      for name, values in dicts.values()
      for key, value in values.items()
    ]
    found |= {k: v for k, v in level if isinstance(v, np.ndarray)}
  shown = [
    f"{torch_reader.quoted(name)} {value.shape}"
    for name, value in itertools.islice(found.items(), _MAX_TENSORS)
  ]
  if len(found) > _MAX_TENSORS:
    shown.append(f"{len(found) - _MAX_TENSORS:,} more")
  return ", ".join(shown) or "no tensor at all"


def _with_official_names(
  tensors: Mapping[str, np.ndarray], where: str
) -> dict[str, np.ndarray]:
  named: dict[str, np.ndarray] = {}
  for full, value in tensors.items():
    name = _official_name(full)
    if name in named:
      raise errors.UserError(
        f"{where} has {torch_reader.quoted(name)} twice, under different"
        " prefixes; save one of its models alone"
      )
    if name not in _CACHE:
      named[name] = value
  return named


def _quoted(place: tuple[str, ...]) -> str:
  return torch_reader.quoted("/".join(place)) if place else "itself"
