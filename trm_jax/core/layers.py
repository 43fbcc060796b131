"""Layers of the recursive network (paper, sections 4.4, 4.5).

Post-norm blocks without biases: h = norm(h + mix(h)), norm(h + mlp(h)).
Parameters are float32; matrix products run in the compute dtype. Norms, gates
and rotations are computed in float32 and cast back; their inputs are saved for
the backward pass in the compute dtype, not their float32 intermediates.

To add a way of mixing tokens, add an entry to `TOKEN_MIXERS`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from . import norm, registry
from .kernels import attention, matmul, swiglu

# Truncated normal at two deviations, corrected to std 1/sqrt(fan_in).
linear_init = nn.initializers.variance_scaling(
  1.0, "fan_in", "truncated_normal"
)
# [V, D] tables: std 1/sqrt(D), undone by the embedding's scale sqrt(D).
embedding_init = nn.initializers.variance_scaling(
  1.0, "fan_out", "truncated_normal"
)


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
    position_encoding: 'rope' (rotates attention's queries and keys), 'learned'
      (added to the token embedding) or 'none'.
    rope_theta: base of RoPE's wavelengths.
    rms_norm_eps: added to the mean square in RMS norms.
    compute_dtype: 'float32' or 'bfloat16', of activations and products.
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
  token_multiple: int = 1
  attend: attention.AttentionFn = attention.plain
  multiply: matmul.Matmul = matmul.plain
  gated_product: swiglu.GatedProduct | None = None

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of activations and products."""
    return jnp.dtype(self.compute_dtype)


class FusedDense(nn.Module):
  """Linear maps of the same input, without bias, sharing one parameter.

  The kernels are stored as one matrix but multiplied one by one, so that
  outputs need not be split and gradients need not be concatenated
  (docs/performance.md has the measurements).

  Attributes:
    size: output size of each map.
    dtype: of the products.
    axis: the axis to map, -1 or 0.
    multiple: with axis 0, kernel rows are padded with zeros to a multiple of
      this; matrix units want rows to begin at 16-byte boundaries.
    number: how many maps.
    multiply: computes the products.
    together: computes one array of the input and both kernels of two maps.
  """

  size: int
  dtype: jnp.dtype
  axis: int = -1
  multiple: int = 1
  number: int = 1
  multiply: matmul.Matmul = matmul.plain
  together: swiglu.GatedProduct | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> list[jax.Array]:
    """Maps [..., N] to [..., size] each, or [N, ...] to [size, ...]."""
    kernel = self.param(
      "kernel",
      linear_init,
      (x.shape[self.axis], self.number * self.size),
      jnp.float32,
    )
    kernel, x = kernel.astype(self.dtype), x.astype(self.dtype)
    parts = jnp.split(kernel, self.number, axis=1)
    if self.together is not None:
      return [self._flattened(self.together, x, *parts)]
    return [self._flattened(self._product, x, part) for part in parts]

  def _flattened(self, make: Callable, x: jax.Array, *kernels: jax.Array):
    """Calls `make` on x reshaped to two axes; restores the other axes."""
    # XLA removes the transposes that differentiation puts around a product of
    # two matrices, but not those around a product of more axes.
    if self.axis == 0:
      y = make(x.reshape(x.shape[0], -1), *kernels, 0)
      return y.reshape(self.size, *x.shape[1:])
    y = make(x.reshape(-1, x.shape[-1]), *kernels, -1)
    return y.reshape(*x.shape[:-1], self.size)

  def _product(self, x: jax.Array, kernel: jax.Array, axis: int) -> jax.Array:
    if axis == 0:
      fill = -self.size % self.multiple
      kernel = jnp.pad(kernel, ((0, 0), (0, fill)))
      return self.multiply(x, kernel, 0)[: self.size]
    return self.multiply(x, kernel, axis)


def swiglu_width(size: int, *, expansion: float, multiple: int) -> int:
  """Returns SwiGLU's inner width: 2/3 of expansion x size, rounded up."""
  return -(-round(expansion * size * 2 / 3) // multiple) * multiple


def rope_tables(
  length: int, head_size: int, *, base: float
) -> tuple[np.ndarray, np.ndarray]:
  """Returns cos and sin, float32 [length, head_size], of RoFormer's angles.

  Source: arXiv 2104.09864, section 3.2.2, halves instead of pairs.
  """
  exponents = np.arange(0, head_size, 2, dtype=np.float32) / head_size
  frequencies = 1.0 / np.float32(base) ** exponents
  angles = np.outer(np.arange(length, dtype=np.float32), frequencies)
  angles = np.concatenate([angles, angles], axis=-1).astype(np.float32)
  return np.cos(angles), np.sin(angles)


def rotate(x: jax.Array, cos: np.ndarray, sin: np.ndarray) -> jax.Array:
  """Rotates [B, S, H, K] by the tables [S, K], in float32."""
  h = x.astype(jnp.float32)
  first, second = jnp.split(h, 2, axis=-1)
  turned = jnp.concatenate([-second, first], axis=-1)
  h = h * cos[None, :, None, :] + turned * sin[None, :, None, :]
  return h.astype(x.dtype)


class SwiGLU(nn.Module):
  """down(silu(gate(x)) * up(x)) over one axis (arXiv 2002.05202).

  Attributes:
    expansion: see `swiglu_width`.
    multiple: see `swiglu_width`.
    dtype: of the products.
    axis: the axis to map, -1 or 0.
    multiple_of_rows: as `FusedDense.multiple`, of the output.
    gate: name in `swiglu.GATES`.
    rms_norm_eps: of gates with a norm.
    multiply: computes the products.
    gated_product: computes gate, up and their gate at once.
  """

  expansion: float
  multiple: int
  dtype: jnp.dtype
  axis: int = -1
  multiple_of_rows: int = 1
  gate: str = "silu"
  rms_norm_eps: float = 1e-5
  multiply: matmul.Matmul = matmul.plain
  gated_product: swiglu.GatedProduct | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x to an array of the same shape."""
    size = x.shape[self.axis]
    width = swiglu_width(size, expansion=self.expansion, multiple=self.multiple)
    gate = registry.get(swiglu.GATES, self.gate, kind="mlp_gate")
    dense = functools.partial(
      FusedDense, dtype=self.dtype, axis=self.axis, multiply=self.multiply
    )
    made = dense(width, number=2, together=self.gated_product, name="gate_up")(
      x
    )
    if self.gated_product is not None:
      (h,) = made
    else:
      h = gate(*made, epsilon=self.rms_norm_eps, axis=self.axis)
    (y,) = dense(size, multiple=self.multiple_of_rows, name="down")(h)
    return y


class Attention(nn.Module):
  """Full self-attention: every token attends to every token.

  Attributes:
    num_heads: H.
    head_size: K.
    rope_theta: base of RoPE's wavelengths; None for no rotation.
    dtype: of the products.
    attend: computes softmax attention.
    multiply: computes the products with weights.
  """

  num_heads: int
  head_size: int
  rope_theta: float | None
  dtype: jnp.dtype
  attend: attention.AttentionFn = attention.plain
  multiply: matmul.Matmul = matmul.plain

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, S, D] to [B, S, D]."""
    batch, length, size = x.shape
    width = self.num_heads * self.head_size
    dense = functools.partial(
      FusedDense, dtype=self.dtype, multiply=self.multiply
    )
    query, key, value = (
      part.reshape(batch, length, self.num_heads, self.head_size)
      for part in dense(width, number=3, name="qkv")(x)
    )
    if self.rope_theta is not None:
      cos, sin = rope_tables(length, self.head_size, base=self.rope_theta)
      query, key = rotate(query, cos, sin), rotate(key, cos, sin)
    mixed = self.attend(query, key, value)
    mixed = mixed.reshape(batch, length, width)
    (y,) = dense(size, name="out")(mixed)
    return y


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


def _attention(config: NetworkConfig, size: int) -> Attention:
  return Attention(
    num_heads=config.num_heads,
    head_size=size // config.num_heads,
    rope_theta=config.rope_theta
    if config.position_encoding == "rope"
    else None,
    dtype=config.dtype,
    attend=config.attend,
    multiply=config.multiply,
    name="attention",
  )


def _mlp(config: NetworkConfig, name: str, *, axis: int = -1) -> SwiGLU:
  return SwiGLU(
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
  width = swiglu_width(
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


def token_mixer(config: NetworkConfig) -> TokenMixer:
  """Returns the token mixer of a network."""
  return registry.get(TOKEN_MIXERS, config.token_mixing, kind="token_mixing")


def weight_flops(config: NetworkConfig, *, length: int, size: int) -> int:
  """Counts the products with weights in one network call for one puzzle.

  Args:
    config: the network.
    length: S.
    size: D.
  """
  mixing = token_mixer(config).weight_flops(config, length, size)
  return config.num_layers * (mixing + _mlp_flops(config, size) * length)


def token_flops(config: NetworkConfig, *, length: int, size: int) -> int:
  """Counts the products of tokens with tokens; see `weight_flops`."""
  mixer = token_mixer(config)
  return config.num_layers * mixer.token_flops(config, length, size)


class Block(nn.Module):
  """Mixes tokens, then channels.

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
    h = h + _mlp(config, "channel_mlp")(h)
    return rms_norm(h)


class TokenEmbedding(nn.Module):
  """Table of embedding vectors.

  Attributes:
    vocab_size: V.
    size: D.
    dtype: of the vectors returned.
  """

  vocab_size: int
  size: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Maps [B, L] int32 to [B, L, D]."""
    table = self.param(
      "embedding", embedding_init, (self.vocab_size, self.size), jnp.float32
    )
    return jnp.take(table.astype(self.dtype), tokens, axis=0)


def scaled(x: jax.Array) -> jax.Array:
  """Multiplies [..., D] by sqrt(D), the embedding's scale, in x's dtype."""
  return x * math.sqrt(x.shape[-1])
