"""A training killed at random moments ends bit for bit as one never killed."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments import quickstart
from trm_jax import config as config_lib
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh, metric_writer, program

pytestmark = pytest.mark.slow

STEPS, KILLS = 600, 4
ROOT = pathlib.Path(quickstart.__file__).parent.parent
SIZES = program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=1)
# A save every ten steps, so that many kills interrupt one.
SETTINGS = {
  "data.box_rows": 2,
  "data.box_cols": 2,
  "data.num_clues": 6,
  "data.num_train": 200,
  "data.num_test": 60,
  "model.hidden_size": 32,
  "model.puzzle_embed_dim": 32,
  "optimizer.ema_decay": 0.9,
  "train.batch_size": 32,
  "train.num_steps": STEPS,
  "eval.batch_size": 64,
  "eval.every_steps": STEPS // 4,
  "checkpoint.every_steps": 10,
  "log.every_steps": 5,
}


def _start(workdir: pathlib.Path) -> subprocess.Popen:
  return subprocess.Popen(
    [
      *(sys.executable, "-m", "trm_jax.main"),
      *("--config=experiments/quickstart.py", f"--workdir={workdir}"),
      *(f"--config.{name}={value}" for name, value in SETTINGS.items()),
    ],
    cwd=ROOT,
    env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _finish(workdir: pathlib.Path) -> None:
  process = _start(workdir)
  output, _ = process.communicate()
  assert process.returncode == 0, output


def _last_step(workdir: pathlib.Path) -> int:
  rows = metric_writer.read_metrics(str(workdir))
  return max((row["step"] for row in rows), default=0)


def _kill(workdir: pathlib.Path, draw: random.Random, *, in_steps: bool):
  """Starts the training and kills it.

  Args:
    workdir: of the run.
    draw: of the moment.
    in_steps: whether to wait for a step; or else any moment from the start of
      Python on.
  """
  process = _start(workdir)
  before = _last_step(workdir)
  while in_steps and process.poll() is None and _last_step(workdir) == before:
    time.sleep(0.02)
  time.sleep(draw.uniform(0.0, 0.5 if in_steps else 8.0))
  assert process.poll() is None, process.communicate()[0]
  process.send_signal(signal.SIGKILL)
  process.communicate()


def _differences(states, metrics) -> list[str]:
  """Names what differs between two runs, bit for bit."""
  leaves = [jax.tree_util.tree_leaves_with_path(state) for state in states]
  found = [
    jax.tree_util.keystr(path)
    for (path, a), (_, b) in zip(*leaves, strict=True)
    if np.asarray(a).tobytes() != np.asarray(b).tobytes()
  ]
  one, other = (
    [
      {k: v for k, v in row.items() if k != "slot_steps_per_second"}
      for row in rows
    ]
    for rows in metrics
  )
  return found + ["metrics"] * (one != other)


def _state(workdir: pathlib.Path):
  config = quickstart.get_config()
  config.update_from_flattened_dict(SETTINGS)
  built = program.build(
    config_lib.from_config_dict(config), SIZES, mesh.make_mesh(1)
  )
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    return jax.device_get(checkpoints.restore(STEPS, built.abstract_state()))


def test_killed_at_any_moment_and_continued_is_never_killed(tmp_path):
  never_killed, killed = tmp_path / "never_killed", tmp_path / "killed"
  _finish(never_killed)
  draw = random.Random(1)
  for number in range(KILLS):
    _kill(killed, draw, in_steps=bool(number % 2))
  assert 0 < _last_step(killed) < STEPS
  _finish(killed)
  workdirs = (never_killed, killed)
  metrics = [metric_writer.read_metrics(str(workdir)) for workdir in workdirs]
  assert [rows[-1]["step"] for rows in metrics] == [STEPS, STEPS]
  assert not _differences(map(_state, workdirs), metrics)


def test_a_difference_would_be_found():
  rows = [
    [{"step": 1, "loss": 0.5, "slot_steps_per_second": n}] for n in (1, 2)
  ]
  zero, minus_zero = {"w": np.zeros(1)}, {"w": np.array([-0.0])}
  assert not _differences([zero, zero], rows)
  assert _differences([zero, minus_zero], rows) == ["['w']"]
  assert _differences([zero, zero], [rows[0], []]) == ["metrics"]
