"""Inference, pure: a fixed number of supervision steps on each puzzle."""

from collections.abc import Callable
from typing import Any

import jax

from trm_jax import halting, types
from trm_jax.models import trm


def solve_fixed(
  model: trm.TinyRecursiveModel,
  params: Any,
  initial_latents: types.Latents,
  inputs: jax.Array,
  puzzle_vectors: jax.Array,
  *,
  supervision_steps: int,
  observe: Callable[[types.Output, jax.Array], Any],
) -> Any:
  """Thinks for exactly `supervision_steps` steps about each puzzle.

  As in the official evaluation, no puzzle halts early.

  Args:
    model: the module.
    params: its parameters, in evaluation the averaged ones.
    initial_latents: the constants y and z, [D] each.
    inputs: [B, L] int32 questions.
    puzzle_vectors: [B, E] float32.
    supervision_steps: at least 1; may exceed the number used in training.
    observe: called after each step with the model's output and the number
      of steps so far, [] int32; keeps what the caller wants of it.

  Returns:
    What `observe` returned, stacked on a new leading axis over the steps.
  """

  def step(latents, number):
    output = model.apply({"params": params}, inputs, puzzle_vectors, latents)
    return output.latents, observe(output, number)

  latents = halting.initial_latents(
    initial_latents, inputs.shape[0], model.total_len, model.dtype
  )
  _, observations = jax.lax.scan(
    step, latents, jax.numpy.arange(1, supervision_steps + 1)
  )
  return observations
