"""Ways to compute full self-attention; all of them compute the same.

An `Attend` maps queries, keys and values [B, S, H, K] to softmax(q k' /
sqrt(K)) v, [B, S, H, K]. The plain one is the reference. It keeps all S x S
weights of a head, which for 900 cells is most of the memory of a step; a fused
kernel keeps a block of them at a time.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from trm_jax import errors
from trm_jax.runtime import devices

Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# The kernel's blocks are matrices of so many rows, or fewer where S is less;
# S is filled up to a multiple of the TPU's 128 lanes, and of the block.
_BLOCK = 512
_LANES = 128
# From here on 'auto' takes the fused kernel on TPU. benchmarks/RESULTS.md has
# the memory of both at S = 916; at S = 97 there is nothing to save.
_LONG = 512

# What cuDNN's kernel asks for: an Ampere GPU, heads of so many numbers.
_CUDNN_CAPABILITY = 8.0
_CUDNN_HEAD_SIZE = 128  # at most
_CUDNN_HEAD_MULTIPLE = 8


def plain(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
  """Computes attention in products and a softmax; runs everywhere."""
  return jax.nn.dot_product_attention(query, key, value)


def cudnn(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
  """Calls the fused kernel for NVIDIA's GPUs, in bfloat16."""
  attend = _cudnn_of_odd_length if query.shape[1] % 2 else _cudnn
  return attend(query, key, value)


def _cudnn(query, key, value, **lengths):
  return jax.nn.dot_product_attention(
    query, key, value, implementation="cudnn", **lengths
  )


@jax.custom_vjp
def _cudnn_of_odd_length(query, key, value):
  """The kernel takes any length; its gradient takes even ones only."""
  return _cudnn(query, key, value)


def _filled_up(query, key, value):
  """Computes attention with one token more, which is masked."""
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
  lambda query, key, value: jax.vjp(_filled_up, query, key, value),
  lambda pull, gradient: pull(gradient),
)


@dataclasses.dataclass(frozen=True)
class Splash:
  """The fused TPU kernel that comes with JAX (Pallas, "splash attention").

  The compiler cannot split a kernel over devices: on several of them call it
  within `jax.shard_map`, each on its own rows of the batch.

  Attributes:
    interpret: Runs on any device, slowly; for tests.
  """

  interpret: bool = False

  def __call__(
    self, query: jax.Array, key: jax.Array, value: jax.Array
  ) -> jax.Array:
    """Computes attention."""
    # Imported late, here and below: only TPUs run it.
    from jax.experimental.pallas.ops.tpu import splash_attention

    _, length, num_heads, head_size = query.shape
    block = min(_BLOCK, _padded(length, _LANES))
    padded = _padded(length, block)

    def by_head(x):  # [B, S, H, K] -> [B, H, padded, K]
      x = jnp.swapaxes(x, 1, 2)
      return jnp.pad(x, ((0, 0), (0, 0), (0, padded - length), (0, 0)))

    # Tokens see those of their own segment: the filling only itself.
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
    # Gradients need the backward blocks named, too.
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


def choose(
  kernel: str,
  *,
  length: int,
  head_size: int,
  dtype: str,
  chip: devices.Chip,
) -> Attend:
  """Returns the way that `config.model.attention_kernel` names.

  Args:
    kernel: 'xla', 'splash', 'cudnn', or 'auto': a fused kernel where there is
      one that helps, on TPU for long sequences, on NVIDIA's GPUs always.
    length: S.
    head_size: numbers of a head.
    dtype: 'float32' or 'bfloat16', of the products.
    chip: that will run it.

  Raises:
    UserError: the chip cannot run the kernel.
  """
  has_cudnn = (
    chip.cuda_capability >= _CUDNN_CAPABILITY
    and dtype == "bfloat16"
    and head_size <= _CUDNN_HEAD_SIZE
    and head_size % _CUDNN_HEAD_MULTIPLE == 0
  )
  if kernel == "splash" and chip.platform != "tpu":
    raise errors.UserError(
      "config.model.attention_kernel 'splash' runs on TPU only, not on"
      f" {chip.platform}; choose auto or xla"
    )
  if kernel == "cudnn" and not has_cudnn:
    raise errors.UserError(
      "config.model.attention_kernel 'cudnn' needs an NVIDIA GPU from Ampere"
      " on, config.model.compute_dtype 'bfloat16', and heads of at most"
      f" {_CUDNN_HEAD_SIZE} numbers in multiples of {_CUDNN_HEAD_MULTIPLE};"
      f" here {dtype}, {head_size} numbers, on {chip.platform}"
      + (f" {chip.cuda_capability}" if chip.cuda_capability else "")
      + "; choose auto or xla"
    )
  if kernel == "auto":
    if chip.platform == "tpu" and length >= _LONG:
      kernel = "splash"
    elif has_cudnn:
      kernel = "cudnn"
  kernels: dict[str, Attend] = {"splash": Splash(), "cudnn": cudnn}
  return kernels.get(kernel, plain)


def _padded(length: int, multiple: int) -> int:
  return -(-length // multiple) * multiple
