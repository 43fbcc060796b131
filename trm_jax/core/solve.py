"""Inference, pure: how long to think about each puzzle, and how often.

fixed: so many supervision steps for each. adaptive: a puzzle that the network
believes to be solved makes room for the next. rollouts: several attempts from
noisy latents at each puzzle; `choice` picks one of their answers.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trm_jax import config as config_lib
from trm_jax.core import halting, parallel, puzzle_embedding, types
from trm_jax.core import model as model_lib
from trm_jax.core import rollouts as rollouts_lib


def solve_fixed(
  model: model_lib.TinyRecursiveModel,
  weights: types.Weights,
  inputs: jax.Array,
  puzzle_ids: jax.Array,
  *,
  supervision_steps: int,
  mesh: Mesh | None = None,
  noise: rollouts_lib.Noise | None = None,
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
    noise: added before each step, if given.
    observe: called after each step with the model's output and the number
      of steps so far, [] int32; keeps what the caller wants of it.

  Returns:
    What `observe` returned, stacked on a new leading axis over the steps.
  """
  rows, copies = parallel.ROWS, parallel.COPIES
  think = parallel.on_each_device(
    functools.partial(model_lib.apply, model, differentiated=False),
    mesh,
    in_specs=(copies, rows, rows, rows),
    out_specs=rows,
  )
  disturb = rollouts_lib.disturber(noise, inputs, puzzle_ids)

  def step(latents, number):
    latents = disturb(latents, number)
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


def solve_rollouts(
  model: model_lib.TinyRecursiveModel,
  weights: types.Weights,
  inputs: jax.Array,
  puzzle_ids: jax.Array,
  *,
  rollouts: int,
  noise: float,
  seed: int,
  supervision_steps: int,
  at_a_time: int = 1,
  mesh: Mesh | None = None,
  observe: Callable[[types.Output], Any],
) -> Any:
  """Attempts each puzzle several times from noisy latents.

  Source: PTRM (arXiv 2605.19943).

  Args:
    model: the module.
    weights: of the module.
    inputs: [B, L] int32 questions.
    puzzle_ids: [B] int32, rows of the puzzle table.
    rollouts: attempts at each puzzle, K.
    noise: standard deviation; 0 for none: all attempts are the same.
    seed: of the noise.
    supervision_steps: of each attempt.
    at_a_time: attempts at all puzzles that are made at once, for few puzzles.
    mesh: as for `puzzle_embedding.lookup`.
    observe: called with the model's last output of an attempt, [B, ...].

  Returns:
    What `observe` returned, stacked on a new leading axis of size K.
  """
  at_a_time = min(at_a_time, rollouts)
  questions, ids = (
    jnp.repeat(rows, at_a_time, axis=0) for rows in (inputs, puzzle_ids)
  )

  def attempt(numbers):
    def see(output, _):
      by_attempt = jax.tree.map(
        lambda leaf: leaf.reshape(-1, at_a_time, *leaf.shape[1:]), output
      )
      return jax.vmap(observe, in_axes=1)(by_attempt)

    seen = solve_fixed(
      model,
      weights,
      questions,
      ids,
      supervision_steps=supervision_steps,
      mesh=mesh,
      noise=rollouts_lib.Noise(
        scale=noise,
        seed=seed,
        attempts=jnp.tile(numbers, inputs.shape[0]),
      ),
      observe=see,
    )
    return jax.tree.map(lambda leaf: leaf[-1], seen)

  groups = -(-rollouts // at_a_time)
  numbers = jnp.arange(groups * at_a_time, dtype=jnp.int32)
  seen = jax.lax.map(attempt, numbers.reshape(groups, at_a_time))
  return jax.tree.map(
    lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rollouts], seen
  )


def solve_adaptive(
  model: model_lib.TinyRecursiveModel,
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
  """Thinks about each puzzle until its answer is believed to be right.

  A slot whose puzzle is done takes the next one that waits, so that the batch
  stays full and the work follows the puzzles' difficulty. Every device has its
  own share of puzzles and slots, and none waits for another.

  Args:
    model: the module.
    weights: of the module.
    batch: N puzzles.
    rows: [N] bool, False for padding, which is not worked on.
    slots: worked on at a time, over all devices.
    threshold: confidence in (0, 1) above which a puzzle is done; with 0 after
      one step, with 1 after `max_supervision_steps`.
    max_supervision_steps: after so many a puzzle is done in any case.
    mesh: as for `puzzle_embedding.lookup`; N and slots divide over it.
    observe: called after each step with the model's output and the puzzles in
      the slots; returns arrays with a leading axis of slots.

  Returns:
    What `observe` returned for each puzzle when it was done, [N, ...], zero
    for padding; and the steps that it took, [N] int32.
  """
  by_row, copies = parallel.ROWS, parallel.COPIES
  work = parallel.on_each_device(
    functools.partial(
      _work_off,
      model,
      slots=slots if mesh is None else slots // mesh.size,
      halt_logit=_logit(threshold),
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
  return work(weights.params, weights.initial_latents, batch, vectors, rows)


@flax.struct.dataclass
class _Desk:
  """The slots of a device, and what they have found so far."""

  taken: jax.Array  # [] int32, puzzles of the queue that slots have taken
  held: jax.Array  # [s] int32, the puzzle in each slot; n if it is empty
  steps: jax.Array  # [s] int32
  latents: types.Latents  # [s, S, D]
  found: Any  # of each puzzle when it was done, [n, ...]
  steps_taken: jax.Array  # [n] int32


def _work_off(
  model: model_lib.TinyRecursiveModel,
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
  """Works off the puzzles of one device; see `solve_adaptive`."""
  count = rows.shape[0]
  waiting = jnp.argsort(~rows, stable=True)  # padding comes last
  total = jnp.sum(rows, dtype=jnp.int32)
  fresh = halting.initial_latents(
    constants, slots, model.total_len, model.dtype
  )

  def take(numbers):
    """Returns the puzzles of the queue that have these numbers."""
    there = waiting.at[numbers].get(mode="clip").astype(jnp.int32)
    return jnp.where(numbers < total, there, count)

  def think(held, latents):
    puzzles = jax.tree.map(lambda leaf: leaf.at[held].get(mode="clip"), batch)
    vector = vectors.at[held].get(mode="clip")
    output = model_lib.apply(
      model,
      params,
      puzzles.inputs,
      vector,
      latents,
      differentiated=False,
    )
    return output, observe(output, puzzles)

  def step(desk: _Desk) -> _Desk:
    output, seen = think(desk.held, desk.latents)
    steps = desk.steps + 1
    done = (output.halt_logits > halt_logit) | (steps >= max_supervision_steps)
    done &= desk.held < count
    place = jnp.where(done, desk.held, count)  # outside: dropped
    next_numbers = desk.taken + jnp.cumsum(done, dtype=jnp.int32) - 1

    def renewed(new, old):
      return jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), new, old)

    return _Desk(
      taken=desk.taken + jnp.sum(done, dtype=jnp.int32),
      held=jnp.where(done, take(next_numbers), desk.held),
      steps=jnp.where(done, 0, steps),
      latents=jax.tree.map(renewed, fresh, output.latents),
      found=jax.tree.map(
        lambda all_, new: all_.at[place].set(new, mode="drop"),
        desk.found,
        seen,
      ),
      steps_taken=desk.steps_taken.at[place].set(steps, mode="drop"),
    )

  first = take(jnp.arange(slots, dtype=jnp.int32))
  _, seen = jax.eval_shape(think, first, fresh)
  start = _Desk(
    taken=jnp.asarray(slots, jnp.int32),
    held=first,
    steps=jnp.zeros_like(first),
    latents=fresh,
    found=jax.tree.map(
      lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), seen
    ),
    steps_taken=jnp.zeros((count,), jnp.int32),
  )
  end = jax.lax.while_loop(lambda desk: jnp.any(desk.held < count), step, start)
  return end.found, end.steps_taken


def _logit(probability: float) -> float:
  """Returns log(p / (1 - p)), of 0 and 1 too."""
  if probability in (0.0, 1.0):
    return math.inf if probability else -math.inf
  return math.log(probability / (1.0 - probability))


# A batch of puzzles solved as the settings say, pure.


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
  model: model_lib.TinyRecursiveModel,
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
    seen = solve_fixed(
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
    found = solve_adaptive(
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
  seen = solve_rollouts(
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
  chosen = rollouts_lib.choose(
    solving.choice, seen["answers"], seen["halt_logits"]
  )

  def take(leaf):
    at = chosen.reshape(*chosen.shape, *[1] * (leaf.ndim - 2))
    return jnp.take_along_axis(leaf, at, axis=0)

  return jax.tree.map(take, seen), jnp.full(chosen.shape, supervision_steps)
