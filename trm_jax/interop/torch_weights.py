"""The official names and layouts of weights, and ours.

An official checkpoint is a state dict: one dict of tensors by name. Its linear
weights are [out, in], ours [in, out]; everything else is the same. This is the
one place that knows both vocabularies.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from flax import traverse_util

from trm_jax import errors, types
from trm_jax.interop import torch_shown

# Of the official code, which compiles its model before it saves or loads.
PREFIX = "_orig_mod.model.inner."
TABLE = "puzzle_emb.weights"
INITIAL_Y, INITIAL_Z = "H_init", "L_init"

_PREFIXES = re.compile(
  r"(?:(?:_orig_mod|module|model|inner)\.)+(?=.)", re.DOTALL
)
# What a batch had of the table when it was saved; some forks save it, too.
_CACHE = ("puzzle_emb.local_weights", "puzzle_emb.local_ids")
_PATHS = {
  "embed_tokens.embedding_weight": ("token_embedding", "embedding"),
  "embed_pos.embedding_weight": ("position_embedding", "embedding"),
  "lm_head.weight": ("answer_head", "kernel"),
  "q_head.weight": ("halt_head", "kernel"),
  "q_head.bias": ("halt_head", "bias"),
}
_BLOCK_PATHS = {
  "self_attn.qkv_proj": ("attention", "qkv"),
  "self_attn.o_proj": ("attention", "out"),
  "mlp_t.gate_up_proj": ("token_mlp", "gate_up"),
  "mlp_t.down_proj": ("token_mlp", "down"),
  "mlp.gate_up_proj": ("channel_mlp", "gate_up"),
  "mlp.down_proj": ("channel_mlp", "down"),
}
_NAMES: Mapping[tuple[str, ...], str] = {
  path: name for name, path in _PATHS.items()
}
_BLOCK_NAMES: Mapping[tuple[str, ...], str] = {
  path: name for name, path in _BLOCK_PATHS.items()
}

_AVERAGED = re.compile(r"(^|[_.])(ema|shadow|averaged?)([_.]|$)", re.IGNORECASE)
_MAX_DEPTH = 4  # of dicts around the state dict
_MAX_SHOWN = 3  # of state dicts, where there is more than one


def path_of(name: str) -> tuple[str, ...] | None:
  """Returns our path of an official parameter; None if it is none of ours."""
  if name in _PATHS:
    return _PATHS[name]
  match = re.fullmatch(r"L_level\.layers\.(\d+)\.(.+)\.weight", name)
  if match and match.group(2) in _BLOCK_PATHS:
    block, part = match.groups()
    return ("network", f"layers_{block}", *_BLOCK_PATHS[part], "kernel")
  return None


def name_of(path: tuple[str, ...]) -> str:
  """Returns the official name of one of our parameters."""
  if path in _NAMES:
    return _NAMES[path]
  _, block, *part, _ = path
  number = block.removeprefix("layers_")
  return f"L_level.layers.{number}.{_BLOCK_NAMES[tuple(part)]}.weight"


def in_our_layout(name: str, value: np.ndarray) -> np.ndarray:
  """Returns an official parameter as it lies in ours, or a gradient of it."""
  path = path_of(name)
  return value.T if path and path[-1] == "kernel" else value


def params_of(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns the model's parameters, a dict of dicts, of a state dict.

  Args:
    state_dict: by official name without a prefix. What is no parameter, as the
      puzzle table, is left out.
  """
  paths = {name: path_of(name) for name in state_dict}
  return traverse_util.unflatten_dict(
    {
      path: _float32(in_our_layout(name, state_dict[name]))
      for name, path in paths.items()
      if path is not None
    }
  )


def weights_of(state_dict: Mapping[str, np.ndarray]) -> types.Weights:
  """Returns our weights, in NumPy, of a state dict without a prefix.

  A model without puzzle vectors has a table of one row of width 0.
  """
  return types.Weights(
    params=params_of(state_dict),
    puzzle_table=_float32(state_dict.get(TABLE, np.zeros((1, 0)))),
    initial_latents=types.Latents(
      y=_float32(state_dict[INITIAL_Y]), z=_float32(state_dict[INITIAL_Z])
    ),
  )


def _float32(value: np.ndarray) -> Any:
  return np.asarray(value, np.float32)


def state_dict_of(
  weights: types.Weights, *, num_puzzle_ids: int
) -> dict[str, np.ndarray]:
  """Returns the state dict, without a prefix, of our weights.

  Args:
    weights: ours.
    num_puzzle_ids: rows of the table that are no filling.

  Returns:
    Arrays in official layout by official name. The initial latents are
    bfloat16, as official ones are, if that is exact, else float32.
  """
  latents = weights.initial_latents
  y, z = (np.asarray(latent, np.float32) for latent in (latents.y, latents.z))
  dtype = ml_dtypes.bfloat16 if _is_short(y) and _is_short(z) else np.float32
  state_dict = {INITIAL_Y: y.astype(dtype), INITIAL_Z: z.astype(dtype)}
  if weights.puzzle_table.shape[1]:
    state_dict[TABLE] = np.asarray(weights.puzzle_table)[:num_puzzle_ids]
  for path, value in traverse_util.flatten_dict(weights.params).items():
    name = name_of(path)
    # The other direction is a transpose, too.
    state_dict[name] = in_our_layout(name, np.asarray(value))
  return dict(sorted(state_dict.items()))


def _is_short(latent: np.ndarray) -> bool:
  """Tells whether float32 numbers have no more digits than bfloat16."""
  short = latent.astype(ml_dtypes.bfloat16)
  return np.array_equal(short.astype(np.float32), latent)


def without_prefix(name: str) -> str:
  """Returns a parameter's name without what wrapped models put before it."""
  match = _PREFIXES.match(name)
  return name[match.end() :] if match else name


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
      f" {name_of(('answer_head', 'kernel'))} or {INITIAL_Y}"
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
  if any(map(_is_ours, tensors)):
    yield place, _named(tensors, where)
    return
  for key, value in tree.items():
    yield from _state_dicts(value, (*place, str(key)), seen, where)


def _is_ours(name: str) -> bool:
  name = without_prefix(name)
  return path_of(name) is not None or name in (TABLE, INITIAL_Y, INITIAL_Z)


def _named(
  tensors: Mapping[str, np.ndarray], where: str
) -> dict[str, np.ndarray]:
  """Takes off the prefixes, and leaves out a batch's part of the table."""
  named: dict[str, np.ndarray] = {}
  for full, value in tensors.items():
    name = without_prefix(full)
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
