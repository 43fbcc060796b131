"""Solves a batch of puzzles with the solver of a `SolverConfig`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from . import choices, registry, rollouts, solve, types, variations
from . import model as model_lib

# Fields of `SolverConfig` that each solver reads.
_FIELDS: Mapping[str, tuple[str, ...]] = {
  "fixed": (),
  "adaptive": ("slots", "halt_threshold"),
  "rollouts": (
    "slots",
    "rollouts",
    "rollout_variation",
    "noise",
    "seed",
    "rollout_halting",
    "halt_threshold",
    "rollout_selection",
  ),
}
RULES = "rules"  # a choice on the host; see `choices.by_rules`


@dataclasses.dataclass(frozen=True)
class SolverConfig:
  """How puzzles are solved.

  Attributes:
    solver: 'fixed' (the same number of steps for each puzzle), 'adaptive' (a
      puzzle stops at a confidence threshold) or 'rollouts' (several attempts,
      of which one is chosen).
    slots: puzzles or attempts in progress at a time, with 'adaptive' and
      'rollouts'.
    halt_threshold: confidence to stop at, with 'adaptive' and with 'rollouts'
      unless `rollout_halting` is 'never'.
    rollouts: attempts at each puzzle, with 'rollouts'.
    rollout_variation: how they differ, a name in `variations.VARIATIONS`.
    noise: standard deviation of the noise on z, with the variation 'noise'.
    seed: of the noise and of random starts.
    rollout_halting: one of `rollouts.HALTING`.
    rollout_selection: name in `choices.CHOICES`, or `RULES`, which falls back
      on the confidence here.
  """

  solver: str = "fixed"
  slots: int = 1
  halt_threshold: float = 0.5
  rollouts: int = 1
  rollout_variation: str = "noise"
  noise: float = 0.0
  seed: int = 0
  rollout_halting: str = "never"
  rollout_selection: str = "confidence"

  def used(self) -> dict[str, Any]:
    """Returns the solver's name and the fields that it reads."""
    names = registry.get(_FIELDS, self.solver, kind="solver")
    return {name: getattr(self, name) for name in ("solver", *names)}

  @property
  def label(self) -> str:
    """A short name for results of this solver; "" for 'fixed'."""
    varied = self.rollout_variation
    if varied == "noise":
      varied = f"{self.noise:g}"
    labels = {
      "fixed": "",
      "adaptive": f"adaptive_{self.halt_threshold:g}",
      "rollouts": f"rollouts_{self.rollouts}_{varied}_{self.rollout_selection}",
    }
    label = registry.get(labels, self.solver, kind="solver")
    if self.solver == "rollouts" and self.rollout_halting != "never":
      label += f"_{self.rollout_halting}_{self.halt_threshold:g}"
    return label


@flax.struct.dataclass
class RolloutTable:
  """How rollouts do, by supervision steps (R) and attempts (K).

  Attributes:
    chosen: [R, K, B] float32, whether the answer chosen among the attempts 0
      to k is right; likewise
    any_: whether any of them is, and
    steps: supervision steps taken by all of them.
  """

  chosen: jax.Array
  any_: jax.Array
  steps: jax.Array


@flax.struct.dataclass
class Solved:
  """A batch of B solved puzzles.

  Attributes:
    seen: what was observed, with a leading axis K. With 'fixed', entry k is the
      result after step k + 1; with 'adaptive' K = 1; with 'rollouts' entry k is
      the attempt chosen among 0 to k, or there is a single entry if attempts
      end their puzzles.
    steps: [K, B] int32, supervision steps taken.
    attempts: with 'rollouts', what was observed of each attempt, and its
      `steps`, [K, B, ...].
    table: with 'rollouts', if `values` were observed.
  """

  seen: Any
  steps: jax.Array
  attempts: Any = None
  table: RolloutTable | None = None


def solve_batch(
  model: model_lib.Model,
  weights: types.Weights,
  batch: types.Batch,
  rows: jax.Array,
  *,
  supervision_steps: int,
  solver: SolverConfig,
  observe: Callable[[types.Output, types.Batch], Any],
  symmetries: variations.Symmetries | None = None,
  report_steps: tuple[int, ...] = (),
  mesh: Mesh | None = None,
) -> Solved:
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
      of puzzles; with rollouts `values` of `metrics.row_values` make the table.
    symmetries: of the puzzles, for the variation 'symmetries'.
    report_steps: rows of the table of 'rollouts'; `supervision_steps` is
      always the last.
    mesh: as for `puzzle_embedding.lookup`.

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
    return Solved(seen, jnp.broadcast_to(numbers, seen["halt_logits"].shape))
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
    return Solved(*jax.tree.map(lambda leaf: leaf[None], found))
  return _solve_rollouts(
    model,
    weights,
    batch,
    rows,
    supervision_steps=supervision_steps,
    solver=solver,
    observe=observe,
    symmetries=symmetries,
    report_steps=report_steps,
    mesh=mesh,
  )


def _solve_rollouts(
  model: model_lib.Model,
  weights: types.Weights,
  batch: types.Batch,
  rows: jax.Array,
  *,
  supervision_steps: int,
  solver: SolverConfig,
  observe: Callable[[types.Output, types.Batch], Any],
  symmetries: variations.Symmetries | None,
  report_steps: tuple[int, ...],
  mesh: Mesh | None,
) -> Solved:
  """Makes the attempts and chooses among them; see `solve_batch`."""
  choice = solver.rollout_selection
  choice = "confidence" if choice == RULES else choice
  ends_puzzle = solver.rollout_halting == "puzzle"
  if ends_puzzle:  # what would have come later is unknown
    report_steps = ()

  def observe_exact(output, puzzles):
    seen = observe(output, puzzles)
    if "values" not in seen:
      return seen
    return {**seen, "exact": seen["values"]["exact_accuracy"]}

  attempts = rollouts.solve_rollouts(
    model,
    weights,
    batch,
    rows,
    rollouts=solver.rollouts,
    variation=registry.get(
      variations.VARIATIONS, solver.rollout_variation, kind="variation"
    )(solver.noise, symmetries),
    seed=solver.seed,
    supervision_steps=supervision_steps,
    slots=solver.slots,
    halt=solver.rollout_halting,
    halt_threshold=solver.halt_threshold,
    first_only=choice == "first",
    report_steps=report_steps,
    tracked=("exact", "halt_logits", *(["answers"] * (choice == "vote"))),
    mesh=mesh,
    observe=observe_exact,
  )

  def choose(entry: int, number: int) -> jax.Array:
    tracked = {name: leaf[entry] for name, leaf in attempts.tracked.items()}
    after = attempts.halted_after
    halted_after = jnp.where(after <= number, after, choices.NEVER)
    chosen = choices.choose(
      choice,
      choices.Candidates(
        answers=tracked.get("answers"),
        halt_logits=tracked["halt_logits"],
        residual=attempts.residual[entry],
        halted_after=halted_after,
      ),
    )
    if not ends_puzzle:
      return chosen
    # One that has halted, if any; others may not have been finished.
    halted = after < choices.NEVER
    logits = jnp.where(halted, tracked["halt_logits"], -jnp.inf)
    surest = jnp.argmax(logits, axis=0).astype(chosen.dtype)
    return jnp.where(jnp.any(halted, axis=0), surest, chosen[-1])[None]

  numbers = (*report_steps, supervision_steps)
  numbers = tuple(sorted({min(n, supervision_steps) for n in numbers}))
  chosen = [choose(entry, number) for entry, number in enumerate(numbers)]

  def take(leaf, at):
    at = at.reshape(*at.shape, *[1] * (leaf.ndim - 2))
    return jnp.take_along_axis(leaf, at, axis=0)

  table = None
  if "exact" in attempts.tracked:
    exact = attempts.tracked["exact"]
    limits = jnp.array(numbers)[:, None, None]
    made = jnp.cumsum(jnp.minimum(attempts.steps[None], limits), axis=1)
    any_ = jax.lax.cummax(exact, axis=1)
    table = RolloutTable(
      chosen=jnp.stack(
        [take(row, at) for row, at in zip(exact, chosen, strict=True)]
      ),
      any_=any_[:, -1:] if ends_puzzle else any_,
      steps=(made[:, -1:] if ends_puzzle else made).astype(jnp.float32),
    )
  return Solved(
    seen=jax.tree.map(lambda leaf: take(leaf, chosen[-1]), attempts.found),
    steps=take(attempts.steps, chosen[-1]),
    attempts={**attempts.found, "steps": attempts.steps},
    table=table,
  )
