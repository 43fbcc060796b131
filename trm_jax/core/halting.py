"""Halting and refilling of slots (paper, sections 2.5, 4.6)."""

import math

import flax.struct
import jax
import jax.numpy as jnp

from . import types

# A normal law cut at two deviations: the largest uniform draw, the deviation.
_LARGEST_UNIFORM = math.erf(2.0**0.5)
_CUT_DEVIATION = 0.87962566103423978


@flax.struct.dataclass
class ExplorationDraws:
  """Random numbers that keep some puzzles in their slots longer.

  Attributes:
    uniform: [B] float32 in [0, 1); a slot explores below exploration_prob.
    min_steps: [B] int32 in 2..max_supervision_steps.
    starts: [B, K, S, D] float32, z that new puzzles start with, with several
      starts; else None.
  """

  uniform: jax.Array
  min_steps: jax.Array
  starts: jax.Array | None = None


def draw_exploration(
  key: jax.Array, batch_size: int, *, max_supervision_steps: int
) -> ExplorationDraws:
  """Draws each slot's exploration for one supervision step.

  Args:
    key: typed PRNG key of this supervision step.
    batch_size: B.
    max_supervision_steps: limit for each puzzle; with 1 the draws have no
      effect.

  Returns:
    One draw per slot.
  """
  uniform_key, steps_key = jax.random.split(key)
  return ExplorationDraws(
    uniform=jax.random.uniform(uniform_key, (batch_size,)),
    min_steps=jax.random.randint(
      steps_key, (batch_size,), 2, max(max_supervision_steps, 2) + 1, jnp.int32
    ),
  )


def initial_latents(
  constants: types.Latents, batch_size: int, total_len: int, dtype: jnp.dtype
) -> types.Latents:
  """Broadcasts the initial y and z, [D] each, to [B, S, D]."""

  def spread(constant):
    shape = (batch_size, total_len, *constant.shape)
    return jnp.broadcast_to(constant.astype(dtype)[None, None], shape)

  return jax.tree.map(spread, constants)


def start_of_uniform(uniform: jax.Array) -> jax.Array:
  """Maps uniform draws to the law of the initial latents.

  Args:
    uniform: float32 in (-erf(sqrt 2), erf(sqrt 2)).

  Returns:
    Draws of a truncated normal law of standard deviation 1, cut at 2.27.
  """
  return 2.0**0.5 * jax.scipy.special.erfinv(uniform) / _CUT_DEVIATION


def draw_start(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws random latents, float32, each feature independently."""
  edge = _LARGEST_UNIFORM
  return start_of_uniform(
    jax.random.uniform(key, shape, minval=-edge, maxval=edge)
  )


def refill(
  carry: types.Carry,
  batch: types.Batch,
  constants: types.Latents,
  starts: jax.Array | None = None,
) -> types.Carry:
  """Gives each halted slot the new batch's row and the initial latents.

  A running slot keeps its puzzle; the new batch's row for it is dropped.

  Args:
    carry: of the previous supervision step.
    batch: one new puzzle per slot.
    constants: initial y and z, [D] each (z as the recurrence has it).
    starts: as of `ExplorationDraws`.

  Returns:
    The carry with no slot halted.
  """
  free = carry.halted

  def choose(new, old):
    return jnp.where(free.reshape((-1,) + (1,) * (old.ndim - 1)), new, old)

  batch_size, total_len, _ = carry.latents.y.shape
  fresh = initial_latents(
    constants, batch_size, total_len, carry.latents.y.dtype
  )
  alive = carry.alive
  if alive is not None and starts is not None:
    fresh = types.Latents(y=fresh.y, z=starts.astype(fresh.y.dtype))
    alive |= free[:, None]
  return types.Carry(
    latents=jax.tree.map(choose, fresh, carry.latents),
    batch=jax.tree.map(choose, batch, carry.batch),
    steps=jnp.where(free, 0, carry.steps),
    halted=jnp.zeros_like(free),
    alive=alive,
  )


def stagger(
  carry: types.Carry, step: jax.Array, *, max_supervision_steps: int
) -> types.Carry:
  """Spreads the ages of the slots before the first step of a training.

  Slot i starts as if it had i mod `max_supervision_steps` steps behind it.
  Otherwise all slots begin together and, while no puzzle halts early, see new
  puzzles only every `max_supervision_steps` steps, all at the same time.

  Args:
    carry: after `refill`.
    step: int32 scalar, optimizer steps so far; nothing changes unless it is 0.
    max_supervision_steps: the most steps per puzzle.

  Returns:
    The carry with other `steps`.
  """
  ages = jnp.arange(carry.steps.size, dtype=carry.steps.dtype)
  ages = jnp.where(step == 0, ages % max_supervision_steps, 0)
  return types.Carry(
    latents=carry.latents,
    batch=carry.batch,
    steps=carry.steps + ages,
    halted=carry.halted,
    alive=carry.alive,
  )


def halt(
  steps: jax.Array,
  output: types.Output,
  *,
  halt_rule: str,
  max_supervision_steps: int,
  exploration_prob: float,
  draws: ExplorationDraws,
) -> jax.Array:
  """Decides which slots halt after this supervision step of training.

  Args:
    steps: [B] int32, supervision steps including this one.
    output: of this step.
    halt_rule: 'halt' (halt logit > 0) or 'halt_over_continue' (halt logit >
      continue logit).
    max_supervision_steps: after which a slot halts in any case.
    exploration_prob: share of slots that run at least `draws.min_steps`.
    draws: of this step.

  Returns:
    [B] bool.
  """
  last = steps >= max_supervision_steps
  if max_supervision_steps == 1:
    return last
  if halt_rule == "halt":
    confident = output.halt_logits > 0
  elif halt_rule == "halt_over_continue":
    confident = output.halt_logits > output.continue_logits
  else:
    raise ValueError(
      f"unknown halt_rule {halt_rule!r}; choose halt or halt_over_continue"
    )
  explores = draws.uniform < exploration_prob
  min_steps = jnp.where(explores, draws.min_steps, 0)
  return (last | confident) & (steps >= min_steps)


def continue_targets(
  steps: jax.Array, next_output: types.Output, *, max_supervision_steps: int
) -> jax.Array:
  """Computes the continue head's targets, a Q-learning backup.

  Source: HRM (arXiv 2506.21734), adaptive computation time; TRM drops it.

  Args:
    steps: [B] int32, supervision steps including this one.
    next_output: of one more supervision step on the same puzzles.
    max_supervision_steps: at which the only continuation is to halt.

  Returns:
    [B] float32 probabilities, without gradient.
  """
  best = jnp.maximum(next_output.halt_logits, next_output.continue_logits)
  last = steps >= max_supervision_steps
  backup = jnp.where(last, next_output.halt_logits, best)
  return jax.lax.stop_gradient(jax.nn.sigmoid(backup))
