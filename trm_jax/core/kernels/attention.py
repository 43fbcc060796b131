"""Implementations of full self-attention.

An `AttentionFn` maps queries, keys and values [B, S, H, K] to softmax(q k' /
sqrt(K)) v, [B, S, H, K]. All implementations compute the same; `plain` is the
reference. It materializes the S x S weights of each head, which for 900 cells
is most of a step's memory; a fused kernel holds one block at a time.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

AttentionFn = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# Splash attention: S is padded to a multiple of the TPU's 128 lanes and of the
# block, which has at most this many rows.
_BLOCK = 512
_LANES = 128


def plain(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
  """Computes attention as products and a softmax; runs on any device."""
  return jax.nn.dot_product_attention(query, key, value)


def cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
  """Computes attention with cuDNN's fused kernel; NVIDIA GPUs, bfloat16."""
  attend = _cudnn_of_odd_length if query.shape[1] % 2 else _cudnn
  return attend(query, key, value)


def _cudnn(query, key, value, **lengths):
  return jax.nn.dot_product_attention(
    query, key, value, implementation="cudnn", **lengths
  )


@jax.custom_vjp
def _cudnn_of_odd_length(query, key, value):
  """Computes attention for odd S, for which cuDNN has no gradient."""
  return _cudnn(query, key, value)


def _padded_to_even(query, key, value):
  """Computes attention with one masked token appended."""
  length = query.shape[1]
  query, key, value = (
    jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value)
  )
  lengths = jnp.full(query.shape[:1], length, jnp.int32)
  mixed = _cudnn(
    query,
    key,
    value,
    query_seq_lengths=lengths,
    key_value_seq_lengths=lengths,
  )
  return mixed[:, :length]


_cudnn_of_odd_length.defvjp(
  lambda query, key, value: jax.vjp(_padded_to_even, query, key, value),
  lambda pull, gradient: pull(gradient),
)


@dataclasses.dataclass(frozen=True)
class Splash:
  """JAX's fused TPU kernel (Pallas, "splash attention").

  The compiler cannot partition a kernel over devices: on several devices call
  it inside `jax.shard_map`, on each device's rows of the batch.

  Attributes:
    interpret: runs on any device, slowly; for tests.
  """

  interpret: bool = False

  def __call__(
    self, query: jax.Array, key: jax.Array, value: jax.Array
  ) -> jax.Array:
    """Computes attention."""
    # Imported here and below, because only TPUs need it.
    from jax.experimental.pallas.ops.tpu import splash_attention

    _, length, num_heads, head_size = query.shape
    block = min(_BLOCK, _padded(length, _LANES))
    padded = _padded(length, block)

    def by_head(x):  # [B, S, H, K] -> [B, H, padded, K]
      x = jnp.swapaxes(x, 1, 2)
      return jnp.pad(x, ((0, 0), (0, 0), (0, padded - length), (0, 0)))

    # Tokens attend within their segment: padding attends to padding only.
    segments = jnp.asarray(np.arange(padded) >= length, jnp.int32)
    attend = jax.vmap(
      self._kernel(num_heads, padded, block), in_axes=(0, 0, 0, None)
    )
    mixed = attend(
      by_head(query * (1.0 / math.sqrt(head_size))),  # exact for K = 64
      by_head(key),
      by_head(value),
      splash_attention.SegmentIds(q=segments, kv=segments),
    )
    return jnp.swapaxes(mixed[:, :, :length], 1, 2)

  def _kernel(self, num_heads, length, block):
    from jax.experimental.pallas.ops.tpu import splash_attention

    mask = splash_attention.FullMask((length, length))
    # Gradients need the backward block sizes as well.
    sizes = splash_attention.BlockSizes(
      block_q=block,
      block_kv=block,
      block_kv_compute=block,
      block_q_dkv=block,
      block_kv_dkv=block,
      block_kv_dkv_compute=block,
      block_q_dq=block,
      block_kv_dq=block,
    )
    return splash_attention.make_splash_mha_single_device(
      splash_attention.MultiHeadMask([mask] * num_heads),
      block_sizes=sizes,
      interpret=self.interpret,
    )


def _padded(length: int, multiple: int) -> int:
  return -(-length // multiple) * multiple
