"""Settings of the step from after the paper, where off is the plain step."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import curriculum, halting, winner
from trm_jax.runtime import mesh, program, setting_checks

SETTINGS = {
  "curriculum": {"train.depth_curriculum": True},
  "starts": {"train.num_starts": 3, "train.gradient_accumulation_steps": 2},
  "conv": {
    "train.step_loss_decay": 0.7,
    "model.mlp_gate": "conv",
    "model.token_mixing": "attention",
    "model.num_heads": 2,
  },
}
NUM_STEPS = 10


@functools.cache
def _run(num_devices=1, **changes):
  config = tiny.config_dict()
  config.train.num_steps = NUM_STEPS
  config.model.latent_updates = 3
  config.model.recursion_cycles = 2
  config.model.remat = "full"
  config.model.compute_dtype = "float32"
  config = config_lib.changed(
    config_lib.from_config_dict(config),
    {name.replace("__", "."): value for name, value in changes.items()},
  )
  spec = program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=1)
  built = program.build(config, spec, mesh.make_mesh(num_devices))
  return built, built.train_step()


def _of(name, num_devices=1):
  changes = {k.replace(".", "__"): v for k, v in SETTINGS[name].items()}
  return _run(num_devices, **changes)


def _batch(seed, built):
  rng = np.random.default_rng(seed)
  size = built.config.train.batch_size
  return mesh.put_batch(
    {
      "inputs": rng.integers(1, 6, (size, 16), np.int32),
      "labels": rng.integers(2, 6, (size, 16), np.int32),
      "puzzle_ids": np.zeros(size, np.int32),
    },
    built.mesh,
  )


def _steps(run, state, numbers):
  built, step = run
  for number in numbers:
    state, sums = step(state, _batch(number, built))
  return state, jax.device_get(sums)


def _first(run):
  return mesh.create_state(run[0].init, run[0].mesh)


def _assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, *jax.device_get((a, b)))


@pytest.mark.parametrize(
  "name",
  [
    name if name == "starts" else pytest.param(name, marks=pytest.mark.slow)
    for name in SETTINGS
  ],
)
def test_it_resumes_bit_for_bit(name):
  """From a copy on the host, as a checkpoint is, in the middle of training."""
  run = _of(name)
  whole, sums = _steps(run, _first(run), range(8))
  saved = jax.device_get(_steps(run, _first(run), range(4))[0])
  shardings = mesh.state_shardings(saved, run[0].mesh)
  state = jax.device_put(jax.tree.map(jnp.array, saved), shardings)
  again, sums_again = _steps(run, state, range(4, 8))
  _assert_equal(again, whole)
  _assert_equal(sums_again, sums)
  assert np.isfinite(sums["loss"])


@pytest.mark.parametrize("name", ["curriculum", "starts"])
@pytest.mark.slow
def test_two_devices_train_the_same(name):
  one, _ = _steps(_of(name), _first(_of(name)), range(3))
  two, _ = _steps(_of(name, 2), _first(_of(name, 2)), range(3))
  one, two = jax.device_get((one.params, two.params))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4),
    one,
    two,
  )


def test_the_last_stage_of_the_curriculum_is_the_plain_step():
  plain, staged = _run(), _of("curriculum")
  for number in (NUM_STEPS * 6 // 10, 0):
    (expected, sums), (found, found_sums) = (
      _steps(run, _first(plain).replace(step=jnp.asarray(number)), [1])
      for run in (plain, staged)
    )
    if number:
      _assert_equal(found, expected)
      _assert_equal(found_sums, sums)
    else:
      assert abs(found_sums["loss"] - sums["loss"]) > 1e-6


def test_stages_begin_at_30_and_60_percent():
  found = [int(curriculum.stage(jnp.asarray(s), 10)) for s in range(10)]
  assert found == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
  assert int(curriculum.stage(jnp.asarray(0), 0)) == 2
  built, _ = _of("curriculum")
  depths = [
    (model.latent_updates, model.recursion_cycles)
    for model in curriculum.models(built.model)
  ]
  assert depths == [(2, 1), (2, 2), (3, 2)]


def test_weights_of_steps_have_a_mean_of_1():
  steps = jnp.arange(1, 17)
  weights = curriculum.step_weights(steps, decay=0.7, max_supervision_steps=16)
  assert float(weights.mean()) == pytest.approx(1)
  np.testing.assert_allclose(weights[1:] / weights[:-1], 0.7, rtol=1e-6)


def test_one_start_that_is_left_is_the_plain_step():
  """With the other chains removed, the first is trained as without them."""
  plain, several = _run(), _of("starts")
  state = _first(plain)
  z = jnp.repeat(state.carry.latents.z[:, None], 3, axis=1)
  built, step = plain
  batch = _batch(0, built)
  carry = halting.refill(state.carry, batch, state.initial_latents)
  expected, sums = step(state.replace(carry=carry), _batch(1, built))
  state = _first(plain)
  carry = halting.refill(state.carry, batch, state.initial_latents)
  junk = jnp.full_like(z, 3.0).at[:, 0].set(carry.latents.z)
  alive = np.arange(3) == np.zeros(z.shape[:2])
  carry = dataclasses.replace(
    carry,
    latents=dataclasses.replace(carry.latents, z=junk),
    alive=jnp.asarray(alive),
  )
  found, found_sums = several[1](state.replace(carry=carry), _batch(1, built))
  np.testing.assert_allclose(found_sums["loss"], sums["loss"], rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    *jax.device_get((found.params, expected.params)),
  )
  assert found.carry.halted.tolist() == expected.carry.halted.tolist()
  assert found.carry.alive.tolist() == alive.tolist()


def test_new_puzzles_have_the_start_of_evaluation_and_random_ones():
  run = _of("starts")
  state = _first(run)
  fixed = np.asarray(state.initial_latents.z)
  shape = state.carry.latents.z.shape
  assert shape[1] == 3
  starts = np.asarray(
    winner.draw_starts(jax.random.key(0), state.initial_latents, shape)
  )
  assert (starts[:, 0] == fixed).all()
  assert starts[:, 1:].std() == pytest.approx(1, rel=0.05)
  assert np.abs(starts[:, 1] - starts[:, 2]).min(axis=-1).max() > 0
  after, _ = _steps(run, state, [0])
  assert np.asarray(after.carry.alive).all()
  # All chains have the winner's y, and keep a z of their own.
  z = np.asarray(after.carry.latents.z)
  assert np.abs(z[:, 0] - z[:, 1]).max() > 0.1


def test_the_worst_of_similar_chains_is_removed():
  rng = np.random.default_rng(0)
  z = rng.standard_normal((3, 4, 2, 8)).astype(np.float32)
  z[0, 1] = z[0, 3] * 2  # the same direction
  z[1, 1:] = z[1, :1]  # all the same
  z[2, 2] = -z[2, 1]
  costs = jnp.array([[9.0, 1, 9, 2], [1, 3, 2, 1], [4, 3, 2, 1]])
  alive = jnp.ones((3, 4), bool)
  left = winner.remove_similar(jnp.asarray(z), costs, alive)
  assert left.tolist() == [
    [True, True, True, False],
    [True, False, True, True],
    [True] * 4,
  ]
  left = winner.remove_similar(jnp.asarray(z), costs, alive.at[0, 1].set(False))
  assert left[0].tolist() == [True, False, True, True]


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"train.num_starts": 2, "model.recursion_type": "direct"},
      "num_starts gives each start a z",
    ),
    (
      {
        "train.depth_curriculum": True,
        "model.recursion_type": "latent_per_update",
      },
      "depth_curriculum varies",
    ),
    ({"model.mlp_gate": "conv"}, "choose token_mixing 'attention'"),
    ({"train.step_loss_decay": 0.0}, "must be above 0"),
    ({"train.num_starts": 0}, "at least 1"),
  ],
)
def test_what_does_not_go_together_is_refused(changes, words):
  with pytest.raises(errors.UserError, match=words):
    setting_checks.check_names(config_lib.changed(tiny.config(), changes))
