"""An experiment: a program, and the data that run through it."""

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh

from trm_jax import config as config_lib
from trm_jax.data import loader, puzzle_set, tasks
from trm_jax.data import task as task_lib
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import processes, program


@dataclasses.dataclass(frozen=True)
class Experiment(program.Program):
  """What is built from the settings, before any array exists."""

  task: task_lib.Task

  def test_puzzles(self) -> puzzle_set.Selection:
    """The puzzles to evaluate on."""
    return puzzle_set.select(
      self.task.test,
      num_groups=self.config.eval.tasks,
      num_variants=self.config.eval.variants,
    )

  def eval_batch_size(self) -> int:
    """How many test puzzles the devices are handed at a time.

    With adaptive halting several for each slot, so that slots seldom wait for
    the last puzzles; no more than there are.
    """
    settings = self.config.eval
    if settings.solver != "adaptive":
      return settings.batch_size
    there = self.test_puzzles().num_examples
    rounded_up = -(-there // settings.batch_size) * settings.batch_size
    return min(program.puzzles_at_a_time(settings), rounded_up)

  def announce_task(self) -> None:
    """Tells the user what to know of the data, on the first host."""
    warnings = [f"WARNING: {warning}" for warning in self.task.warnings]
    for line in (*self.task.notes, *warnings):
      processes.note(line)

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
  """Loads the task and builds what trains on it, on all devices.

  Raises:
    UserError: the data are missing or malformed, or a batch size does not
      divide over the devices.
  """
  mesh = mesh_lib.make_mesh()
  # Before the data are read.
  program.check_recurrence(config.model)
  program.check_batch_sizes(config, mesh)
  return of_task(config, _load(config.data), mesh)


def _load(data: config_lib.DataConfig) -> task_lib.Task:
  """Loads the task, first on the first host.

  On a disk that the hosts share, it prepares what the others then find.
  """
  loaded: list[task_lib.Task] = []
  processes.from_first(lambda: loaded.append(tasks.load(data)))
  return loaded[0] if loaded else tasks.load(data)


def of_task(
  config: config_lib.Config, task: task_lib.Task, mesh: Mesh
) -> Experiment:
  """Builds what trains on a task."""
  built = program.build(
    config,
    program.Sizes(
      vocab_size=task.vocab_size,
      seq_len=task.seq_len,
      num_puzzle_ids=task.num_puzzle_ids,
    ),
    mesh,
  )
  return Experiment(
    config=config,
    sizes=built.sizes,
    mesh=mesh,
    model=built.model,
    optimizer=built.optimizer,
    task=task,
  )
