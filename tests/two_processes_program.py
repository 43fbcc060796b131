"""What tests/two_processes_test.py runs: in one process, or in one of two.

python -m tests.two_processes_program PART PORT PROCESS FOLDER
"""

import contextlib
import functools
import json
import os
import pathlib
import sys
import time
from unittest import mock

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments import arc, maze
from tests import tiny
from trm_jax import config as config_lib
from trm_jax import (
  election,
  errors,
  evaluate,
  experiment,
  restore,
  sharding,
  train,
  types,
)
from trm_jax import report as report_lib

STEP = 3
NUM_DEVICES = 4  # of all processes together
KILLED = 9  # exit status of the process that ends in the middle
NUM_SEEN = 2  # batches that were counted before


def _arc_config():
  config = arc.get_config("smoke")
  # Batches in which one task ends and the next begins, the last one not full:
  # the second of two processes has only padding there.
  config.data.num_test = 5
  config.eval.batch_size = 12
  config.eval.supervision_steps = 2
  config.eval.report_steps = (1, 2)
  config.model.recursion_cycles = 1
  config.train.num_steps = 2
  config.eval.every_steps = 0
  return config


def _maze_config():
  config = maze.get_config("smoke")
  config.data.num_test = 14
  config.eval.batch_size = 8
  config.eval.supervision_steps = 2
  config.eval.report_steps = (1, 2)
  config.model.recursion_cycles = 1
  return config


CONFIGS = {
  "arc": _arc_config,
  "maze": _maze_config,  # judged by rules
  "sudoku": tiny.config_dict,  # not judged at all
}


@functools.cache
def run(task: str) -> experiment.Experiment:
  return experiment.build(config_lib.from_config_dict(CONFIGS[task]()))


def weights(task: str, *, more_rows: int = 0) -> types.Weights:
  """Random weights, each where it belongs; alike however many processes."""
  state = run(task).abstract_state()
  table = state.puzzle_table
  table = table.update(shape=(table.shape[0] + more_rows, table.shape[1]))
  state = state.replace(puzzle_table=table)
  places = sharding.state_shardings(state, run(task).mesh).averaged_weights
  rng = np.random.default_rng(0)

  def draw(leaf, place):
    values = rng.standard_normal(leaf.shape, np.float32)
    values *= leaf.shape[0] ** -0.5
    return jax.make_array_from_callback(leaf.shape, place, values.__getitem__)

  return jax.tree.map(draw, state.averaged_weights, places)


@functools.cache
def _evaluator(task: str) -> evaluate.Evaluator:
  return evaluate.Evaluator(run(task), "")


def evaluation(task: str, workdir: pathlib.Path) -> dict:
  """Evaluates the random weights."""
  return _evaluation(task, workdir, weights(task), STEP)


def trained_evaluation(workdir: pathlib.Path) -> dict:
  """Evaluates what was trained in `workdir`, there."""
  trained = restore.averaged_weights(run("arc"), str(workdir))
  loaded, step = trained.weights, trained.step
  return _evaluation("arc", workdir, loaded, step)


def _evaluation(task, workdir, weights, step) -> dict:
  evaluator = _evaluator(task)  # compiled once
  evaluator._workdir = str(workdir)
  return _found(evaluator(weights, step))


def _found(report: report_lib.Report) -> dict:
  """A report as JSON."""
  return {
    "num_puzzles": report.num_puzzles,
    "means": {name: value.tolist() for name, value in report.means.items()},
    "metrics": dict(report.verdict.metrics),
  }


@contextlib.contextmanager
def killed(end):
  """Calls `end` in place of counting one batch more than NUM_SEEN."""
  see = election.Election.see
  calls = []

  def dies(self, *args):
    calls.append(1)
    if len(calls) > NUM_SEEN:
      end()
    return see(self, *args)

  with mock.patch.object(election.Election, "see", dies):
    yield


def digests() -> list[str]:
  """Of weights with the table on each device, and split over them."""
  return [election._digest(weights("arc", more_rows=more)) for more in (0, 3)]


def _rows_in_mixed_devices() -> list[int]:
  """The rows of all processes, put on a mesh of devices that are mixed."""
  first, second = (jax.local_devices(process_index=k) for k in range(2))
  mixed = [first[0], second[0], first[1], second[1]]
  with mock.patch.object(jax, "devices", return_value=mixed):
    mesh = sharding.make_mesh()
  mine = np.arange(4, dtype=np.int32) + 4 * jax.process_index()
  rows = sharding.put_rows(mine, mesh)
  return multihost_utils.process_allgather(rows, tiled=True).tolist()


def _everything(folder: pathlib.Path) -> dict:
  """All that two processes do; `folder` holds evaluations that were killed."""
  training = config_lib.from_config_dict(_arc_config())
  trained = train.train(training, str(folder / "trained"))
  try:
    evaluation("arc", folder / "damaged")
    error = ""
  except errors.UserError as raised:
    error = str(raised)
  own_disk = folder / f"own_disk_{jax.process_index()}"
  return {
    "new": evaluation("arc", folder / "new"),
    "two_killed": evaluation("arc", folder / "two_killed"),
    "one_killed": evaluation("arc", folder / "one_killed"),
    "own_disk": evaluation("arc", own_disk),
    "damaged": error,
    "maze": evaluation("maze", folder),
    "sudoku": evaluation("sudoku", folder),
    "trained": _found(trained),
    "trained, read": trained_evaluation(folder / "trained"),
    "digests": digests(),
    "rows": _rows_in_mixed_devices(),
  }


def main(part: str, port: str, process: str, folder: str) -> None:
  jax.distributed.initialize(
    coordinator_address=f"localhost:{port}",
    num_processes=2,
    process_id=int(process),
  )
  place = pathlib.Path(folder)
  if part == "killed":
    # The end of the first process is that of the second, wherever it is.
    first = process == "0"
    with killed(lambda: os._exit(KILLED) if first else time.sleep(60)):
      evaluation("arc", place / "two_killed")
  else:
    everything = json.dumps(_everything(place))
    (place / f"found_{process}.json").write_text(everything)


if __name__ == "__main__":
  main(*sys.argv[1:])
