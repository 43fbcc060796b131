"""The network that is applied recursively: its settings, blocks and FLOPs.

Post-norm blocks without biases: h = norm(h + mix(h)), norm(h + mlp(h)), where
`mix` mixes the tokens (paper, section 4.5). If the state has an axis of symbols
(`equivariant`), these are mixed in between.

To add a way of mixing tokens or symbols, add an entry to `TOKEN_MIXERS` or
`SYMBOL_MIXERS`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from . import layers, norm, registry, symbol_mixing
from .kernels import attention, matmul, swiglu


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
  """Architecture of the recursive network, and how it is computed.

  Attributes:
    num_layers: number of blocks.
    num_heads: attention heads, H; the head size is D / H.
    mlp_expansion: SwiGLU's inner width is 2/3 of this times its input size,
    mlp_multiple: rounded up to a multiple of this.
    mlp_gate: name in `swiglu.GATES`.
    token_mixing: name in `TOKEN_MIXERS`.
    position_encoding: 'rope' (rotates attention's queries and keys), 'rope_2d'
      (one half of each head by the row, the other by the column), 'learned'
      (added to the token embedding) or 'none'.
    rope_theta: base of RoPE's wavelengths.
    rms_norm_eps: added to the mean square in RMS norms.
    compute_dtype: 'float32' or 'bfloat16', of activations and products.
    grid: rows and columns of the grid, for 'rope_2d'.
    symbol_mixing: name in `symbol_mixing.SYMBOL_MIXERS`, or 'none' for a
      network whose state has no axis of symbols.
    num_symbols: F, if symbols are mixed.
    symbol_heads: attention heads over the symbols.
    symbol_head_size: size of their queries and keys.
    token_multiple: kernels whose rows run over the sequence are padded with
      zeros to a multiple of this when used; changes no result.
    attend: computes softmax attention.
    multiply: computes activations times weights.
    gated_product: computes SwiGLU's gate and up products and their gate at
      once; None for separate operations.
  """

  num_layers: int
  num_heads: int
  mlp_expansion: float
  mlp_multiple: int
  token_mixing: str
  mlp_gate: str = "silu"
  position_encoding: str = "none"
  rope_theta: float = 10000.0
  rms_norm_eps: float = 1e-5
  compute_dtype: str = "float32"
  grid: tuple[int, int] = (0, 0)
  symbol_mixing: str = "none"
  num_symbols: int = 1
  symbol_heads: int = 4
  symbol_head_size: int = 32
  token_multiple: int = 1
  attend: attention.AttentionFn = attention.plain
  multiply: matmul.Matmul = matmul.plain
  gated_product: swiglu.GatedProduct | None = None

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of activations and products."""
    return jnp.dtype(self.compute_dtype)


# Ways to mix tokens. Parameters are named after the module that `make` returns.


@dataclasses.dataclass(frozen=True)
class TokenMixer:
  """A way to mix the tokens of a puzzle.

  Attributes:
    make: (config, D) -> the module, which keeps its input's shape.
    tokens_first: whether the whole network works on [S, B, D] instead of
      [B, S, D].
    norm_axis: axis of the norm that follows.
    weight_flops: (config, S, D) -> FLOPs of the products with weights in one
      call for one puzzle; a multiply-add counts as 2.
    token_flops: likewise, of the products of tokens with tokens.
  """

  make: Callable[[NetworkConfig, int], nn.Module]
  tokens_first: bool
  norm_axis: int
  weight_flops: Callable[[NetworkConfig, int, int], int]
  token_flops: Callable[[NetworkConfig, int, int], int]


def _attention(config: NetworkConfig, size: int) -> layers.Attention:
  return layers.Attention(
    num_heads=config.num_heads,
    head_size=size // config.num_heads,
    rope_theta=config.rope_theta
    if config.position_encoding in ("rope", "rope_2d")
    else None,
    dtype=config.dtype,
    grid=config.grid if config.position_encoding == "rope_2d" else None,
    attend=config.attend,
    multiply=config.multiply,
    name="attention",
  )


def _mlp(config: NetworkConfig, name: str, *, axis: int = -1) -> layers.SwiGLU:
  return layers.SwiGLU(
    expansion=config.mlp_expansion,
    multiple=config.mlp_multiple,
    dtype=config.dtype,
    axis=axis,
    multiple_of_rows=config.token_multiple,
    gate=config.mlp_gate,
    rms_norm_eps=config.rms_norm_eps,
    multiply=config.multiply,
    gated_product=config.gated_product,
    name=name,
  )


def _mlp_flops(config: NetworkConfig, size: int) -> int:
  """Counts the products of `_mlp` for one vector of `size`."""
  width = layers.swiglu_width(
    size, expansion=config.mlp_expansion, multiple=config.mlp_multiple
  )
  return 2 * 3 * size * width


TOKEN_MIXERS: Mapping[str, TokenMixer] = {
  "attention": TokenMixer(
    make=_attention,
    tokens_first=False,
    norm_axis=-1,
    weight_flops=lambda config, length, size: 2 * 4 * size * size * length,
    token_flops=lambda config, length, size: 2 * 2 * length * length * size,
  ),
  # An MLP over the sequence. With tokens first, both MLPs of a block are plain
  # products of two matrices and nothing is transposed (docs/performance.md).
  # As in the official code, the norm runs over the sequence, too.
  "mlp": TokenMixer(
    make=lambda config, size: _mlp(config, "token_mlp", axis=0),
    tokens_first=True,
    norm_axis=0,
    weight_flops=lambda config, length, size: _mlp_flops(config, length) * size,
    token_flops=lambda config, length, size: 0,
  ),
}


@dataclasses.dataclass(frozen=True)
class SymbolMixer:
  """A way to mix the symbols of each cell, [..., F, D].

  Every symbol has the same weights, so that permuting symbols permutes results.

  Attributes:
    make: (config, D) -> the module, which keeps its input's shape.
    weight_flops: (config, S, D) -> FLOPs of the products with weights in one
      call for one puzzle, S over all symbols.
    symbol_flops: likewise, of the products of symbols with symbols.
  """

  make: Callable[[NetworkConfig, int], nn.Module]
  weight_flops: Callable[[NetworkConfig, int, int], int]
  symbol_flops: Callable[[NetworkConfig, int, int], int]


SYMBOL_MIXERS: Mapping[str, SymbolMixer] = {
  "mean": SymbolMixer(
    make=lambda config, size: symbol_mixing.MeanOfOthers(
      dtype=config.dtype, multiply=config.multiply, name="symbol_mean"
    ),
    weight_flops=lambda config, length, size: 2 * size * size * length,
    symbol_flops=lambda config, length, size: 0,
  ),
  "attention": SymbolMixer(
    make=lambda config, size: symbol_mixing.AttentionToOthers(
      num_heads=config.symbol_heads,
      head_size=config.symbol_head_size,
      dtype=config.dtype,
      multiply=config.multiply,
      name="symbol_attention",
    ),
    weight_flops=lambda config, length, size: (
      (2 * size * (size + 2 * config.symbol_heads * config.symbol_head_size))
      * length
    ),
    symbol_flops=lambda config, length, size: (
      2
      * config.num_symbols
      * length
      * (config.symbol_heads * config.symbol_head_size + size)
    ),
  ),
}


def _symbol_mixer(config: NetworkConfig) -> SymbolMixer:
  return registry.get(SYMBOL_MIXERS, config.symbol_mixing, kind="symbol_mixing")


def token_mixer(config: NetworkConfig) -> TokenMixer:
  """Returns the token mixer of a network."""
  return registry.get(TOKEN_MIXERS, config.token_mixing, kind="token_mixing")


def weight_flops(config: NetworkConfig, *, length: int, size: int) -> int:
  """Counts the products with weights in one network call for one puzzle.

  Args:
    config: the network.
    length: S, of all symbols if these are mixed.
    size: D.
  """
  mixer, groups = token_mixer(config), config.num_symbols
  flops = groups * mixer.weight_flops(config, length // groups, size)
  flops += _mlp_flops(config, size) * length
  if config.symbol_mixing != "none":
    flops += _symbol_mixer(config).weight_flops(config, length, size)
  return config.num_layers * flops


def token_flops(config: NetworkConfig, *, length: int, size: int) -> int:
  """Counts the products of tokens with tokens; see `weight_flops`."""
  mixer, groups = token_mixer(config), config.num_symbols
  flops = groups * mixer.token_flops(config, length // groups, size)
  if config.symbol_mixing != "none":
    flops += _symbol_mixer(config).symbol_flops(config, length, size)
  return config.num_layers * flops


class Block(nn.Module):
  """Mixes tokens, then symbols if the state has them, then channels.

  Attributes:
    config: the network.
  """

  config: NetworkConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, S, D] to the same; or [S, B, D], if tokens come first."""
    config = self.config
    mixer = token_mixer(config)
    rms_norm = functools.partial(norm.rms_norm, epsilon=config.rms_norm_eps)
    h = x + mixer.make(config, x.shape[-1])(x)
    h = rms_norm(h, axis=mixer.norm_axis)
    if config.symbol_mixing != "none":
      h = rms_norm(h + self._mixed_symbols(h, mixer.tokens_first))
    h = h + _mlp(config, "channel_mlp")(h)
    return rms_norm(h)

  def _mixed_symbols(self, h: jax.Array, tokens_first: bool) -> jax.Array:
    """Mixes the symbols of each cell; they are folded into the batch, B F."""
    axis = 1 if tokens_first else 0
    shape = list(h.shape)
    shape[axis : axis + 1] = [-1, self.config.num_symbols]
    by_symbol = jnp.moveaxis(h.reshape(shape), axis + 1, -2)
    mixed = _symbol_mixer(self.config).make(self.config, h.shape[-1])(by_symbol)
    return jnp.moveaxis(mixed, -2, axis + 1).reshape(h.shape)


class RecursiveNetwork(nn.Module):
  """The network that is applied again and again.

  Attributes:
    config: the network's architecture.
  """

  config: NetworkConfig

  @nn.compact
  def __call__(self, state: jax.Array, injection: jax.Array) -> jax.Array:
    """Maps state and injection to the new state.

    All are [B, S, D], or [S, B, D] if the token mixer has tokens first.
    """
    h = state + injection
    for i in range(self.config.num_layers):
      h = Block(self.config, name=f"layers_{i}")(h)
    return h
