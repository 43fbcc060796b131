"""Products of activations with weights: all ways compute the same."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from trm_jax.core import model as model_lib
from trm_jax.core import parallel
from trm_jax.core.kernels import matmul
from trm_jax.runtime import devices, model_factory
from trm_jax.runtime import mesh as mesh_lib

R, N, M = 7, 24, 40
AXES = pytest.mark.parametrize("axis", [-1, 0])


def _operands(axis, dtype=jnp.bfloat16, *, rows=R):
  draw = np.random.default_rng(0).standard_normal
  x = draw((N, rows) if axis == 0 else (rows, N))
  made = (M, rows) if axis == 0 else (rows, M)
  return tuple(
    jnp.asarray(array, dtype) for array in (x, draw((N, M)), draw(made))
  )


def _product_and_gradients(multiply, x, kernel, gradient, axis):
  y, pull = jax.vjp(lambda x, kernel: multiply(x, kernel, axis), x, kernel)
  return y, *pull(gradient)


@AXES
def test_the_plain_product_by_hand(axis):
  x, kernel, _ = _operands(axis, jnp.float32)
  rows = np.float64(x).T if axis == 0 else np.float64(x)
  expected = rows @ np.float64(kernel)
  y = matmul.plain(x, kernel, axis)
  np.testing.assert_allclose(
    y, expected.T if axis == 0 else expected, rtol=1e-5, atol=1e-5
  )


@AXES
def test_the_widened_product_and_its_gradients_are_the_plain_ones(axis):
  operands = _operands(axis)
  found = _product_and_gradients(matmul.bf16_matmul_f32_accum, *operands, axis)
  wide = (a.astype(jnp.float32) for a in operands)
  exact = _product_and_gradients(matmul.plain, *wide, axis)
  for ours, expected in zip(found, exact, strict=True):
    assert ours.dtype == jnp.bfloat16
    # Added up in float32 and rounded once, to 8 bits.
    np.testing.assert_allclose(
      np.float32(ours), expected, rtol=2**-8, atol=1e-5
    )


@AXES
def test_the_widened_product_stays_in_bfloat16_until_it_is_made(axis):
  """Nothing converts an operand to float32, nor in the gradients."""
  operands = _operands(axis)

  def compute(*operands):
    return _product_and_gradients(matmul.bf16_matmul_f32_accum, *operands, axis)

  text = jax.jit(compute).lower(*operands).as_text()
  made = re.findall(r"dot_general .*: \((.*)\) -> (\S+)", text)
  assert len(made) == 3
  for taken, given in made:
    assert taken.count("bf16") == 2
    assert given.endswith("f32>")


@AXES
# Computed once more where it is not kept, beside the gradients of both.
@pytest.mark.parametrize(("remat", "expected"), [("full", 4), ("dots", 3)])
def test_policies_of_what_to_keep_see_the_widened_product(
  axis, remat, expected
):
  def products_of_gradient(multiply):
    @functools.partial(jax.checkpoint, policy=model_lib.REMAT_POLICIES[remat])
    def total(x, kernel):
      return jnp.sum(jnp.sin(multiply(x, kernel, axis)))

    gradient = jax.grad(total, argnums=(0, 1))
    return str(jax.make_jaxpr(gradient)(*_operands(axis)[:2])).count("dot_gen")

  assert products_of_gradient(matmul.plain) == expected
  assert products_of_gradient(matmul.bf16_matmul_f32_accum) == expected


def _of_devices(multiply, axis):
  """The gradients of rows that two devices share."""
  mesh = mesh_lib.make_mesh(2)
  whole, rows = PartitionSpec(), PartitionSpec(parallel.DATA)
  split = PartitionSpec(None, parallel.DATA) if axis == 0 else rows

  def of_part(x, kernel, gradient):
    made = _product_and_gradients(multiply, x, kernel, gradient, axis)
    return *made[:2], jax.lax.psum(made[2].astype(jnp.float32), parallel.DATA)

  return jax.jit(
    jax.shard_map(
      of_part,
      mesh=mesh,
      in_specs=(split, whole, split),
      out_specs=(split, split, whole),
      check_vma=False,
    )
  )


def _expect_close(found, expected_ones):
  for ours, expected in zip(found, expected_ones, strict=True):
    ours, expected = np.float32(ours), np.float32(expected)
    distance = np.linalg.norm(ours - expected)
    assert distance < 2**-7 * np.linalg.norm(expected)


@AXES
def test_the_widened_product_of_several_devices(axis):
  operands = _operands(axis, rows=8)
  _expect_close(
    _of_devices(matmul.bf16_matmul_f32_accum, axis)(*operands),
    _of_devices(matmul.plain, axis)(*operands),
  )


@AXES
def test_the_widened_product_of_several_batches(axis):
  operands = [jnp.stack([a, -2 * a, a / 2]) for a in _operands(axis, rows=8)]
  found, expected = (
    jax.vmap(functools.partial(_product_and_gradients, multiply, axis=axis))
    for multiply in (matmul.bf16_matmul_f32_accum, matmul.plain)
  )
  _expect_close(found(*operands), expected(*operands))


def test_where_it_is_chosen():
  multiplies = devices.Chip("cpu", cpu_has_bfloat16=True)
  assert (
    model_factory.choose_matmul("bfloat16", multiplies)
    is matmul.bf16_matmul_f32_accum
  )
  assert model_factory.choose_matmul("float32", multiplies) is matmul.plain
  for other in (
    devices.Chip("cpu"),
    devices.Chip("gpu", 9.0),
    devices.Chip("tpu"),
  ):
    assert model_factory.choose_matmul("bfloat16", other) is matmul.plain
