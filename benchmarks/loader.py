r"""Times how fast an experiment's training batches are made on the host.

  python -m benchmarks.loader --config=experiments/arc.py \
    --config.data.source=FOLDER

Batches are made as in training, including augmentation and threads, and
discarded. The last line is one JSON object; a training step takes one batch.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from benchmarks import machine, measure
from trm_jax import config as config_lib
from trm_jax.data import loader, tasks
from trm_jax.runtime import command_line, host_memory

_BATCHES = flags.DEFINE_integer(
  "batches",
  20,
  "Batches of a timed call: more than are prefetched.",
  lower_bound=1,
)


def measure_loading(
  config: config_lib.Config, *, batches: int, calls: int, warm_up: int
) -> dict[str, Any]:
  """Loads the data and makes batches of them.

  Args:
    config: the settings.
    batches: number per call.
    calls: number of timed calls.
    warm_up: number of calls before them.

  Returns:
    The fields of the measurement.

  Raises:
    UserError: the data cannot be read.
  """
  start = time.perf_counter()
  task = tasks.load(config.data)
  load_seconds = time.perf_counter() - start
  made = loader.train_batches(
    task.train,
    batch_size=config.train.batch_size,
    seed=config.seed,
    augmentation=task.augmentation,
  )

  def call():
    for _ in range(batches):
      next(made)

  # Timed by the call: threads finish several batches at a time.
  timing = measure.time_calls(call, calls=calls, warm_up=warm_up)
  timing = timing.divided(batches)
  peak = measure.peak_host_bytes()
  return {
    "benchmark": "loader",
    **timing.fields(),
    "examples_per_second": config.train.batch_size / timing.median,
    "experiment": config.name,
    "command": machine.command(),
    **machine.fields(),
    "batch_size": config.train.batch_size,
    "load_seconds": load_seconds,
    "peak_gb": peak / 1e9,
  }


def main(argv: Sequence[str]) -> None:
  """Prints one JSON line."""
  logging.set_verbosity(logging.WARNING)
  command_line.expect_no_words(argv)
  host_memory.tune_malloc()  # as trm_jax.main does
  print(
    json.dumps(
      measure_loading(
        command_line.config(),
        batches=_BATCHES.value,
        calls=measure.CALLS.value,
        warm_up=measure.WARM_UP.value,
      )
    )
  )


if __name__ == "__main__":
  command_line.run(main)
