"""Whether an official state dict is of the network of the settings.

What can be seen from names and shapes is compared with the settings, size by
size; then every tensor with what these sizes make of it.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping

import numpy as np

from trm_jax import config as config_lib
from trm_jax import model_config, program
from trm_jax.interop import torch_config, torch_shown, torch_weights
from trm_jax.models import layers

_BLOCK = "L_level.layers.{}."
# A tensor that shows a size, and on which axis.
_SEEN_IN = {
  "vocab_size": (("embed_tokens.embedding_weight", 0),),
  "hidden_size": (("embed_tokens.embedding_weight", 1),),
  "mlp_width": (("L_level.layers.0.mlp.down_proj.weight", 1),),
  "token_mlp_width": (("L_level.layers.0.mlp_t.down_proj.weight", 1),),
  "total_len": (
    ("L_level.layers.0.mlp_t.down_proj.weight", 0),
    ("embed_pos.embedding_weight", 0),
  ),
  "num_rows": ((torch_weights.TABLE, 0),),
  "vector_size": ((torch_weights.TABLE, 1),),
}
# What weights may be, without losing a bit.
_DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Shape:
  """All that an official state dict's names and shapes depend on."""

  vocab_size: int  # V
  hidden_size: int  # D
  mlp_width: int  # inner width of SwiGLU over channels
  token_mlp_width: int  # and over tokens, where there is one
  total_len: int  # S, prefix and grid tokens
  num_rows: int  # N, rows of the puzzle table
  vector_size: int  # E, their width; 0: there is no table
  num_layers: int
  token_mixing: str  # 'attention' or 'mlp'
  learned_positions: bool

  def tensors(self) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor by its name without prefix."""
    size, tokens = self.hidden_size, self.total_len
    shapes = {
      torch_weights.INITIAL_Y: (size,),
      torch_weights.INITIAL_Z: (size,),
      "embed_tokens.embedding_weight": (self.vocab_size, size),
      "lm_head.weight": (self.vocab_size, size),
      "q_head.weight": (2, size),
      "q_head.bias": (2,),
    }
    if self.vector_size:
      shapes[torch_weights.TABLE] = (self.num_rows, self.vector_size)
    if self.learned_positions:
      shapes["embed_pos.embedding_weight"] = (tokens, size)
    for number in range(self.num_layers):
      block = {
        "mlp.gate_up_proj": (2 * self.mlp_width, size),
        "mlp.down_proj": (size, self.mlp_width),
      }
      if self.token_mixing == "mlp":
        block["mlp_t.gate_up_proj"] = (2 * self.token_mlp_width, tokens)
        block["mlp_t.down_proj"] = (tokens, self.token_mlp_width)
      else:
        block["self_attn.qkv_proj"] = (3 * size, size)
        block["self_attn.o_proj"] = (size, size)
      for name, shape in block.items():
        shapes[f"{_BLOCK.format(number)}{name}.weight"] = shape
    return shapes


def expected(model: model_config.ModelConfig, sizes: program.Sizes) -> Shape:
  """Returns what a state dict of these settings depends on."""
  total_len = model.num_prefix_tokens + sizes.seq_len

  def width(size):
    return layers.swiglu_width(
      size, expansion=model.mlp_expansion, multiple=model.mlp_multiple
    )

  return Shape(
    vocab_size=sizes.vocab_size,
    hidden_size=model.hidden_size,
    mlp_width=width(model.hidden_size),
    token_mlp_width=width(total_len),
    total_len=total_len,
    num_rows=sizes.num_puzzle_ids,
    vector_size=model.puzzle_vector_size,
    num_layers=model.num_layers,
    token_mixing=model.token_mixing,
    learned_positions=model.positions == "learned",
  )


def _seen(state_dict: Mapping[str, np.ndarray], wanted: Shape) -> Shape:
  """Returns what a state dict shows; as wanted what it does not."""
  numbers = {
    int(match.group(1))
    for name in state_dict
    if (match := re.match(r"L_level\.layers\.(\d{1,3})\.", name))
  }
  sizes = {}
  for size, places in _SEEN_IN.items():
    for name, axis in places:
      if name in state_dict and state_dict[name].ndim > axis:
        sizes[size] = state_dict[name].shape[axis]
  names = " ".join(state_dict)
  is_mlp, is_attention = ".mlp_t." in names, ".self_attn." in names
  if is_mlp != is_attention:
    sizes["token_mixing"] = "mlp" if is_mlp else "attention"
  if torch_weights.TABLE not in state_dict:
    sizes["vector_size"] = 0
  return dataclasses.replace(
    wanted,
    **sizes,
    num_layers=max(numbers, default=wanted.num_layers - 1) + 1,
    learned_positions="embed_pos.embedding_weight" in state_dict,
  )


def differences(
  state_dict: Mapping[str, np.ndarray],
  config: config_lib.Config,
  sizes: program.Sizes,
  *,
  rows_of: str,
) -> list[torch_config.Difference]:
  """Compares names and shapes of a state dict with the settings' network.

  Args:
    state_dict: by names without prefix.
    config: the settings.
    sizes: of the puzzles of the settings.
    rows_of: what says how many rows the puzzle table has, for messages.
  """
  wanted = expected(config.model, sizes)
  seen = _seen(state_dict, wanted)
  found = list(_other_sizes(seen, wanted, config, rows_of))
  shapes = seen.tensors()
  texts = [f"{name} is missing" for name in shapes if name not in state_dict]
  for name, array in state_dict.items():
    if name not in shapes:
      texts.append(f"{torch_shown.shown(name)} is unknown here")
    elif array.shape != shapes[name]:
      texts.append(f"{name} has shape {array.shape}, expected {shapes[name]}")
    elif array.dtype.name not in _DTYPES:
      texts.append(f"{name} is {array.dtype.name}, expected float32")
  return found + [torch_config.Difference(text) for text in texts]


def _other_sizes(
  seen: Shape, wanted: Shape, config: config_lib.Config, rows_of: str
) -> Iterator[torch_config.Difference]:
  """Yields what differs of each size that is not that of the settings."""
  model, task = config.model, config.data.task
  new = torch_config.Difference

  def differ(size):
    return getattr(seen, size) != getattr(wanted, size)

  if differ("vocab_size"):
    yield new(
      f"its vocabulary has {seen.vocab_size} tokens, that of config.data.task"
      f" {task!r} has {wanted.vocab_size}"
    )
  for name in ("hidden_size", "num_layers", "token_mixing"):
    if differ(name):
      there, here = getattr(seen, name), getattr(wanted, name)
      text = f"its {name} is {there!r}, config.model.{name} is {here!r}"
      yield new(text, f"model.{name}", there)
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


def _other_widths(seen: Shape, wanted: Shape) -> list[str]:
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
