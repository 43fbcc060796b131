"""What runs on the devices: states and compiled steps, without any data.

All of it follows from the settings, three sizes of the data, and the devices:
also from those of a machine that is not there (launch/aot.py).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import (
  eval_step,
  optim,
  recomputation,
  recursion,
  solve,
  train_state,
  types,
)
from trm_jax.core import model as model_lib
from trm_jax.core import train_step as train_step_lib
from trm_jax.runtime import devices, flops, processes
from trm_jax.runtime import mesh as mesh_lib


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What the network and the puzzle table have to fit."""

  vocab_size: int  # V
  seq_len: int  # L, grid tokens
  num_puzzle_ids: int  # N, rows of the puzzle table


@dataclasses.dataclass(frozen=True)
class Program:
  """The network, its states and its steps on a mesh of devices."""

  config: config_lib.Config
  sizes: Sizes
  mesh: Mesh
  model: model_lib.TinyRecursiveModel
  optimizer: optax.GradientTransformation

  def init(self) -> train_state.TrainState:
    """Draws the first state; call it under jit."""
    return train_state.init_state(
      self.model,
      self.optimizer,
      seed=self.config.seed,
      batch_size=self.config.train.batch_size,
      num_puzzle_rows=mesh_lib.num_rows(self.sizes.num_puzzle_ids, self.mesh),
      puzzle_vector_size=self.config.model.puzzle_vector_size,
    )

  def abstract_state(self) -> train_state.TrainState:
    """Shapes, dtypes and shardings of the state."""
    return self._abstract_state

  @functools.cached_property
  def _abstract_state(self) -> train_state.TrainState:
    return mesh_lib.abstract_state(self.init, self.mesh)

  def abstract_batch(self, batch_size: int) -> types.Batch:
    """Shapes, dtypes and shardings of a batch over all hosts."""
    by_row = mesh_lib.split(self.mesh)

    def rows(*shape):
      return jax.ShapeDtypeStruct(
        (batch_size, *shape), jnp.int32, sharding=by_row
      )

    return types.Batch(
      inputs=rows(self.sizes.seq_len),
      labels=rows(self.sizes.seq_len),
      puzzle_ids=rows(),
    )

  def train_step(self) -> train_step_lib.TrainStep:
    """The supervision step, jitted; it takes the state's buffers over."""
    train, optimizer = self.config.train, self.config.optimizer
    settings = train_step_lib.Settings(
      max_supervision_steps=train.max_supervision_steps,
      exploration_prob=train.exploration_prob,
      halt_rule=train.halt_rule,
      answer_loss=train.answer_loss,
      halt_loss_weight=train.halt_loss_weight,
      puzzle_learning_rate=optim.make_schedule(
        optimizer.puzzle_learning_rate, optimizer, train.num_steps
      ),
      puzzle_weight_decay=optimizer.puzzle_weight_decay,
      ema_decay=optimizer.ema_decay,
      frozen_network=train.frozen_network,
      microbatches=train.microbatches,
      label_smoothing=train.label_smoothing,
    )
    step = train_step_lib.make_train_step(
      self.model,
      self.optimizer,
      settings,
      seed=self.config.seed,
      mesh=self.mesh,
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state())
    return jax.jit(
      step,
      donate_argnums=0,
      out_shardings=(shardings, mesh_lib.replicated(self.mesh)),
      compiler_options=self._compiler_options(),
    )

  def evaluate_batch(self) -> eval_step.EvaluateBatch:
    """The solution of a batch of test puzzles, jitted."""
    evaluate_batch = eval_step.make_evaluate_batch(
      self.model,
      supervision_steps=self.config.eval.supervision_steps,
      answer_loss=self.config.train.answer_loss,
      halt_loss_weight=self.config.train.halt_loss_weight,
      solving=self.solving(),
      mesh=self.mesh,
    )
    return jax.jit(
      evaluate_batch,
      out_shardings=eval_step.result_shardings(self.mesh),
      compiler_options=self._compiler_options(),
    )

  def solving(self) -> solve.Solving:
    """How puzzles are solved, as the settings say."""
    settings = self.config.eval
    return solve.of(settings, seed=self.config.seed, slots=settings.batch_size)

  def _compiler_options(self) -> dict[str, str]:
    return devices.compiler_options(
      devices.detect_chip(self.mesh.devices.flat[0]),
      self.config.model.compute_dtype,
    )


def puzzles_at_a_time(settings: config_lib.EvalConfig) -> int:
  """Returns how many puzzles to solve the devices are handed at most.

  With adaptive halting several for each slot, so that slots seldom wait for
  the last puzzles.
  """
  per_slot = settings.puzzles_per_slot if settings.solver == "adaptive" else 1
  return settings.batch_size * per_slot


def check_recurrence(model: config_lib.ModelConfig) -> None:
  """Raises UserError unless there is such a recurrence with such networks."""
  names = tuple(recursion.RECURRENCES)
  config_lib.one_of("model.recurrence", model.recurrence, names)
  recurrence = recursion.RECURRENCES[model.recurrence]
  if model.separate_networks and not recurrence.answer_calls:
    raise errors.UserError(
      f"config.model.recurrence {model.recurrence!r} has no use for a second"
      " network; set config.model.separate_networks to False"
    )


def check_batch_sizes(config: config_lib.Config, mesh: Mesh) -> None:
  """Raises UserError unless batches divide over devices and microbatches."""
  train, evaluate = config.train, config.eval
  mesh_lib.check_batch_size("train.batch_size", train.batch_size, mesh)
  mesh_lib.check_batch_size("eval.batch_size", evaluate.batch_size, mesh)
  per_device = train.batch_size // mesh.size
  if per_device % train.microbatches:
    choices = [n for n in range(1, per_device + 1) if per_device % n == 0]
    lower = [n for n in choices if n < train.microbatches][-1:]
    higher = [n for n in choices if n > train.microbatches][:1]
    raise errors.UserError(
      f"config.train.microbatches {train.microbatches} does not divide the"
      f" {per_device} slots of a device; choose"
      f" {' or '.join(map(str, lower + higher))}"
    )


def build(
  config: config_lib.Config,
  sizes: Sizes,
  mesh: Mesh,
  *,
  memory_bytes: int | None = None,
) -> Program:
  """Builds the program of the settings.

  Args:
    config: the settings.
    sizes: of the data.
    mesh: of `sharding.make_mesh`, or one of devices that are not there.
    memory_bytes: that may be used of each device; if None, it is asked.

  Raises:
    UserError: a batch size does not divide over devices and microbatches, or
      there is no such recurrence.
  """
  check_recurrence(config.model)
  check_batch_sizes(config, mesh)
  chip = devices.detect_chip(mesh.devices.flat[0])
  program = Program(
    config=config,
    sizes=sizes,
    mesh=mesh,
    model=train_state.build_model(
      config.model,
      vocab_size=sizes.vocab_size,
      seq_len=sizes.seq_len,
      chip=chip,
    ),
    optimizer=optim.make_optimizer(config.optimizer, config.train.num_steps),
  )
  if config.model.remat != "auto":
    return program
  if memory_bytes is None:
    memory_bytes = _least_memory(mesh)
  remat, unroll = recomputation.choose(
    program.model,
    calls=flops.network_calls(config.model)[1],
    slots=config.train.batch_size // mesh.size // config.train.microbatches,
    # Beside the table the state is small.
    room=memory_bytes - _table_bytes(program),
    chip=chip,
  )
  return dataclasses.replace(
    program, model=program.model.clone(remat=remat, unroll=unroll)
  )


def _table_bytes(program: Program) -> int:
  """Counts the bytes of a device's share of the puzzle table."""
  rows = mesh_lib.num_rows(program.sizes.num_puzzle_ids, program.mesh)
  row = 4 * program.config.model.puzzle_vector_size
  return rows // program.mesh.size * row


def _least_memory(mesh: Mesh) -> int:
  """Returns the bytes of the smallest device, the same on every host."""
  mine = min(map(devices.device_memory, mesh.local_devices))
  return processes.least_of(mine // 2**20) * 2**20
