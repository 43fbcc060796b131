"""The state dict in a checkpoint, and whether it fits the config's network."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.interop import torch_names, torch_reader, torch_settings
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import program

# The last batch's part of the puzzle table; some forks save it, too.
_CACHE = ("puzzle_emb.local_weights", "puzzle_emb.local_ids")
_AVERAGED = re.compile(r"(^|[_.])(ema|shadow|averaged?)([_.]|$)", re.IGNORECASE)
_MAX_DEPTH = 4  # of dicts around the state dict
_MAX_SHOWN = 3  # state dicts in a message
_DTYPES = ("float32", "bfloat16", "float16")  # float32 holds all their bits

_MAX_SIZE, _MAX_COUNT = 2**16, 100  # of a network that is compared
_VOCABULARY = "the vocabulary of config.data.task {task!r}"
_TOKENS = (
  "the cells of config.data.task {task!r}, config.model.num_prefix_tokens and"
  " config.model.mlp_multiple"
)
# What a shape follows from, by part of a tensor's name.
_REASONS = {
  "embed_tokens": _VOCABULARY,
  "lm_head": _VOCABULARY,
  "embed_pos": _TOKENS,
  "mlp_t": _TOKENS,
  "mlp": "config.model.mlp_expansion and config.model.mlp_multiple, officially"
  " 4 and 256",
  "self_attn": "config.model.num_heads",
  "puzzle_emb": "the rows that {rows_from} lists; it is the table of another"
  " data set",
}


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
      f" {torch_names.ANSWER_HEAD} or {torch_names.INITIAL_Y}"
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
  if any(
    torch_names.is_official(torch_names.without_prefix(key)) for key in tensors
  ):
    yield place, _without_prefixes(tensors, where)
    return
  for key, value in tree.items():
    yield from _state_dicts(value, (*place, str(key)), seen, where)


def _without_prefixes(
  tensors: Mapping[str, np.ndarray], where: str
) -> dict[str, np.ndarray]:
  named: dict[str, np.ndarray] = {}
  for full, value in tensors.items():
    name = torch_names.without_prefix(full)
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


def architecture_in(
  state_dict: Mapping[str, np.ndarray], config: config_lib.Config
) -> torch_settings.Architecture:
  """Returns the official network of a state dict; the config's if unclear."""
  model = config.model
  wanted = torch_names.levels(
    model.recursion_type, separate_networks=model.separate_networks
  )
  levels = torch_names.levels_in(state_dict) or wanted
  unclear = model.recursion_type if levels == wanted else "two_latents"
  return torch_settings.architecture_of(
    torch_names.recurrence_of(state_dict) or unclear,
    separate_networks=len(levels) > 1,
  )


def build(
  config: config_lib.Config, sizes: program.DataSpec
) -> program.Program:
  """Builds the config's program with as few slots as possible."""
  mesh = mesh_lib.make_mesh()
  train = dataclasses.replace(
    config.train, batch_size=mesh.size, gradient_accumulation_steps=1
  )
  return program.build(dataclasses.replace(config, train=train), sizes, mesh)


def shapes_of(built: program.Program) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of the state dict of a program, by name."""
  weights = jax.tree.map(
    # Takes no memory, however large.
    lambda leaf: np.broadcast_to(np.float32(0), leaf.shape),
    built.abstract_state().ema_weights,
  )
  state_dict = torch_names.state_dict_of(
    weights,
    num_puzzle_ids=built.sizes.num_puzzle_ids,
    recurrence=built.config.model.recursion_type,
  )
  return {name: array.shape for name, array in state_dict.items()}


def differences(
  state_dict: Mapping[str, np.ndarray],
  config: config_lib.Config,
  sizes: program.DataSpec,
  *,
  rows_from: str,
) -> list[torch_settings.Difference]:
  """Compares names and shapes of a state dict with those of the network.

  First settings that the names and shapes show; then every tensor with the
  network that these settings make.

  Args:
    state_dict: arrays by names without prefix.
    config: the settings.
    sizes: of the config's puzzles.
    rows_from: what says how many rows the puzzle table has, for messages.
  """
  found = list(_other_settings(state_dict, config))
  proposed = {d.setting: d.value for d in found if d.flag}
  if any(
    isinstance(value, int)
    and value > (_MAX_SIZE if name.endswith("_size") else _MAX_COUNT)
    for name, value in proposed.items()
  ):
    return found
  try:
    fitted = config_lib.changed(config, proposed)
    expected = shapes_of(build(fitted, sizes))
  except errors.UserError:
    if not found:
      raise
    return found  # there is no such network
  texts = [f"{name} is missing" for name in expected if name not in state_dict]
  wrong: dict[tuple, list[str]] = {}
  for name, array in state_dict.items():
    if name not in expected:
      texts.append(f"{torch_reader.quoted(name)} is unknown")
    elif array.shape != expected[name]:
      block = torch_names.block_of(name)
      part = (block[2] if block else name).partition(".")[0]
      key = (_REASONS.get(part, ""), array.shape, expected[name])
      wrong.setdefault(key, []).append(name)
    elif array.dtype.name not in _DTYPES:
      texts.append(f"{name} has dtype {array.dtype.name}, expected float32")
  for (reason, there, here), (name, *others) in wrong.items():
    text = f"{name} and {len(others)} more have" if others else f"{name} has"
    text += f" shape {there}, expected {here}"
    if reason:
      task = config.data.task
      text += f" by {reason.format(task=task, rows_from=rows_from)}"
    texts.append(text)
  return found + [torch_settings.Difference(text) for text in texts]


def _other_settings(
  state_dict: Mapping[str, np.ndarray], config: config_lib.Config
) -> Iterator[torch_settings.Difference]:
  """Yields the settings that names or shapes show to be others."""
  model = config.model
  architecture = architecture_in(state_dict, config)
  embedding = state_dict.get(torch_names.EMBEDDING)
  hidden_size = model.hidden_size
  if embedding is not None and embedding.ndim == 2:
    hidden_size = embedding.shape[1]
  table = state_dict.get(torch_names.TABLE, np.zeros((0, 0)))
  vector_size = table.shape[1] if table.ndim == 2 else model.puzzle_embed_dim
  arch = {"puzzle_emb_ndim": vector_size, "hidden_size": hidden_size}
  fixed = {torch_settings.SETTINGS[name] for name in architecture.fixed}
  for difference in torch_settings.compare(
    architecture, arch, config, subject="it"
  ):
    if difference.setting in fixed:
      yield difference
  layers = {
    level: torch_names.num_layers(state_dict, level)
    for level in torch_names.levels_in(state_dict)
  }
  if set(layers.values()) - {model.num_layers}:
    texts = (f"{level} has num_layers {n}" for level, n in layers.items())
    is_same = len(set(layers.values())) == 1
    yield torch_settings.Difference(
      f"{' and '.join(texts)}, but config.model.num_layers is"
      f" {model.num_layers}",
      "model.num_layers",
      (max(layers.values()) or None) if is_same else None,
    )
  seen: dict[str, int | str] = {
    "hidden_size": hidden_size,
    "puzzle_embed_dim": vector_size,
  }
  names = " ".join(state_dict)
  is_mlp, is_attention = ".mlp_t." in names, ".self_attn." in names
  if is_mlp != is_attention and "model.token_mixing" not in fixed:
    seen["token_mixing"] = "mlp" if is_mlp else "attention"
  if architecture is torch_settings.LATENT_PER_UPDATE:
    seen["latent_updates"] = torch_names.num_latents(state_dict)
  if torch_names.POSITIONS in state_dict:
    seen["position_encoding"] = "learned"
  for name, there in seen.items():
    here = getattr(model, name)
    if there != here:
      yield torch_settings.Difference(
        f"it has {name} {there!r}, but config.model.{name} is {here!r}",
        f"model.{name}",
        there,
      )
