"""An experiment: what is built from the settings, before any array exists."""

import dataclasses
import sys
from collections.abc import Iterator

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from trm_jax import config as config_lib
from trm_jax import sharding, train_state, train_step
from trm_jax.data import loader, selection, tasks
from trm_jax.data import task as task_lib
from trm_jax.models import trm
from trm_jax.optim import factory


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What is built from the settings, before any array exists."""

  config: config_lib.Config
  task: task_lib.Task
  mesh: Mesh
  model: trm.TinyRecursiveModel
  optimizer: optax.GradientTransformation

  def init(self) -> train_state.TrainState:
    """Draws the first state; call it under jit."""
    return train_state.init_state(
      self.model,
      self.optimizer,
      seed=self.config.seed,
      batch_size=self.config.train.batch_size,
      num_puzzle_ids=self.task.num_puzzle_ids,
      puzzle_vector_size=self.config.model.puzzle_vector_size,
    )

  def abstract_state(self) -> train_state.TrainState:
    """Shapes, dtypes and shardings of the state."""
    return sharding.abstract_state(self.init, self.mesh)

  def test_puzzles(self) -> selection.Selection:
    """The puzzles to evaluate on."""
    return selection.select(
      self.task.test,
      num_groups=self.config.eval.tasks,
      num_variants=self.config.eval.variants,
    )

  def announce_task(self) -> None:
    """Tells the user what to know of the data, on the first host."""
    if jax.process_index() == 0:
      warnings = [f"WARNING: {warning}" for warning in self.task.warnings]
      for line in (*self.task.notes, *warnings):
        print(line, file=sys.stderr, flush=True)

  def train_step(self) -> train_step.TrainStep:
    """The supervision step, jitted; it takes the state's buffers over."""
    train, optimizer = self.config.train, self.config.optimizer
    settings = train_step.Settings(
      max_supervision_steps=train.max_supervision_steps,
      exploration_prob=train.exploration_prob,
      halt_rule=train.halt_rule,
      answer_loss=train.answer_loss,
      halt_loss_weight=train.halt_loss_weight,
      puzzle_learning_rate=factory.make_schedule(
        optimizer.puzzle_learning_rate, optimizer, train.num_steps
      ),
      puzzle_weight_decay=optimizer.puzzle_weight_decay,
      ema_decay=optimizer.ema_decay,
      frozen_network=train.frozen_network,
    )
    step = train_step.make_train_step(
      self.model, self.optimizer, settings, seed=self.config.seed
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, self.abstract_state())
    return jax.jit(
      step,
      donate_argnums=0,
      out_shardings=(shardings, sharding.replicated(self.mesh)),
    )

  def train_batches(self, first_batch: int) -> Iterator[dict[str, np.ndarray]]:
    """This host's part of the batches from `first_batch` on, without end."""
    data = self.config.data
    return loader.train_batches(
      self.task.train,
      batch_size=self.config.train.batch_size,
      seed=self.config.seed,
      augmentation=self.task.augmentation,
      shard=(jax.process_index(), jax.process_count()),
      first_batch=first_batch,
      num_threads=data.prefetch_threads,
      prefetch=data.prefetch_batches,
    )


def build(config: config_lib.Config) -> Experiment:
  """Loads the task and builds what trains on it.

  Raises:
    UserError: the data are missing or malformed, or a batch size does not
      divide over the devices.
  """
  mesh = sharding.make_mesh()
  sharding.check_batch_size("train.batch_size", config.train.batch_size, mesh)
  sharding.check_batch_size("eval.batch_size", config.eval.batch_size, mesh)
  task = tasks.load(config.data)
  return Experiment(
    config=config,
    task=task,
    mesh=mesh,
    model=train_state.build_model(
      config.model, vocab_size=task.vocab_size, seq_len=task.seq_len
    ),
    optimizer=factory.make_optimizer(config.optimizer, config.train.num_steps),
  )
