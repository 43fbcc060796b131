"""Measures how fast an experiment's training batches are made on the host.

  python -m benchmarks.loader --config=experiments/arc.py \
    --config.data.source=FOLDER

Batches are made as in training, augmentation and threads included, and thrown
away.
"""

import json
import os
import platform
import resource
import time

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from trm_jax import config as config_lib
from trm_jax.data import loader, tasks

_CONFIG = config_flags.DEFINE_config_file("config", None, "An experiment.")
_BATCHES = flags.DEFINE_integer("batches", 200, "Batches to measure.")
_WARM_UP = 20  # batches


def main(_) -> None:
  """Prints one JSON line."""
  config = config_lib.from_config_dict(_CONFIG.value)
  start = time.monotonic()
  task = tasks.load(config.data)
  load_seconds = time.monotonic() - start
  batches = loader.train_batches(
    task.train,
    batch_size=config.train.batch_size,
    seed=config.seed,
    augmentation=task.augmentation,
    num_threads=config.data.prefetch_threads,
    prefetch=config.data.prefetch_batches,
  )
  for _ in range(_WARM_UP):
    next(batches)
  seconds = []
  for _ in range(_BATCHES.value):
    start = time.monotonic()
    next(batches)
    seconds.append(time.monotonic() - start)
  total = float(np.sum(seconds))
  print(
    json.dumps(
      {
        "benchmark": "loader",
        "experiment": config.name,
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": config.data.prefetch_threads,
        "batch_size": config.train.batch_size,
        "load_seconds": load_seconds,
        "seconds_per_batch": total / len(seconds),
        "examples_per_second": config.train.batch_size * len(seconds) / total,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
      }
    )
  )


if __name__ == "__main__":
  app.run(main)
