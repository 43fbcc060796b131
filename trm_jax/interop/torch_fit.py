"""Whether an official state dict is of the network of the settings.

What can be seen from names and shapes is compared with the settings, size by
size; then every tensor with what these sizes make of it.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from trm_jax import config as config_lib
from trm_jax.interop import torch_settings, torch_shapes, torch_shown
from trm_jax.runtime import program

# What weights may be, without losing a bit.
_DTYPES = ("float32", "bfloat16", "float16")


def differences(
  state_dict: Mapping[str, np.ndarray],
  config: config_lib.Config,
  sizes: program.Sizes,
  *,
  rows_of: str,
) -> list[torch_settings.Difference]:
  """Compares names and shapes of a state dict with the settings' network.

  Args:
    state_dict: by names without prefix.
    config: the settings.
    sizes: of the puzzles of the settings.
    rows_of: what says how many rows the puzzle table has, for messages.
  """
  wanted = torch_shapes.expected(config.model, sizes)
  seen = torch_shapes.seen(state_dict, wanted)
  found = [
    *_other_recursion(seen, config),
    *_other_sizes(seen, wanted, config, rows_of),
  ]
  shapes = seen.tensors()
  texts = [f"{name} is missing" for name in shapes if name not in state_dict]
  for name, array in state_dict.items():
    if name not in shapes:
      texts.append(f"{torch_shown.shown(name)} is unknown here")
    elif array.shape != shapes[name]:
      texts.append(f"{name} has shape {array.shape}, expected {shapes[name]}")
    elif array.dtype.name not in _DTYPES:
      texts.append(f"{name} is {array.dtype.name}, expected float32")
  return found + [torch_settings.Difference(text) for text in texts]


def _other_recursion(
  seen: torch_shapes.Shape, config: config_lib.Config
) -> Iterator[torch_settings.Difference]:
  """Yields what differs of what is applied, how often, to what."""
  model = config.model
  arch = {
    "puzzle_emb_ndim": seen.vector_size,
    "hidden_size": seen.hidden_size,
  }
  yield from torch_settings.always(seen.kind, arch, config, it_is="it is")
  if (
    seen.recurrence == model.recurrence == "latent_per_update"
    and seen.num_latents != model.latent_updates
  ):
    yield torch_settings.Difference(
      f"it has {seen.num_latents} latents, L1_init to L{seen.num_latents}_init,"
      f" config.model.latent_updates is {model.latent_updates}, of which each"
      " has a latent of its own",
      "model.latent_updates",
      seen.num_latents,
    )
  if len(set(seen.num_layers)) > 1:
    layers = zip(seen.levels, seen.num_layers, strict=True)
    yield torch_settings.Difference(
      f"{' and '.join(f'{level} has {n} layers' for level, n in layers)},"
      " config.model.num_layers is of both"
    )
  elif seen.num_layers[0] != model.num_layers:
    yield torch_settings.Difference(
      f"its num_layers is {seen.num_layers[0]}, config.model.num_layers is"
      f" {model.num_layers}",
      "model.num_layers",
      seen.num_layers[0],
    )


def _other_sizes(
  seen: torch_shapes.Shape,
  wanted: torch_shapes.Shape,
  config: config_lib.Config,
  rows_of: str,
) -> Iterator[torch_settings.Difference]:
  """Yields what differs of each size that is not that of the settings."""
  model, task = config.model, config.data.task
  new = torch_settings.Difference

  def differ(size):
    return getattr(seen, size) != getattr(wanted, size)

  if differ("vocab_size"):
    yield new(
      f"its vocabulary has {seen.vocab_size} tokens, that of config.data.task"
      f" {task!r} has {wanted.vocab_size}"
    )
  for name in ("hidden_size", "token_mixing"):
    if differ(name):
      there, here = getattr(seen, name), getattr(wanted, name)
      text = f"its {name} is {there!r}, config.model.{name} is {here!r}"
      yield new(text, f"model.{name}", there)
  if (
    seen.token_mixing == wanted.token_mixing == "attention"
    and not differ("hidden_size")
    and differ("attention_width")
  ):
    yield new(
      f"its heads are {seen.attention_width} wide in all,"
      f" config.model.num_heads {model.num_heads} makes them"
      f" {wanted.attention_width}"
    )
  if differ("total_len"):
    prefix = model.num_prefix_tokens
    yield new(
      f"it is for {seen.total_len} tokens, config.model.num_prefix_tokens"
      f" {prefix} and the {wanted.total_len - prefix} cells of"
      f" config.data.task {task!r} are {wanted.total_len}"
    )
  if differ("learned_positions"):
    has = "has" if seen.learned_positions else "has no"
    yield new(
      f"it {has} learned positions, config.model.positions is"
      f" {model.positions!r}"
    )
  if differ("vector_size"):
    has = f"vectors of {seen.vector_size}" if seen.vector_size else "no table"
    yield new(
      f"it has {has} for puzzles, config.model.puzzle_vector_size is"
      f" {wanted.vector_size}",
      "model.puzzle_vector_size",
      seen.vector_size,
    )
  elif differ("num_rows"):
    yield new(
      f"its puzzle table has {seen.num_rows:,} rows, {rows_of} names"
      f" {wanted.num_rows:,}: it is the table of another data set"
    )
  widths = _other_widths(seen, wanted)
  if widths:
    yield new(
      f"the inner width of its MLPs is {' and '.join(widths)} by"
      " config.model.mlp_expansion and config.model.mlp_multiple (officially 4"
      " and 256)"
    )


def _other_widths(
  seen: torch_shapes.Shape, wanted: torch_shapes.Shape
) -> list[str]:
  """Returns how inner widths differ, where the sizes they follow from fit."""
  widths = []
  if seen.hidden_size == wanted.hidden_size and (
    seen.mlp_width != wanted.mlp_width
  ):
    widths.append(f"{seen.mlp_width}, expected {wanted.mlp_width}")
  if (
    seen.token_mixing == wanted.token_mixing == "mlp"
    and seen.total_len == wanted.total_len
    and seen.token_mlp_width != wanted.token_mlp_width
  ):
    widths.append(
      f"over tokens {seen.token_mlp_width}, expected {wanted.token_mlp_width}"
    )
  return widths
