"""Adaptive halting and rollouts: each puzzle is solved as it is alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_model

from trm_jax.core import rollouts as rollouts_lib
from trm_jax.core import solve, types
from trm_jax.runtime import mesh as mesh_lib

MAX_STEPS = 6
NUM = 40


@functools.cache
def _puzzles():
  rng = np.random.default_rng(5)
  return types.Batch(
    inputs=rng.integers(1, small_model.V, (NUM, small_model.L)).astype(
      np.int32
    ),
    labels=np.arange(NUM, dtype=np.int32)[:, None]
    * np.ones((1, small_model.L), np.int32),
    puzzle_ids=(np.arange(NUM) % small_model.NUM_PUZZLES).astype(np.int32),
  )


def _see(output):
  return {
    "answers": jnp.argmax(output.logits, axis=-1),
    "halt_logits": output.halt_logits,
  }


@functools.cache
def _solve_fixed(steps=MAX_STEPS):
  solved = jax.jit(
    functools.partial(
      solve.solve_fixed,
      small_model.model(),
      supervision_steps=steps,
      observe=lambda output, _: _see(output),
    )
  )
  return solved


@functools.cache
def _fixed(steps=MAX_STEPS):
  """Answers and halting logits after each step, every puzzle."""
  puzzles = _puzzles()
  return jax.device_get(
    _solve_fixed(steps)(
      small_model.weights(), puzzles.inputs, puzzles.puzzle_ids
    )
  )


def _alone(threshold):
  """What each puzzle gives when it stops by itself: rows and steps."""
  seen = _fixed()
  confident = jax.nn.sigmoid(seen["halt_logits"]) > threshold
  confident = np.asarray(confident).copy()
  confident[-1] = True
  last = confident.argmax(0)
  row = np.arange(NUM)
  return {name: leaf[last, row] for name, leaf in seen.items()}, last + 1


@functools.cache
def _threshold():
  """Of a confidence that about half of the puzzles reach on the way."""
  best = _fixed()["halt_logits"][:-1].max(0)
  return float(jax.nn.sigmoid(np.median(best)))


def _put(puzzles, num_devices):
  """Weights and puzzles on a mesh."""
  mesh = mesh_lib.make_mesh(num_devices)
  weights = small_model.weights(num_rows=small_model.NUM_PUZZLES + 1)
  table = mesh_lib.put_rows(np.asarray(weights.puzzle_table), mesh)
  return (
    weights.replace(puzzle_table=table),
    jax.tree.map(lambda a: mesh_lib.put_rows(a, mesh), puzzles),
    mesh,
  )


@functools.cache
def _solve_adaptive(mesh, **settings):
  return jax.jit(
    functools.partial(
      solve.solve_adaptive,
      small_model.model(),
      **settings,
      max_supervision_steps=MAX_STEPS,
      mesh=mesh,
      observe=lambda output, held: {**_see(output), "labels": held.labels},
    )
  )


def _adaptive(puzzles, *, slots, threshold, rows=None, num_devices=1):
  rows = np.ones(len(puzzles.inputs), bool) if rows is None else rows
  weights, puzzles, mesh = _put(puzzles, num_devices)
  found, steps = _solve_adaptive(mesh, slots=slots, threshold=threshold)(
    weights, puzzles, mesh_lib.put_rows(rows, mesh)
  )
  return jax.device_get(found), np.asarray(steps)


def _assert_found(found, expected, rows=slice(None)):
  np.testing.assert_array_equal(found["answers"][rows], expected["answers"])
  np.testing.assert_allclose(
    found["halt_logits"][rows], expected["halt_logits"], rtol=1e-4, atol=1e-5
  )


# --- adaptive --------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 7, NUM, 64])
def test_a_puzzle_stops_as_it_does_alone(slots):
  found, steps = _adaptive(_puzzles(), slots=slots, threshold=_threshold())
  expected, expected_steps = _alone(_threshold())
  assert 0 < (expected_steps < MAX_STEPS).mean() < 1  # some halt, some do not
  assert len(set(expected_steps.tolist())) > 2
  assert steps.tolist() == expected_steps.tolist()
  _assert_found(found, expected)


def test_the_observer_sees_the_puzzle_that_is_in_the_slot():
  found, _ = _adaptive(_puzzles(), slots=7, threshold=_threshold())
  assert found["labels"].tolist() == _puzzles().labels.tolist()


@pytest.mark.parametrize(("threshold", "steps"), [(0.0, 1), (1.0, MAX_STEPS)])
def test_thresholds_at_the_ends(threshold, steps):
  found, taken = _adaptive(_puzzles(), slots=7, threshold=threshold)
  assert taken.tolist() == [steps] * NUM
  _assert_found(
    found, {name: leaf[steps - 1] for name, leaf in _fixed().items()}
  )


def test_the_order_of_the_puzzles_changes_nothing():
  order = np.random.default_rng(7).permutation(NUM)
  shuffled = jax.tree.map(lambda a: a[order], _puzzles())
  found, steps = _adaptive(shuffled, slots=7, threshold=_threshold())
  expected, expected_steps = _alone(_threshold())
  assert steps.tolist() == expected_steps[order].tolist()
  _assert_found(found, {k: v[order] for k, v in expected.items()})


def test_padding_is_left_alone_wherever_it_is():
  rows = np.random.default_rng(8).random(NUM) < 0.7
  puzzles = _puzzles()
  spoilt = puzzles.replace(
    puzzle_ids=np.where(rows, puzzles.puzzle_ids, 99).astype(np.int32)
  )  # their vectors are NaN
  found, steps = _adaptive(spoilt, slots=7, threshold=_threshold(), rows=rows)
  expected, expected_steps = _alone(_threshold())
  assert steps[rows].tolist() == expected_steps[rows].tolist()
  _assert_found(found, {k: v[rows] for k, v in expected.items()}, rows)
  assert not steps[~rows].any()
  assert not found["answers"][~rows].any()


def test_padding_alone_is_no_work():
  rows = np.zeros(NUM, bool)
  _, steps = _adaptive(_puzzles(), slots=4, threshold=1.0, rows=rows)
  assert not steps.any()


def test_four_devices_find_the_same():
  found, steps = _adaptive(
    _puzzles(), slots=8, threshold=_threshold(), num_devices=4
  )
  expected, expected_steps = _alone(_threshold())
  assert steps.tolist() == expected_steps.tolist()
  _assert_found(found, expected)


# --- rollouts --------------------------------------------------------------


@functools.cache
def _solve_rollouts(**settings):
  return jax.jit(
    functools.partial(
      rollouts_lib.solve_rollouts,
      small_model.model(),
      supervision_steps=MAX_STEPS,
      observe=_see,
      **settings,
    )
  )


def _rollouts(puzzles, *, num_devices=None, **settings):
  weights, mesh = small_model.weights(), None
  if num_devices:
    weights, puzzles, mesh = _put(puzzles, num_devices)
  solved = _solve_rollouts(
    mesh=mesh, **{"rollouts": 1, "seed": 0, "at_a_time": 1} | settings
  )
  return jax.device_get(solved(weights, puzzles.inputs, puzzles.puzzle_ids))


def test_one_rollout_without_noise_is_solving_bit_by_bit():
  found = _rollouts(_puzzles(), noise=0.0)
  for name, leaf in _fixed().items():
    np.testing.assert_array_equal(found[name], leaf[-1:], err_msg=name)


def test_noise_makes_attempts_differ_and_a_seed_makes_them_again():
  found = _rollouts(_puzzles(), noise=0.5, rollouts=3)
  logits = found["halt_logits"]
  plain = _fixed()["halt_logits"][-1]
  for other in (logits[1], logits[2], plain):
    assert (np.abs(logits[0] - other) > 1e-4).mean() > 0.9
  again = _rollouts(_puzzles(), noise=0.5, rollouts=3)
  np.testing.assert_array_equal(again["halt_logits"], logits)
  other_seed = _rollouts(_puzzles(), noise=0.5, rollouts=3, seed=1)
  assert (np.abs(other_seed["halt_logits"] - logits) > 1e-4).mean() > 0.9


def test_more_rollouts_begin_with_the_fewer():
  few = _rollouts(_puzzles(), noise=0.5, rollouts=2)
  many = _rollouts(_puzzles(), noise=0.5, rollouts=5)
  np.testing.assert_array_equal(many["halt_logits"][:2], few["halt_logits"])


@pytest.mark.parametrize("at_a_time", [2, 5, 8])
def test_attempts_made_at_once_are_those_made_one_by_one(at_a_time):
  expected = _rollouts(_puzzles(), noise=0.5, rollouts=5)
  found = _rollouts(_puzzles(), noise=0.5, rollouts=5, at_a_time=at_a_time)
  assert found["answers"].shape == expected["answers"].shape
  np.testing.assert_allclose(
    found["halt_logits"], expected["halt_logits"], rtol=1e-3, atol=1e-4
  )


def test_the_noise_of_a_puzzle_does_not_depend_on_its_company():
  puzzles = _puzzles()
  expected = _rollouts(puzzles, noise=0.5, rollouts=2)["halt_logits"]
  part = jax.tree.map(lambda a: a[[30, 3]], puzzles)
  found = _rollouts(part, noise=0.5, rollouts=2)["halt_logits"]
  np.testing.assert_allclose(found, expected[:, [30, 3]], rtol=1e-3, atol=1e-4)


def test_the_noise_of_two_puzzles_is_not_the_same():
  puzzles = _puzzles()
  zeros = types.Latents(*[jnp.zeros((NUM, 7, small_model.D))] * 2)

  def draws(scale, attempt, number):
    noise = rollouts_lib.Noise(
      scale=scale, seed=3, attempts=jnp.full((NUM,), attempt)
    )
    disturb = rollouts_lib.latent_noise(
      noise, puzzles.inputs, puzzles.puzzle_ids
    )
    return np.stack(jax.tree.leaves(disturb(zeros, jnp.asarray(number))))

  first = draws(0.25, 0, 1)
  assert first.std() == pytest.approx(0.25, rel=0.05)
  assert abs(first.mean()) < 0.02
  rows = first.swapaxes(0, 1).reshape(NUM, -1)
  correlations = np.corrcoef(rows) - np.eye(NUM)
  assert np.abs(correlations).max() < 0.6  # of 112 numbers each
  for other in (draws(0.25, 1, 1), draws(0.25, 0, 2)):
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1
  assert abs(np.corrcoef(first[0].ravel(), first[1].ravel())[0, 1]) < 0.1
  np.testing.assert_allclose(draws(0.5, 0, 1), 2 * first, rtol=1e-6)


@pytest.mark.parametrize("at_a_time", [1, 4])
def test_four_devices_roll_out_the_same(at_a_time):
  settings = {"noise": 0.5, "rollouts": 5}
  expected = _rollouts(_puzzles(), **settings)
  found = _rollouts(_puzzles(), **settings, at_a_time=at_a_time, num_devices=4)
  np.testing.assert_allclose(
    found["halt_logits"], expected["halt_logits"], rtol=1e-3, atol=1e-4
  )
