"""Depth curriculum: fewer and shorter cycles early in training.

Source: CGAR (arXiv 2511.08653). A recursion is as deep as the stage says:
about a third of n and T, then two thirds, then all. Evaluation is always deep.
"""

import math

import jax
import jax.numpy as jnp

from . import model as model_lib

STAGES = (0.3, 0.6)  # shares of training at which the next stage begins


def depths(latent_updates: int, recursion_cycles: int) -> list[tuple[int, int]]:
  """Returns n and T of the three stages, the model's own last."""
  n, t = latent_updates, recursion_cycles
  first = max(2, math.ceil(n / 3)), max(1, math.ceil(t / 3))
  second = (
    min(n, max(first[0], math.ceil(2 * n / 3))),
    min(t, max(first[1], math.ceil(2 * t / 3))),
  )
  return [first, second, (n, t)]


def models(model: model_lib.Model) -> list[model_lib.Model]:
  """Returns the model of each stage; all share their parameters.

  Raises:
    ValueError: the model is no TinyRecursiveModel.
  """
  if not isinstance(model, model_lib.TinyRecursiveModel):
    raise ValueError("depth_curriculum needs a TinyRecursiveModel")
  return [
    model.clone(
      latent_updates=n,
      recursion_cycles=t,
      gradient_updates=min(n, model.gradient_updates),
    )
    for n, t in depths(model.latent_updates, model.recursion_cycles)
  ]


def stage(step: jax.Array, num_steps: int) -> jax.Array:
  """Returns the stage, [] int32, of a supervision step.

  Args:
    step: [] int32, steps before this one.
    num_steps: of the whole training.
  """
  begins = [
    next(s for s in range(num_steps + 1) if s >= share * num_steps)
    for share in STAGES
  ]
  return sum((step >= s).astype(jnp.int32) for s in begins)  # type: ignore


def step_weights(
  steps: jax.Array, *, decay: float, max_supervision_steps: int
) -> jax.Array:
  """Returns the weight of the loss of each slot, of mean 1 over all steps.

  Args:
    steps: [B] int32, supervision steps of the puzzle including this one.
    decay: weight of a step relative to the one before it, above 0, not 1.
    max_supervision_steps: the most steps per puzzle.

  Returns:
    [B] float32.
  """
  total = (1 - decay**max_supervision_steps) / (1 - decay)
  return decay ** (steps - 1).astype(jnp.float32) * (
    max_supervision_steps / total
  )
