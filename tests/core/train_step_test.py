"""The supervision step as a whole, on a tiny model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import base
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import halting, train_step, types
from trm_jax.data import puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.runtime import mesh, program

B, L, V, NUM_IDS = 8, 6, 5, 9


@functools.cache
def _experiment(num_devices=1, **train):
  config = base.get_config()
  config.model.update(
    hidden_size=8,
    num_layers=1,
    mlp_multiple=4,
    puzzle_embed_dim=8,
    num_prefix_tokens=1,
    latent_updates=1,
    recursion_cycles=2,
    compute_dtype="float32",
    remat="none",
  )
  config.optimizer.update(
    learning_rate=1e-2, puzzle_learning_rate=1e-2, warmup_steps=0
  )
  config.train.update(
    batch_size=B,
    max_supervision_steps=4,
    exploration_prob=1.0,
    **train,
  )
  config = config_lib.from_config_dict(config)
  tokens = np.zeros((1, L), np.uint8)
  task = task_lib.Task(
    train=puzzle_set.PuzzleSet.single(tokens, tokens),
    test=puzzle_set.PuzzleSet.single(tokens, tokens),
    look=task_lib.Look(rows=1, cols=L, symbols=tuple("01234"[:V])),
    augmentation=None,
    identifiers=[str(row) for row in range(NUM_IDS)],
  )
  return tiny.load_task(config, task, mesh.make_mesh(num_devices))


@functools.cache
def _step_fn(num_devices=1, **train):
  return _experiment(num_devices, **train).program.train_step()


@functools.cache
def _first_state_on_host():
  """The first state, with halting logits and vectors worth looking at."""
  run = _experiment()
  state = jax.device_get(mesh.create_state(run.program.init, run.program.mesh))
  rng = np.random.default_rng(0)
  head = state.params["halt_head"]
  params = state.params | {
    "halt_head": {
      "kernel": rng.standard_normal(head["kernel"].shape, np.float32),
      "bias": np.zeros_like(head["bias"]),
    }
  }
  table = rng.standard_normal(state.puzzle_table.shape, np.float32)
  return state.replace(
    params=params, ema_params=params, puzzle_table=table * 0.5
  )


def _state(num_devices=1, **changes):
  """A state of its own buffers, which a step may take over."""
  state = _first_state_on_host().replace(**changes)
  run = _experiment(num_devices)
  more = mesh.num_rows(NUM_IDS, run.program.mesh) - NUM_IDS
  state = state.replace(
    puzzle_table=np.pad(state.puzzle_table, ((0, more), (0, 0)))
  )
  shardings = mesh.state_shardings(state, run.program.mesh)
  return jax.device_put(jax.tree.map(jnp.array, state), shardings)


def _host_batch(seed):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, V, (B, L), np.int32)
  return {
    "inputs": rng.integers(0, V, (B, L), np.int32),
    "labels": np.where(rng.random((B, L)) < 0.2, types.IGNORED_LABEL, labels),
    "puzzle_ids": rng.integers(0, NUM_IDS - 2, (B,), np.int32),
  }


def _batch(seed, num_devices=1, **changes):
  return mesh.put_batch(
    _host_batch(seed) | changes, _experiment(num_devices).program.mesh
  )


def _mixed_carry():
  """Every second slot runs, with puzzles of its own."""
  rng = np.random.default_rng(9)
  carry = _first_state_on_host().carry
  latents = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape, np.float32), carry.latents
  )
  return types.Carry(
    latents=latents,
    batch=types.Batch(**_host_batch(77)),
    steps=np.tile(np.array([3, 1], np.int32), B // 2),
    halted=np.tile([True, False], B // 2),
  )


HALTED = np.tile([True, False], B // 2)


def _assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def _differ(a, b):
  return any(
    np.any(np.asarray(x) != np.asarray(y))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def _run(state, batch):
  return jax.device_get(_step_fn()(state, batch))


def test_five_steps_are_traced_and_compiled_once():
  run, step = _experiment(), _step_fn()
  state = mesh.create_state(run.program.init, run.program.mesh)
  for seed in range(5):
    state, _ = step(state, _batch(seed))
  assert int(state.step) == 5
  assert step._cache_size() == 1  # over all tests of this file


def test_equal_inputs_give_equal_outputs():
  first = _run(_state(), _batch(0))
  _assert_equal(first, _run(_state(), _batch(0)))
  assert _differ(first, _run(_state(), _batch(1)))


def test_the_old_state_is_taken_over():
  state = _state()
  new, _ = _step_fn()(state, _batch(0))
  for name in ("params", "ema_params", "opt_state", "puzzle_table"):
    for leaf in jax.tree.leaves(getattr(state, name)):
      assert leaf.is_deleted(), name
  assert state.carry.latents.y.is_deleted()
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


@functools.cache
def _after_five_steps(num_devices, **train):
  """The state and the metrics of each step, on the host."""
  state, history = _state(num_devices), []
  step = _step_fn(num_devices, **train)
  for seed in range(5):
    state, sums = step(state, _batch(seed, num_devices))
    history.append(jax.device_get(sums))
  assert state.carry.latents.y.addressable_shards[0].data.shape[0] == (
    B // num_devices
  )
  rows = state.puzzle_table.shape[0]
  assert NUM_IDS <= rows < NUM_IDS + num_devices
  assert state.puzzle_table.addressable_shards[0].data.shape[0] == (
    rows // num_devices
  )
  state = jax.device_get(state)
  assert not np.any(state.puzzle_table[NUM_IDS:])
  return state.replace(puzzle_table=state.puzzle_table[:NUM_IDS]), history


@pytest.mark.parametrize(
  ("num_devices", "train"),
  [
    *(pytest.param(n, {}, marks=pytest.mark.slow) for n in (2, 4)),
    (8, {}),
    pytest.param(2, {"freeze_network": True}, marks=pytest.mark.slow),
    pytest.param(
      2, {"halt_rule": "halt_over_continue"}, marks=pytest.mark.slow
    ),
  ],
)
def test_any_number_of_devices_trains_the_same(num_devices, train):
  state, history = _after_five_steps(num_devices, **train)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    (state, history),
    _after_five_steps(1, **train),
  )
  assert any(sums["count"] > 0 for sums in history)
  first = _first_state_on_host()
  trains_network = not train.get("freeze_network")
  assert _differ(state.params, first.params) == trains_network
  assert _differ(state.puzzle_table, first.puzzle_table)


@pytest.mark.parametrize(
  ("num_devices", "gradient_accumulation_steps", "train"),
  [
    (1, 4, {}),
    pytest.param(1, 8, {}, marks=pytest.mark.slow),
    (2, 4, {}),
    pytest.param(1, 4, {"freeze_network": True}, marks=pytest.mark.slow),
    pytest.param(
      1, 4, {"halt_rule": "halt_over_continue"}, marks=pytest.mark.slow
    ),
  ],
)
def test_microbatches_train_what_the_whole_batch_does(
  num_devices, gradient_accumulation_steps, train
):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    _after_five_steps(
      num_devices,
      gradient_accumulation_steps=gradient_accumulation_steps,
      **train,
    ),
    _after_five_steps(1, **train),
  )


def test_parts_of_rows_that_have_no_numbers():
  """Such as the vectors of puzzles without a prefix token."""
  rows = jnp.zeros((6, 0)), jnp.arange(6)
  total, results = train_step._in_parts(
    lambda part: (jnp.sum(part[1]), part), rows, 3
  )
  assert total == 15
  jax.tree.map(np.testing.assert_array_equal, results, rows)


def _temporaries(**train):
  run = _experiment(**train)
  compiled = (
    run.program.train_step()
    .lower(run.program.abstract_state(), _batch(0))
    .compile()
  )
  return compiled.memory_analysis().temp_size_in_bytes


def test_microbatches_need_less_memory():
  assert _temporaries(gradient_accumulation_steps=4) < 0.7 * _temporaries()


@pytest.mark.parametrize(
  ("num_devices", "gradient_accumulation_steps", "choices"),
  [(1, 3, "2 or 4"), (1, 5, "4 or 8"), (8, 2, "1")],
)
def test_microbatches_that_do_not_divide_name_what_does(
  num_devices, gradient_accumulation_steps, choices
):
  built = _experiment().program
  config = config_lib.changed(
    built.config,
    {"train.gradient_accumulation_steps": gradient_accumulation_steps},
  )
  with pytest.raises(errors.UserError, match=f"choose {choices}$"):
    program.build(config, built.sizes, mesh.make_mesh(num_devices))


# --- the carry -------------------------------------------------------------


def test_running_slots_keep_their_puzzle():
  carry, new = _mixed_carry(), _host_batch(5)
  state, _ = _run(_state(carry=carry), _batch(5))
  for name in ("inputs", "labels", "puzzle_ids"):
    held = getattr(state.carry.batch, name)
    np.testing.assert_array_equal(held[HALTED], new[name][HALTED])
    np.testing.assert_array_equal(
      held[~HALTED], getattr(carry.batch, name)[~HALTED]
    )
  assert state.carry.steps.tolist() == [1, 2] * (B // 2)


def test_the_slots_keep_the_latents_that_the_model_returned():
  old, run = _state(carry=_mixed_carry()), _experiment()

  def answer(state, batch):
    carry = halting.refill(state.carry, batch, state.initial_latents)
    vectors = state.puzzle_table[carry.batch.puzzle_ids]
    return run.program.model.apply(
      {"params": state.params}, carry.batch.inputs, vectors, carry.latents
    ).latents

  expected = jax.device_get(jax.jit(answer)(old, _batch(5)))
  state, _ = _run(old, _batch(5))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    state.carry.latents,
    expected,
  )


def test_the_incoming_rows_of_running_slots_have_no_effect():
  other = _host_batch(6)
  mixed = {
    name: np.where(
      HALTED.reshape((B,) + (1,) * (rows.ndim - 1)), rows, other[name]
    )
    for name, rows in _host_batch(5).items()
  }
  carry = _mixed_carry()
  expected = _run(_state(carry=carry), _batch(5))
  _assert_equal(_run(_state(carry=carry), _batch(5, **mixed)), expected)
  assert _differ(_run(_state(carry=carry), _batch(6)), expected)


def test_the_labels_of_running_slots_are_those_of_the_carry():
  carry = _mixed_carry()
  _, expected = _run(_state(carry=carry), _batch(5))
  changed = carry.replace(
    batch=carry.batch.replace(labels=(carry.batch.labels + 1) % V)
  )
  _, sums = _run(_state(carry=changed), _batch(5))
  assert sums["answer_loss"] != expected["answer_loss"]


def test_smoothed_labels_change_what_is_learned_and_not_what_is_reported():
  state, sums = _run(_state(), _batch(5))
  smoothed_state, smoothed = jax.device_get(
    _step_fn(label_smoothing=0.5)(_state(), _batch(5))
  )
  for name in ("answer_loss", "halt_loss"):
    np.testing.assert_allclose(smoothed[name], sums[name], rtol=1e-5)
  assert abs(smoothed["loss"] - sums["loss"]) > 1e-3
  assert smoothed["grad_norm"] != sums["grad_norm"]
  assert _differ(smoothed_state.params, state.params)


def test_a_halted_slot_forgets_its_past():
  carry = _mixed_carry()

  def spoil(leaf):
    free = HALTED.reshape((B,) + (1,) * (leaf.ndim - 1))
    junk = 10_000 if leaf.dtype == np.int32 else np.nan
    return np.where(free, np.asarray(junk, leaf.dtype), leaf)

  spoilt = types.Carry(
    latents=jax.tree.map(spoil, carry.latents),
    batch=jax.tree.map(spoil, carry.batch),
    steps=spoil(carry.steps),
    halted=carry.halted,
  )
  _assert_equal(
    _run(_state(carry=spoilt), _batch(5)), _run(_state(carry=carry), _batch(5))
  )


def test_the_last_step_halts_and_its_slot_alone_is_counted():
  carry = _mixed_carry()
  steps = np.full(B, 1, np.int32)
  steps[3] = 3  # of 4, and running
  params = _first_state_on_host().params
  hopeless = params | {
    "halt_head": {
      "kernel": np.zeros_like(params["halt_head"]["kernel"]),
      "bias": np.full((2,), -5.0, np.float32),
    }
  }
  state, sums = _run(
    _state(carry=carry.replace(steps=steps), params=hopeless), _batch(5)
  )
  assert state.carry.halted.tolist() == [i == 3 for i in range(B)]
  assert sums["count"] == 1
  assert sums["steps"] == 4
  assert sums["rows"] == B


# --- randomness ------------------------------------------------------------


def test_the_first_steps_are_those_of_the_slots_that_were_refilled():
  state, sums = _run(_state(carry=_mixed_carry()), _batch(1))
  np.testing.assert_array_equal(state.carry.steps == 1, HALTED)
  assert sums["first_step_count"] == HALTED.sum()


def test_exploration_depends_on_the_step_and_on_the_slot():
  params = _first_state_on_host().params
  confident = params | {
    "halt_head": {
      "kernel": np.zeros_like(params["halt_head"]["kernel"]),
      "bias": np.full((2,), 5.0, np.float32),
    }
  }
  carry = _mixed_carry().replace(
    steps=np.ones(B, np.int32), halted=np.zeros(B, bool)
  )
  patterns = set()
  for step in range(4):
    state, _ = _run(
      _state(carry=carry, params=confident, step=np.int32(step)),
      _batch(0),
    )
    assert 0 < state.carry.halted.sum() < B
    patterns.add(tuple(state.carry.halted.tolist()))
  assert len(patterns) > 1


# --- what is trained -------------------------------------------------------


def test_the_table_changes_in_the_rows_of_the_slots_only():
  state, _ = _run(_state(carry=_mixed_carry()), _batch(5))
  held = np.isin(np.arange(NUM_IDS), state.carry.batch.puzzle_ids)
  assert 0 < held.sum() < NUM_IDS
  old = _first_state_on_host().puzzle_table
  np.testing.assert_array_equal(state.puzzle_table[~held], old[~held])
  assert np.all(np.any(state.puzzle_table[held] != old[held], axis=-1))


def test_a_frozen_network_trains_the_table_alone_and_alike():
  whole, whole_sums = _run(_state(), _batch(0))
  step = _experiment(freeze_network=True).program.train_step()
  state, sums = jax.device_get(step(_state(), _batch(0)))
  first = _first_state_on_host()
  for name in ("params", "ema_params", "opt_state"):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(state, name), getattr(first, name)
    )
  np.testing.assert_array_equal(state.puzzle_table, whole.puzzle_table)
  assert np.any(state.puzzle_table != first.puzzle_table)
  assert sums["grad_norm"] == 0
  for name in ("loss", "puzzle_grad_norm"):
    np.testing.assert_allclose(sums[name], whole_sums[name], rtol=1e-5)


def test_the_average_moves_by_a_thousandth_and_does_not_freeze():
  config = _experiment().program.config
  assert config.optimizer.ema_decay == 0.999
  old = _first_state_on_host()
  state, _ = _run(_state(), _batch(0))
  jax.tree.map(
    lambda mean, before, now: np.testing.assert_allclose(
      mean, 0.999 * np.float64(before) + 0.001 * np.float64(now), rtol=1e-6
    ),
    state.ema_params,
    old.ema_params,
    state.params,
  )
  kernel = state.ema_params["answer_head"]["kernel"]
  assert kernel.dtype == np.float32
  changed = kernel != old.ema_params["answer_head"]["kernel"]
  assert np.mean(changed) > 0.9


def test_the_initial_latents_are_constants():
  old = _first_state_on_host().initial_latents
  state, _ = _run(_state(), _batch(0))
  _assert_equal(state.initial_latents, old)
  assert np.any(old.y != old.z)


def test_staggered_slots_begin_at_all_ages():
  """Only before the first step, and only where that is asked for."""
  ages = np.arange(B) % 4
  step = _step_fn(stagger_slots=True)
  state, _ = step(_state(), _batch(0))
  state = jax.device_get(state)
  np.testing.assert_array_equal(state.carry.steps, 1 + ages)
  assert state.carry.halted[ages == 3].all()

  plain = _run(_state(), _batch(0))[0]
  np.testing.assert_array_equal(plain.carry.steps, 1)
  # What is computed is the same: ages change when puzzles leave, no more.
  _assert_equal(state.params, plain.params)

  later = np.int32(5)
  staggered, _ = step(_state(step=later), _batch(0))
  _assert_equal(
    jax.device_get(staggered), _run(_state(step=later), _batch(0))[0]
  )
