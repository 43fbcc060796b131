"""Whatever trains is saved and restored: each recurrence, with and without a
table."""

import chex
import jax
import jax.numpy as jnp
import pytest
import saved_run
import tiny

from trm_jax import config as config_lib
from trm_jax.core import optim, recursion
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import program, restore

pytestmark = pytest.mark.usefixtures("one_device")

WITHOUT = {"model.puzzle_embed_dim": 0, "model.num_prefix_tokens": 0}
CASES = [
  *((name, "adam_atan2") for name in recursion.RECURRENCES),
  *(("two_latents", name) for name in optim.OPTIMIZERS),
]


@pytest.mark.parametrize("has_table", [True, False])
@pytest.mark.parametrize(("recurrence", "optimizer"), CASES)
def test_it_is_saved_and_restored(recurrence, optimizer, has_table, tmp_path):
  changes = {
    "model.recursion_type": recurrence,
    "optimizer.name": optimizer,
    **({} if has_table else WITHOUT),
  }
  run = program.load(config_lib.changed(tiny.config(), changes))
  saved_run.save(run, tmp_path, {3: 0.5})
  wanted = run.program.abstract_state()
  with checkpoints_lib.Checkpoints(str(tmp_path)) as checkpoints:
    state = checkpoints.restore(3, wanted)
  chex.assert_trees_all_equal_shapes_and_dtypes(
    state, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), wanted)
  )
  assert bool(state.puzzle_table.size) == has_table
  assert state.puzzle_table.sharding == wanted.puzzle_table.sharding
  weights = restore.ema_weights(*run, str(tmp_path)).weights
  chex.assert_trees_all_equal(weights, state.ema_weights)
