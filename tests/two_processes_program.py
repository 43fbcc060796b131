"""The program of two_processes_test.py: runs in one process or as one of two.

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
from etils import epath
from jax.experimental import multihost_utils

from experiments import arc, maze
from tests import tiny
from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.core import types
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.evaluation import evaluate
from trm_jax.evaluation import report as report_lib
from trm_jax.runtime import array_digest, processes, program, restore
from trm_jax.runtime import mesh as mesh_lib

STEP = 3
NUM_DEVICES = 8  # of all processes together
KILLED = 9  # exit status of the process that ends in the middle
NUM_STEPS = 5  # of a training
NUM_SEEN = 2  # batches that were counted before


def _arc_config():
  config = arc.get_config("smoke")
  # Batches in which one task ends and the next begins, the last one not full:
  # the second of two processes has only padding there.
  config.data.num_test = 5
  config.data.num_augmentations = 6
  config.eval.batch_size = 16
  config.eval.supervision_steps = 2
  config.model.recursion_cycles = 1
  config.train.num_steps = NUM_STEPS
  config.eval.every_steps = 0
  return config


def _maze_config():
  config = maze.get_config("smoke")
  config.data.num_test = 14
  config.eval.batch_size = 8
  config.eval.supervision_steps = 2
  config.model.recursion_cycles = 1
  return config


def _sudoku_config():
  config = tiny.config_dict()
  config.train.num_steps = NUM_STEPS
  return config


CONFIGS = {
  "arc": _arc_config,
  "maze": _maze_config,  # judged by rules
  "sudoku": _sudoku_config,  # not judged at all
}


@functools.cache
def run(task: str) -> program.Loaded:
  return program.load(config_lib.from_config_dict(CONFIGS[task]()))


def weights(task: str) -> types.Weights:
  """Random weights, each where it belongs; alike however many processes."""
  state = run(task).program.abstract_state()
  places = mesh_lib.state_shardings(state, run(task).program.mesh).ema_weights
  rng = np.random.default_rng(0)

  def draw(leaf, place):
    values = rng.standard_normal(leaf.shape, np.float32)
    values *= leaf.shape[0] ** -0.5
    return jax.make_array_from_callback(leaf.shape, place, values.__getitem__)

  return jax.tree.map(draw, state.ema_weights, places)


@functools.cache
def _evaluator(task: str) -> evaluate.Evaluator:
  return evaluate.Evaluator(*run(task), "")


def evaluation(task: str, workdir: pathlib.Path) -> dict:
  """Evaluates the random weights."""
  return _evaluation(task, workdir, weights(task), STEP)


def training(task: str, workdir: pathlib.Path) -> dict:
  """Trains to the end."""
  return _found(train.train(run(task).program.config, str(workdir)))


def trained_evaluation(workdir: pathlib.Path) -> dict:
  """Evaluates what was trained in `workdir`, there."""
  trained = restore.ema_weights(*run("arc"), str(workdir))
  loaded, step = trained.weights, trained.step
  return _evaluation("arc", workdir, loaded, step)


def _evaluation(task, workdir, weights, step) -> dict:
  evaluator = _evaluator(task)  # compiled once
  evaluator._workdir = str(workdir)
  return _found(evaluator(weights, step))


def _found(report: report_lib.EvalResult) -> dict:
  """A report as JSON."""
  return {
    "num_puzzles": report.num_puzzles,
    "means": {name: value.tolist() for name, value in report.means.items()},
    "metrics": dict(report.summary.metrics),
  }


@contextlib.contextmanager
def killed(end):
  """Calls `end` in place of counting one batch more than NUM_SEEN."""
  observe = arc_evaluation.ArcEvaluator.observe
  calls = []

  def dies(self, *args):
    calls.append(1)
    if len(calls) > NUM_SEEN:
      end()
    return observe(self, *args)

  with mock.patch.object(arc_evaluation.ArcEvaluator, "observe", dies):
    yield


def digests() -> dict[str, int | None]:
  """Of weights with a puzzle table that is split over all devices."""
  records = array_digest.array_infos(weights("arc"))
  return {name: record.digest for name, record in records.items()}


def _rows_in_mixed_devices() -> list[int]:
  """The rows of all processes, put on a mesh of devices that are mixed."""
  first, second = (jax.local_devices(process_index=k) for k in range(2))
  pairs = zip(first, second, strict=True)
  mixed = [device for pair in pairs for device in pair]
  with mock.patch.object(jax, "devices", return_value=mixed):
    mesh = mesh_lib.make_mesh()
  mine = np.arange(8, dtype=np.int32) + 8 * jax.process_index()
  rows = mesh_lib.put_rows(mine, mesh)
  return multihost_utils.process_allgather(rows, tiled=True).tolist()


def _is_shared(folder: pathlib.Path) -> bool:
  try:
    processes.check_shared(epath.Path(folder))
  except errors.UserError as error:
    return "not all processes see" not in str(error)
  return True


def _everything(folder: pathlib.Path) -> dict:
  """All that two processes do; `folder` holds evaluations that were killed."""
  try:
    evaluation("arc", folder / "damaged")
    error = ""
  except errors.UserError as raised:
    error = str(raised)
  own_disk = folder / f"own_disk_{jax.process_index()}"
  return {
    "trained": training("arc", folder / "trained"),
    "trained sudoku": training("sudoku", folder / "trained_sudoku"),
    "new": evaluation("arc", folder / "new"),
    "two_killed": evaluation("arc", folder / "two_killed"),
    "one_killed": evaluation("arc", folder / "one_killed"),
    "own_disk": evaluation("arc", own_disk),
    "damaged": error,
    "maze": evaluation("maze", folder),
    "sudoku": evaluation("sudoku", folder),
    "trained, read": trained_evaluation(folder / "trained"),
    "digests": digests(),
    "shared": _is_shared(folder / "trained"),
    "own disks are shared": _is_shared(own_disk),
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
