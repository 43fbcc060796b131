"""Solves a batch of puzzles with the solver of a `SolverConfig`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from . import model as model_lib
from . import registry, rollouts, solve, types

# Fields of `SolverConfig` that each solver reads.
_FIELDS: Mapping[str, tuple[str, ...]] = {
  "fixed": (),
  "adaptive": ("slots", "halt_threshold"),
  "rollouts": ("slots", "rollouts", "noise", "seed", "rollout_selection"),
}


@dataclasses.dataclass(frozen=True)
class SolverConfig:
  """How puzzles are solved.

  Attributes:
    solver: 'fixed' (the same number of steps for each puzzle), 'adaptive' (a
      puzzle stops at a confidence threshold) or 'rollouts' (several attempts
      from noisy latents, of which one is chosen).
    slots: puzzles in progress at a time, with 'adaptive' and 'rollouts'.
    halt_threshold: confidence to stop at, with 'adaptive'.
    rollouts: attempts at each puzzle, with 'rollouts'.
    noise: standard deviation of the latents' noise, with 'rollouts'.
    seed: of the noise.
    rollout_selection: name in `rollouts.CHOICES`.
  """

  solver: str = "fixed"
  slots: int = 1
  halt_threshold: float = 0.5
  rollouts: int = 1
  noise: float = 0.0
  seed: int = 0
  rollout_selection: str = "confidence"

  def used(self) -> dict[str, Any]:
    """Returns the solver's name and the fields that it reads."""
    names = registry.get(_FIELDS, self.solver, kind="solver")
    return {name: getattr(self, name) for name in ("solver", *names)}

  @property
  def label(self) -> str:
    """A short name for results of this solver; "" for 'fixed'."""
    labels = {
      "fixed": "",
      "adaptive": f"adaptive_{self.halt_threshold:g}",
      "rollouts": (
        f"rollouts_{self.rollouts}_{self.noise:g}_{self.rollout_selection}"
      ),
    }
    return registry.get(labels, self.solver, kind="solver")


def solve_batch(
  model: model_lib.TinyRecursiveModel,
  weights: types.Weights,
  batch: types.Batch,
  rows: jax.Array,
  *,
  supervision_steps: int,
  solver: SolverConfig,
  observe: Callable[[types.Output, types.Batch], Any],
  mesh: Mesh | None = None,
) -> tuple[Any, jax.Array]:
  """Solves a batch of puzzles.

  Args:
    model: the module.
    weights: of the module.
    batch: B puzzles.
    rows: [B] bool, False for padding.
    supervision_steps: of each puzzle; with 'adaptive' at most.
    solver: how to solve them.
    observe: called with an output and its puzzles; returns a dict with
      `answers`, `halt_logits` and what else to keep, each with a leading axis
      of puzzles.
    mesh: as for `puzzle_embedding.lookup`.

  Returns:
    What `observe` returned, with a leading axis K, and the steps taken, [K, B]
    int32. With 'fixed', entry k is the result after step k + 1; with 'adaptive'
    K = 1; with 'rollouts' entry k is the attempt chosen among 0 to k.

  Raises:
    ValueError: there is no such solver.
  """
  registry.get(_FIELDS, solver.solver, kind="solver")
  if solver.solver == "fixed":
    seen = solve.solve_fixed(
      model,
      weights,
      batch.inputs,
      batch.puzzle_ids,
      supervision_steps=supervision_steps,
      mesh=mesh,
      observe=lambda output, _: observe(output, batch),
    )
    numbers = jnp.arange(1, supervision_steps + 1)[:, None]
    return seen, jnp.broadcast_to(numbers, seen["halt_logits"].shape)
  if solver.solver == "adaptive":
    found = solve.solve_adaptive(
      model,
      weights,
      batch,
      rows,
      slots=solver.slots,
      threshold=solver.halt_threshold,
      max_supervision_steps=supervision_steps,
      mesh=mesh,
      observe=observe,
    )
    return jax.tree.map(lambda leaf: leaf[None], found)
  seen = rollouts.solve_rollouts(
    model,
    weights,
    batch.inputs,
    batch.puzzle_ids,
    rollouts=solver.rollouts,
    noise=solver.noise,
    seed=solver.seed,
    supervision_steps=supervision_steps,
    at_a_time=max(1, solver.slots // rows.shape[0]),
    mesh=mesh,
    observe=lambda output: observe(output, batch),
  )
  chosen = rollouts.choose(
    solver.rollout_selection, seen["answers"], seen["halt_logits"]
  )

  def take(leaf):
    at = chosen.reshape(*chosen.shape, *[1] * (leaf.ndim - 2))
    return jnp.take_along_axis(leaf, at, axis=0)

  return jax.tree.map(take, seen), jnp.full(chosen.shape, supervision_steps)
