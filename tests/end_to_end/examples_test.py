"""The examples run, learn, and show what they say."""

import contextlib
import importlib.util
import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saved_run
import tiny

from trm_jax.core import solve, types
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import program

pytestmark = pytest.mark.usefixtures("one_device")

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(autouse=True)
def _examples_import_each_other(monkeypatch):
  monkeypatch.syspath_prepend(str(EXAMPLES))
  yield
  sys.modules.pop("own_loop", None)


@contextlib.contextmanager
def _patched(module, name, **arguments):
  """A function of a module with other arguments."""
  original = getattr(module, name)

  def changed(*args, **kwargs):
    return original(*args, **(kwargs | arguments))

  with mock.patch.object(module, name, changed):
    yield


def _load(name):
  spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_readme_names_every_example_and_its_command():
  readme = (EXAMPLES / "README.md").read_text()
  for path in EXAMPLES.glob("*.py"):
    assert f"`python examples/{path.name}" in readme
    assert f"  python examples/{path.name}" in path.read_text()


@pytest.mark.slow
def test_a_loop_of_ones_own_learns():
  first, last = _load("own_loop").main(num_steps=30, log_every=15)
  assert last < 0.9 * first


def _other_model(name):
  """The model of an example with a network of another library."""
  example = _load(name)
  if name == "nnx_network":
    return example.new_model()
  return example.EquinoxModel()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nnx_network", "equinox_network"])
def test_networks_of_other_libraries_learn_in_the_same_loop(name):
  first, last = _load("own_loop").main(
    _other_model(name), num_steps=100, log_every=50
  )
  assert last < 0.9 * first


@pytest.mark.parametrize("name", ["nnx_network", "equinox_network"])
def test_networks_of_other_libraries_are_solved_with(name):
  model, inputs = _other_model(name), jnp.array([[0, 1, 2, 3, 4, 0]])
  params = model.init_params(jax.random.key(0), puzzle_embed_dim=0)
  shape, _ = model.latent_shapes()
  weights = types.Weights(
    params=params,
    puzzle_table=jnp.zeros((1, 0)),
    initial_latents=types.Latents(y=jnp.ones(shape), z=jnp.ones(shape)),
  )
  logits = solve.solve_fixed(
    model,
    weights,
    inputs,
    jnp.zeros(1, jnp.int32),
    supervision_steps=2,
    observe=lambda output, _: output.logits,
  )
  # By hand: the step's latents are those of the next one.
  latents = types.Latents(
    y=jnp.ones((1, 6, *shape)), z=jnp.ones((1, 6, *shape))
  )
  for step in range(2):
    output = model.apply({"params": params}, inputs, jnp.zeros((1, 0)), latents)
    np.testing.assert_allclose(
      logits[step], output.logits, rtol=1e-4, atol=1e-5
    )
    latents = output.latents


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nnx_network", "equinox_network"])
def test_networks_of_other_libraries_have_gradients_of_the_last_cycle(name):
  """T cycles have the gradient of one that starts where T - 1 ended."""
  example, model = _load(name), _other_model(name)
  params = model.init_params(jax.random.key(1), puzzle_embed_dim=0)
  inputs = jnp.array([[0, 1, 2, 3, 4, 0], [4, 4, 1, 0, 2, 3]])
  shape = (2, example.LENGTH, example.SIZE)
  keys = jax.random.split(jax.random.key(2))
  start = types.Latents(*(jax.random.normal(key, shape) for key in keys))

  def loss(params, latents):
    output = model.apply({"params": params}, inputs, None, latents)
    return jnp.sum(output.logits[..., 0]) + jnp.sum(output.halt_logits)

  def differentiate(latents):
    return jax.tree.leaves(jax.jit(jax.grad(loss))(params, latents))

  gradient = differentiate(start)
  with _patched(example.recursion, "deep_recursion", recursion_cycles=1):
    middle = jax.jit(model.apply)({"params": params}, inputs, None, start)
    of_last, of_first = differentiate(middle.latents), differentiate(start)
  for one, other in zip(gradient, of_last, strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)
  differences = map(np.subtract, gradient, of_first)
  assert max(np.abs(each).max() for each in differences) > 1e-3


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
