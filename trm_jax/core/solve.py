"""Inference: supervision steps without training, as pure functions.

`solve_fixed` runs the same number of steps for every puzzle; `solve_adaptive`
stops a puzzle at a confidence threshold and gives its slot to the next one.
`rollouts.py` has several attempts at each puzzle.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from . import halting, parallel, puzzle_embedding, types
from . import model as model_lib


def solve_fixed(
  model: model_lib.Model,
  weights: types.Weights,
  inputs: jax.Array,
  puzzle_ids: jax.Array,
  *,
  supervision_steps: int,
  mesh: Mesh | None = None,
  observe: Callable[[types.Output, jax.Array], Any],
) -> Any:
  """Runs exactly `supervision_steps` steps for each puzzle.

  As in the official evaluation, no puzzle halts early.

  Args:
    model: the module.
    weights: of the module, in evaluation the averaged ones.
    inputs: [B, L] int32 questions.
    puzzle_ids: [B] int32, rows of the puzzle table.
    supervision_steps: at least 1; may exceed the number used in training.
    mesh: as for `puzzle_embedding.lookup`.
    observe: called after each step with the model's output and the number of
      steps so far, [] int32; returns what to keep.

  Returns:
    What `observe` returned, stacked on a new leading axis over the steps.
  """
  rows, copies = parallel.ROWS, parallel.COPIES
  call = parallel.on_each_device(
    functools.partial(model_lib.apply, model, differentiated=False),
    mesh,
    in_specs=(copies, rows, rows, rows),
    out_specs=rows,
  )

  def step(latents, number):
    output = call(weights.params, inputs, vectors, latents)
    return output.latents, observe(output, number)

  vectors = puzzle_embedding.lookup(weights.puzzle_table, puzzle_ids, mesh=mesh)
  latents = halting.initial_latents(
    weights.initial_latents, inputs.shape[0], model.total_len, model.dtype
  )
  _, observations = jax.lax.scan(
    step, latents, jnp.arange(1, supervision_steps + 1)
  )
  return observations


def solve_adaptive(
  model: model_lib.Model,
  weights: types.Weights,
  batch: types.Batch,
  rows: jax.Array,
  *,
  slots: int,
  threshold: float,
  max_supervision_steps: int,
  mesh: Mesh | None = None,
  observe: Callable[[types.Output, types.Batch], Any],
) -> tuple[Any, jax.Array]:
  """Runs each puzzle until the confidence in its answer reaches a threshold.

  A slot whose puzzle is done takes the next one from the queue, so that the
  batch stays full and harder puzzles get more steps. Every device has its own
  share of puzzles and slots; none waits for another.

  Args:
    model: the module.
    weights: of the module.
    batch: N puzzles.
    rows: [N] bool, False for padding, which is skipped.
    slots: puzzles in progress at a time, over all devices.
    threshold: confidence in (0, 1) above which a puzzle is done; 0 stops after
      one step, 1 after `max_supervision_steps`.
    max_supervision_steps: limit for each puzzle.
    mesh: as for `puzzle_embedding.lookup`; N and slots divide over it.
    observe: called after each step with the model's output and the puzzles in
      the slots; returns arrays with a leading axis of slots.

  Returns:
    What `observe` returned for each puzzle when it was done, [N, ...], zero
    for padding; and the steps taken, [N] int32.
  """
  by_row, copies = parallel.ROWS, parallel.COPIES
  solve_queue = parallel.on_each_device(
    functools.partial(
      _solve_queue,
      model,
      slots=slots if mesh is None else slots // mesh.size,
      halt_logit=logit(threshold),
      max_supervision_steps=max_supervision_steps,
      observe=observe,
    ),
    mesh,
    in_specs=(copies, copies, by_row, by_row, by_row),
    out_specs=by_row,
  )
  vectors = puzzle_embedding.lookup(
    weights.puzzle_table, batch.puzzle_ids, mesh=mesh
  )
  return solve_queue(
    weights.params, weights.initial_latents, batch, vectors, rows
  )


@flax.struct.dataclass
class _SlotState:
  """The s slots of a device with n puzzles, and the results so far.

  Attributes:
    taken: [] int32, puzzles taken from the queue.
    slot_puzzle: [s] int32, the puzzle in each slot; n if the slot is empty.
    steps: [s] int32, steps of each slot's puzzle so far.
    latents: [s, S, D].
    found: what was observed of each puzzle when it was done, [n, ...].
    steps_taken: [n] int32.
  """

  taken: jax.Array
  slot_puzzle: jax.Array
  steps: jax.Array
  latents: types.Latents
  found: Any
  steps_taken: jax.Array


def _solve_queue(
  model: model_lib.Model,
  params: Any,
  constants: types.Latents,
  batch: types.Batch,
  vectors: jax.Array,
  rows: jax.Array,
  *,
  slots: int,
  halt_logit: float,
  max_supervision_steps: int,
  observe: Callable[[types.Output, types.Batch], Any],
) -> tuple[Any, jax.Array]:
  """Solves the puzzles of one device; see `solve_adaptive`."""
  count = rows.shape[0]
  queue = jnp.argsort(~rows, stable=True)  # padding comes last
  total = jnp.sum(rows, dtype=jnp.int32)
  fresh = halting.initial_latents(
    constants, slots, model.total_len, model.dtype
  )

  def take(numbers):
    """Returns the puzzles at these places of the queue, n past its end."""
    there = queue.at[numbers].get(mode="clip").astype(jnp.int32)
    return jnp.where(numbers < total, there, count)

  def call(slot_puzzle, latents):
    puzzles = jax.tree.map(
      lambda leaf: leaf.at[slot_puzzle].get(mode="clip"), batch
    )
    vector = vectors.at[slot_puzzle].get(mode="clip")
    output = model_lib.apply(
      model,
      params,
      puzzles.inputs,
      vector,
      latents,
      differentiated=False,
    )
    return output, observe(output, puzzles)

  def step(state: _SlotState) -> _SlotState:
    output, seen = call(state.slot_puzzle, state.latents)
    steps = state.steps + 1
    done = (output.halt_logits > halt_logit) | (steps >= max_supervision_steps)
    done &= state.slot_puzzle < count
    place = jnp.where(done, state.slot_puzzle, count)  # outside: dropped
    next_numbers = state.taken + jnp.cumsum(done, dtype=jnp.int32) - 1

    def renewed(new, old):
      return jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return _SlotState(
      taken=state.taken + jnp.sum(done, dtype=jnp.int32),
      slot_puzzle=jnp.where(done, take(next_numbers), state.slot_puzzle),
      steps=jnp.where(done, 0, steps),
      latents=jax.tree.map(renewed, fresh, output.latents),
      found=jax.tree.map(
        lambda all_, new: all_.at[place].set(new, mode="drop"),
        state.found,
        seen,
      ),
      steps_taken=state.steps_taken.at[place].set(steps, mode="drop"),
    )

  first = take(jnp.arange(slots, dtype=jnp.int32))
  _, seen = jax.eval_shape(call, first, fresh)
  start = _SlotState(
    taken=jnp.asarray(slots, jnp.int32),
    slot_puzzle=first,
    steps=jnp.zeros_like(first),
    latents=fresh,
    found=jax.tree.map(
      lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), seen
    ),
    steps_taken=jnp.zeros((count,), jnp.int32),
  )
  end = jax.lax.while_loop(
    lambda state: jnp.any(state.slot_puzzle < count), step, start
  )
  return end.found, end.steps_taken


def logit(probability: float) -> float:
  """Returns log(p / (1 - p)), including at 0 and 1."""
  if probability in (0.0, 1.0):
    return math.inf if probability else -math.inf
  return math.log(probability / (1.0 - probability))


def answers_of(output: types.Output) -> jax.Array:
  """Returns the most likely tokens, [B, L] int32."""
  return jnp.argmax(output.logits, axis=-1).astype(jnp.int32)
