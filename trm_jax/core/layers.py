"""Layers of the recursive network, without biases (paper, sections 4.4, 4.5).

Parameters are float32; matrix products run in the compute dtype. Norms, gates
and rotations are computed in float32 and cast back; their inputs are saved for
the backward pass in the compute dtype, not their float32 intermediates.

`network` puts them together.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from . import registry
from .kernels import attention, matmul, swiglu

# Truncated normal at two deviations, corrected to std 1/sqrt(fan_in).
linear_init = nn.initializers.variance_scaling(
  1.0, "fan_in", "truncated_normal"
)
# [V, D] tables: std 1/sqrt(D), undone by the embedding's scale sqrt(D).
embedding_init = nn.initializers.variance_scaling(
  1.0, "fan_out", "truncated_normal"
)


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


def rotate_2d(x: jax.Array, grid: tuple[int, int], *, base: float) -> jax.Array:
  """Rotates half of each head by the row of a token, half by its column.

  Args:
    x: [B, S, H, K]; tokens in front of the grid's are not rotated.
    grid: rows and columns.
    base: of the wavelengths.
  """
  rows, cols = grid
  prefix = x.shape[1] - rows * cols
  places = np.indices((rows, cols)).reshape(2, -1)
  halves = []
  for half, place in zip(jnp.split(x, 2, axis=-1), places, strict=True):
    tables = rope_tables(max(grid), half.shape[-1], base=base)
    # Position 0 turns by no angle.
    place = np.concatenate([np.zeros(prefix, int), place])
    halves.append(rotate(half, *(table[place] for table in tables)))
  return jnp.concatenate(halves, axis=-1)


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
      h = gate(
        *made, epsilon=self.rms_norm_eps, axis=self.axis, param=self.param
      )
    (y,) = dense(size, multiple=self.multiple_of_rows, name="down")(h)
    return y


class Attention(nn.Module):
  """Full self-attention: every token attends to every token.

  Attributes:
    num_heads: H.
    head_size: K.
    rope_theta: base of RoPE's wavelengths; None for no rotation.
    dtype: of the products.
    grid: rows and columns for `rotate_2d`; None for positions in a sequence.
    attend: computes softmax attention.
    multiply: computes the products with weights.
  """

  num_heads: int
  head_size: int
  rope_theta: float | None
  dtype: jnp.dtype
  grid: tuple[int, int] | None = None
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
    if self.rope_theta is not None and self.grid is not None:
      query, key = (
        rotate_2d(part, self.grid, base=self.rope_theta)
        for part in (query, key)
      )
    elif self.rope_theta is not None:
      cos, sin = rope_tables(length, self.head_size, base=self.rope_theta)
      query, key = rotate(query, cos, sin), rotate(key, cos, sin)
    mixed = self.attend(query, key, value)
    mixed = mixed.reshape(batch, length, width)
    (y,) = dense(size, name="out")(mixed)
    return y


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
