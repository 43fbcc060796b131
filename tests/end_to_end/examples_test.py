"""The examples run, learn, and show what they say."""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saved_run
import tiny
from flax import nnx

from trm_jax.core import types
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import program

pytestmark = pytest.mark.usefixtures("one_device")

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
CYCLES, UPDATES = 3, 6  # as the examples have them


def _load(name):
  spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def _loop(network, x, latents, *, cycles):
  """The paper's pseudo-code, with the gradients of all cycles."""

  def cycle(latents, _):
    y, z = latents
    update = lambda z, _: (network(z, y + x), None)  # noqa: E731
    z, _ = jax.lax.scan(update, z, None, length=UPDATES)
    return (network(y, z), z), None

  (y, z), _ = jax.lax.scan(cycle, (latents.y, latents.z), None, length=cycles)
  return types.Latents(y=y, z=z)


def _question(example):
  shape = (2, example.LENGTH, example.SIZE)
  keys = jax.random.split(jax.random.key(5), 3)
  x, y, z = (jax.random.normal(key, shape) for key in keys)
  return x, types.Latents(y=y, z=z)


def _distance(latents, x):
  return jnp.mean((latents.y - x[:, ::-1]) ** 2)


def _assert_close(actual, expected):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    actual,
    expected,
  )


def _assert_gradient_of_last_cycle(gradient, make_network, params, x, start):
  """Compares a gradient with that of the last cycle, and of all of them."""

  def loss(params, start, cycles):
    network = make_network(params)
    return _distance(_loop(network, x, start, cycles=cycles), x)

  @jax.jit
  def before_last(params):
    return _loop(make_network(params), x, start, cycles=CYCLES - 1)

  before = before_last(params)
  differentiate = jax.jit(jax.grad(loss), static_argnums=2)
  _assert_close(gradient, differentiate(params, before, 1))
  every = differentiate(params, start, CYCLES)
  differences = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), gradient, every)
  assert min(jax.tree.leaves(differences)) > 1e-5


def test_the_readme_names_every_example_and_its_command():
  readme = (EXAMPLES / "README.md").read_text()
  for path in EXAMPLES.glob("*.py"):
    assert f"`python examples/{path.name}" in readme
    assert f"  python examples/{path.name}" in path.read_text()


@pytest.mark.slow
def test_a_loop_of_ones_own_learns():
  first, last = _load("own_loop").main(num_steps=30, log_every=15)
  assert last < 0.9 * first


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "rounds"), [("nnx_network", 20), ("equinox_network", 12)]
)
def test_networks_of_other_libraries_learn(name, rounds):
  losses = _load(name).main(rounds)
  assert np.mean(losses[-3:]) < 0.9 * losses[0]


@pytest.mark.slow
def test_an_nnx_network_has_gradients_of_the_last_cycle():
  example = _load("nnx_network")
  x, _ = _question(example)
  zeros = types.Latents(y=jnp.zeros_like(x), z=jnp.zeros_like(x))
  graph, params = nnx.split(example.Network(nnx.Rngs(1)))
  differentiate = jax.jit(jax.value_and_grad(example.loss), static_argnums=1)
  loss, gradient = differentiate(params, graph, x)

  # The same network in plain arrays.
  def make_network(params):
    tokens, channels = params["tokens"], params["channels"]

    def network(state, injection):
      h = state + injection
      mixed = jnp.einsum("bsd,st->btd", h, tokens["kernel"][...])
      mixed += tokens["bias"][...][None, :, None]
      h += jnp.tanh(
        jnp.einsum("bsd,de->bse", mixed, channels["kernel"][...])
        + channels["bias"][...][None, None]
      )
      size = jnp.sqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-6)
      return h / size * params["norm"]["scale"][...][None, None]

    return network

  answer = jax.jit(
    lambda params: _loop(make_network(params), x, zeros, cycles=CYCLES)
  )(params)
  np.testing.assert_allclose(loss, _distance(answer, x), rtol=1e-5)
  _assert_gradient_of_last_cycle(gradient, make_network, params, x, zeros)


@pytest.mark.slow
def test_an_equinox_network_has_gradients_of_the_last_cycle():
  example = _load("equinox_network")
  x, start = _question(example)
  keys = jax.random.split(jax.random.key(6))
  network = example.Network(
    jax.random.normal(keys[0], (example.LENGTH, example.LENGTH)) * 0.3,
    jax.random.normal(keys[1], (example.SIZE, example.SIZE)) * 0.3,
  )
  differentiate = jax.jit(jax.value_and_grad(example.loss, has_aux=True))
  (loss, latents), gradient = differentiate(network, x, start)
  expected = jax.jit(lambda n: _loop(n, x, start, cycles=CYCLES))(network)
  _assert_close(latents, expected)
  np.testing.assert_allclose(loss, _distance(expected, x), rtol=1e-5)
  _assert_gradient_of_last_cycle(gradient, lambda n: n, network, x, start)
  # Nor do the latents lead back: supervision steps are learned one by one.
  summed = lambda n: jnp.sum(example.loss(n, x, start)[1].y)  # noqa: E731
  back = jax.jit(jax.grad(summed))(network)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(back))


@pytest.mark.slow
def test_parameters_are_plain_dicts_and_answer_alike(tmp_path, capsys):
  run = program.load(tiny.config())
  saved_run.save(run, tmp_path, {3: 0.5})
  answer = _load("plain_params").main(str(tmp_path))
  solver = solver_lib.load(str(tmp_path))
  question = np.ones((1, run.program.sizes.seq_len), np.uint8)
  trace = solver.trace_tokens(question, supervision_steps=1)
  np.testing.assert_array_equal(answer, trace.answers[0])
  assert len(np.unique(answer)) > 1
  assert type(solver.weights.params) is dict
  assert "answer_head/kernel (16, 6)" in capsys.readouterr().out
