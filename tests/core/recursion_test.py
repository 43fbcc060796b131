"""The recursion with a toy network that can be followed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import recursion, types

SHAPE = (2, 3, 4)  # [B, S, D]


def _weights():
  return jax.random.normal(jax.random.key(0), (4, 4)) * 0.7


def _network(weights):
  def network(state, injection):
    return jnp.tanh(jnp.einsum("bsd,de->bse", state - 0.5 * injection, weights))

  return network


def _question_and_latents():
  x, y, z = (
    jax.random.normal(key, SHAPE)
    for key in jax.random.split(jax.random.key(1), 3)
  )
  return x, types.Latents(y=y, z=z)


def _loop(network, x, latents, *, n, cycles):
  """The paper's pseudo-code, unrolled."""
  networks = recursion.Networks(z=network, y=network)
  return _two(networks, x, latents, n=n, cycles=cycles)


def _two(network, x, latents, *, n, cycles):
  """The same with a network for each latent."""
  y, z = latents.y, latents.z
  for _ in range(cycles):
    for _ in range(n):
      z = network.z(z, y + x)
    y = network.y(y, z)
  return types.Latents(y=y, z=z)


def _recurse(network, x, latents, *, n, cycles, **kwargs):
  return recursion.deep_recursion(
    network, x, latents, latent_updates=n, recursion_cycles=cycles, **kwargs
  )


def _grad(function, **options):
  return jax.jit(jax.grad(function, **options))


def _scalar(latents):
  return jnp.sum(jnp.sin(latents.y)) + jnp.sum(jnp.cos(2 * latents.z))


def _assert_trees_close(actual, expected, **tolerance):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
    actual,
    expected,
  )


@pytest.mark.parametrize(("n", "cycles"), [(1, 1), (3, 1), (2, 2), (4, 3)])
def test_deep_recursion_equals_the_loop_of_the_paper(n, cycles):
  x, latents = _question_and_latents()
  network = _network(_weights())
  _assert_trees_close(
    _recurse(network, x, latents, n=n, cycles=cycles),
    _loop(network, x, latents, n=n, cycles=cycles),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize("cycles", [2, 3])
def test_gradient_is_that_of_the_last_cycle_alone(cycles):
  x, latents = _question_and_latents()

  def all_cycles(weights, x):
    network = _network(weights)
    return _scalar(_recurse(network, x, latents, n=3, cycles=cycles))

  before_last = _loop(_network(_weights()), x, latents, n=3, cycles=cycles - 1)

  def last_cycle(weights, x):
    return _scalar(_loop(_network(weights), x, before_last, n=3, cycles=1))

  def every_cycle(weights, x):
    network = _network(weights)
    return _scalar(_loop(network, x, latents, n=3, cycles=cycles))

  gradients = _grad(all_cycles, argnums=(0, 1))(_weights(), x)
  expected = _grad(last_cycle, argnums=(0, 1))(_weights(), x)
  _assert_trees_close(gradients, expected, rtol=1e-4, atol=1e-6)
  # The toy can tell: with all cycles differentiated, both gradients differ.
  full = _grad(every_cycle, argnums=(0, 1))(_weights(), x)
  for gradient, other in zip(gradients, full, strict=True):
    assert np.abs(gradient - other).max() > 1e-2


@pytest.mark.parametrize("cycles", [1, 2, 3])
def test_initial_latents_get_gradients_only_without_free_cycles(cycles):
  x, latents = _question_and_latents()

  def loss(latents):
    network = _network(_weights())
    return _scalar(_recurse(network, x, latents, n=2, cycles=cycles))

  for gradient in jax.tree.leaves(_grad(loss)(latents)):
    assert (np.abs(gradient).max() > 0) == (cycles == 1)


@pytest.mark.parametrize(("n", "cycles"), [(1, 1), (6, 3), (4, 3), (2, 5)])
def test_each_cycle_calls_the_network_n_plus_one_times(n, cycles):
  def count(state, injection):
    del injection
    return state + 1.0

  zeros = types.Latents(y=jnp.zeros(SHAPE), z=jnp.zeros(SHAPE))
  latents = _recurse(count, jnp.zeros(SHAPE), zeros, n=n, cycles=cycles)
  np.testing.assert_array_equal(latents.z, n * cycles)
  np.testing.assert_array_equal(latents.y, cycles)


@pytest.mark.parametrize("cycles", [1, 3])
def test_the_cheap_network_runs_all_cycles_but_the_last(cycles):
  calls = {"last": 0, "free": 0}

  def counting(name):
    def network(state, injection):
      calls[name] += 1
      return state + injection

    return network

  x, latents = _question_and_latents()
  with jax.disable_jit():  # loops run in Python
    _recurse(
      counting("last"),
      x,
      latents,
      n=2,
      cycles=cycles,
      gradient_free=counting("free"),
    )
  assert calls == {"last": 3, "free": 3 * (cycles - 1)}


@pytest.mark.parametrize("cycles", [1, 3])
def test_where_nothing_is_differentiated_it_runs_all_cycles(cycles):
  x, latents = _question_and_latents()
  network = _network(_weights())

  def recurse(network, **kwargs):
    return _recurse(network, x, latents, n=2, cycles=cycles, **kwargs)

  _assert_trees_close(
    recurse(None, gradient_free=network), recurse(network), rtol=1e-6
  )


def test_a_network_has_to_be_given():
  x, latents = _question_and_latents()
  with pytest.raises(ValueError, match="pass network"):
    _recurse(None, x, latents, n=2, cycles=1)


def test_the_cheap_network_gets_no_gradient():
  x, latents = _question_and_latents()

  def loss(free_weights):
    return _scalar(
      _recurse(
        _network(_weights()),
        x,
        latents,
        n=2,
        cycles=3,
        gradient_free=_network(free_weights),
      )
    )

  np.testing.assert_array_equal(_grad(loss)(_weights()), 0.0)
  assert loss(_weights()) != loss(_weights() * 0.5)  # yet it is used


# --- other recurrences ------------------------------------------------------


def _single(network, x, latents, *, n, cycles):
  """Algorithm 4 of the paper."""
  y = latents.y
  for _ in range(cycles):
    for _ in range(n):
      y = network.z(y, x)
    y = network.y(y, jnp.zeros_like(y))
  return types.Latents(y=y, z=None)


def _multi_scale(network, x, latents, *, n, cycles):
  """Algorithm 5 of the paper."""
  y, z = latents.y, [latents.z[..., i, :] for i in range(n)]
  for _ in range(cycles):
    for i in range(n):
      z[i] = network.z(sum(z), y + x)
    y = network.y(y, sum(z))
  return types.Latents(y=y, z=jnp.stack(z, axis=-2))


def _direct(network, x, latents, *, n, cycles):
  y = latents.y
  for _ in range(n * cycles):
    y = network.z(y, x)
  return types.Latents(y=y, z=None)


LOOPS = {
  "two_latents": _two,
  "single_latent": _single,
  "latent_per_update": _multi_scale,
  "direct": _direct,
}
TWO_NETWORKS = recursion.Networks(
  z=_network(_weights()), y=_network(_weights().T)
)


def _beginning(name, n):
  x, latents = _question_and_latents()
  shape = recursion.RECURRENCES[name].z_shape(n, SHAPE[-1])
  if shape is None:
    return x, types.Latents(y=latents.y)
  z = jax.random.normal(jax.random.key(2), (*SHAPE[:2], *shape))
  return x, types.Latents(y=latents.y, z=z)


def test_every_recurrence_has_its_loop():
  assert set(LOOPS) == set(recursion.RECURRENCES)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("unroll", [False, True])
def test_a_recurrence_equals_its_loop(name, unroll):
  x, latents = _beginning(name, 3)
  actual = _recurse(
    TWO_NETWORKS,
    x,
    latents,
    n=3,
    cycles=2,
    recurrence=recursion.RECURRENCES[name],
    unroll=unroll,
  )
  expected = LOOPS[name](TWO_NETWORKS, x, latents, n=3, cycles=2)
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  _assert_trees_close(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize(("cycles", "with_gradient"), [(1, 1), (2, 2), (3, 1)])
def test_only_the_last_updates_and_the_answer_carry_gradients(
  name, cycles, with_gradient
):
  n = 3
  recurrence = recursion.RECURRENCES[name]
  x, latents = _beginning(name, n)
  cut = n - with_gradient

  def networks(weights):
    return recursion.Networks(z=_network(weights[0]), y=_network(weights[1]))

  def total(latents):
    return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(latents))

  def loss(weights, x):
    return total(
      _recurse(
        networks(weights),
        x,
        latents,
        n=n,
        cycles=cycles,
        recurrence=recurrence,
        gradient_updates=with_gradient,
      )
    )

  def by_hand(weights, x):
    """Only the end is a function of the weights."""
    fixed, fixed_x = networks(WEIGHTS), X
    before = latents
    if cycles > 1:
      before = LOOPS[name](fixed, fixed_x, latents, n=n, cycles=cycles - 1)
    state = recurrence.begin(before)
    for number in range(n):
      free = number < cut
      state = recurrence.update(
        (fixed if free else networks(weights)).z,
        fixed_x if free else x,
        before.y,
        state,
        jnp.asarray(number),
      )
    return total(recurrence.answer(networks(weights).y, before.y, state))

  WEIGHTS, X = (_weights(), _weights().T), x
  actual = _grad(loss, argnums=(0, 1))(WEIGHTS, x)
  expected = _grad(by_hand, argnums=(0, 1))(WEIGHTS, x)
  _assert_trees_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_updates_without_gradient_are_done_by_the_cheap_network():
  calls = {"last": 0, "free": 0}

  def counting(name):
    def network(state, injection):
      calls[name] += 1
      return state + injection

    return network

  x, latents = _question_and_latents()
  with jax.disable_jit():
    _recurse(
      counting("last"),
      x,
      latents,
      n=4,
      cycles=2,
      gradient_updates=1,
      gradient_free=counting("free"),
    )
  assert calls == {"last": 2, "free": 8}
