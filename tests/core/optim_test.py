"""Schedules by hand and properties of the optimizers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trm_jax.core import optim

OPTIMIZERS = pytest.mark.parametrize("name", ["adam_atan2", "adamw", "muon"])

SETTINGS = optim.Hyperparameters(learning_rate=0.01, muon_weight_decay=0.0)


def _make(name, *, num_steps=100, **overrides):
  settings = dataclasses.replace(SETTINGS, name=name, **overrides)
  return optim.make_optimizer(settings, num_steps)


def _params(seed=0):
  rng = np.random.default_rng(seed)

  def normal(*shape):
    return rng.standard_normal(shape, np.float32)

  return {
    "network": {
      "layers_0": {
        "attention": {"qkv": {"kernel": normal(6, 12)}},
        "channel_mlp": {"down": {"kernel": normal(8, 6)}},
      },
      "layers_1": {"token_mlp": {"gate_up": {"kernel": normal(5, 8)}}},
    },
    "answer_network": {
      "layers_0": {"channel_mlp": {"down": {"kernel": normal(8, 6)}}}
    },
    "token_embedding": {"embedding": normal(7, 6)},
    "position_embedding": {"embedding": normal(5, 6)},
    "answer_head": {"kernel": normal(6, 7)},
    "halt_head": {"kernel": normal(6, 2), "bias": normal(2)},
  }


@functools.partial(jax.jit, static_argnums=0)
def _one_update(optimizer, gradients, params):
  return optimizer.update(gradients, optimizer.init(params), params)[0]


@functools.partial(jax.jit, static_argnums=0)
def _two_updates(optimizer, first, second, params):
  """The second of them."""
  _, state = optimizer.update(first, optimizer.init(params), params)
  return optimizer.update(second, state, params)[0]


# --- labels ----------------------------------------------------------------


@OPTIMIZERS
def test_every_uncovered_parameter_is_named(name):
  params = _params()
  params["new_head"] = {"kernel": jnp.zeros((2, 2))}
  params["network"]["layers_0"]["gate"] = {"scale": jnp.zeros(2)}
  with pytest.raises(ValueError, match="no optimizer label") as caught:
    _make(name).init(params)
  text = str(caught.value)
  assert "new_head/kernel" in text
  assert "network/layers_0/gate/scale" in text
  assert "answer_head" not in text


def test_an_unknown_optimizer_is_named_with_the_known_ones():
  with pytest.raises(
    ValueError, match="'sgd'; choose one of adam_atan2, adamw"
  ):
    _make("sgd")


def test_labels_by_hand():
  labels = optim.label_parameters(_params())
  assert labels["network"]["layers_1"]["token_mlp"]["gate_up"] == {
    "kernel": "matrix"
  }
  assert labels["answer_network"]["layers_0"]["channel_mlp"]["down"] == {
    "kernel": "matrix"
  }
  assert labels["token_embedding"] == {"embedding": "embedding"}
  assert labels["position_embedding"] == {"embedding": "embedding"}
  assert labels["halt_head"] == {"kernel": "head", "bias": "head"}


# --- schedule --------------------------------------------------------------


@pytest.mark.parametrize(
  ("step", "rate"),
  [
    (0, 0.0),
    (1, 0.5),
    (3, 1.5),
    (4, 2.0),  # the peak
    (6, 0.2 + 1.8 * (0.5 + 0.5 * 2**-0.5)),  # a quarter down the cosine
    (8, 0.2 + 0.9),
    (12, 0.2),  # the end
  ],
)
def test_schedule_table(step, rate):
  schedule = optim.learning_rate_schedule(
    2.0, warmup_steps=4, num_steps=12, min_ratio=0.1
  )
  np.testing.assert_allclose(schedule(step), rate, rtol=1e-6)
  np.testing.assert_allclose(schedule(jnp.int32(step)), rate, rtol=1e-6)


def test_a_ratio_of_one_holds_the_peak():
  schedule = optim.learning_rate_schedule(
    3.0, warmup_steps=2, num_steps=10, min_ratio=1.0
  )
  rates = [float(schedule(step)) for step in range(11)]
  np.testing.assert_allclose(rates, [0.0, 1.5] + [3.0] * 9, rtol=1e-6)


def test_a_schedule_without_warm_up_starts_at_the_peak():
  schedule = optim.learning_rate_schedule(
    3.0, warmup_steps=0, num_steps=10, min_ratio=0.0
  )
  np.testing.assert_allclose(schedule(0), 3.0, rtol=1e-6)
  np.testing.assert_allclose(schedule(10), 0.0, atol=1e-6)


@pytest.mark.parametrize(
  ("name", "size"),
  [("adamw", 1.0), ("adam_atan2", np.arctan(0.1) / 0.1)],
)
def test_updates_use_the_rates_of_steps_one_two_three(name, size):
  optimizer = _make(name, learning_rate=1.0, warmup_steps=4)
  params = {"halt_head": {"bias": jnp.zeros(1)}}
  gradients = {"halt_head": {"bias": jnp.ones(1)}}
  state = optimizer.init(params)
  update, rates = jax.jit(optimizer.update), []
  for _ in range(5):
    updates, state = update(gradients, state, params)
    rates.append(-float(updates["halt_head"]["bias"][0]))
  # The first moment's correction stands outside of atan2, so that later
  # updates of a constant gradient grow towards pi / 4 / (1 - b1^t).
  np.testing.assert_allclose(rates[0], 0.25 * size, rtol=1e-5)
  if name == "adamw":
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1, 1], rtol=1e-5)
  else:
    moment = 1 - 0.9 ** np.arange(1, 6)
    np.testing.assert_allclose(
      rates,
      np.array([0.25, 0.5, 0.75, 1, 1]) * np.arctan(moment) / moment,
      rtol=1e-5,
    )


# --- all optimizers --------------------------------------------------------


@OPTIMIZERS
def test_each_optimizer_lowers_a_quadratic(name):
  target = _params(seed=1)
  optimizer = _make(name, learning_rate=0.05, muon_learning_rate=0.05)

  def loss(params):
    distances = jax.tree.map(
      lambda a, b: jnp.sum(jnp.square(a - b)), params, target
    )
    return sum(jax.tree.leaves(distances))

  def step(carry, _):
    params, state = carry
    updates, state = optimizer.update(jax.grad(loss)(params), state, params)
    return (optax.apply_updates(params, updates), state), None

  @jax.jit
  def train(params):
    carry = (params, optimizer.init(params))
    return jax.lax.scan(step, carry, None, length=150)[0][0]

  start = _params()
  end = train(start)
  assert loss(end) < 0.05 * loss(start)
  jax.tree.map(  # every one of them is trained
    lambda a, b: np.testing.assert_array_less(
      0.01, np.abs(np.asarray(a) - b).max()
    ),
    start,
    end,
  )


@OPTIMIZERS
def test_weight_decay_is_decoupled_and_reaches_every_parameter(name):
  params = _params()
  rates = {"learning_rate": 0.01, "muon_learning_rate": 0.01}
  decays = {"weight_decay": 0.5, "muon_weight_decay": 0.5}
  decaying = functools.partial(_one_update, _make(name, **decays, **rates))
  plain = functools.partial(_one_update, _make(name, **rates))
  zeros = jax.tree.map(np.zeros_like, params)
  jax.tree.map(
    lambda u, p: np.testing.assert_allclose(u, -0.005 * p, rtol=1e-5),
    decaying(zeros, params),
    params,
  )
  gradients = _params(seed=2)
  jax.tree.map(
    lambda a, b, p: np.testing.assert_allclose(
      a - b, -0.005 * p, rtol=1e-3, atol=1e-6
    ),
    decaying(gradients, params),
    plain(gradients, params),
    params,
  )


# --- muon ------------------------------------------------------------------


NETWORKS = ("network", "answer_network")


def _rest(tree):
  return {name: part for name, part in tree.items() if name not in NETWORKS}


def test_muon_orthogonalises_the_matrices_of_the_networks_alone():
  params, gradients = _params(), _params(seed=3)
  muon = _one_update(
    _make("muon", learning_rate=0.01, muon_learning_rate=0.02),
    gradients,
    params,
  )
  for name in NETWORKS:
    for path, update in jax.tree_util.tree_leaves_with_path(muon[name]):
      values = np.linalg.svd(update, compute_uv=False)
      assert values.max() < 2 * values.min(), path
      # A kernel [in, out] that widens its input gets longer updates.
      size = 0.02 * max(1, update.shape[1] / update.shape[0]) ** 0.5
      np.testing.assert_allclose(values, size, rtol=0.35, err_msg=path)
  # So are not the gradients.
  for leaf in jax.tree.leaves(gradients):
    if leaf.ndim == 2 and min(leaf.shape) > 2:
      values = np.linalg.svd(leaf, compute_uv=False)
      assert values.max() > 2 * values.min()


def test_muon_leaves_the_rest_to_plain_adamw():
  settings = {"learning_rate": 0.01, "weight_decay": 0.3, "warmup_steps": 2}
  muon, adamw = _make("muon", **settings), _make("adamw", **settings)

  @functools.partial(jax.jit, static_argnums=0)
  def after_three(optimizer):
    params = _params()
    state = optimizer.init(params)
    for seed in (4, 5, 6):
      updates, state = optimizer.update(_params(seed), state, params)
      params = optax.apply_updates(params, updates)
    return params

  left, right = after_three(muon), after_three(adamw)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    _rest(left),
    _rest(right),
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_less(1e-3, np.abs(a - b).max()),
    {name: left[name] for name in NETWORKS},
    {name: right[name] for name in NETWORKS},
  )


def test_muon_has_a_weight_decay_and_a_schedule_of_its_own():
  settings = {
    "learning_rate": 0.1,
    "weight_decay": 0.5,
    "muon_learning_rate": 0.4,
    "muon_weight_decay": 0.25,
    "warmup_steps": 2,
  }
  params = _params()
  zeros = jax.tree.map(np.zeros_like, params)
  updates = _one_update(_make("muon", **settings), zeros, params)
  for name, update in updates.items():
    share = 0.4 * 0.25 / 2 if name in NETWORKS else 0.1 * 0.5 / 2
    jax.tree.map(
      lambda u, p, share=share: np.testing.assert_allclose(
        u, -share * p, rtol=1e-5
      ),
      update,
      params[name],
    )


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_muons_iterations_are_those_of_the_published_polynomial(iterations):
  params, gradients = _params(), _params(seed=3)
  updates = _one_update(
    _make("muon", muon_learning_rate=1.0, muon_iterations=iterations),
    gradients,
    params,
  )

  def size(values):  # of Jordan's quintic, on a matrix of Frobenius norm 1
    values = values / np.sqrt(np.sum(np.square(values)))
    for _ in range(iterations):
      values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    return values

  def check(gradient, update):
    wider = max(1, update.shape[1] / update.shape[0]) ** 0.5
    left, values, right = np.linalg.svd(gradient, full_matrices=False)
    np.testing.assert_allclose(
      update, -wider * (left * size(values)) @ right, rtol=1e-3, atol=1e-4
    )

  for name in NETWORKS:
    jax.tree.map(check, gradients[name], updates[name])


def test_muon_forgets_old_gradients_by_its_momentum():
  first, second = _params(seed=7), _params(seed=8)
  params = _params()

  def second_update(momentum):
    optimizer = _make("muon", muon_momentum=momentum)
    return _two_updates(optimizer, first, second, params)["network"]

  fresh = _one_update(_make("muon"), second, params)["network"]
  forgetful, long = second_update(0.0), second_update(0.95)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
    forgetful,
    fresh,
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_array_less(1e-3, np.abs(a - b).max()),
    long,
    fresh,
  )


# --- limit on the gradients ------------------------------------------------


@OPTIMIZERS
@pytest.mark.parametrize("times", [0.5, 2.0])
def test_gradients_are_shortened_to_the_limit_together(name, times):
  params, gradients = _params(), _params(seed=9)
  norm = float(optax.tree.norm(gradients))
  limited = _make(name, max_gradient_norm=times * norm)
  scaled = jax.tree.map(lambda g: min(times, 1.0) * g, gradients)

  # Only the second update tells: all three make the first of a length that
  # does not depend on the gradient's.
  small = jax.tree.map(lambda g: 0.25 * g, _params(seed=10))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
    _two_updates(limited, gradients, small, params),
    _two_updates(_make(name), scaled, small, params),
  )


# --- adam_atan2 ------------------------------------------------------------


def test_adam_atan2_does_not_see_the_scale_of_the_gradients():
  transform = optim.scale_by_adam_atan2(0.9, 0.95)
  rng = np.random.default_rng(0)
  params = jnp.zeros(20)
  states = {scale: transform.init(params) for scale in (2.0**-20, 1.0, 2.0**20)}
  for _ in range(4):
    gradient = jnp.asarray(rng.standard_normal(20), jnp.float32)
    updates = {}
    for scale, state in states.items():
      updates[scale], states[scale] = transform.update(
        gradient * scale, state, params
      )
    for update in updates.values():
      np.testing.assert_allclose(update, updates[1.0], rtol=1e-5)
    assert np.abs(updates[1.0]).max() > 0.1


def test_adam_atan2_makes_no_step_without_gradient():
  transform = optim.scale_by_adam_atan2()
  params = jnp.ones(3)
  update, _ = transform.update(params * 0, transform.init(params), params)
  np.testing.assert_array_equal(update, 0.0)


def test_adam_atan2_moments_are_float32_and_their_updates_bounded():
  transform = optim.scale_by_adam_atan2(0.0, 0.95)
  state = transform.init(jnp.ones(3))
  assert state.mu.dtype == state.nu.dtype == jnp.float32
  for size in (1e-6, 1e6, 1e6):
    update, state = transform.update(jnp.array([size, -size, 0.0]), state)
    assert np.abs(update).max() <= np.pi / 2
    assert update[0] > 0 > update[1]
