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

from . import (
  curriculum,
  halting,
  losses,
  metrics,
  parallel,
  puzzle_embedding,
  train_state,
  types,
  winner,
)
from . import model as model_lib

NORMS = ("grad_norm", "puzzle_grad_norm", "param_norm")

_EXPLORATION = 0x657870  # random stream of the exploration draws
_STARTS = 1  # random stream, in that of a step, of the draws of starts

TrainStep = Callable[
  [train_state.TrainState, types.Batch],
  tuple[train_state.TrainState, metrics.Sums],
]


@dataclasses.dataclass(frozen=True)
class StepConfig:
  """Hyperparameters of a supervision step.

  Attributes:
    max_supervision_steps: after which a puzzle halts in any case.
    exploration_prob: share of puzzles with a random minimum of steps.
    halt_rule: 'halt' or 'halt_over_continue'.
    answer_loss: name in `losses.ANSWER_LOSSES`.
    halt_loss_weight: weight of the halting losses.
    puzzle_learning_rate: of the step, counted from 1.
    puzzle_weight_decay: decoupled, times the learning rate.
    ema_decay: of the averaged weights.
    freeze_network: trains only the puzzle table.
    gradient_accumulation_steps: parts of a device's slots, processed one after
      another.
    label_smoothing: in the loss that is minimized.
    stagger_slots: spreads the ages of the slots at the first step; see
      `halting.stagger`.
    depth_curriculum: whether early steps are less deep; see `curriculum`.
    step_loss_decay: weight of a puzzle's loss in a supervision step, relative
      to the step before it; see `curriculum.step_weights`.
    num_starts: chains of each puzzle, of which the best one is trained; see
      `winner`.
    num_steps: of the whole training, for the curriculum.
  """

  max_supervision_steps: int
  exploration_prob: float
  halt_rule: str
  answer_loss: str
  halt_loss_weight: float
  puzzle_learning_rate: optax.Schedule
  puzzle_weight_decay: float
  ema_decay: float
  freeze_network: bool
  gradient_accumulation_steps: int = 1
  label_smoothing: float = 0.0
  stagger_slots: bool = False
  depth_curriculum: bool = False
  step_loss_decay: float = 1.0
  num_starts: int = 1
  num_steps: int = 0


def make_train_step(
  model: model_lib.Model,
  optimizer: optax.GradientTransformation,
  config: StepConfig,
  *,
  seed: int,
  mesh: Mesh | None = None,
) -> TrainStep:
  """Returns `train_step(state, batch) -> (state, metric sums)`.

  The function is pure; jit it with `donate_argnums=0`. Its random numbers
  depend on (seed, step) only.

  Args:
    model: the module.
    optimizer: of its parameters.
    config: of the step.
    seed: of the exploration draws.
    mesh: as for `puzzle_embedding.lookup`.
  """

  def train_step(state, batch):
    # A separate stream: the initial weights are drawn from the bare seed.
    stream = jax.random.fold_in(jax.random.key(seed), _EXPLORATION)
    key = jax.random.fold_in(stream, state.step)
    draws = halting.draw_exploration(
      key,
      state.carry.steps.shape[0],
      max_supervision_steps=config.max_supervision_steps,
    )
    if config.num_starts > 1:
      draws = dataclasses.replace(
        draws,
        starts=winner.draw_starts(
          jax.random.fold_in(key, _STARTS),
          state.initial_latents,
          state.carry.latents.z.shape,
        ),
      )
    return supervision_step(
      state,
      batch,
      draws,
      model=model,
      optimizer=optimizer,
      config=config,
      mesh=mesh,
    )

  return train_step


def supervision_step(
  state: train_state.TrainState,
  batch: types.Batch,
  draws: halting.ExplorationDraws,
  *,
  model: model_lib.Model,
  optimizer: optax.GradientTransformation,
  config: StepConfig,
  mesh: Mesh | None = None,
) -> tuple[train_state.TrainState, metrics.Sums]:
  """Trains on the puzzles in the slots, once, with given draws.

  Args:
    state: before the step; its halted slots are refilled first.
    batch: [B] puzzles, one per slot; rows for running slots are dropped.
    draws: the exploration of this step.
    model: the module.
    optimizer: of its parameters.
    config: of the step.
    mesh: as for `puzzle_embedding.lookup`.

  Returns:
    The state after the step, and metric sums as in `metrics.row_sums`, plus
    the `NORMS`: of the gradients and of the new parameters.
  """
  step = state.step + 1
  carry = halting.refill(
    state.carry, batch, state.initial_latents, draws.starts
  )
  if config.stagger_slots:
    carry = halting.stagger(
      carry, state.step, max_supervision_steps=config.max_supervision_steps
    )
  steps = carry.steps + 1
  num_slots = steps.size
  vectors = puzzle_embedding.lookup(
    state.puzzle_table, carry.batch.puzzle_ids, mesh=mesh
  )

  def share_of_loss(model, params, vectors, carry):
    """Computes this device's contribution to the mean over all slots."""
    latents, chains = carry.latents, None
    if config.num_starts > 1:
      answer_costs = functools.partial(
        losses.answer_losses,
        answer_loss=config.answer_loss,
        label_smoothing=config.label_smoothing,
      )
      chains = winner.race(model, params, vectors, carry, answer_costs)
      latents = chains.start
    output = model_lib.apply(
      model, params, carry.batch.inputs, vectors, latents
    )
    targets = None
    if config.halt_rule == "halt_over_continue":
      targets = _continue_targets(model, params, vectors, carry, output, config)
    row_losses = losses.supervision_loss(
      output,
      carry.batch.labels,
      answer_loss=config.answer_loss,
      halt_loss_weight=config.halt_loss_weight,
      label_smoothing=config.label_smoothing,
      continue_targets=targets,
    )
    minimized = row_losses.total
    if config.step_loss_decay != 1.0:
      minimized *= curriculum.step_weights(
        carry.steps + 1,
        decay=config.step_loss_decay,
        max_supervision_steps=config.max_supervision_steps,
      )
    alive = None
    if chains is not None:
      latents = types.Latents(y=output.latents.y, z=chains.z)
      output = dataclasses.replace(output, latents=latents)
      alive = chains.alive
    return jnp.sum(minimized) / num_slots, (output, row_losses, alive)

  def differentiate_part(model, params, part):
    vectors, carry = part
    (_, results), gradients = jax.value_and_grad(
      functools.partial(share_of_loss, model),
      argnums=(1,) if config.freeze_network else (1, 0),
      has_aux=True,
    )(params, vectors, carry)
    vector_gradients, *network_gradients = gradients
    return network_gradients, (vector_gradients, *results)

  def differentiate(model, params, vectors, carry):
    network_gradients, of_rows = _in_parts(
      functools.partial(differentiate_part, model, params),
      (vectors, carry),
      config.gradient_accumulation_steps,
    )
    # Summed explicitly in float32; the compiler would sum some of them in
    # bfloat16, before they are cast.
    network_gradients = parallel.sum_over_devices(network_gradients, mesh)
    return network_gradients, *of_rows

  rows, copies = parallel.ROWS, parallel.COPIES
  # With a curriculum, the stages are branches of one program.
  models, stage = [model], None
  if config.depth_curriculum:
    models = curriculum.models(model)
    stage = curriculum.stage(state.step, config.num_steps)
  stages = [functools.partial(differentiate, each) for each in models]

  def run(stage, *operands):
    if stage is None:
      return stages[0](*operands)
    return jax.lax.switch(stage, stages, *operands)

  network_gradients, vector_gradients, output, row_losses, alive = (
    parallel.on_each_device(
      run,
      mesh,
      in_specs=(copies, copies, rows, rows),
      out_specs=(copies, rows, rows, rows, rows),
    )(stage, state.params, vectors, carry)
  )

  puzzle_table = puzzle_embedding.sign_sgd(
    state.puzzle_table,
    carry.batch.puzzle_ids,
    vector_gradients,
    learning_rate=config.puzzle_learning_rate(step),
    weight_decay=config.puzzle_weight_decay,
    mesh=mesh,
  )
  params, ema_params, opt_state = (
    state.params,
    state.ema_params,
    state.opt_state,
  )
  if not config.freeze_network:
    updates, opt_state = optimizer.update(
      network_gradients[0], opt_state, params
    )
    params = optax.apply_updates(params, updates)
    ema_params = optax.incremental_update(
      params, ema_params, 1.0 - config.ema_decay
    )

  halted = halting.halt(
    steps,
    output,
    halt_rule=config.halt_rule,
    max_supervision_steps=config.max_supervision_steps,
    exploration_prob=config.exploration_prob,
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
  # Non-finite values caused by this update; the loss shows only those caused by
  # earlier ones.
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
        latents=output.latents,
        batch=carry.batch,
        steps=steps,
        halted=halted,
        alive=alive,
      ),
    ),
    sums,
  )


def _in_parts(
  function: Callable[[Any], tuple[Any, Any]], rows: Any, num_parts: int
) -> tuple[Any, Any]:
  """Applies a function to parts of the rows, one after another.

  Args:
    function: maps rows to (a sum over them, results of each row).
    rows: arrays [B, ...].
    num_parts: divides B.

  Returns:
    The sum and the results [B, ...], as for all rows at once.
  """
  if num_parts == 1:
    return function(rows)

  def add(total, part):
    sums, results = function(part)
    return jax.tree.map(jnp.add, total, sums), results

  # Not -1: puzzle vectors may have size 0.
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
  model: model_lib.Model,
  params,
  vectors: jax.Array,
  carry: types.Carry,
  output: types.Output,
  config: StepConfig,
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
    max_supervision_steps=config.max_supervision_steps,
  )
