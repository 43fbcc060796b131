"""Rollouts: several attempts at each puzzle, of which one is chosen.

`variations` has the ways in which attempts differ, `choices` those in which one
of them is chosen.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from . import (
  choices,
  halting,
  parallel,
  puzzle_embedding,
  solve,
  types,
  variations,
)
from . import model as model_lib

HALTING = ("never", "attempt", "puzzle")  # see `solve_rollouts`

_ODD = np.uint32(2654435761)  # of Knuth's multiplicative hashing


@flax.struct.dataclass
class Attempts:
  """K attempts at N puzzles.

  Attributes:
    found: what was observed at the end of each attempt, [K, N, ...].
    tracked: some of it after each of R numbers of steps, [R, K, N, ...]; an
      attempt that has ended keeps its last value.
    residual: [R, K, N] float32, mean change of the answer's logits over the
      last steps (L2 norm over tokens, mean over cells); infinite after one
      step.
    steps: [K, N] int32, supervision steps taken.
    halted_after: [K, N] int32, the step at which the confidence reached the
      threshold; `choices.NEVER` if it did not.
  """

  found: Any
  tracked: Any
  residual: jax.Array
  steps: jax.Array
  halted_after: jax.Array


def solve_rollouts(
  model: model_lib.Model,
  weights: types.Weights,
  batch: types.Batch,
  rows: jax.Array,
  *,
  rollouts: int,
  variation: variations.Variation,
  seed: int,
  supervision_steps: int,
  slots: int,
  halt: str = "never",
  halt_threshold: float = 0.5,
  first_only: bool = False,
  report_steps: tuple[int, ...] = (),
  tracked: tuple[str, ...] = (),
  mesh: Mesh | None = None,
  observe: Callable[[types.Output, types.Batch], dict[str, Any]],
) -> Attempts:
  """Attempts each puzzle several times.

  As with adaptive halting, attempts are in slots, and one that ends makes room
  for the next. The first attempts at all puzzles come first.

  Args:
    model: the module.
    weights: of the module.
    batch: N puzzles.
    rows: [N] bool, False for padding, which is skipped.
    rollouts: attempts at each puzzle, K.
    variation: how they differ.
    seed: of the random draws.
    supervision_steps: of each attempt, at most.
    slots: attempts in progress at a time, over all devices.
    halt: when attempts end earlier: 'never'; 'attempt', when the confidence
      reaches the threshold; 'puzzle', which also ends all other attempts at the
      puzzle (which of them had begun depends on the slots).
    halt_threshold: confidence in (0, 1).
    first_only: whether only the first attempt to halt counts: with 'attempt',
      others then end when an earlier one has halted in no more steps.
    report_steps: numbers of steps, ascending, after which to track; the last
      is always `supervision_steps`.
    tracked: names of what is tracked, if it is observed.
    mesh: as for `puzzle_embedding.lookup`; N and slots divide over it.
    observe: called after each step with the model's output and the puzzles in
      the slots; returns a dict of arrays with a leading axis of slots, with
      the tokens `answers`, [s, L].

  Returns:
    The attempts; zeros for padding.

  Raises:
    ValueError: `halt` is none of `HALTING`.
  """
  if halt not in HALTING:
    raise ValueError(f"unknown halt {halt!r}; choose one of {HALTING}")
  by_row, copies = parallel.ROWS, parallel.COPIES
  queue = _Queue(
    model=model,
    rollouts=rollouts,
    variation=variation,
    seed=seed,
    max_steps=supervision_steps,
    slots=slots if mesh is None else slots // mesh.size,
    halt=halt,
    halt_logit=solve.logit(halt_threshold),
    first_only=first_only,
    report_steps=(
      *(n for n in report_steps if n < supervision_steps),
      supervision_steps,
    ),
    tracked=tracked,
    observe=observe,
  )
  vectors = puzzle_embedding.lookup(
    weights.puzzle_table, batch.puzzle_ids, mesh=mesh
  )
  attempts = parallel.on_each_device(
    queue.run,
    mesh,
    in_specs=(copies, copies, by_row, by_row, by_row),
    out_specs=by_row,
  )(weights.params, weights.initial_latents, batch, vectors, rows)
  # The rows came first, to be split over devices.
  by_attempt = jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), attempts)

  def by_step(leaf):
    return jnp.moveaxis(leaf, 2, 0)

  return by_attempt.replace(
    tracked=jax.tree.map(by_step, by_attempt.tracked),
    residual=by_step(by_attempt.residual),
  )


@flax.struct.dataclass
class _SlotState:
  """The s slots of a device with t = K n attempts; t in a slot that is empty.

  Attributes:
    pending: [t] bool, attempts that have not begun.
    item: [s] int32, attempt * n + puzzle.
    steps: [s] int32, steps of each slot's attempt so far.
    latents: [s, S, D].
    logits: [s, L, V], of the step before.
    changes: [s, w] float32, of the logits in the last steps.
    found: [t, ...]; see `Attempts`.
    tracked: [t, R, ...].
    residual: [t, R].
    steps_taken: [t] int32.
    halted_after: [t] int32.
  """

  pending: jax.Array
  item: jax.Array
  steps: jax.Array
  latents: types.Latents
  logits: jax.Array
  changes: jax.Array
  found: Any
  tracked: Any
  residual: jax.Array
  steps_taken: jax.Array
  halted_after: jax.Array


@dataclasses.dataclass(frozen=True)
class _Queue:
  """The attempts of one device; fields as the arguments of `solve_rollouts`."""

  model: model_lib.Model
  rollouts: int
  variation: variations.Variation
  seed: int
  max_steps: int
  slots: int
  halt: str
  halt_logit: float
  first_only: bool
  report_steps: tuple[int, ...]
  tracked: tuple[str, ...]
  observe: Callable[[types.Output, types.Batch], dict[str, Any]]

  def run(
    self,
    params: Any,
    constants: types.Latents,
    batch: types.Batch,
    vectors: jax.Array,
    rows: jax.Array,
  ) -> Attempts:
    """Makes the attempts; returns them with the rows first, [n, K, ...]."""
    count = rows.shape[0]
    total = self.rollouts * count
    slots = min(self.slots, total)
    prints = _fingerprints(batch.inputs, batch.puzzle_ids)
    fresh = halting.initial_latents(
      constants, slots, self.model.total_len, self.model.dtype
    )
    report_steps = np.array(self.report_steps, np.int32)

    def pick(leaf, indices):
      return leaf.at[indices].get(mode="clip")

    def draws(item):
      keys = jax.vmap(
        lambda puzzle, attempt: jax.random.fold_in(
          jax.random.fold_in(jax.random.key(self.seed), puzzle), attempt
        )
      )(pick(prints, item % count), item // count)
      return variations.Draws(keys, item // count)

    def call(item, steps, latents):
      streams = draws(item)
      puzzles = jax.tree.map(lambda leaf: pick(leaf, item % count), batch)
      symmetries = self.variation.symmetries
      if symmetries is not None:
        puzzles = types.Batch(
          inputs=symmetries.apply(streams.attempts, puzzles.inputs),
          labels=symmetries.apply(streams.attempts, puzzles.labels),
          puzzle_ids=puzzles.puzzle_ids,
        )
      output = model_lib.apply(
        self.model,
        params,
        puzzles.inputs,
        pick(vectors, item % count),
        self.variation.perturb(streams, steps, latents),
        differentiated=False,
      )
      seen = self.observe(output, puzzles)
      if symmetries is not None:
        answers = symmetries.invert(streams.attempts, seen["answers"])
        seen = {**seen, "answers": answers}
      return output, seen

    def step(state: _SlotState) -> _SlotState:
      item, steps = state.item, state.steps + 1
      output, seen = call(item, steps, state.latents)
      active = item < total
      logits = output.logits.astype(jnp.float32)
      changes = choices.add_change(state.changes, logits, state.logits, steps)
      residual = choices.residual(changes, steps)

      halts = active & (output.halt_logits > self.halt_logit)
      if self.halt == "never":
        halts = jnp.zeros_like(active)
      halted_after = state.halted_after.at[jnp.where(halts, item, total)].set(
        steps, mode="drop"
      )
      by_attempt = halted_after.reshape(self.rollouts, count)
      pending, ends = state.pending, halts | (steps >= self.max_steps)
      if self.halt == "puzzle":
        done = jnp.any(by_attempt < choices.NEVER, axis=0)
        pending &= ~jnp.tile(done, self.rollouts)
        ends |= pick(done, item % count)
      elif self.first_only:
        earlier = jax.lax.cummin(by_attempt, axis=0)[:-1]
        never = jnp.full_like(by_attempt[:1], choices.NEVER)
        earlier = jnp.concatenate([never, earlier]).reshape(-1)
        ends |= steps >= pick(earlier, item)
      ends &= active

      at_end = jnp.where(ends, item, total)  # outside: dropped

      def keep(all_, new):
        return all_.at[at_end].set(new, mode="drop")

      reported = (steps[:, None] == report_steps[None]) & active[:, None]
      reported |= ends[:, None] & (steps[:, None] <= report_steps[None])
      place = jnp.where(reported, item[:, None], total)
      column = np.arange(len(report_steps))[None]

      def track(all_, new):
        new = jnp.broadcast_to(
          new[:, None], (slots, len(report_steps), *new.shape[1:])
        )
        return all_.at[place, column].set(new, mode="drop")

      pending, item = _refilled(pending, item, ends | ~active)
      streams = draws(item)
      begun = self.variation.start(streams, fresh)

      def renewed(new, old):
        return jnp.where(ends.reshape(-1, *[1] * (old.ndim - 1)), new, old)

      return _SlotState(
        pending=pending,
        item=item,
        steps=jnp.where(ends, 0, steps),
        latents=jax.tree.map(renewed, begun, output.latents),
        logits=logits,
        changes=renewed(jnp.zeros_like(changes), changes),
        found=jax.tree.map(keep, state.found, seen),
        tracked=jax.tree.map(track, state.tracked, self._tracked(seen)),
        residual=track(state.residual, residual),
        steps_taken=keep(state.steps_taken, steps),
        halted_after=halted_after,
      )

    empty = jnp.full((slots,), total, jnp.int32)
    pending, first = _refilled(
      jnp.tile(rows, self.rollouts), empty, jnp.ones((slots,), bool)
    )
    output, seen = jax.eval_shape(call, first, first, fresh)

    def zeros(leaf, *axes):
      return jnp.zeros((total, *axes, *leaf.shape[1:]), leaf.dtype)

    num = len(report_steps)
    start = _SlotState(
      pending=pending,
      item=first,
      steps=jnp.zeros((slots,), jnp.int32),
      latents=self.variation.start(draws(first), fresh),
      logits=jnp.zeros(output.logits.shape, jnp.float32),
      changes=choices.no_changes(slots),
      found=jax.tree.map(zeros, seen),
      tracked=jax.tree.map(lambda leaf: zeros(leaf, num), self._tracked(seen)),
      residual=jnp.zeros((total, num), jnp.float32),
      steps_taken=jnp.zeros((total,), jnp.int32),
      halted_after=jnp.full((total,), choices.NEVER, jnp.int32),
    )
    end = jax.lax.while_loop(
      lambda state: jnp.any(state.item < total), step, start
    )
    attempts = Attempts(
      found=end.found,
      tracked=end.tracked,
      residual=end.residual,
      steps=end.steps_taken,
      halted_after=end.halted_after,
    )
    return jax.tree.map(
      lambda leaf: jnp.swapaxes(
        leaf.reshape(self.rollouts, count, *leaf.shape[1:]), 0, 1
      ),
      attempts,
    )

  def _tracked(self, seen: dict[str, Any]) -> dict[str, Any]:
    return {name: seen[name] for name in self.tracked if name in seen}


def _refilled(
  pending: jax.Array, item: jax.Array, free: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Gives each free slot the next pending item, or the number of items.

  Args:
    pending: [t] bool.
    item: [s] int32, of each slot.
    free: [s] bool.

  Returns:
    The items still pending and the items in the slots.
  """
  total, slots = pending.shape[0], item.shape[0]
  place = jnp.cumsum(pending, dtype=jnp.int32) - 1  # among those pending
  following = jnp.full((slots,), total, jnp.int32)
  following = following.at[jnp.where(pending, place, slots)].set(
    jnp.arange(total, dtype=jnp.int32), mode="drop"
  )
  place = jnp.cumsum(free, dtype=jnp.int32) - 1  # among the free slots
  taken = jnp.where(free, following.at[place].get(mode="clip"), total)
  return (
    pending.at[taken].set(False, mode="drop"),
    jnp.where(free, taken, item),
  )


def _fingerprints(inputs: jax.Array, puzzle_ids: jax.Array) -> jax.Array:
  """Returns a hash [B] uint32 of each puzzle, independent of its row."""
  # A polynomial of tokens and id at an odd number, modulo 2^32.
  numbers = jnp.concatenate([inputs, puzzle_ids[:, None]], axis=1)
  factors = np.full(numbers.shape[1], _ODD).cumprod(dtype=np.uint32)
  return jnp.sum(
    numbers.astype(jnp.uint32) * factors[None], axis=1, dtype=jnp.uint32
  )
