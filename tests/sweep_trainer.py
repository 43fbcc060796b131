"""A stand-in for trm_jax.main in sweeps: the same files, no training.

Accuracy grows linearly with the steps: to 1 at a learning rate of 0.001, or to
what ACCURACIES says of a table's row. The weight decay selects how it behaves;
a file fails_ROW in the sweep's folder makes a row fail.
"""

import fcntl
import json
import math
import os
import pathlib
import signal
import sys
import time

FAILS, WAITS_FOR_ANOTHER, RESULT_IS_NAN, DIES_ONCE = 0.2, 0.3, 0.4, 0.5
ACCURACIES = {"hrm": 0.5, "trm": 0.875, "no_ema": 0.75}
BY_SEED = 0.0625  # added for each seed
STEP_SECONDS = 0.02


def main():
  flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[1:])
  workdir = pathlib.Path(flags["workdir"])
  workdir.mkdir(parents=True, exist_ok=True)
  kind = float(flags.get("config.optimizer.weight_decay", 0))
  row = flags["config"].partition(":")[2].split(",")[0]
  lock = (workdir / "one_at_a_time").open("w")
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    note(workdir, "TWO AT ONCE")
    raise
  saved = workdir / "saved"
  first = int(saved.read_text()) if saved.exists() else 0
  note(
    workdir,
    "start",
    step=first,
    flags=sys.argv[1:],
    devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
    worker=os.getppid(),
  )
  if kind == FAILS or (workdir.parent / f"fails_{row}").exists():
    sys.exit("error: an older line\nerror: the loss is nan at step 3")
  if kind == WAITS_FOR_ANOTHER:
    while len(list(workdir.parent.glob("*/saved*"))) < 2:
      saved.write_text("0")
      time.sleep(STEP_SECONDS)
  if row:
    best = ACCURACIES[row] + BY_SEED * int(flags["config.seed"])
  else:
    rate = float(flags.get("config.optimizer.learning_rate", 1e-3))
    best = max(0.0, 1 - abs(math.log10(rate) + 3))
  train(workdir, flags, kind, first, best)


def train(workdir, flags, kind, first, best):
  stopped = []
  signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
  num_steps = int(flags["config.train.num_steps"])
  for step in range(first + 1, num_steps + 1):
    time.sleep(STEP_SECONDS)
    log(workdir, {"step": step, "group": "train"})
    if step % int(flags["config.eval.every_steps"]) == 0 or step == num_steps:
      accuracy = best * step / num_steps
      metrics = {"exact_accuracy": accuracy, "cell_accuracy": 0.75}
      log(workdir, {"step": step, "group": "eval", **metrics})
    (workdir / "saved").write_text(str(step))
    if kind == DIES_ONCE and step == 2:
      os.kill(os.getpid(), signal.SIGKILL)
    if stopped:
      note(workdir, "SIGTERM", step=step)
      sys.exit(0)
  accuracy = None if kind == RESULT_IS_NAN else best
  result = {"step": num_steps, "metrics": {"exact_accuracy": accuracy}}
  (workdir / "result.json").write_text(json.dumps(result))
  note(workdir, "result", step=num_steps)


def note(workdir, event, **more):
  with (workdir / "events.jsonl").open("a") as file:
    file.write(json.dumps({"event": event, **more}) + "\n")


def log(workdir, row):
  with (workdir / "metrics.jsonl").open("a") as file:
    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
  main()
