"""Maps official names and layouts of weights to ours, and back.

An official checkpoint is a state dict: one dict of tensors by name. Its linear
weights are [out, in], ours [in, out]; everything else is the same.

With two networks ("levels"), the official L_level updates z (our `network`) and
H_level updates y (our `answer_network`). A single network is L_level, or
H_level for direct prediction. H_init is the initial y and L_init the initial z,
but the only latent of single z is L_init, and multi-scale z has L1_init,
L2_init, ...
"""

import itertools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from flax import traverse_util

from trm_jax import errors
from trm_jax.core import types

# The official code compiles its model before it saves or loads weights.
PREFIX = "_orig_mod.model.inner."
TABLE = "puzzle_emb.weights"
EMBEDDING = "embed_tokens.embedding_weight"
POSITIONS = "embed_pos.embedding_weight"
ANSWER_HEAD = "lm_head.weight"
LOW, HIGH = "L_level", "H_level"
INITIAL_Y, INITIAL_Z = "H_init", "L_init"

_INITIAL = re.compile(r"(H|L\d{0,3})_init")
_BLOCK = re.compile(rf"({LOW}|{HIGH})\.layers\.(\d{{1,3}})\.(.+)\.weight")
# What wrappers put before a name; a compiled module's may be anywhere in it.
_PREFIXES = ("module", "model", "inner", "net")
_COMPILED = "_orig_mod"
_DOWN = re.compile(r".+\.mlp(?:_t)?\.down_proj\.weight")
_GATE_UP = re.compile(r".+\.mlp(?:_t)?\.gate_up_proj\.weight")
_PATHS = {
  EMBEDDING: ("token_embedding", "embedding"),
  POSITIONS: ("position_embedding", "embedding"),
  ANSWER_HEAD: ("answer_head", "kernel"),
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


def levels(recurrence: str, *, separate_networks: bool) -> tuple[str, ...]:
  """Returns the official names of our networks, `network` first."""
  if separate_networks:
    return (LOW, HIGH)
  return (HIGH,) if recurrence == "direct" else (LOW,)


def levels_in(names: Collection[str]) -> tuple[str, ...]:
  """Returns the networks that a state dict, or a part of it, has."""
  return tuple(
    level
    for level in (LOW, HIGH)
    if any(name.startswith(f"{level}.") for name in names)
  )


def initial_names(recurrence: str, latent_updates: int) -> tuple[str, ...]:
  """Returns the official names of the initial latents, y first."""
  if recurrence == "single_latent":
    return (INITIAL_Z,)
  if recurrence == "direct":
    return (INITIAL_Y,)
  if recurrence == "latent_per_update":
    return (INITIAL_Y, *map(_numbered, range(1, latent_updates + 1)))
  return (INITIAL_Y, INITIAL_Z)


def _numbered(number: int) -> str:
  return f"L{number}_init"


def num_latents(names: Collection[str]) -> int:
  """Counts the numbered initial latents of multi-scale z."""
  numbers = itertools.count(1)
  return next(n for n in numbers if _numbered(n) not in names) - 1


def recurrence_of(names: Collection[str]) -> str | None:
  """Returns the recurrence of a state dict; None if it is ambiguous."""
  found = levels_in(names)
  if found == (HIGH,):
    return "direct"
  if INITIAL_Y in names and INITIAL_Z in names:
    return "two_latents"
  if HIGH in found:
    return None
  if num_latents(names):
    return "latent_per_update"
  return "single_latent" if INITIAL_Z in names else None


def block_of(name: str) -> tuple[str, int, str] | None:
  """Returns level, layer and part of a block's tensor; None for any other."""
  match = _BLOCK.fullmatch(name)
  if match is None or match.group(3) not in _BLOCK_PATHS:
    return None
  level, number, part = match.groups()
  return level, int(number), part


def num_layers(names: Collection[str], level: str) -> int:
  """Returns the number of layers of a network."""
  blocks = filter(None, map(block_of, names))
  return max((b[1] + 1 for b in blocks if b[0] == level), default=0)


def path_of(name: str, *, is_direct: bool = False) -> tuple[str, ...] | None:
  """Returns our path of an official parameter; None if we have none.

  Args:
    name: without a prefix.
    is_direct: whether the network is direct prediction.
  """
  if name in _PATHS:
    return _PATHS[name]
  block = block_of(name)
  if block is None:
    return None
  level, number, part = block
  network = "network" if level == LOW or is_direct else "answer_network"
  return (network, f"layers_{number}", *_BLOCK_PATHS[part], "kernel")


def name_of(path: tuple[str, ...], *, is_direct: bool = False) -> str:
  """Returns the official name of one of our parameters."""
  if path in _NAMES:
    return _NAMES[path]
  network, block, *part, _ = path
  level = LOW if network == "network" and not is_direct else HIGH
  number = block.removeprefix("layers_")
  return f"{level}.layers.{number}.{_BLOCK_NAMES[tuple(part)]}.weight"


def is_official(name: str) -> bool:
  """Tells whether a name, without prefix, is that of an official tensor."""
  return (
    path_of(name) is not None
    or name == TABLE
    or _INITIAL.fullmatch(name) is not None
  )


def in_our_layout(name: str, value: np.ndarray) -> np.ndarray:
  """Returns an official parameter, or its gradient, in our layout."""
  path = path_of(name)
  return value.T if path and path[-1] == "kernel" else value


def params_of(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns our nested dict of parameters, float32.

  Args:
    state_dict: arrays by official name without prefix; those that are not
      parameters, as the puzzle table, are ignored.
  """
  is_direct = levels_in(state_dict) == (HIGH,)
  paths = {name: path_of(name, is_direct=is_direct) for name in state_dict}
  return traverse_util.unflatten_dict(
    {
      path: _float32(in_our_layout(name, state_dict[name]))
      for name, path in paths.items()
      if path is not None
    }
  )


def weights_of(state_dict: Mapping[str, np.ndarray]) -> types.Weights:
  """Returns our weights as NumPy arrays.

  Args:
    state_dict: arrays by official name without prefix. Without a puzzle table,
      ours has one row of width 0.
  """
  recurrence = recurrence_of(state_dict) or "two_latents"
  y, *z = (
    _float32(state_dict[name])
    for name in initial_names(recurrence, num_latents(state_dict))
  )
  if recurrence == "latent_per_update":
    z = [np.stack(z)]
  return types.Weights(
    params=params_of(state_dict),
    puzzle_table=_float32(state_dict.get(TABLE, np.zeros((1, 0)))),
    initial_latents=types.Latents(y=y, z=z[0] if z else None),
  )


def _float32(value: Any) -> Any:
  return np.asarray(value, np.float32)


def state_dict_of(
  weights: types.Weights, *, num_puzzle_ids: int, recurrence: str
) -> dict[str, np.ndarray]:
  """Returns the official state dict of our weights, without prefix.

  Args:
    weights: ours.
    num_puzzle_ids: rows of the table without padding.
    recurrence: config.model.recursion_type.

  Returns:
    Arrays in official layout by official name. The initial latents are
    bfloat16, as official ones are, if that is exact, else float32.

  Raises:
    UserError: the official code has no such network.
  """
  if "role_embedding" in weights.params:
    raise errors.UserError(
      "the official code has no symbol-equivariant network"
      " (config.model.symbol_mixing); export --format=stablehlo"
    )
  state_dict = _initial_latents(weights.initial_latents, recurrence)
  if weights.puzzle_table.shape[1]:
    state_dict[TABLE] = np.asarray(weights.puzzle_table)[:num_puzzle_ids]
  for path, value in traverse_util.flatten_dict(weights.params).items():
    name = name_of(path, is_direct=recurrence == "direct")
    # The other direction is a transpose, too.
    state_dict[name] = in_our_layout(name, np.asarray(value))
  return dict(sorted(state_dict.items()))


def _initial_latents(
  latents: types.Latents, recurrence: str
) -> dict[str, np.ndarray]:
  """Returns the initial latents by official name, all of one dtype."""
  vectors = [_float32(latents.y)]
  if latents.z is not None:
    vectors += list(np.atleast_2d(_float32(latents.z)))
  dtype = (
    ml_dtypes.bfloat16 if all(map(_fits_bfloat16, vectors)) else np.float32
  )
  names = initial_names(recurrence, len(vectors) - 1)
  return {
    name: vector.astype(dtype)
    for name, vector in zip(names, vectors, strict=True)
  }


def _fits_bfloat16(latent: np.ndarray) -> bool:
  """Tells whether bfloat16 holds float32 values exactly."""
  short = latent.astype(ml_dtypes.bfloat16)
  return np.array_equal(short.astype(np.float32), latent)


def without_prefix(name: str) -> str:
  """Returns a tensor's name without what wrapped models add to it."""
  *wrappers, last = name.split(".")
  parts = [part for part in wrappers if part != _COMPILED]
  kept = itertools.dropwhile(_PREFIXES.__contains__, parts)
  return ".".join([*kept, last]) if last else name


# SwiGLU's inner units. One whose weights are all zero changes nothing, also not
# in training, where its gradients are zero.


def _inner_units(name: str, value: np.ndarray) -> np.ndarray | None:
  """Returns a SwiGLU's weights as [K, units, size]; None for other tensors."""
  if value.ndim != 2:
    return None
  if _DOWN.fullmatch(name):
    return value.T[None]
  if _GATE_UP.fullmatch(name) and len(value) % 2 == 0:
    return value.reshape(2, -1, value.shape[1])
  return None


def inner_widths(
  state_dict: Mapping[str, np.ndarray],
) -> dict[str, tuple[int, int]]:
  """Returns input size and number of inner units of SwiGLUs, by tensor."""
  found = {
    name: _inner_units(name, value) for name, value in state_dict.items()
  }
  return {
    name: (units.shape[2], units.shape[1])
    for name, units in found.items()
    if units is not None
  }


def with_inner_widths(
  state_dict: Mapping[str, np.ndarray], width_of: Callable[[int], int]
) -> dict[str, np.ndarray] | None:
  """Adds or takes off inner units that are zero.

  Args:
    state_dict: arrays by official name.
    width_of: input size -> the number of inner units to reach.

  Returns:
    The new state dict; None if units that are not zero are too many.
  """
  result = dict(state_dict)
  for name, (size, _) in inner_widths(state_dict).items():
    units, width = _inner_units(name, state_dict[name]), width_of(size)
    assert units is not None
    if units[:, width:].any():
      return None
    missing = max(width - units.shape[1], 0)
    units = np.pad(units[:, :width], ((0, 0), (0, missing), (0, 0)))
    is_down = _DOWN.fullmatch(name)
    result[name] = units[0].T if is_down else units.reshape(2 * width, size)
  return result
