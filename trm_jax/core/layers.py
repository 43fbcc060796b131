"""Layers of the recursive network (paper, sections 4.4, 4.5).

Post-norm blocks without biases: h = norm(h + mix(h)), norm(h + mlp(h)).
Parameters are float32; products run in `dtype`. Norms, gates and rotations
are computed in float32 and cast back; for the backward pass what goes into
them is kept, in `dtype`, and not what they compute in float32.

A block that mixes tokens by an MLP works on [S, B, D], tokens first: both of
its MLPs are then one plain product each, and nothing is ever transposed
(docs/performance.md has what that gains).
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from trm_jax.core import norm
from trm_jax.core.kernels import attention, matmul, swiglu

# Truncated normal at two deviations, corrected to std 1/sqrt(fan_in).
linear_init = nn.initializers.variance_scaling(
  1.0, "fan_in", "truncated_normal"
)
# [V, D] tables: std 1/sqrt(D), undone by the embedding's scale sqrt(D).
embedding_init = nn.initializers.variance_scaling(
  1.0, "fan_out", "truncated_normal"
)


class Linears(nn.Module):
  """Linear maps of the same x without bias; one parameter has their kernels.

  Each is a product of its own, so that nothing has to cut apart what they make,
  or to put together its gradient (docs/performance.md has what that gains).
  """

  size: int  # of what each makes
  dtype: jnp.dtype
  axis: int = -1
  # With axis 0: zeros fill a kernel's rows, of `size` numbers, up to a multiple
  # of so many. Matrix units want rows to begin at whole 16 bytes.
  multiple: int = 1
  number: int = 1
  multiply: matmul.Multiply = matmul.plain
  # Of two maps: makes one array of x and both kernels instead.
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
      return [self._shaped(self.together, x, *parts)]
    return [self._shaped(self._product, x, part) for part in parts]

  def _shaped(self, make: Callable, x: jax.Array, *kernels: jax.Array):
    """Makes an array of x, here of two axes, and kernels."""
    # Of products of two matrices XLA leaves out the transposes that
    # differentiation puts around them.
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
  """down(silu(gate(x)) * up(x)) over one axis (arXiv 2002.05202)."""

  expansion: float
  multiple: int
  dtype: jnp.dtype
  axis: int = -1  # the last or the first
  multiple_of_rows: int = 1  # as `Linears.multiple`
  # Not None: `gates.normed` with this epsilon takes silu's place.
  norm_epsilon: float | None = None
  multiply: matmul.Multiply = matmul.plain
  gated_product: swiglu.GatedProduct | None = None  # gate, up and silu at once

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps x to an array of the same shape."""
    size = x.shape[self.axis]
    width = swiglu_width(size, expansion=self.expansion, multiple=self.multiple)
    linears = functools.partial(
      Linears, dtype=self.dtype, axis=self.axis, multiply=self.multiply
    )
    made = linears(
      width, number=2, together=self.gated_product, name="gate_up"
    )(x)
    if self.gated_product is not None:
      (h,) = made
    elif self.norm_epsilon is None:
      h = swiglu.silu(*made)
    else:
      h = swiglu.normed(*made, epsilon=self.norm_epsilon, axis=self.axis)
    (y,) = linears(size, multiple=self.multiple_of_rows, name="down")(h)
    return y


class Attention(nn.Module):
  """Full self-attention, each token to every token."""

  num_heads: int
  head_size: int
  rope_base: float | None  # None: no rotation
  dtype: jnp.dtype
  attend: attention.Attend = attention.plain
  multiply: matmul.Multiply = matmul.plain

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, S, D] to [B, S, D]."""
    batch, length, size = x.shape
    width = self.num_heads * self.head_size
    linears = functools.partial(
      Linears, dtype=self.dtype, multiply=self.multiply
    )
    query, key, value = (
      part.reshape(batch, length, self.num_heads, self.head_size)
      for part in linears(width, number=3, name="qkv")(x)
    )
    if self.rope_base is not None:
      cos, sin = rope_tables(length, self.head_size, base=self.rope_base)
      query, key = rotate(query, cos, sin), rotate(key, cos, sin)
    mixed = self.attend(query, key, value)
    mixed = mixed.reshape(batch, length, width)
    (y,) = linears(size, name="out")(mixed)
    return y


class Block(nn.Module):
  """Mixes tokens, then channels."""

  token_mixing: str
  num_heads: int
  rope_base: float | None
  mlp_expansion: float
  mlp_multiple: int
  norm_epsilon: float
  dtype: jnp.dtype
  token_multiple: int = 1  # 'mlp': as `Linears.multiple`
  attend: attention.Attend = attention.plain
  multiply: matmul.Multiply = matmul.plain
  mlp_gate: str = "silu"  # or 'normed'
  gated_product: swiglu.GatedProduct | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, S, D] to the same, with 'mlp' [S, B, D]."""
    if self.token_mixing == "mlp":
      # As in the official code, this norm runs over the sequence.
      h = x + self._mlp("token_mlp", axis=0)(x)
      h = norm.rms_norm(h, epsilon=self.norm_epsilon, axis=0)
    else:
      h = x + Attention(
        num_heads=self.num_heads,
        head_size=x.shape[-1] // self.num_heads,
        rope_base=self.rope_base,
        dtype=self.dtype,
        attend=self.attend,
        multiply=self.multiply,
        name="attention",
      )(x)
      h = norm.rms_norm(h, epsilon=self.norm_epsilon)
    h = h + self._mlp("channel_mlp")(h)
    return norm.rms_norm(h, epsilon=self.norm_epsilon)

  def _mlp(self, name: str, *, axis: int = -1) -> SwiGLU:
    return SwiGLU(
      expansion=self.mlp_expansion,
      multiple=self.mlp_multiple,
      dtype=self.dtype,
      axis=axis,
      multiple_of_rows=self.token_multiple,
      norm_epsilon=self.norm_epsilon if self.mlp_gate == "normed" else None,
      multiply=self.multiply,
      gated_product=self.gated_product,
      name=name,
    )


class TokenEmbedding(nn.Module):
  """A table of V vectors of size D."""

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
