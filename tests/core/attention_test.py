"""The fused attention kernel computes what the plain one does."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import arc
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core.kernels import attention
from trm_jax.runtime import devices, model_factory, program
from trm_jax.runtime import mesh as mesh_lib

B, H = 4, 2


SPLASH = attention.Splash(interpret=True)


def _inputs(length, head_size, dtype="float32"):
  rng = np.random.default_rng(length + head_size)
  shape = (B, length, H, head_size)
  # Queries of deviation 2: some tokens weigh much more than others.
  return [
    jnp.asarray(rng.standard_normal(shape, np.float32) * scale, dtype)
    for scale in (2.0, 1.0, 1.0)
  ]


def _results(attend, inputs):
  """The output and all three gradients, in float32."""
  weights = np.random.default_rng(0).standard_normal(inputs[0].shape)

  def loss(*inputs):
    mixed = attend(*inputs).astype(jnp.float32)
    return jnp.sum(mixed * weights.astype(np.float32)), mixed

  gradients, mixed = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(
    *inputs
  )
  return [np.asarray(x, np.float32) for x in (mixed, *gradients)]


# One block, filled up; several; none filled up; a head that is no power of 2.
@pytest.mark.parametrize(
  ("length", "head_size"), [(97, 64), (600, 64), (512, 128), (130, 48)]
)
def test_float32_forward_and_gradients(length, head_size):
  inputs = _inputs(length, head_size)
  found = _results(SPLASH, inputs)
  expected = _results(attention.plain, inputs)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


@pytest.fixture
def cudnn_lengths(monkeypatch):
  """The kernel itself needs a GPU; XLA stands in, and notes the lengths."""
  compute, noted = jax.nn.dot_product_attention, []

  def stand_in(query, *others, implementation=None, **lengths):
    if implementation == "cudnn":
      noted.append(query.shape[1])
    return compute(query, *others, implementation="xla", **lengths)

  monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
  return noted


@pytest.mark.parametrize("length", [97, 130])
def test_cudnn_is_given_even_lengths_where_there_are_gradients(
  cudnn_lengths, length
):
  inputs = _inputs(length, 64)
  found = _results(attention.cudnn, inputs)
  assert cudnn_lengths == [length + length % 2]
  expected = _results(attention.plain, inputs)
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def test_cudnn_is_given_what_there_is_where_there_are_no_gradients(
  cudnn_lengths,
):
  inputs = _inputs(97, 64)
  found = attention.cudnn(*inputs)
  assert cudnn_lengths == [97]
  expected = attention.plain(*inputs)
  np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_bfloat16_is_as_close_to_the_truth_as_the_plain_one():
  """Both round products' inputs; neither may be much further from float32."""
  exact = _results(attention.plain, _inputs(600, 64))
  inputs = _inputs(600, 64, "bfloat16")
  kernel = _results(SPLASH, inputs)
  plain = _results(attention.plain, inputs)
  for k, p, e in zip(kernel, plain, exact, strict=True):
    scale = np.linalg.norm(e)
    error, usual = (np.linalg.norm(x - e) / scale for x in (k, p))
    assert usual > 1e-4  # or nothing is compared
    assert error < 1.5 * usual


def _step(attend):
  """A whole training step on two devices; returns the new state."""
  config = arc.get_config("smoke")
  config.model.compute_dtype = "float32"
  config.model.num_heads = 2
  config.model.latent_updates = 2
  config.train.batch_size = 4
  mesh = mesh_lib.make_mesh(2)
  built = program.build(
    config_lib.from_config_dict(config),
    program.DataSpec(vocab_size=12, seq_len=140, num_puzzle_ids=6),
    mesh,
  )
  built = dataclasses.replace(
    built, model=built.model.with_network(attend=attend)
  )
  state = mesh_lib.create_state(built.init, mesh)
  rng = np.random.default_rng(0)
  batch = {
    "inputs": rng.integers(2, 12, (4, 140), np.int32),
    "labels": rng.integers(2, 12, (4, 140), np.int32),
    "puzzle_ids": rng.integers(0, 6, 4, np.int32),
  }
  state, sums = built.train_step()(state, mesh_lib.put_batch(batch, mesh))
  return jax.device_get((state.carry.latents, state.opt_state, sums))


@pytest.mark.slow
def test_a_supervision_step():
  """Inside loops, recomputation and the gradient; on two devices."""
  found = _step(SPLASH)
  expected = _step(attention.plain)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
    found,
    expected,
  )


CPU, TPU = devices.Chip("cpu"), devices.Chip("tpu")
HOPPER, VOLTA = devices.Chip("gpu", 9.0), devices.Chip("gpu", 7.0)
OTHER_GPU = devices.Chip("gpu")


def _chosen(kernel, on, *, length=916, head_size=64, dtype="bfloat16"):
  return model_factory.choose_attention(
    kernel, length=length, head_size=head_size, dtype=dtype, chip=on
  )


def test_auto_is_the_plain_one_where_there_is_no_kernel():
  for on in (CPU, VOLTA, OTHER_GPU):
    for length in (97, 916):
      assert _chosen("auto", on, length=length) is attention.plain
  for on in (CPU, TPU, HOPPER):
    assert _chosen("xla", on) is attention.plain


def test_auto_is_the_kernel_where_it_helps():
  assert _chosen("auto", TPU) == attention.Splash()
  assert _chosen("auto", TPU, length=97) is attention.plain
  assert _chosen("auto", HOPPER) is attention.cudnn
  assert _chosen("auto", HOPPER, length=97) is attention.cudnn


def test_auto_is_the_plain_one_for_what_cudnn_does_not_take():
  assert _chosen("auto", HOPPER, dtype="float32") is attention.plain
  assert _chosen("auto", HOPPER, head_size=12) is attention.plain
  assert _chosen("auto", HOPPER, head_size=256) is attention.plain


def test_the_kernel_is_refused_where_there_is_no_tpu():
  with pytest.raises(errors.UserError, match="runs on TPU only, not on cpu"):
    _chosen("splash", CPU)


@pytest.mark.parametrize(
  ("on", "given"),
  [
    (CPU, {}),
    (TPU, {}),
    (VOLTA, {}),
    (OTHER_GPU, {}),
    (HOPPER, {"dtype": "float32"}),
    (HOPPER, {"head_size": 12}),
  ],
)
def test_cudnn_is_refused_where_it_cannot_run(on, given):
  with pytest.raises(errors.UserError, match="'cudnn' needs an NVIDIA GPU"):
    _chosen("cudnn", on, **given)


def test_parameters_do_not_depend_on_the_kernel():
  model = model_factory.build_model(
    config_lib.from_config_dict(arc.get_config("smoke")).model,
    vocab_size=12,
    seq_len=900,
  )
  kernel = model.with_network(attend=attention.Splash())

  def shapes(model):
    return jax.eval_shape(
      lambda: model.init_params(jax.random.key(0), puzzle_embed_dim=32)
    )

  assert shapes(model) == shapes(kernel)
