"""Ways to multiply activations by weights; all of them compute the same.

A `Multiply` maps x [R, N], a kernel [N, M] and -1 to x times kernel, [R, M];
and x [N, R], a kernel and 0 to the transposed kernel times x, [M, R]. The plain
one is the reference.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from trm_jax.runtime import devices

Multiply = Callable[[jax.Array, jax.Array, int], jax.Array]


def plain(x: jax.Array, kernel: jax.Array, axis: int) -> jax.Array:
  """Computes the product as it is written; runs well nearly everywhere."""
  return kernel.T @ x if axis == 0 else x @ kernel


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def widened(x: jax.Array, kernel: jax.Array, axis: int) -> jax.Array:
  """Computes bfloat16's products as a CPU multiplies them, added up in float32.

  XLA hands a product to the library that knows the CPU's instructions for
  bfloat16 only if its result is float32, which is rounded here, and if the left
  side's rows are what it adds up over; any other product it computes in float32
  altogether, which takes up to five times as long. This holds for the gradients
  as well, so they are written out: there is no forward mode, and in
  `jax.shard_map` it needs check_vma=False.
  """
  return _widened(x, kernel, axis)


def _widened(x, kernel, axis):
  if axis == 0:
    return _of_columns(kernel, x).astype(x.dtype)
  return _of_rows(x, kernel, 0).astype(x.dtype)


def _widened_forward(x, kernel, axis):
  # Not by `widened`: policies of what to keep would not see the product in it.
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


widened.defvjp(_widened_forward, _widened_backward)


def _of_rows(left: jax.Array, right: jax.Array, right_axis: int) -> jax.Array:
  """Adds up over the rows of the left side and an axis of the right one."""
  return jax.lax.dot_general(
    left,
    right,
    (((1,), (right_axis,)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def _of_columns(left: jax.Array, right: jax.Array) -> jax.Array:
  """Adds up over the columns of both sides, in float32.

  A second axis to add up over, of size 1, has XLA turn the left side around in
  memory; without it, it leaves that to the product.
  """
  return jax.lax.dot_general(
    left[:, None],
    right[:, None],
    (((0, 1), (0, 1)), ((), ())),
    preferred_element_type=jnp.float32,
  )


def choose(dtype: str, chip: devices.Chip) -> Multiply:
  """Returns the way that is fast on a chip.

  Args:
    dtype: 'float32' or 'bfloat16', of the products.
    chip: that will run it.
  """
  return widened if dtype == "bfloat16" and chip.cpu_has_bfloat16 else plain
