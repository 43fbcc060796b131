"""Inference, pure: a fixed number of supervision steps on each puzzle."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trm_jax import halting, puzzle_embedding, sharding, types
from trm_jax.models import trm


def solve_fixed(
  model: trm.TinyRecursiveModel,
  weights: types.Weights,
  inputs: jax.Array,
  puzzle_ids: jax.Array,
  *,
  supervision_steps: int,
  mesh: Mesh | None = None,
  observe: Callable[[types.Output, jax.Array], Any],
) -> Any:
  """Thinks for exactly `supervision_steps` steps about each puzzle.

  As in the official evaluation, no puzzle halts early.

  Args:
    model: the module.
    weights: of the module, in evaluation the averaged ones.
    inputs: [B, L] int32 questions.
    puzzle_ids: [B] int32, rows of the puzzle table.
    supervision_steps: at least 1; may exceed the number used in training.
    mesh: as for `puzzle_embedding.lookup`.
    observe: called after each step with the model's output and the number
      of steps so far, [] int32; keeps what the caller wants of it.

  Returns:
    What `observe` returned, stacked on a new leading axis over the steps.
  """
  rows, copies = sharding.ROWS, sharding.COPIES
  think = sharding.on_each_device(
    functools.partial(trm.apply, model),
    mesh,
    in_specs=(copies, rows, rows, rows),
    out_specs=rows,
  )

  def step(latents, number):
    output = think(weights.params, inputs, vectors, latents)
    return output.latents, observe(output, number)

  vectors = puzzle_embedding.lookup(weights.puzzle_table, puzzle_ids, mesh=mesh)
  latents = halting.initial_latents(
    weights.initial_latents, inputs.shape[0], model.total_len, model.dtype
  )
  _, observations = jax.lax.scan(
    step, latents, jnp.arange(1, supervision_steps + 1)
  )
  return observations
