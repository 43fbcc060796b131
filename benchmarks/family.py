r"""TRM, HRM, single z and direct prediction at equal numbers of network calls.

  python -m benchmarks.family --workdir=runs/family

Trains rows of experiments/ablations.py with the quickstart's narrow network on
generated 6x6 Sudoku, each seed in a process of its own, one after another.
Data, loop, evaluation, batch and hidden size are the same for all, and so is
the number of forward network calls that training makes, among them those that
only look one supervision step ahead (HRM's); what the calls cost is told beside
it. Batch, warm-up (60 steps) and average are the quickstart's, chosen for TRM;
the learning rate is, too, but for HRM and direct prediction (family_runs.py).
The same command goes on after any kill; a run that has ended is not run again.
Prints a Markdown table, writes family.png, ends with one JSON line.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

from benchmarks import commands, family_report, family_runs, machine
from trm_jax import errors


def main(arguments: Sequence[str] | None = None) -> None:
  """Trains what is left to train; tells what was found."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  parser.add_argument("--rows", default="trm,hrm,single_latent,direct")
  parser.add_argument("--seeds", default="0,1,2")
  parser.add_argument("--network_calls", type=int, default=2880)
  parser.add_argument("--evaluations", type=int, default=4)
  parser.add_argument("--num_clues", type=int, default=14)
  parser.add_argument("--learning_rate", type=float)
  given = parser.parse_args(arguments)
  commands.end_with_what_was_started()
  todo = family_runs.plan(
    given.rows.split(","),
    _numbers(given.seeds),
    network_calls=given.network_calls,
    evaluations=given.evaluations,
    num_clues=given.num_clues,
    learning_rate=given.learning_rate,
  )
  workdir = given.workdir.resolve()
  for runs in zip(*todo, strict=True):  # all rows with a seed, then the next
    for run in runs:
      family_runs.train(run, run.folder(workdir))
  # Opens the devices, and so after all that needs them.
  result = [family_report.found(runs, workdir) for runs in todo]
  family_report.draw(result, workdir / "family.png")
  print(f"\n{family_report.table(result)}\n\n{workdir / 'family.png'}")
  fields = {"command": machine.command(), **machine.fields()}
  print(json.dumps({**fields, "rows": result}))


def _numbers(text: str) -> list[int]:
  try:
    return [int(number) for number in text.split(",")]
  except ValueError as error:
    raise errors.UserError(
      f"--seeds={text}; they are numbers as in 0,1,2"
    ) from error


if __name__ == "__main__":
  try:
    main()
  except errors.UserError as error:
    raise SystemExit(f"error: {error}") from error
