"""The gate that is normed, which the golden cases do not have."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import small_model, tiny
from trm_jax import config as config_lib
from trm_jax.core import layers, network
from trm_jax.core import model as model_lib
from trm_jax.runtime import model_factory

EPSILON = 1e-5
AXES = pytest.mark.parametrize("axis", [-1, 0])


def _swiglu(axis, dtype=jnp.float32, gate="normed"):
  return layers.SwiGLU(
    expansion=4.0,
    multiple=8,
    dtype=dtype,
    axis=axis,
    multiple_of_rows=8,
    gate=gate,
    rms_norm_eps=EPSILON,
  )


def _x_and_params(axis, seed=0):
  x = np.random.default_rng(seed).standard_normal((6, 3, 6), np.float32)
  params = _swiglu(axis).init(jax.random.key(seed), x)["params"]
  return x, params


def _by_hand(x, params, axis):
  """In float64, over the last axis."""
  kernels = {name: np.float64(part["kernel"]) for name, part in params.items()}
  gate, up = np.split(np.moveaxis(x, axis, -1) @ kernels["gate_up"], 2, -1)
  product = gate * up
  root_mean_square = np.sqrt(np.mean(product**2, -1, keepdims=True) + EPSILON)
  gated = product / root_mean_square / (1 + np.exp(-gate))
  return np.moveaxis(gated @ kernels["down"], -1, axis)


@AXES
def test_the_normed_gate_by_hand(axis):
  x, params = _x_and_params(axis)
  y = _swiglu(axis).apply({"params": params}, x)
  np.testing.assert_allclose(y, _by_hand(x, params, axis), rtol=2e-5, atol=1e-6)


@AXES
def test_the_normed_gate_rounds_once_to_bfloat16(axis):
  x, params = _x_and_params(axis)
  y = _swiglu(axis, jnp.bfloat16).apply({"params": params}, x)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    np.float64(y), _by_hand(x, params, axis), rtol=0.05, atol=0.05
  )


@AXES
def test_the_normed_gate_does_not_see_the_length_of_up(axis):
  x, params = _x_and_params(axis)
  gate, up = np.split(np.asarray(params["gate_up"]["kernel"]), 2, -1)
  longer = np.concatenate([gate, 1000 * up], -1)
  scaled = {**params, "gate_up": {"kernel": longer}}

  def size(gate, params):
    y = _swiglu(axis, gate=gate).apply({"params": params}, x)
    return float(jnp.linalg.norm(y))

  assert abs(size("normed", scaled) / size("normed", params) - 1) < 0.01
  assert size("silu", scaled) > 900 * size("silu", params)


def test_the_normed_gate_has_a_gradient_where_all_is_zero():
  _, params = _x_and_params(-1)
  gradient = jax.grad(
    lambda x: jnp.sum(_swiglu(-1).apply({"params": params}, x))
  )(jnp.zeros((2, 6)))
  assert np.isfinite(gradient).all()


@pytest.mark.parametrize("mixing", ["mlp", "attention"])
def test_the_gate_changes_the_output_but_no_parameter(mixing):
  shapes, outputs = [], []
  for gate in ("silu", "normed"):
    config = network.NetworkConfig(
      num_layers=1,
      token_mixing=mixing,
      num_heads=2,
      mlp_expansion=4.0,
      mlp_multiple=8,
      rms_norm_eps=EPSILON,
      mlp_gate=gate,
    )
    block = network.Block(config)
    x = np.random.default_rng(1).standard_normal((4, 3, 8), np.float32)
    output, variables = jax.jit(block.init_with_output)(jax.random.key(0), x)
    shapes.append(jax.tree.map(jnp.shape, variables))
    outputs.append(output)
  assert shapes[0] == shapes[1]
  assert np.abs(outputs[0] - outputs[1]).max() > 0.01


def test_the_settings_decide_on_the_gate_of_the_whole_model():
  config = tiny.config_dict()
  config.model.mlp_gate = "normed"
  settings = config_lib.from_config_dict(config).model
  built = model_factory.build_model(settings, vocab_size=5, seq_len=16)
  assert built.network_config.mlp_gate == "normed"
  weights = small_model.weights()
  inputs = np.zeros((2, small_model.L), np.int32)
  vectors = weights.puzzle_table[:2]
  latents = jax.tree.map(
    lambda leaf: jnp.broadcast_to(leaf, (2, small_model.L + 1, small_model.D)),
    weights.initial_latents,
  )

  def logits(model):
    apply = jax.jit(functools.partial(model_lib.apply, model))
    return apply(weights.params, inputs, vectors, latents).logits

  model = small_model.model()
  difference = logits(model) - logits(model.with_network(mlp_gate="normed"))
  assert np.abs(difference).max() > 0.01


@pytest.mark.parametrize(
  ("field", "known"),
  [("token_mixing", "attention, mlp"), ("mlp_gate", "silu, normed")],
)
def test_an_unknown_variant_is_named_with_the_known_ones(field, known):
  config = dataclasses.replace(
    small_model.model().network_config, **{field: "convolution"}
  )
  x = jnp.zeros((4, 3, 8))
  with pytest.raises(ValueError, match=f"'convolution'; choose one of {known}"):
    network.Block(config).init(jax.random.key(0), x)
