"""Layers that mix the symbols of each cell (digit-equivariant networks).

They map [..., F, D] to the same: F symbols (of Sudoku, the nine digits) with
the same weights, each of which sees the others. Permuting the symbols of the
input permutes those of the output.

Source: the digit fields of FPRS (Fixed-Point-Reasoner-Structures), whose two
variants these are.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from . import layers
from .kernels import matmul


class MeanOfOthers(nn.Module):
  """A linear map of the mean over the other symbols.

  Attributes:
    dtype: of the product.
    multiply: computes it.
  """

  dtype: jnp.dtype
  multiply: matmul.Matmul = matmul.plain

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., F, D] to [..., F, D]."""
    h = x.astype(jnp.float32)
    others = (jnp.sum(h, axis=-2, keepdims=True) - h) / (x.shape[-2] - 1)
    (mixed,) = layers.FusedDense(
      x.shape[-1], self.dtype, multiply=self.multiply, name="out"
    )(others.astype(x.dtype))
    return mixed


class AttentionToOthers(nn.Module):
  """Attention from each symbol to the others, without positions.

  The values have D / H channels and are not mapped again afterwards.

  Attributes:
    num_heads: H.
    head_size: of queries and keys.
    dtype: of the products.
    multiply: computes the products with weights.
  """

  num_heads: int
  head_size: int
  dtype: jnp.dtype
  multiply: matmul.Matmul = matmul.plain

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., F, D] to [..., F, D]."""
    num_symbols = x.shape[-2]
    dense = functools.partial(
      layers.FusedDense, dtype=self.dtype, multiply=self.multiply
    )

    def split(h):  # [..., F, H, K]
      return h.reshape(*h.shape[:-1], self.num_heads, -1)

    query, key = map(
      split,
      dense(self.num_heads * self.head_size, number=2, name="query_key")(x),
    )
    value = split(dense(x.shape[-1], name="value")(x)[0])
    scores = jnp.einsum(
      "...qhk,...phk->...hqp", query, key, preferred_element_type=jnp.float32
    )
    scores = jnp.where(
      jnp.eye(num_symbols, dtype=bool),
      -jnp.inf,
      scores / math.sqrt(self.head_size),
    )
    shares = jax.nn.softmax(scores).astype(x.dtype)
    mixed = jnp.einsum("...hqp,...phk->...qhk", shares, value)
    return mixed.reshape(x.shape)
