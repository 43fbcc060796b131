"""The shapes of an official state dict, by our settings or as they are seen."""

import dataclasses
import re
from collections.abc import Collection, Mapping

import numpy as np

from trm_jax import config as config_lib
from trm_jax.core import layers
from trm_jax.interop import torch_kinds, torch_names
from trm_jax.runtime import program

_BLOCK = "{}.layers.{}.{}.weight"


def _in_blocks(part: str, axis: int) -> tuple[tuple[str, int], ...]:
  """Returns where the first block of either network shows a size."""
  return tuple(
    (_BLOCK.format(level, 0, part), axis)
    for level in (torch_names.HIGH, torch_names.LOW)
  )


# Tensors that show a size, and on which axis; of several the last.
_SEEN_IN = {
  "vocab_size": (("embed_tokens.embedding_weight", 0),),
  "hidden_size": (("embed_tokens.embedding_weight", 1),),
  "mlp_width": _in_blocks("mlp.down_proj", 1),
  "attention_width": _in_blocks("self_attn.o_proj", 1),
  "token_mlp_width": _in_blocks("mlp_t.down_proj", 1),
  "total_len": (
    *_in_blocks("mlp_t.down_proj", 0),
    ("embed_pos.embedding_weight", 0),
  ),
  "num_rows": ((torch_names.TABLE, 0),),
  "vector_size": ((torch_names.TABLE, 1),),
}


@dataclasses.dataclass(frozen=True)
class Shape:
  """All that an official state dict's names and shapes depend on."""

  vocab_size: int  # V
  hidden_size: int  # D
  mlp_width: int  # inner width of SwiGLU over channels
  attention_width: int  # of all its heads; D, if they divide it
  token_mlp_width: int  # and over tokens, where there is one
  total_len: int  # S, prefix and grid tokens
  num_rows: int  # N, rows of the puzzle table
  vector_size: int  # E, their width; 0: there is no table
  levels: tuple[str, ...]  # the networks
  num_layers: tuple[int, ...]  # of each
  recurrence: str
  num_latents: int  # n, initial latents where each update has one
  token_mixing: str  # 'attention' or 'mlp'
  learned_positions: bool

  @property
  def kind(self) -> torch_kinds.Kind:
    """The network of the official code; UserError if it has none such."""
    return torch_kinds.of(
      self.recurrence, separate_networks=len(self.levels) > 1
    )

  def tensors(self) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each tensor by its name without prefix."""
    size, tokens = self.hidden_size, self.total_len
    shapes = {
      "embed_tokens.embedding_weight": (self.vocab_size, size),
      "lm_head.weight": (self.vocab_size, size),
      "q_head.weight": (2, size),
      "q_head.bias": (2,),
    }
    if self.vector_size:
      shapes[torch_names.TABLE] = (self.num_rows, self.vector_size)
    if self.learned_positions:
      shapes["embed_pos.embedding_weight"] = (tokens, size)
    for name in torch_names.initial_names(self.recurrence, self.num_latents):
      shapes[name] = (size,)
    for level, num_layers in zip(self.levels, self.num_layers, strict=True):
      for number in range(num_layers):
        for part, shape in self._block().items():
          shapes[_BLOCK.format(level, number, part)] = shape
    return shapes

  def _block(self) -> dict[str, tuple[int, int]]:
    """Returns the shapes of a block's matrices."""
    size, tokens = self.hidden_size, self.total_len
    shapes = {
      "mlp.gate_up_proj": (2 * self.mlp_width, size),
      "mlp.down_proj": (size, self.mlp_width),
    }
    if self.token_mixing == "mlp":
      shapes["mlp_t.gate_up_proj"] = (2 * self.token_mlp_width, tokens)
      shapes["mlp_t.down_proj"] = (tokens, self.token_mlp_width)
    else:
      shapes["self_attn.qkv_proj"] = (3 * self.attention_width, size)
      shapes["self_attn.o_proj"] = (size, self.attention_width)
    return shapes


def expected(model: config_lib.ModelConfig, sizes: program.Sizes) -> Shape:
  """Returns what a state dict of these settings depends on."""
  total_len = model.num_prefix_tokens + sizes.seq_len
  levels = torch_names.levels(
    model.recurrence, separate_networks=model.separate_networks
  )

  def width(size):
    return layers.swiglu_width(
      size, expansion=model.mlp_expansion, multiple=model.mlp_multiple
    )

  return Shape(
    vocab_size=sizes.vocab_size,
    hidden_size=model.hidden_size,
    mlp_width=width(model.hidden_size),
    attention_width=model.hidden_size // model.num_heads * model.num_heads,
    token_mlp_width=width(total_len),
    total_len=total_len,
    num_rows=sizes.num_puzzle_ids,
    vector_size=model.puzzle_vector_size,
    levels=levels,
    num_layers=(model.num_layers,) * len(levels),
    recurrence=model.recurrence,
    num_latents=model.latent_updates,
    token_mixing=model.token_mixing,
    learned_positions=model.positions == "learned",
  )


def seen(state_dict: Mapping[str, np.ndarray], wanted: Shape) -> Shape:
  """Returns what a state dict shows; as wanted what it does not."""
  sizes = {}
  for size, places in _SEEN_IN.items():
    for name, axis in places:
      if name in state_dict and state_dict[name].ndim > axis:
        sizes[size] = state_dict[name].shape[axis]
  names = " ".join(state_dict)
  is_mlp, is_attention = ".mlp_t." in names, ".self_attn." in names
  if is_mlp != is_attention:
    sizes["token_mixing"] = "mlp" if is_mlp else "attention"
  if torch_names.TABLE not in state_dict:
    sizes["vector_size"] = 0
  levels = torch_names.levels_in(state_dict) or wanted.levels
  recurrence = torch_names.recurrence_of(state_dict)
  if recurrence is None:
    is_wanted = levels == wanted.levels
    recurrence = wanted.recurrence if is_wanted else "two_latents"
  return dataclasses.replace(
    wanted,
    **sizes,
    levels=levels,
    num_layers=tuple(
      _num_layers(state_dict, level, wanted.num_layers[0]) for level in levels
    ),
    recurrence=recurrence,
    num_latents=torch_names.num_latents(state_dict) or wanted.num_latents,
    learned_positions="embed_pos.embedding_weight" in state_dict,
  )


def _num_layers(names: Collection[str], level: str, default: int) -> int:
  """Returns how many layers a network has."""
  block = re.compile(rf"{level}\.layers\.(\d{{1,3}})\.")
  matches = filter(None, map(block.match, names))
  return max((int(match.group(1)) + 1 for match in matches), default=default)
