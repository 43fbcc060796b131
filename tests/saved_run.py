"""Checkpoints of random weights, for tests of what reads them."""

import jax
import numpy as np

from trm_jax.data import identifiers
from trm_jax.runtime import checkpoint_metadata, mesh, restore
from trm_jax.runtime import checkpoints as checkpoints_lib


def _random(state, seed, *, num_rows):
  """Other weights; rows of the table make a great difference to answers.

  Those that pad it to divide over the devices stay zero, as in training.
  """
  rng = np.random.default_rng(seed)

  def normal(leaf):
    scale = leaf.shape[0] ** -0.5
    return rng.standard_normal(leaf.shape, np.float32) * np.float32(scale)

  table = 1e4 * normal(state.puzzle_table)
  table[num_rows:] = 0
  return jax.device_get(state).replace(
    params=jax.tree.map(normal, state.params),
    ema_params=jax.tree.map(normal, state.ema_params),
    puzzle_table=table,
    initial_latents=jax.tree.map(normal, state.initial_latents),
  )


def save(run, workdir, scores, *, task=None):
  """Saves a state of random numbers for each step that has a score."""
  program = run.program
  state = mesh.create_state(program.init, program.mesh)
  places = mesh.state_shardings(state, program.mesh)
  task = task or run.task
  with checkpoints_lib.Checkpoints(
    str(workdir), program.config.checkpoint
  ) as saved:
    for step, score in scores.items():
      new = _random(state, seed=step, num_rows=task.num_puzzle_ids)
      new = new.replace(step=np.int32(step))
      saved.save(
        jax.device_put(new, places),
        checkpoint_metadata.make_metadata(
          program.config, task, "another fingerprint", step
        ),
        step=step,
      )
      saved.note_score(step, score)
  identifiers.write(restore.identifiers_path(str(workdir)), task.identifiers)
  return workdir


def weights(run, workdir, step):
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    return jax.device_get(
      checkpoints.restore(step, run.program.abstract_state()).ema_weights
    )
