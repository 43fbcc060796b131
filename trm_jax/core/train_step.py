"""One supervision step of training, pure (paper, figure 3; official code).

refill -> forward -> loss -> update -> EMA -> halt. One supervision step is
one optimizer step.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from trm_jax.core import (
  halting,
  losses,
  metrics,
  parallel,
  puzzle_embedding,
  train_state,
  types,
)
from trm_jax.core import model as model_lib

NORMS = ("grad_norm", "puzzle_grad_norm", "param_norm")

_EXPLORATION = 0x657870  # names the exploration draws' random stream

TrainStep = Callable[
  [train_state.TrainState, types.Batch],
  tuple[train_state.TrainState, metrics.Sums],
]


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a supervision step needs to know beside its arrays."""

  max_supervision_steps: int
  exploration_prob: float
  halt_rule: str  # 'halt' or 'halt_over_continue'
  answer_loss: str  # 'stablemax' or 'softmax'
  halt_loss_weight: float
  puzzle_learning_rate: optax.Schedule  # of the step, counted from 1
  puzzle_weight_decay: float
  ema_decay: float
  frozen_network: bool  # only the puzzle table is trained
  microbatches: int = 1  # parts of a device's slots, one after another
  label_smoothing: float = 0.0  # of what is minimised


def make_train_step(
  model: model_lib.TinyRecursiveModel,
  optimizer: optax.GradientTransformation,
  settings: Settings,
  *,
  seed: int,
  mesh: Mesh | None = None,
) -> TrainStep:
  """Returns `train_step(state, batch) -> (state, metric sums)`.

  The function is pure; jit it with `donate_argnums=0`. Its random numbers
  are those of (seed, step).

  Args:
    model: the module.
    optimizer: of its parameters.
    settings: of the step.
    seed: of the exploration draws.
    mesh: as for `puzzle_embedding.lookup`.
  """

  def train_step(state, batch):
    # A stream of its own: the initial weights are drawn from the bare seed.
    stream = jax.random.fold_in(jax.random.key(seed), _EXPLORATION)
    key = jax.random.fold_in(stream, state.step)
    draws = halting.draw_exploration(
      key,
      state.carry.steps.shape[0],
      max_supervision_steps=settings.max_supervision_steps,
    )
    return supervision_step(
      state,
      batch,
      draws,
      model=model,
      optimizer=optimizer,
      settings=settings,
      mesh=mesh,
    )

  return train_step


def supervision_step(
  state: train_state.TrainState,
  batch: types.Batch,
  draws: halting.ExplorationDraws,
  *,
  model: model_lib.TinyRecursiveModel,
  optimizer: optax.GradientTransformation,
  settings: Settings,
  mesh: Mesh | None = None,
) -> tuple[train_state.TrainState, metrics.Sums]:
  """Trains on the puzzles in the slots, once, with given draws.

  Args:
    state: before the step; its halted slots are refilled first.
    batch: [B] puzzles, one per slot; rows for running slots are dropped.
    draws: the exploration of this step.
    model: the module.
    optimizer: of its parameters.
    settings: of the step.
    mesh: as for `puzzle_embedding.lookup`.

  Returns:
    The state after the step, and metric sums as in `metrics.row_sums`, plus
    the `NORMS`: of the gradients and of the new parameters.
  """
  step = state.step + 1
  carry = halting.refill(state.carry, batch, state.initial_latents)
  steps = carry.steps + 1
  num_slots = steps.size
  vectors = puzzle_embedding.lookup(
    state.puzzle_table, carry.batch.puzzle_ids, mesh=mesh
  )

  def share_of_loss(params, vectors, carry):
    """What this device's slots add to the mean over all slots."""
    output = model_lib.apply(
      model, params, carry.batch.inputs, vectors, carry.latents
    )
    targets = None
    if settings.halt_rule == "halt_over_continue":
      targets = _continue_targets(
        model, params, vectors, carry, output, settings
      )
    row_losses = losses.supervision_loss(
      output,
      carry.batch.labels,
      answer_loss=settings.answer_loss,
      halt_loss_weight=settings.halt_loss_weight,
      label_smoothing=settings.label_smoothing,
      continue_targets=targets,
    )
    return jnp.sum(row_losses.total) / num_slots, (output, row_losses)

  def differentiate_part(params, part):
    vectors, carry = part
    (_, (output, row_losses)), gradients = jax.value_and_grad(
      share_of_loss,
      argnums=(1,) if settings.frozen_network else (1, 0),
      has_aux=True,
    )(params, vectors, carry)
    vector_gradients, *network_gradients = gradients
    return network_gradients, (vector_gradients, output, row_losses)

  def differentiate(params, vectors, carry):
    network_gradients, of_rows = _in_parts(
      functools.partial(differentiate_part, params),
      (vectors, carry),
      settings.microbatches,
    )
    # Summed here they are float32; the compiler would sum some of them before
    # they are cast, in bfloat16.
    network_gradients = parallel.sum_over_devices(network_gradients, mesh)
    return network_gradients, *of_rows

  rows, copies = parallel.ROWS, parallel.COPIES
  network_gradients, vector_gradients, output, row_losses = (
    parallel.on_each_device(
      differentiate,
      mesh,
      in_specs=(copies, rows, rows),
      out_specs=(copies, rows, rows, rows),
    )(state.params, vectors, carry)
  )

  puzzle_table = puzzle_embedding.sign_update(
    state.puzzle_table,
    carry.batch.puzzle_ids,
    vector_gradients,
    learning_rate=settings.puzzle_learning_rate(step),
    weight_decay=settings.puzzle_weight_decay,
    mesh=mesh,
  )
  params, ema_params, opt_state = (
    state.params,
    state.ema_params,
    state.opt_state,
  )
  if not settings.frozen_network:
    updates, opt_state = optimizer.update(
      network_gradients[0], opt_state, params
    )
    params = optax.apply_updates(params, updates)
    ema_params = optax.incremental_update(
      params, ema_params, 1.0 - settings.ema_decay
    )

  halted = halting.halt(
    steps,
    output,
    halt_rule=settings.halt_rule,
    max_supervision_steps=settings.max_supervision_steps,
    exploration_prob=settings.exploration_prob,
    draws=draws,
  )
  sums = metrics.row_sums(
    output,
    carry.batch.labels,
    row_losses,
    steps=steps,
    counted=halted,
    rows=jnp.ones_like(halted),
  )
  # All that this update could have spoilt; a loss only tells of the one
  # before.
  sums["grad_norm"] = optax.tree.norm(network_gradients)
  sums["puzzle_grad_norm"] = optax.tree.norm(vector_gradients)
  sums["param_norm"] = optax.tree.norm(params)
  return (
    train_state.TrainState(
      step=step,
      params=params,
      ema_params=ema_params,
      opt_state=opt_state,
      puzzle_table=puzzle_table,
      initial_latents=state.initial_latents,
      carry=types.Carry(
        latents=output.latents, batch=carry.batch, steps=steps, halted=halted
      ),
    ),
    sums,
  )


def _in_parts(
  function: Callable[[Any], tuple[Any, Any]], rows: Any, num_parts: int
) -> tuple[Any, Any]:
  """Applies a function to parts of the rows, one after another.

  Args:
    function: maps rows to what adds up over them, and to results of each row.
    rows: arrays [B, ...].
    num_parts: divides B.

  Returns:
    The sum, and the results [B, ...], as of all rows at once.
  """
  if num_parts == 1:
    return function(rows)

  def add(total, part):
    sums, results = function(part)
    return jax.tree.map(jnp.add, total, sums), results

  # Not -1: a puzzle vector may have no numbers.
  parts = jax.tree.map(
    lambda a: a.reshape(num_parts, len(a) // num_parts, *a.shape[1:]), rows
  )
  first = jax.tree.map(lambda a: a[0], parts)
  zeros = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
    jax.eval_shape(function, first)[0],
  )
  total, results = jax.lax.scan(add, zeros, parts)
  return total, jax.tree.map(
    lambda a: a.reshape(num_parts * a.shape[1], *a.shape[2:]), results
  )


def _continue_targets(
  model: model_lib.TinyRecursiveModel,
  params,
  vectors: jax.Array,
  carry: types.Carry,
  output: types.Output,
  settings: Settings,
) -> jax.Array:
  """Looks one supervision step ahead, without gradient; [B] in 0..1."""
  params, vectors = jax.lax.stop_gradient((params, vectors))
  next_output = model_lib.apply(
    model,
    params,
    carry.batch.inputs,
    vectors,
    output.latents,
    differentiated=False,
  )
  return halting.continue_targets(
    carry.steps + 1,
    next_output,
    max_supervision_steps=settings.max_supervision_steps,
  )
