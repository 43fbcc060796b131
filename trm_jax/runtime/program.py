"""The model, its state and its compiled steps on a mesh of devices.

A `Program` follows from the settings, three sizes of the data and the devices,
which may be those of another machine (launch/aot.py). `load` reads the data,
too; training and evaluation hold the program and the task side by side.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import (
  eval_step,
  optim,
  solve_batch,
  train_state,
  types,
  variations,
)
from trm_jax.core import model as model_lib
from trm_jax.core import train_step as train_step_lib
from trm_jax.data import loader, puzzle_set, tasks
from trm_jax.data import task as task_lib
from trm_jax.runtime import (
  devices,
  flops,
  model_factory,
  processes,
  setting_checks,
)
from trm_jax.runtime import mesh as mesh_lib

# With adaptive halting, puzzles given to the devices at a time, per slot: few
# slots then wait for the last puzzles.
PUZZLES_PER_SLOT = 16


@dataclasses.dataclass(frozen=True)
class DataSpec:
  """Sizes of the data that shape the network and the puzzle table.

  Attributes:
    vocab_size: V.
    seq_len: L, grid tokens.
    num_puzzle_ids: N, rows of the puzzle table.
    grid: rows and columns, if known.
    symbols: interchangeable tokens, of which all answers consist.
  """

  vocab_size: int
  seq_len: int
  num_puzzle_ids: int
  grid: tuple[int, int] | None = None
  symbols: tuple[int, ...] = ()

  @classmethod
  def of_look(cls, look: task_lib.Look, num_puzzle_ids: int) -> "DataSpec":
    """Returns the sizes of puzzles that look like this."""
    return cls(
      vocab_size=len(look.symbols),
      seq_len=look.rows * look.cols,
      num_puzzle_ids=num_puzzle_ids,
      grid=(look.rows, look.cols),
      symbols=look.interchangeable,
    )


@dataclasses.dataclass(frozen=True)
class Program:
  """The model, its state and its steps on a mesh of devices.

  Attributes:
    config: the settings.
    sizes: of the data.
    mesh: of the devices.
    model: the module.
    optimizer: of its parameters.
  """

  config: config_lib.Config
  sizes: DataSpec
  mesh: Mesh
  model: model_lib.TinyRecursiveModel
  optimizer: optax.GradientTransformation

  def init(self) -> train_state.TrainState:
    """Draws the initial state; call this under jit."""
    return train_state.init_state(
      self.model,
      self.optimizer,
      seed=self.config.seed,
      batch_size=self.config.train.batch_size,
      num_puzzle_rows=mesh_lib.num_rows(self.sizes.num_puzzle_ids, self.mesh),
      puzzle_embed_dim=self.config.model.puzzle_embed_dim,
      num_starts=self.config.train.num_starts,
    )

  def abstract_state(self) -> train_state.TrainState:
    """Returns shapes, dtypes and shardings of the state."""
    return self._abstract_state

  @functools.cached_property
  def _abstract_state(self) -> train_state.TrainState:
    return mesh_lib.abstract_state(self.init, self.mesh)

  def abstract_batch(self, batch_size: int) -> types.Batch:
    """Returns shapes, dtypes and shardings of a global batch."""
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
    """Returns the jitted supervision step, which donates the state."""
    train, optimizer = self.config.train, self.config.optimizer
    schedule = optim.make_schedule(
      optimizer.puzzle_learning_rate,
      config_lib.fill(optim.Hyperparameters, optimizer),
      train.num_steps,
    )
    step = train_step_lib.make_train_step(
      self.model,
      self.optimizer,
      config_lib.fill(
        train_step_lib.StepConfig,
        train,
        optimizer,
        puzzle_learning_rate=schedule,
      ),
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

  def evaluate_batch(
    self, look: task_lib.Look | None = None
  ) -> eval_step.EvaluateBatch:
    """Returns the jitted function that solves and scores a batch.

    Args:
      look: of the puzzles; needed only to attempt them under symmetries.
    """
    return self._solve_batch(self.config.train.answer_loss, look)

  def predict_batch(
    self, look: task_lib.Look | None = None
  ) -> eval_step.EvaluateBatch:
    """Returns the jitted function that solves a batch without labels."""
    return self._solve_batch(None, look)

  def _solve_batch(
    self, answer_loss: str | None, look: task_lib.Look | None
  ) -> eval_step.EvaluateBatch:
    function = eval_step.make_evaluate_batch(
      self.model,
      supervision_steps=self.config.eval.supervision_steps,
      answer_loss=answer_loss,
      halt_loss_weight=self.config.train.halt_loss_weight,
      solver=self.solver_config(),
      symmetries=symmetries(self.config, look),
      report_steps=self.config.eval.report_steps if answer_loss else (),
      mesh=self.mesh,
    )
    return jax.jit(
      function,
      out_shardings=eval_step.result_shardings(self.mesh),
      compiler_options=self._compiler_options(),
    )

  def solver_config(self) -> solve_batch.SolverConfig:
    """Returns how puzzles are solved."""
    return solver_config(self.config, slots=self.config.eval.batch_size)

  def _compiler_options(self) -> dict[str, str]:
    return devices.compiler_options(
      devices.detect_chip(self.mesh.devices.flat[0]),
      self.config.model.compute_dtype,
    )

  # With the data of a task.

  def train_batches(
    self, task: task_lib.Task, first_batch: int
  ) -> Iterator[dict[str, np.ndarray]]:
    """Returns this host's part of all batches from `first_batch` on."""
    return loader.train_batches(
      task.train,
      batch_size=self.config.train.batch_size,
      seed=self.config.seed,
      augmentation=task.augmentation,
      shard=(jax.process_index(), jax.process_count()),
      first_batch=first_batch,
    )

  def test_puzzles(self, task: task_lib.Task) -> puzzle_set.Subset:
    """Returns the puzzles to evaluate on."""
    return puzzle_set.select(
      task.test,
      num_groups=self.config.eval.max_tasks,
      num_augmentations=self.config.eval.max_augmentations,
    )

  def eval_batch_size(self, task: task_lib.Task) -> int:
    """Returns how many test puzzles the devices get at a time.

    With adaptive halting several per slot, but no more than there are.
    """
    settings = self.config.eval
    if settings.solver != "adaptive":
      return settings.batch_size
    count = self.test_puzzles(task).num_examples
    rounded_up = -(-count // settings.batch_size) * settings.batch_size
    return min(puzzles_at_a_time(settings), rounded_up)


def solver_config(
  config: config_lib.Config, *, slots: int
) -> solve_batch.SolverConfig:
  """Returns how puzzles are solved.

  Args:
    config: the settings.
    slots: puzzles in progress at a time.
  """
  return config_lib.fill(
    solve_batch.SolverConfig, config.eval, seed=config.seed, slots=slots
  )


def symmetries(
  config: config_lib.Config, look: task_lib.Look | None
) -> variations.Symmetries | None:
  """Returns the symmetries under which puzzles are attempted, if they are.

  Raises:
    UserError: the puzzles have none.
  """
  settings = config.eval
  if (settings.solver, settings.rollout_variation) != (
    "rollouts",
    "symmetries",
  ):
    return None
  if look is None:
    raise ValueError("attempts under symmetries need the look of the puzzles")
  cells, tokens = tasks.attempt_tables(config.data, look, settings.rollouts)
  return variations.Symmetries(
    cells=cells.astype(np.int32),  # type: ignore[arg-type]
    tokens=tokens.astype(np.int32),  # type: ignore[arg-type]
  )


def puzzles_at_a_time(settings: config_lib.EvalConfig) -> int:
  """Returns how many puzzles to solve the devices get at most at a time."""
  per_slot = PUZZLES_PER_SLOT if settings.solver == "adaptive" else 1
  return settings.batch_size * per_slot


def _check_batch_sizes(config: config_lib.Config, mesh: Mesh) -> None:
  """Raises UserError unless batches divide over devices and accumulation."""
  train, evaluate = config.train, config.eval
  mesh_lib.check_batch_size("train.batch_size", train.batch_size, mesh)
  mesh_lib.check_batch_size("eval.batch_size", evaluate.batch_size, mesh)
  per_device = train.batch_size // mesh.size
  if per_device % train.gradient_accumulation_steps:
    choices = [n for n in range(1, per_device + 1) if per_device % n == 0]
    lower = [n for n in choices if n < train.gradient_accumulation_steps][-1:]
    higher = [n for n in choices if n > train.gradient_accumulation_steps][:1]
    raise errors.UserError(
      "config.train.gradient_accumulation_steps"
      f" {train.gradient_accumulation_steps} does not divide the"
      f" {per_device} slots of a device; choose"
      f" {' or '.join(map(str, lower + higher))}"
    )


class Loaded(NamedTuple):
  """A program and the task whose data it runs on."""

  program: Program
  task: task_lib.Task


def load(config: config_lib.Config) -> Loaded:
  """Loads the task and builds its program on all devices.

  Raises:
    UserError: as for `build`, before the data are read; or the data are missing
      or malformed.
  """
  mesh = mesh_lib.make_mesh()
  setting_checks.check_names(config)
  _check_batch_sizes(config, mesh)
  task = _load_task(config.data)
  sizes = DataSpec.of_look(task.look, task.num_puzzle_ids)
  program = _build(config, sizes, mesh)
  _check_slots_fit(program)
  return Loaded(program, task)


def _load_task(data: config_lib.DataConfig) -> task_lib.Task:
  """Loads the task, on the first host before the others.

  On a shared disk, the first host prepares what the others then find.
  """
  loaded: list[task_lib.Task] = []
  processes.from_first(lambda: loaded.append(tasks.load(data)))
  return loaded[0] if loaded else tasks.load(data)


def announce_task(task: task_lib.Task) -> None:
  """Prints the task's notes and warnings, on the first host."""
  warnings = [f"WARNING: {warning}" for warning in task.warnings]
  for line in (*task.notes, *warnings):
    processes.log_once(line)


def build(
  config: config_lib.Config,
  sizes: DataSpec,
  mesh: Mesh,
  *,
  memory_bytes: int | None = None,
) -> Program:
  """Builds the program of the settings, without data.

  Args:
    config: the settings.
    sizes: of the data.
    mesh: of `mesh.make_mesh`, or of devices that are unavailable here.
    memory_bytes: memory of each device; by default it is queried.

  Raises:
    UserError: a batch size does not divide over devices and accumulation steps,
      or a setting names a variant that does not exist or that the devices
      cannot run.
  """
  setting_checks.check_names(config)
  _check_batch_sizes(config, mesh)
  return _build(config, sizes, mesh, memory_bytes=memory_bytes)


def _build(
  config: config_lib.Config,
  sizes: DataSpec,
  mesh: Mesh,
  *,
  memory_bytes: int | None = None,
) -> Program:
  chip = devices.detect_chip(mesh.devices.flat[0])
  program = Program(
    config=config,
    sizes=sizes,
    mesh=mesh,
    model=model_factory.build_model(
      config.model,
      vocab_size=sizes.vocab_size,
      seq_len=sizes.seq_len,
      grid=sizes.grid,
      symbols=sizes.symbols,
      chip=chip,
    ),
    optimizer=optim.make_optimizer(
      config_lib.fill(optim.Hyperparameters, config.optimizer),
      config.train.num_steps,
    ),
  )
  if config.model.remat != "auto":
    return program
  if memory_bytes is None:
    memory_bytes = _least_memory(mesh)
  remat, unroll = model_factory.choose_remat(
    program.model,
    calls=flops.network_calls(config.model)[1],
    slots=config.train.batch_size
    // mesh.size
    // config.train.gradient_accumulation_steps,
    # Apart from the table, the state is small.
    room=memory_bytes - _table_bytes(program),
    chip=chip,
  )
  return dataclasses.replace(
    program, model=program.model.clone(remat=remat, unroll=unroll)
  )


def _table_bytes(program: Program) -> int:
  """Counts the bytes of a device's share of the puzzle table."""
  rows = mesh_lib.num_rows(program.sizes.num_puzzle_ids, program.mesh)
  row = 4 * program.config.model.puzzle_embed_dim
  return rows // program.mesh.size * row


def check_state_fits(program: Program) -> None:
  """Raises UserError if the training state alone exceeds the memory.

  Before anything is made: a system out of memory may end the process without a
  word.
  """
  state, mesh = program.abstract_state(), program.mesh
  network = (state.params, state.ema_params, state.opt_state)
  _check_memory(
    {
      "config.train.batch_size": _num_bytes(state.carry) // mesh.size,
      "config.model.hidden_size or num_layers": _num_bytes(network),
      "config.model.puzzle_embed_dim or the number of puzzles": (
        _table_bytes(program)
      ),
    },
    mesh,
  )


def _check_slots_fit(program: Program) -> None:
  """Raises UserError if the slots of an evaluation alone exceed the memory."""
  config = program.config
  tokens = program.sizes.seq_len + config.model.num_prefix_tokens
  width = jnp.dtype(config.model.compute_dtype).itemsize
  latents = 2 * config.eval.batch_size * tokens * config.model.hidden_size
  _check_memory(
    {"config.eval.batch_size": latents * width // program.mesh.size},
    program.mesh,
  )


def _num_bytes(tree: Any) -> int:
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _check_memory(needed: Mapping[str, int], mesh: Mesh) -> None:
  """Raises UserError that names the setting which needs most.

  Args:
    needed: bytes on each device, by what to lower.
    mesh: of the devices.
  """
  memory = _least_memory(mesh)
  if mesh.devices.flat[0].platform == "cpu":
    memory *= 2  # all that the process may use
  total = sum(needed.values())
  if memory and total > memory:
    most = max(needed, key=lambda name: needed[name])
    raise errors.UserError(
      f"out of memory: each device needs {total / 2**30:,.1f} GiB and has"
      f" {memory / 2**30:,.1f} GiB; lower {most}, which takes"
      f" {needed[most] / 2**30:,.1f} GiB"
    )


def _least_memory(mesh: Mesh) -> int:
  """Returns the bytes of the smallest device, the same on every host."""
  mine = min(map(devices.device_memory, mesh.local_devices))
  return processes.least_of(mine // 2**20) * 2**20
