"""The command line: flags, then train or evaluate.

python -m trm_jax.main --config=experiments/quickstart.py --workdir=RUN
"""

import os
from collections.abc import Sequence

from absl import flags, logging

from trm_jax import command_line, host_memory

_WORKDIR = flags.DEFINE_string(
  "workdir", "", "Folder of the run; by default runs/<config.name>."
)
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "What to do.")
# Of several processes that train as one; TPU machines and SLURM need none.
_COORDINATOR = flags.DEFINE_string(
  "coordinator", "", "HOST:PORT of the process with --process_id=0."
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "How many processes train together."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Which of them this is, from 0."
)


def main(argv: Sequence[str]) -> None:
  """Runs the mode; its last line names the exact accuracy."""
  command_line.expect_no_words(argv)
  host_memory.keep_freed()
  if not flags.FLAGS["verbosity"].present:
    logging.set_verbosity(logging.ERROR)  # Orbax tells each file it writes
  config = command_line.config()
  workdir = _WORKDIR.value or os.path.join("runs", config.name)
  # Imported late: a mistake in the flags is told before JAX starts.
  from trm_jax import compilation_cache, evaluate, hosts, stopping, train

  stop = stopping.Stop(config.train.max_minutes)
  stop.install()
  hosts.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  stop.install()  # again: joining has put its own in this place
  compilation_cache.enable()
  try:
    if _MODE.value == "train":
      report = train.train(config, workdir, stop)
    else:
      report = evaluate.evaluate_workdir(config, workdir, stop)
  except stopping.Stopped as stopped:
    hosts.tell(str(stopped))
    return
  for name in (*report.verdict.metrics, "exact_accuracy"):
    hosts.tell(f"{name}={report.final[name]:.4f}")


if __name__ == "__main__":
  command_line.run(main)
