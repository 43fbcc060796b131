"""Implementations of the product of activations and weights.

A `Matmul` maps (x [R, N], kernel [N, M], -1) to x @ kernel, [R, M], and
(x [N, R], kernel [N, M], 0) to kernel.T @ x, [M, R]. All implementations
compute the same; `plain` is the reference.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Matmul = Callable[[jax.Array, jax.Array, int], jax.Array]


def plain(x: jax.Array, kernel: jax.Array, axis: int) -> jax.Array:
  """Computes the product with `@`; the best choice on most devices."""
  return kernel.T @ x if axis == 0 else x @ kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def bf16_matmul_f32_accum(
  x: jax.Array, kernel: jax.Array, axis: int
) -> jax.Array:
  """Computes bfloat16 products with float32 accumulation, for CPUs.

  XLA uses the CPU's bfloat16 instructions only if the result is float32 (it is
  rounded here) and the left operand is contracted over its rows. Any other
  bfloat16 product is computed in float32 and takes up to five times as long.
  The same holds for the gradients, hence the custom VJP: there is no forward
  mode, and `jax.shard_map` needs check_vma=False.
  """
  return _widened(x, kernel, axis)


def _widened(x, kernel, axis):
  if axis == 0:
    return _of_columns(kernel, x).astype(x.dtype)
  return _of_rows(x, kernel, 0).astype(x.dtype)


def _widened_forward(x, kernel, axis):
  # Not `bf16_matmul_f32_accum` itself: checkpoint policies would not see the
  # product in it.
  return _widened(x, kernel, axis), (x, kernel)


def _widened_backward(axis, kept, gradient):
  x, kernel = kept
  if axis == 0:
    of_x = _of_rows(kernel, gradient, 0)
    of_kernel = _of_rows(x, gradient, 1)
  else:
    of_x = _of_rows(gradient, kernel, 1)
    of_kernel = _of_columns(x, gradient)
  return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


bf16_matmul_f32_accum.defvjp(_widened_forward, _widened_backward)


def _of_rows(left: jax.Array, right: jax.Array, right_axis: int) -> jax.Array:
  """Contracts axis 1 of `left` with `right_axis` of `right`, in float32."""
  return jax.lax.dot_general(
    left,
    right,
    (((1,), (right_axis,)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _of_columns(left: jax.Array, right: jax.Array) -> jax.Array:
  """Contracts axis 0 of both operands, in float32.

  The second contracted axis, of size 1, makes XLA transpose the left operand in
  memory, which is faster than leaving the transpose to the product.
  """
  return jax.lax.dot_general(
    left[:, None],
    right[:, None],
    (((0, 1), (0, 1)), ((), ())),
    preferred_element_type=jnp.float32,
  )
