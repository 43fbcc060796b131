"""Stands in for trm_jax.main in a sweep: the same files, no training.

Its accuracy grows with the steps, to 1 at a learning rate of 0.001. What
weight decay it is given says how it behaves.
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
STEP_SECONDS = 0.02


def main():
  flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[1:])
  workdir = pathlib.Path(flags["workdir"])
  workdir.mkdir(parents=True, exist_ok=True)
  kind = float(flags.get("config.optimizer.weight_decay", 0))
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
  )
  if kind == FAILS:
    sys.exit("error: an older line\nerror: the loss is nan at step 3")
  if kind == WAITS_FOR_ANOTHER:
    while len(list(workdir.parent.glob("trial_*/saved*"))) < 2:
      (workdir / "saved").write_text("0")
      time.sleep(STEP_SECONDS)
  train(workdir, flags, kind, first, saved)


def train(workdir, flags, kind, first, saved):
  stopped = []
  signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
  num_steps = int(flags["config.train.num_steps"])
  rate = float(flags.get("config.optimizer.learning_rate", 1e-3))
  best = max(0.0, 1 - abs(math.log10(rate) + 3))
  for step in range(first + 1, num_steps + 1):
    time.sleep(STEP_SECONDS)
    accuracy = best * step / num_steps
    if step % int(flags["config.eval.every_steps"]) == 0 or step == num_steps:
      row = {"step": step, "group": "eval", "exact_accuracy": accuracy}
      with (workdir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    saved.write_text(str(step))
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
    file.write(json.dumps({"event": event, "pid": os.getpid(), **more}) + "\n")


if __name__ == "__main__":
  main()
