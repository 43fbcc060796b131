"""A batch of puzzles solved as the settings say, pure.

Evaluation, prediction and exported solvers all solve by this.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trm_jax import choice as choice_lib
from trm_jax import config as config_lib
from trm_jax import solve, types
from trm_jax.models import trm


@dataclasses.dataclass(frozen=True)
class Solving:
  """How puzzles are solved; `config.eval` has the same words."""

  solver: str = "fixed"  # 'adaptive' or 'rollouts'
  slots: int = 1  # worked on at a time, with 'adaptive' and 'rollouts'
  halt_threshold: float = 0.5  # adaptive
  rollouts: int = 1
  noise: float = 0.0  # rollouts
  seed: int = 0  # of the noise
  choice: str = "confidence"  # rollouts: or 'vote'

  @property
  def label(self) -> str:
    """What tells evaluations of other solvers apart; "" for fixed steps."""
    return {
      "fixed": "",
      "adaptive": f"adaptive_{self.halt_threshold:g}",
      "rollouts": f"rollouts_{self.rollouts}_{self.noise:g}_{self.choice}",
    }[self.solver]


def of(settings: config_lib.EvalConfig, *, seed: int, slots: int) -> Solving:
  """Returns how the settings say that puzzles are solved, and no more.

  Args:
    settings: `config.eval`.
    seed: of the noise.
    slots: puzzles worked on at a time.
  """
  if settings.solver == "adaptive":
    return Solving(
      solver="adaptive", slots=slots, halt_threshold=settings.halt_threshold
    )
  if settings.solver == "rollouts":
    return Solving(
      solver="rollouts",
      slots=slots,
      rollouts=settings.rollouts,
      noise=settings.noise,
      seed=seed,
      choice=settings.choice,
    )
  return Solving()


def answers_of(output: types.Output) -> jax.Array:
  """Returns the likeliest tokens, [B, L] int32."""
  return jnp.argmax(output.logits, axis=-1).astype(jnp.int32)


def solve_batch(
  model: trm.TinyRecursiveModel,
  weights: types.Weights,
  batch: types.Batch,
  rows: jax.Array,
  *,
  supervision_steps: int,
  solving: Solving,
  see: Callable[[types.Output, types.Batch], Any],
  mesh: Mesh | None = None,
) -> tuple[Any, jax.Array]:
  """Solves a batch K times, or tells of it after each of K steps.

  Args:
    model: the module.
    weights: of the module.
    batch: B puzzles.
    rows: [B] bool, False for padding.
    supervision_steps: all puzzles' or, with adaptive halting, the most that one
      may take.
    solving: how.
    see: called with an output and its puzzles; returns a dict that has
      `answers` and `halt_logits`, all with a leading axis of puzzles.
    mesh: as for `puzzle_embedding.lookup`.

  Returns:
    What `see` returned, with a leading axis K, and the steps taken, [K, B]
    int32. fixed: after each step. adaptive: K = 1. rollouts: entry k is of the
    attempt chosen among 0 to k.
  """
  if solving.solver == "fixed":
    seen = solve.solve_fixed(
      model,
      weights,
      batch.inputs,
      batch.puzzle_ids,
      supervision_steps=supervision_steps,
      mesh=mesh,
      observe=lambda output, _: see(output, batch),
    )
    numbers = jnp.arange(1, supervision_steps + 1)[:, None]
    return seen, jnp.broadcast_to(numbers, seen["halt_logits"].shape)
  if solving.solver == "adaptive":
    found = solve.solve_adaptive(
      model,
      weights,
      batch,
      rows,
      slots=solving.slots,
      threshold=solving.halt_threshold,
      max_supervision_steps=supervision_steps,
      mesh=mesh,
      observe=see,
    )
    return jax.tree.map(lambda leaf: leaf[None], found)
  if solving.solver != "rollouts":
    raise ValueError(f"unknown solver {solving.solver!r}")
  seen = solve.solve_rollouts(
    model,
    weights,
    batch.inputs,
    batch.puzzle_ids,
    rollouts=solving.rollouts,
    noise=solving.noise,
    seed=solving.seed,
    supervision_steps=supervision_steps,
    at_a_time=max(1, solving.slots // rows.shape[0]),
    mesh=mesh,
    observe=lambda output: see(output, batch),
  )
  chosen = choice_lib.choose(
    solving.choice, seen["answers"], seen["halt_logits"]
  )

  def take(leaf):
    at = chosen.reshape(*chosen.shape, *[1] * (leaf.ndim - 2))
    return jnp.take_along_axis(leaf, at, axis=0)

  return jax.tree.map(take, seen), jnp.full(chosen.shape, supervision_steps)
