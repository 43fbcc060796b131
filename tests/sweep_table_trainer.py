"""Stands in for trm_jax.main in a table: the same files, no training.

What a row reaches is in ACCURACIES; a file fails_ROW in the sweep's folder
makes it fail.
"""

import json
import pathlib
import signal
import sys
import time

import sweep_trainer

ACCURACIES = {"hrm": 0.5, "trm": 0.875, "no_ema": 0.75}
BY_SEED = 0.0625  # more with each


def main():
  flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[1:])
  workdir = pathlib.Path(flags["workdir"])
  row = flags["config"].split(":")[1].split(",")[0]
  workdir.mkdir(parents=True, exist_ok=True)
  saved = workdir / "saved"
  first = int(saved.read_text()) if saved.exists() else 0
  sweep_trainer.note(workdir, "start", step=first, flags=sys.argv[1:])
  if (workdir.parent / f"fails_{row}").exists():
    sys.exit("error: the loss is nan at step 3")
  stopped = []
  signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
  num_steps = int(flags["config.train.num_steps"])
  accuracy = ACCURACIES[row] + BY_SEED * int(flags["config.seed"])
  for step in range(first + 1, num_steps + 1):
    time.sleep(sweep_trainer.STEP_SECONDS)
    log(workdir, {"step": step, "group": "train"})
    if step % int(flags["config.eval.every_steps"]) == 0 or step == num_steps:
      reached = accuracy * step / num_steps
      log(workdir, {"step": step, "group": "eval", "exact_accuracy": reached})
    saved.write_text(str(step))
    if stopped:
      sys.exit(0)
  result = {"step": num_steps, "metrics": {"exact_accuracy": accuracy}}
  (workdir / "result.json").write_text(json.dumps(result))


def log(workdir, row):
  with (workdir / "metrics.jsonl").open("a") as file:
    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
  main()
