"""Adaptive halting and rollouts: each puzzle is solved as it is alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_model

from trm_jax.core import choices, solve, solve_batch, types, variations
from trm_jax.core import rollouts as rollouts_lib
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


def _rollouts(
  puzzles,
  variation=None,
  *,
  rollouts=1,
  slots=NUM,
  seed=0,
  num_devices=1,
  rows=None,
  **halting,
):
  mesh = mesh_lib.make_mesh(num_devices)
  rows = np.ones(len(puzzles.inputs), bool) if rows is None else rows
  solved = jax.jit(
    functools.partial(
      rollouts_lib.solve_rollouts,
      small_model.model(),
      rollouts=rollouts,
      variation=variation or variations.Variation(),
      seed=seed,
      supervision_steps=MAX_STEPS,
      slots=slots,
      report_steps=(1, 2, 4),
      tracked=("halt_logits",),
      mesh=mesh,
      observe=lambda output, held: {**_see(output), "labels": held.labels},
      **halting,
    )
  )
  puzzles = jax.tree.map(lambda a: mesh_lib.put_rows(a, mesh), puzzles)
  weights = small_model.weights(num_rows=small_model.NUM_PUZZLES + 1)
  table = mesh_lib.put_rows(np.asarray(weights.puzzle_table), mesh)
  return jax.device_get(
    solved(
      weights.replace(puzzle_table=table),
      puzzles,
      mesh_lib.put_rows(rows, mesh),
    )
  )
  return jax.device_get(solved(weights, puzzles.inputs, puzzles.puzzle_ids))


NOISE = variations.noise_on_z(0.5)


@functools.cache
def _symmetries(count=3):
  """The identity, then random ones, of six cells and five tokens."""
  rng = np.random.default_rng(2)
  cells = np.stack([rng.permutation(small_model.L) for _ in range(count)])
  tokens = np.stack([rng.permutation(small_model.V) for _ in range(count)])
  cells[0], tokens[0] = np.arange(small_model.L), np.arange(small_model.V)
  return variations.Symmetries(
    cells=cells.astype(np.int32), tokens=tokens.astype(np.int32)
  )


VARIATIONS = {
  "noise": NOISE,
  "starts": variations.random_starts(),
  "symmetries": variations.of_symmetries(_symmetries()),
}


@functools.cache
def _attempts(name, **halting):
  return _rollouts(_puzzles(), VARIATIONS[name], rollouts=3, **halting)


@pytest.mark.parametrize("name", VARIATIONS)
def test_attempt_0_is_solving_with_fixed_steps(name):
  attempts = _attempts(name)
  for key, leaf in _fixed().items():
    np.testing.assert_allclose(
      attempts.found[key][0], leaf[-1], rtol=1e-4, atol=1e-5, err_msg=key
    )
    for entry, number in enumerate((1, 2, 4, MAX_STEPS)):
      np.testing.assert_allclose(
        attempts.tracked["halt_logits"][entry, 0],
        _fixed()["halt_logits"][number - 1],
        rtol=1e-4,
        atol=1e-5,
      )
  assert (attempts.steps == MAX_STEPS).all()
  assert (attempts.halted_after == choices.NEVER).all()


@pytest.mark.parametrize("name", VARIATIONS)
def test_attempts_differ(name):
  logits = _attempts(name).found["halt_logits"]
  for i, j in ((0, 1), (0, 2), (1, 2)):
    assert (np.abs(logits[i] - logits[j]) > 1e-4).mean() > 0.9


def test_a_seed_makes_the_attempts_again():
  logits = _attempts("noise").found["halt_logits"]
  again = _rollouts(_puzzles(), NOISE, rollouts=3).found["halt_logits"]
  np.testing.assert_array_equal(again, logits)
  other = _rollouts(_puzzles(), NOISE, rollouts=3, seed=1).found["halt_logits"]
  assert (np.abs(other - logits)[1:] > 1e-4).mean() > 0.9


@pytest.mark.parametrize("slots", [7, 64, 1000])
def test_the_number_of_slots_changes_no_attempt(slots):
  found = _rollouts(_puzzles(), NOISE, rollouts=3, slots=slots)
  expected = _attempts("noise")
  np.testing.assert_array_equal(
    found.found["answers"], expected.found["answers"]
  )
  np.testing.assert_allclose(
    found.found["halt_logits"],
    expected.found["halt_logits"],
    rtol=1e-3,
    atol=1e-4,
  )
  np.testing.assert_allclose(
    found.residual, expected.residual, rtol=1e-3, atol=1e-4
  )


def test_more_rollouts_begin_with_the_fewer():
  many = _rollouts(_puzzles(), NOISE, rollouts=5).found["halt_logits"]
  np.testing.assert_allclose(
    many[:3], _attempts("noise").found["halt_logits"], rtol=1e-3, atol=1e-4
  )


def test_the_noise_of_a_puzzle_does_not_depend_on_its_company():
  part = jax.tree.map(lambda a: a[[30, 3]], _puzzles())
  found = _rollouts(part, NOISE, rollouts=3).found["halt_logits"]
  expected = _attempts("noise").found["halt_logits"]
  np.testing.assert_allclose(found, expected[:, [30, 3]], rtol=1e-3, atol=1e-4)


def test_four_devices_roll_out_the_same():
  found = _rollouts(_puzzles(), NOISE, rollouts=3, slots=8, num_devices=4)
  expected = _attempts("noise")
  np.testing.assert_allclose(
    found.found["halt_logits"],
    expected.found["halt_logits"],
    rtol=1e-3,
    atol=1e-4,
  )
  assert found.tracked["halt_logits"].shape == (4, 3, NUM)


def test_padding_is_not_attempted():
  rows = np.random.default_rng(8).random(NUM) < 0.7
  found = _rollouts(_puzzles(), NOISE, rollouts=3, slots=7, rows=rows)
  assert not found.steps[:, ~rows].any()
  np.testing.assert_allclose(
    found.found["halt_logits"][:, rows],
    _attempts("noise").found["halt_logits"][:, rows],
    rtol=1e-3,
    atol=1e-4,
  )


def test_noise_is_on_z_alone():
  key = jax.random.split(jax.random.key(3), NUM)
  zeros = types.Latents(*[jnp.zeros((NUM, 7, small_model.D))] * 2)

  def draws(scale, attempt, number, keys=key):
    streams = variations.Draws(keys, jnp.full((NUM,), attempt))
    return variations.noise_on_z(scale).perturb(
      streams, jnp.full((NUM,), number), zeros
    )

  first = draws(0.25, 1, 1)
  assert not first.y.any()
  assert first.z.std() == pytest.approx(0.25, rel=0.05)
  assert abs(first.z.mean()) < 0.02
  correlations = np.corrcoef(first.z.reshape(NUM, -1)) - np.eye(NUM)
  assert np.abs(correlations).max() < 0.6  # of 56 numbers each
  later = draws(0.25, 1, 2).z
  assert abs(np.corrcoef(first.z.ravel(), later.ravel())[0, 1]) < 0.1
  np.testing.assert_allclose(draws(0.5, 1, 1).z, 2 * first.z, rtol=1e-6)
  assert not draws(0.5, 0, 1).z.any()  # attempt 0
  only_y = variations.noise_on_z(0.25).perturb(
    variations.Draws(key, jnp.ones((NUM,), int)),
    jnp.ones((NUM,), int),
    types.Latents(y=zeros.y),
  )
  assert only_y.z is None
  assert only_y.y.std() == pytest.approx(0.25, rel=0.05)


def test_starts_are_random_and_of_deviation_1():
  keys = jax.random.split(jax.random.key(3), NUM)
  attempts = jnp.arange(NUM)
  fixed = types.Latents(*[jnp.full((NUM, 7, small_model.D), 9.0)] * 2)
  drawn = variations.random_starts().start(
    variations.Draws(keys, attempts), fixed
  )
  for leaf in (drawn.y, drawn.z):
    assert (leaf[0] == 9).all()
    assert leaf[1:].std() == pytest.approx(1, rel=0.05)
    assert abs(leaf[1:].mean()) < 0.05
    assert np.abs(leaf[1:]).max() < 2.28
  assert np.abs(np.corrcoef(drawn.y[1:].ravel(), drawn.z[1:].ravel()))[0, 1] < (
    0.1
  )


def test_a_transformed_puzzle_is_transformed_back():
  symmetries, puzzles = _symmetries(), _puzzles()
  moved = np.asarray(
    symmetries.apply(jnp.full((NUM,), 2), jnp.asarray(puzzles.inputs))
  )
  expected = symmetries.tokens[2][puzzles.inputs[:, symmetries.cells[2]]]
  np.testing.assert_array_equal(moved, expected)
  back = symmetries.invert(jnp.full((NUM,), 2), jnp.asarray(moved))
  np.testing.assert_array_equal(back, puzzles.inputs)
  # Attempt 2 is what a solver says of the transformed puzzle.
  alone = _solve_fixed()(
    small_model.weights(), moved.astype(np.int32), puzzles.puzzle_ids
  )
  np.testing.assert_array_equal(
    _attempts("symmetries").found["answers"][2],
    symmetries.invert(jnp.full((NUM,), 2), alone["answers"][-1]),
  )


def test_ignored_labels_stay_ignored():
  labels = jnp.array([[0, types.IGNORED_LABEL, 2, 3, 4, 1]])
  moved = _symmetries().apply(jnp.array([1]), labels)
  assert (np.asarray(moved) == types.IGNORED_LABEL).sum() == 1


# --- rollouts that halt ------------------------------------------------------


def test_attempts_halt_one_by_one():
  threshold = _threshold()
  found = _attempts("noise", halt="attempt", halt_threshold=threshold)
  whole = _attempts("noise")
  expected, steps = _alone(threshold)
  np.testing.assert_array_equal(found.found["answers"][0], expected["answers"])
  np.testing.assert_array_equal(found.steps[0], steps)
  halted = found.halted_after < choices.NEVER
  assert 0 < halted.mean() < 1
  assert (found.steps == np.where(halted, found.halted_after, MAX_STEPS)).all()
  np.testing.assert_array_equal(
    found.found["answers"][~halted], whole.found["answers"][~halted]
  )
  # The tracked value of an attempt that has ended is its last.
  last = found.tracked["halt_logits"][-1]
  np.testing.assert_array_equal(last, found.found["halt_logits"])
  for entry, number in enumerate((1, 2, 4)):
    over = found.steps <= number
    np.testing.assert_array_equal(
      found.tracked["halt_logits"][entry][over], last[over]
    )


@pytest.mark.parametrize("slots", [5, NUM, 200])
def test_the_first_to_halt_is_the_same_if_slower_ones_are_cut(slots):
  halting = {"halt": "attempt", "halt_threshold": _threshold()}
  whole = _attempts("noise", **halting)
  cut = _rollouts(
    _puzzles(), NOISE, rollouts=3, slots=slots, first_only=True, **halting
  )
  assert cut.steps.sum() < whole.steps.sum()

  def choose(attempts):
    return choices.choose(
      "first",
      choices.Candidates(
        answers=None,
        halt_logits=attempts.found["halt_logits"],
        residual=attempts.residual[-1],
        halted_after=attempts.halted_after,
      ),
    )

  chosen = choose(whole)
  np.testing.assert_array_equal(choose(cut), chosen)
  np.testing.assert_array_equal(
    np.take_along_axis(cut.steps, np.asarray(chosen), 0),
    np.take_along_axis(whole.steps, np.asarray(chosen), 0),
  )


@pytest.mark.parametrize("slots", [5, 200])
def test_an_accepted_attempt_ends_its_puzzle(slots):
  halting = {"halt_threshold": _threshold()}
  each = _attempts("noise", halt="attempt", **halting)
  found = _rollouts(
    _puzzles(), NOISE, rollouts=3, slots=slots, halt="puzzle", **halting
  )
  halts = (each.halted_after < choices.NEVER).any(0)
  halted = found.halted_after < choices.NEVER
  assert halted.any(0).tolist() == halts.tolist()
  assert 0 < halts.mean() < 1
  assert found.steps.sum() < each.steps.sum()
  # What has halted has halted as without the others; where none does, nothing
  # is different.
  assert (found.halted_after == each.halted_after)[halted].all()
  np.testing.assert_allclose(
    found.found["halt_logits"][halted],
    each.found["halt_logits"][halted],
    rtol=1e-3,
    atol=1e-4,
  )
  np.testing.assert_array_equal(
    found.found["answers"][:, ~halts], each.found["answers"][:, ~halts]
  )


def test_an_unknown_way_to_halt_is_refused():
  with pytest.raises(ValueError, match="unknown halt 'soon'"):
    _rollouts(_puzzles(), halt="soon")


def test_the_table_counts_by_steps_and_attempts():
  """Against the attempts one by one."""
  puzzles = _puzzles()
  labels = np.asarray(_attempts("noise").found["answers"][1]).copy()
  labels[::2] = np.asarray(_fixed()["answers"])[1][::2]
  batch = puzzles.replace(labels=labels.astype(np.int32))

  def observe(output, held):
    right = jnp.all(jnp.argmax(output.logits, -1) == held.labels, -1)
    values = {"exact_accuracy": right.astype(jnp.float32)}
    return {**_see(output), "values": values}

  fixed = np.asarray(_fixed()["answers"])
  for choice in ("first", "vote"):
    solved = jax.jit(
      functools.partial(
        solve_batch.solve_batch,
        small_model.model(),
        supervision_steps=MAX_STEPS,
        report_steps=(1, 2),
        solver=solve_batch.SolverConfig(
          solver="rollouts",
          slots=NUM,
          rollouts=3,
          noise=0.5,
          rollout_selection=choice,
          rollout_halting="attempt" if choice == "first" else "never",
          halt_threshold=_threshold(),
        ),
        observe=observe,
      )
    )(small_model.weights(), batch, np.ones(NUM, bool))
    table = solved.table
    assert table.chosen.shape == (3, 3, NUM)
    exact = (np.asarray(solved.attempts["answers"]) == labels).all(-1)
    np.testing.assert_array_equal(
      table.any_[-1], np.maximum.accumulate(exact, axis=0)
    )
    assert (np.asarray(table.chosen) <= np.asarray(table.any_)).all()
    np.testing.assert_array_equal(
      table.chosen[-1], (np.asarray(solved.seen["answers"]) == labels).all(-1)
    )
    np.testing.assert_array_equal(
      table.steps[-1], np.cumsum(solved.attempts["steps"], axis=0)
    )
    if choice != "first":
      for entry, number in enumerate((1, 2, MAX_STEPS)):
        np.testing.assert_array_equal(
          table.chosen[entry, 0], (fixed[number - 1] == labels).all(-1)
        )
        assert (table.steps[entry] == number * np.arange(1, 4)[:, None]).all()


def test_an_accepted_attempt_is_the_answer():
  solved = jax.jit(
    functools.partial(
      solve_batch.solve_batch,
      small_model.model(),
      supervision_steps=MAX_STEPS,
      solver=solve_batch.SolverConfig(
        solver="rollouts",
        slots=11,
        rollouts=3,
        noise=0.5,
        rollout_selection="residual",
        rollout_halting="puzzle",
        halt_threshold=_threshold(),
      ),
      observe=lambda output, _: _see(output),
    )
  )(small_model.weights(), _puzzles(), np.ones(NUM, bool))
  assert solved.seen["halt_logits"].shape == (1, NUM)
  halted = np.asarray(solved.attempts["halt_logits"]) > solve.logit(
    _threshold()
  )
  accepted = np.asarray(solved.seen["halt_logits"])[0] > solve.logit(
    _threshold()
  )
  assert accepted.tolist() == halted.any(0).tolist()
  assert 0 < accepted.mean() < 1
