"""Measures what a puzzle table of full size costs in memory and time.

Trains a few steps of a narrow network twice, each in a process of its own: with
a table of one row and with all of ARC-AGI-1's. The ratio compares what the big
table adds to the peak memory with the size of the table.

  python -m benchmarks.puzzle_table
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import jax
import numpy as np

from experiments import arc
from trm_jax import config as config_lib
from trm_jax.data import identifiers, kind, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.runtime import mesh
from trm_jax.runtime import program as program_lib

ARC_1_ROWS = 876_406
WIDTH = 512
STEPS = 5


def build(rows: int, *, num_devices: int = 1) -> program_lib.Program:
  """Returns a narrow network with a table of `rows` rows of full width."""
  config = arc.get_config("smoke")
  config.model.puzzle_vector_size = WIDTH
  config.model.num_prefix_tokens = WIDTH // config.model.hidden_size
  frozen = config_lib.from_config_dict(config)
  tokens = np.ones((1, kind.ARC_LOOK.rows * kind.ARC_LOOK.cols), np.uint8)
  puzzles = puzzle_set.PuzzleSet.single(tokens, tokens)
  task = task_lib.Task(
    train=puzzles,
    test=puzzles,
    look=kind.ARC_LOOK,
    augmentation=None,
    identifiers=[identifiers.BLANK] * rows,
  )
  return program_lib.build(
    frozen, program_lib.Sizes.of_task(task), mesh.make_mesh(num_devices)
  )


def _measure(rows: int) -> dict[str, float]:
  run = build(rows)
  state = mesh.create_state(run.init, run.mesh)
  step = run.train_step()
  size = run.config.train.batch_size
  rng = np.random.default_rng(0)
  seconds = []
  for _ in range(STEPS):
    batch = {
      "inputs": rng.integers(0, 12, (size, run.sizes.seq_len), np.int32),
      "labels": rng.integers(0, 12, (size, run.sizes.seq_len), np.int32),
      "puzzle_ids": rng.integers(0, rows, size, np.int32),
    }
    start = time.monotonic()
    state, sums = step(state, mesh.put_batch(batch, run.mesh))
    jax.block_until_ready(sums)
    seconds.append(time.monotonic() - start)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return {"seconds_per_step": float(np.median(seconds[1:])), "peak": peak}


def main() -> None:
  """Prints one JSON line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--rows", type=int, default=ARC_1_ROWS)
  parser.add_argument("--alone", action="store_true", help="measure once")
  arguments = parser.parse_args()
  if arguments.alone:
    print(json.dumps(_measure(arguments.rows)))
    return
  found = {}
  for rows in (1, arguments.rows):
    command = ["-m", "benchmarks.puzzle_table", f"--rows={rows}", "--alone"]
    output = subprocess.run(
      [sys.executable, *command], check=True, capture_output=True, text=True
    ).stdout
    found[rows] = json.loads(output.splitlines()[-1])
  table = arguments.rows * WIDTH * 4
  small, big = found[1], found[arguments.rows]
  print(
    json.dumps(
      {
        "benchmark": "puzzle_table",
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "rows": arguments.rows,
        "table_gb": table / 1e9,
        "peak_gb_one_row": small["peak"] / 1e9,
        "peak_gb": big["peak"] / 1e9,
        "added_over_table": (big["peak"] - small["peak"]) / table,
        "seconds_per_step_one_row": small["seconds_per_step"],
        "seconds_per_step": big["seconds_per_step"],
      }
    )
  )


if __name__ == "__main__":
  main()
