"""Halting and refilling by hand-made tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import halting, types

NEVER, ALWAYS = 1.0, 0.0  # draws.uniform, against exploration_prob 0.5


def _output(halt_logits, continue_logits=None):
  halt_logits = jnp.asarray(halt_logits, jnp.float32)
  if continue_logits is None:
    continue_logits = jnp.full_like(halt_logits, jnp.nan)  # not to be read
  nothing = jnp.zeros((len(halt_logits), 1, 1))
  return types.Output(
    latents=types.Latents(y=nothing, z=nothing),
    logits=nothing,
    halt_logits=halt_logits,
    continue_logits=jnp.asarray(continue_logits, jnp.float32),
  )


def _halt(
  steps, output, uniform, min_steps, *, rule="halt", max_steps=16, prob=0.5
):
  return np.asarray(
    halting.halt(
      jnp.asarray(steps),
      output,
      halt_rule=rule,
      max_supervision_steps=max_steps,
      exploration_prob=prob,
      draws=halting.ExplorationDraws(
        uniform=jnp.asarray(uniform, jnp.float32),
        min_steps=jnp.asarray(min_steps, jnp.int32),
      ),
    )
  )


# steps, halt logit, explores, min_steps, halts
HALT_TABLE = (
  (1, 2.0, NEVER, 9, True),  # confident
  (1, -2.0, NEVER, 9, False),  # not confident
  (1, 0.0, NEVER, 9, False),  # exactly undecided goes on
  (16, -2.0, NEVER, 2, True),  # out of steps
  (4, 2.0, ALWAYS, 5, False),  # confident, but held for one more
  (5, 2.0, ALWAYS, 5, True),  # held long enough
  (5, -2.0, ALWAYS, 5, False),  # held, and still not confident
  (15, 2.0, ALWAYS, 16, False),
  (16, -2.0, ALWAYS, 16, True),  # no draw holds a slot past the end
  (1, 2.0, 0.5, 9, True),  # 0.5 is not below exploration_prob 0.5
)


@pytest.mark.parametrize("row", range(len(HALT_TABLE)))
def test_halt_table(row):
  steps, logit, uniform, min_steps, halts = HALT_TABLE[row]
  halted = _halt([steps], _output([logit]), [uniform], [min_steps])
  assert halted.tolist() == [halts]


def test_rows_of_the_halt_table_at_once():
  steps, logits, uniform, min_steps, halts = zip(*HALT_TABLE, strict=True)
  halted = _halt(steps, _output(logits), uniform, min_steps)
  assert halted.dtype == bool
  assert halted.tolist() == list(halts)


@pytest.mark.parametrize(
  ("steps", "halt_logit", "continue_logit", "halts"),
  [
    (1, -2.0, -3.0, True),
    (1, 3.0, 4.0, False),
    (1, 1.0, 1.0, False),
    (16, 3.0, 4.0, True),
  ],
)
def test_halt_over_continue_compares_the_two_logits(
  steps, halt_logit, continue_logit, halts
):
  output = _output([halt_logit], [continue_logit])
  halted = _halt([steps], output, [NEVER], [2], rule="halt_over_continue")
  assert halted.tolist() == [halts]


def test_halt_over_continue_is_held_by_exploration():
  output = _output([1.0, 1.0], [0.0, 0.0])
  halted = _halt(
    [2, 2], output, [ALWAYS, NEVER], [3, 3], rule="halt_over_continue"
  )
  assert halted.tolist() == [False, True]


@pytest.mark.parametrize("rule", ["halt", "halt_over_continue"])
def test_a_single_supervision_step_always_halts(rule):
  output = _output([-9.0, 9.0], [0.0, 0.0])
  halted = _halt(
    [1, 1], output, [ALWAYS, ALWAYS], [2, 2], rule=rule, max_steps=1
  )
  assert halted.tolist() == [True, True]


def test_an_unknown_rule_is_refused():
  with pytest.raises(ValueError, match="sometimes"):
    _halt([1], _output([0.0]), [NEVER], [2], rule="sometimes")


# --- exploration -----------------------------------------------------------


@pytest.mark.parametrize("max_steps", [2, 5, 16])
def test_draws_are_per_slot_and_reach_both_ends(max_steps):
  draws = halting.draw_exploration(
    jax.random.key(0), 2000, max_supervision_steps=max_steps
  )
  assert draws.min_steps.dtype == jnp.int32
  assert set(draws.min_steps.tolist()) == set(range(2, max_steps + 1))
  uniform = np.asarray(draws.uniform)
  assert len(np.unique(uniform)) > 1900
  assert uniform.min() >= 0
  assert uniform.max() < 1
  assert abs(uniform.mean() - 0.5) < 0.05
  if max_steps > 2:  # which slots explore says nothing of how long
    assert abs(np.corrcoef(uniform, draws.min_steps)[0, 1]) < 0.1


def test_draws_are_those_of_the_key():
  def draw(step):
    key = jax.random.fold_in(jax.random.key(3), step)
    return halting.draw_exploration(key, 32, max_supervision_steps=16)

  jax.tree.map(np.testing.assert_array_equal, draw(4), draw(4))
  for a, b in zip(
    jax.tree.leaves(draw(4)), jax.tree.leaves(draw(5)), strict=True
  ):
    assert np.any(a != b)


def test_draws_exist_for_a_single_supervision_step():
  draws = halting.draw_exploration(
    jax.random.key(0), 8, max_supervision_steps=1
  )
  assert draws.min_steps.shape == (8,)


# --- refill ----------------------------------------------------------------

CONSTANTS = types.Latents(y=jnp.arange(3.0), z=-jnp.arange(3.0))
HALTED = np.array([True, False, True, False])


def _batch(first):
  rows = jnp.arange(first, first + 4, dtype=jnp.int32)
  return types.Batch(
    inputs=jnp.stack([rows, rows + 100], axis=1),
    labels=jnp.stack([rows + 200, rows + 300], axis=1),
    puzzle_ids=rows + 400,
  )


def _carry(dtype=jnp.float32):
  latents = jnp.arange(4 * 2 * 3, dtype=dtype).reshape(4, 2, 3) + 50
  return types.Carry(
    latents=types.Latents(y=latents, z=latents + 24),
    batch=_batch(10),
    steps=jnp.array([16, 3, 1, 7], jnp.int32),
    halted=jnp.asarray(HALTED),
  )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_refill_table(dtype):
  old, new = _carry(dtype), _batch(60)
  carry = halting.refill(old, new, CONSTANTS)
  assert carry.steps.tolist() == [0, 3, 0, 7]
  assert carry.halted.tolist() == [False] * 4
  assert carry.batch.puzzle_ids.tolist() == [460, 411, 462, 413]
  assert carry.batch.inputs.tolist() == [
    [60, 160],
    [11, 111],
    [62, 162],
    [13, 113],
  ]
  assert carry.batch.labels.tolist() == [
    [260, 360],
    [211, 311],
    [262, 362],
    [213, 313],
  ]
  for name in ("y", "z"):
    latents = getattr(carry.latents, name)
    assert latents.dtype == dtype
    constant = getattr(CONSTANTS, name).astype(dtype)
    for slot in (0, 2):
      for token in range(2):
        np.testing.assert_array_equal(latents[slot, token], constant)
    for slot in (1, 3):
      np.testing.assert_array_equal(
        latents[slot], getattr(old.latents, name)[slot]
      )


def test_a_halted_slot_forgets_its_past():
  def spoil(leaf):
    free = HALTED.reshape((4,) + (1,) * (leaf.ndim - 1))
    junk = -7 if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.nan
    return jnp.where(free, junk, leaf)

  carry = _carry()
  spoilt = types.Carry(
    latents=jax.tree.map(spoil, carry.latents),
    batch=jax.tree.map(spoil, carry.batch),
    steps=spoil(carry.steps),
    halted=carry.halted,
  )
  jax.tree.map(
    np.testing.assert_array_equal,
    halting.refill(carry, _batch(60), CONSTANTS),
    halting.refill(spoilt, _batch(60), CONSTANTS),
  )


def test_the_new_row_of_a_running_slot_is_dropped():
  free = jnp.asarray(HALTED)[:, None]
  new = _batch(60)
  other = types.Batch(
    inputs=jnp.where(free, new.inputs, -1),
    labels=jnp.where(free, new.labels, -1),
    puzzle_ids=jnp.where(free[:, 0], new.puzzle_ids, -1),
  )
  jax.tree.map(
    np.testing.assert_array_equal,
    halting.refill(_carry(), new, CONSTANTS),
    halting.refill(_carry(), other, CONSTANTS),
  )


# --- continue targets ------------------------------------------------------


def test_continue_targets_table():
  next_output = _output([1.0, -2.0, 3.0, -1.0], [0.5, 2.0, 4.0, 5.0])
  targets = halting.continue_targets(
    jnp.array([1, 1, 16, 15]), next_output, max_supervision_steps=16
  )
  best = np.array([1.0, 2.0, 3.0, 5.0])  # slot 2 must halt: its halt logit
  np.testing.assert_allclose(targets, 1 / (1 + np.exp(-best)), rtol=1e-6)


def test_continue_targets_have_no_gradient():
  def total(halt_logits):
    output = _output(halt_logits, [0.0])
    return jnp.sum(
      halting.continue_targets(jnp.array([1]), output, max_supervision_steps=16)
    )

  assert jax.grad(total)(jnp.array([1.0])).tolist() == [0.0]
