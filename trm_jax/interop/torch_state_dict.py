"""Finds the state dict in what a file holds."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trm_jax import errors
from trm_jax.interop import torch_names, torch_shown

# What a batch had of the table when it was saved; some forks save it, too.
_CACHE = ("puzzle_emb.local_weights", "puzzle_emb.local_ids")
_AVERAGED = re.compile(r"(^|[_.])(ema|shadow|averaged?)([_.]|$)", re.IGNORECASE)
_MAX_DEPTH = 4  # of dicts around the state dict
_MAX_SHOWN = 3  # of state dicts, where there is more than one


def find(tree: Any, *, where: str) -> tuple[dict[str, np.ndarray], str]:
  """Finds the state dict in what a file holds.

  Args:
    tree: a state dict, or dicts around one or more. Of several the average is
      taken; parts that it lacks, as the puzzle table, are the model's own.
    where: the file, begins the text of an error.

  Returns:
    The state dict, by names without prefix, and in words what was taken.

  Raises:
    UserError: there is none, or it is not clear which to take.
  """
  found = dict(_state_dicts(tree, (), set(), where))
  averaged = [place for place in found if any(map(_AVERAGED.search, place))]
  plain = [place for place in found if place not in averaged]
  if not found:
    raise errors.UserError(
      f"{where} holds no weights of a TRM: no dict in it has"
      f" {torch_names.ANSWER_HEAD} or {torch_names.INITIAL_Y}"
    )
  for places in (averaged, plain):
    if len(places) > 1:
      names = " and ".join(map(_shown, places[:_MAX_SHOWN]))
      raise errors.UserError(
        f"{where} holds several state dicts, {names}"
        f"{', ...' if len(places) > _MAX_SHOWN else ''}; save the one that you"
        " want alone"
      )
  if not averaged:
    return found[plain[0]], f"the state dict {_shown(plain[0])}"
  state_dict = found[averaged[0]]
  own = {
    name: value
    for place in plain
    for name, value in found[place].items()
    if name not in state_dict
  }
  taken = f"the averaged weights {_shown(averaged[0])}"
  if own:
    taken += f", and {', '.join(sorted(own))} of {_shown(plain[0])}"
  return {**state_dict, **own}, taken


def _state_dicts(
  tree: Any, place: tuple[str, ...], seen: set[int], where: str
) -> Iterator[tuple[tuple[str, ...], dict[str, np.ndarray]]]:
  """Yields the state dicts in a tree and where they are."""
  if not isinstance(tree, dict) or len(place) > _MAX_DEPTH or id(tree) in seen:
    return
  seen.add(id(tree))
  tensors = {
    key: value
    for key, value in tree.items()
    if isinstance(key, str) and isinstance(value, np.ndarray)
  }
  if any(
    torch_names.is_official(torch_names.without_prefix(key)) for key in tensors
  ):
    yield place, _named(tensors, where)
    return
  for key, value in tree.items():
    yield from _state_dicts(value, (*place, str(key)), seen, where)


def _named(
  tensors: Mapping[str, np.ndarray], where: str
) -> dict[str, np.ndarray]:
  """Takes off the prefixes, and leaves out a batch's part of the table."""
  named: dict[str, np.ndarray] = {}
  for full, value in tensors.items():
    name = torch_names.without_prefix(full)
    if name in named:
      raise errors.UserError(
        f"{where} has {torch_shown.shown(name)} twice, under different"
        " prefixes; save one of its models alone"
      )
    if name not in _CACHE:
      named[name] = value
  return named


def _shown(place: tuple[str, ...]) -> str:
  return torch_shown.shown("/".join(place)) if place else "itself"
