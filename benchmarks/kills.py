"""Kills a training with SIGKILL again and again; what it ends with.

python -m benchmarks.kills --kills=20 --folder=FOLDER

Trains a small TRM on 4x4 Sudoku once without any kill, and once killed at
random moments and continued by the same command. Compares the last checkpoints
bit by bit, and every metric of every step. Prints one JSON line; the exit
status is 0 if all is equal.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags, logging

from experiments import quickstart
from trm_jax import config as config_lib
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import metric_writer, program

_KILLS = flags.DEFINE_integer("kills", 20, "How often to kill.", lower_bound=1)
_STEPS = flags.DEFINE_integer(
  "steps", 2000, "Of the training; 100 for each kill are enough.", lower_bound=4
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_FOLDER = flags.DEFINE_string(
  "folder", "runs/kills", "Folder for both runs; what is in it is deleted."
)

# A save every ten steps, so that many kills fall into one.
SETTINGS = {
  "data.box_rows": 2,
  "data.box_cols": 2,
  "data.num_clues": 6,
  "data.num_train": 200,
  "data.num_test": 60,
  "model.hidden_size": 32,
  "model.puzzle_vector_size": 32,
  "optimizer.ema_decay": 0.9,
  "train.batch_size": 32,
  "eval.batch_size": 64,
  "checkpoint.every_steps": 10,
  "log.every_steps": 5,
}
_ROOT = pathlib.Path(__file__).parent.parent
# Rates are not the same twice.
_TIMED = ("examples_per_second",)


def _settings(steps: int) -> dict:
  return SETTINGS | {"train.num_steps": steps, "eval.every_steps": steps // 4}


def _start(workdir: pathlib.Path, steps: int) -> subprocess.Popen:
  command = [
    sys.executable,
    "-m",
    "trm_jax.main",
    "--config=experiments/quickstart.py",
    f"--workdir={workdir}",
    *(f"--config.{name}={value}" for name, value in _settings(steps).items()),
  ]
  return subprocess.Popen(
    command,
    cwd=_ROOT,
    # Compiled once for all starts.
    env=os.environ
    | {
      "JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _last_step(workdir: pathlib.Path) -> int:
  rows = metric_writer.read_metrics(str(workdir))
  return max((row["step"] for row in rows), default=0)


def train(
  workdir: pathlib.Path,
  *,
  steps: int,
  kills: int = 0,
  seed: int = 0,
  say: Callable[[str], None] = print,
) -> None:
  """Trains to the end, in processes of its own.

  Args:
    workdir: of the run.
    steps: of the whole training.
    kills: how often to kill before it may end.
    seed: of the moments. Every second kill comes after a step was seen, the
      others at any time from the start of Python on.
    say: takes a line about each kill.
  """
  draw = random.Random(seed)
  for number in range(kills):
    process = _start(workdir, steps)
    begin = time.monotonic()
    before = _last_step(workdir)
    delay = draw.uniform(0.0, 8.0)
    if number % 2:
      while process.poll() is None and _last_step(workdir) == before:
        time.sleep(0.02)
      begin, delay = time.monotonic(), draw.uniform(0.0, 0.5)
    while process.poll() is None and time.monotonic() < begin + delay:
      time.sleep(0.01)
    if process.poll() is not None:
      raise RuntimeError(
        f"the run ended before kill {number}: {process.communicate()[0]}"
      )
    process.send_signal(signal.SIGKILL)
    process.communicate()
    say(f"kill {number + 1} of {kills} at step {_last_step(workdir)}")
  process = _start(workdir, steps)
  output, _ = process.communicate()
  if process.returncode:
    raise RuntimeError(f"the run failed: {output}")


def _last_state(workdir: pathlib.Path, steps: int):
  config = quickstart.get_config()
  config.update_from_flattened_dict(_settings(steps))
  run, _ = program.load(config_lib.from_config_dict(config))
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    return jax.device_get(checkpoints.restore(steps, run.abstract_state()))


def _metrics(workdir: pathlib.Path) -> list[dict]:
  rows = metric_writer.read_metrics(str(workdir))
  for row in rows:
    for name in _TIMED:
      row.pop(name, None)
  return rows


def differences(
  one: pathlib.Path, other: pathlib.Path, *, steps: int
) -> list[str]:
  """Names what differs between two runs; [] if they are equal bit by bit."""
  states = _last_state(one, steps), _last_state(other, steps)
  leaves = [jax.tree_util.tree_leaves_with_path(state) for state in states]
  found = [
    jax.tree_util.keystr(path)
    for (path, a), (_, b) in zip(*leaves, strict=True)
    if np.asarray(a).tobytes() != np.asarray(b).tobytes()
  ]
  rows, others = _metrics(one), _metrics(other)
  if rows != others:
    found.append("metrics.jsonl")
  if not rows or rows[-1]["step"] != steps:
    found.append(f"metrics.jsonl does not reach step {steps}")
  return found


def main(argv) -> None:
  """Runs both and compares."""
  del argv
  logging.set_verbosity(logging.ERROR)
  folder = pathlib.Path(_FOLDER.value).resolve()
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  one, other = folder / "never_killed", folder / "killed"
  steps = _STEPS.value
  train(one, steps=steps)
  begin = time.monotonic()
  train(other, steps=steps, kills=_KILLS.value, seed=_SEED.value)
  found = differences(one, other, steps=steps)
  print(
    json.dumps(
      {
        "kills": _KILLS.value,
        "steps": steps,
        "equal": not found,
        "differences": found,
        "seconds": round(time.monotonic() - begin, 1),
      }
    )
  )
  sys.exit(bool(found))


if __name__ == "__main__":
  app.run(main)
