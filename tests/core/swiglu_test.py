"""Ways to multiply and gate at once, against the plain way."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import small_model
from trm_jax import errors
from trm_jax.core import model as model_lib
from trm_jax.core.kernels import matmul, swiglu
from trm_jax.runtime import devices, model_factory

# Small blocks: several of them, and edges that no block ends at.
TRITON = swiglu.Triton(rows=16, width=32, depth=16, interpret=True)
AXES = pytest.mark.parametrize("axis", [-1, 0])
WAYS = {
  "triton": TRITON,
  "one_product": swiglu.FusedGateUp(matmul.plain),
  "one_product_widened": swiglu.FusedGateUp(matmul.bf16_matmul_f32_accum),
}


def _operands(axis, *, rows=37, depth=41, width=50):
  draw = np.random.default_rng(0).standard_normal
  x = draw((depth, rows) if axis == 0 else (rows, depth))
  kernels = (draw((depth, width)) * depth**-0.5 for _ in range(2))
  return tuple(jnp.asarray(a, jnp.bfloat16) for a in (x, *kernels))


def _plain(x, gate, up, axis):
  return swiglu.silu(matmul.plain(x, gate, axis), matmul.plain(x, up, axis))


@AXES
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
  "sizes",
  [
    {},
    {"rows": 16, "depth": 16, "width": 32},  # one block
    {"rows": 1, "depth": 1, "width": 1},
    {"rows": 33, "depth": 97, "width": 64},
  ],
)
def test_each_is_the_plain_way(axis, sizes, way):
  operands = _operands(axis, **sizes)
  found = WAYS[way](*operands, axis)
  expected = _plain(*operands, axis)
  assert found.shape == expected.shape
  assert found.dtype == jnp.bfloat16
  # A sum in another order may round a factor otherwise: 2**-8 of each.
  np.testing.assert_allclose(
    np.float32(found), np.float32(expected), rtol=3 * 2**-8, atol=1e-4
  )


def _gradients(gated_product, axis, *, remat):
  def total(*operands):
    return jnp.sum(jnp.sin(gated_product(*operands, axis)))

  return jax.grad(jax.checkpoint(total) if remat else total, argnums=(0, 1, 2))


def _expect_close(gradients, expected_ones):
  for found, expected in zip(gradients, expected_ones, strict=True):
    found, expected = np.float32(found), np.float32(expected)
    distance = np.linalg.norm(found - expected)
    assert distance < 2**-8 * np.linalg.norm(expected)


@AXES
@pytest.mark.parametrize("remat", [False, True])
def test_gradients_are_those_of_the_plain_way(axis, remat):
  operands = _operands(axis)
  _expect_close(
    _gradients(TRITON, axis, remat=remat)(*operands),
    _gradients(_plain, axis, remat=remat)(*operands),
  )


@AXES
def test_gradients_of_many_batches_at_once(axis):
  operands = [jnp.stack([a, -a / 2]) for a in _operands(axis)]
  _expect_close(
    jax.vmap(_gradients(TRITON, axis, remat=True))(*operands),
    jax.vmap(_gradients(_plain, axis, remat=True))(*operands),
  )


@AXES
def test_one_product_of_halves_takes_the_whole_as_it_is(axis):
  """Nothing cuts or puts together the kernel, neither does it the result."""
  x, gate, up = (a.astype(jnp.float32) for a in _operands(axis))

  @jax.jit
  def gated(x, kernel):
    halves = jnp.split(kernel, 2, axis=1)
    return swiglu.FusedGateUp(matmul.plain)(x, *halves, axis)

  whole = jnp.concatenate([gate, up], axis=1)
  compiled = gated.lower(x, whole).compile()
  entry = compiled.as_text().partition("\nENTRY ")[2]
  opcodes = re.findall(r"^  .*? = .*? ([\w-]+)\(", entry, re.MULTILINE)
  assert "parameter" in opcodes
  work = [each for each in opcodes if each not in ("parameter", "bitcast")]
  assert len(work) == 2  # the product, and what gates it


def _outputs(function, *arguments) -> list[int]:
  """Counts the outputs of each call of the kernel in what is traced."""
  lines = str(jax.make_jaxpr(function)(*arguments)).splitlines()
  calls = (line for line in lines if " = pallas_call[" in line)
  return [line.count(":bf16[") for line in calls]


@AXES
def test_gate_and_up_are_written_only_for_a_backward_pass(axis):
  operands = _operands(axis)

  def total(*operands):
    return jnp.sum(TRITON(*operands, axis))

  assert _outputs(total, *operands) == [1]
  assert _outputs(jax.grad(total), *operands) == [3]


@AXES
@pytest.mark.parametrize(("remat", "more"), [("full", 0), ("dots", 3)])
def test_dots_keeps_what_the_kernel_makes(axis, remat, more):
  operands = _operands(axis)

  @functools.partial(jax.checkpoint, policy=model_lib.REMAT_POLICIES[remat])
  def total(*operands):
    return jnp.sum(jnp.sin(TRITON(*operands, axis)))

  kept = jax.eval_shape(lambda *each: jax.vjp(total, *each)[1], *operands)
  made = jax.eval_shape(lambda *each: TRITON(*each, axis), *operands)
  shapes = [leaf.shape for leaf in jax.tree.leaves(kept)]
  assert len(shapes) == len(operands) + more
  assert shapes.count(made.shape) == more


@pytest.mark.slow
@pytest.mark.parametrize("token_mixing", ["mlp", "attention"])
def test_a_whole_model(token_mixing):
  """All calls of a supervision step, with the parameters of the plain way."""
  model = small_model.model(token_mixing).with_network(compute_dtype="bfloat16")
  weights = small_model.weights(token_mixing=token_mixing)
  rng = np.random.default_rng(1)
  batch, size = 3, model.hidden_size
  inputs = rng.integers(0, model.vocab_size, (batch, model.seq_len), np.int32)
  state = (batch, model.total_len, size)
  latents = jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf, state).astype(jnp.bfloat16),
    weights.initial_latents,
  )

  def logits(model):
    vectors = weights.puzzle_table[:batch]
    return model.apply({"params": weights.params}, inputs, vectors, latents)

  found = logits(model.with_network(gated_product=TRITON)).logits
  np.testing.assert_allclose(
    np.float32(found), np.float32(logits(model).logits), rtol=0.1, atol=0.1
  )


AMPERE, VOLTA = devices.Chip("gpu", 8.0), devices.Chip("gpu", 7.0)


def _chosen(kernel, on, *, gate="silu", dtype="bfloat16"):
  return model_factory.choose_gated_product(
    kernel, gate=gate, dtype=dtype, chip=on
  )


def test_where_it_is_chosen():
  assert _chosen("triton", AMPERE) == swiglu.Triton()
  for on in (AMPERE, VOLTA, devices.Chip("cpu"), devices.Chip("tpu")):
    assert _chosen("xla", on) is None


@pytest.mark.parametrize(
  ("on", "given"),
  [
    (VOLTA, {}),
    (devices.Chip("cpu"), {}),
    (devices.Chip("tpu"), {}),
    (AMPERE, {"dtype": "float32"}),
    (AMPERE, {"gate": "normed"}),
  ],
)
def test_it_is_refused_where_it_cannot_run(on, given):
  with pytest.raises(errors.UserError, match="'triton' needs an NVIDIA GPU"):
    _chosen("triton", on, **given)
