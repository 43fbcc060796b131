"""Products of activations with weights: all ways compute the same."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax import chip
from trm_jax.models import products

R, N, M = 7, 24, 40
AXES = pytest.mark.parametrize("axis", [-1, 0])


def _operands(axis, dtype=jnp.bfloat16):
  draw = np.random.default_rng(0).standard_normal
  x = draw((N, R) if axis == 0 else (R, N))
  made = (M, R) if axis == 0 else (R, M)
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
  y = products.plain(x, kernel, axis)
  np.testing.assert_allclose(
    y, expected.T if axis == 0 else expected, rtol=1e-5, atol=1e-5
  )


@AXES
def test_the_widened_product_and_its_gradients_are_the_plain_ones(axis):
  operands = _operands(axis)
  found = _product_and_gradients(products.widened, *operands, axis)
  wide = (a.astype(jnp.float32) for a in operands)
  exact = _product_and_gradients(products.plain, *wide, axis)
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
    return _product_and_gradients(products.widened, *operands, axis)

  text = jax.jit(compute).lower(*operands).as_text()
  made = re.findall(r"dot_general .*: \((.*)\) -> (\S+)", text)
  assert len(made) == 3
  for taken, given in made:
    assert taken.count("bf16") == 2
    assert given.endswith("f32>")


def test_where_it_is_chosen():
  tiles = chip.Chip("cpu", has_cpu_tiles=True)
  assert products.choose("bfloat16", tiles) is products.widened
  assert products.choose("float32", tiles) is products.plain
  for other in (chip.Chip("cpu"), chip.Chip("gpu", 9.0), chip.Chip("tpu")):
    assert products.choose("bfloat16", other) is products.plain
