r"""Runs a benchmark and another program in turn and compares their speed.

  python -m benchmarks.compare --rounds=3 \
    --with='python trm_in_torch.py --batch 16' \
    -- train_step --config=experiments/sudoku.py --config.train.batch_size=16

Ours, theirs, ours, theirs, ..., each a process of its own, so that a slow phase
of the machine affects both. The last JSON line of the other program, the peer,
must have `seconds_per_step`. The last line here is one JSON object with all
figures; `ratio` is theirs over ours, of the medians.
"""

import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from benchmarks import commands
from trm_jax import errors
from trm_jax.runtime import command_line

_PEER = flags.DEFINE_string("with", None, "The peer's command.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Runs of each.", lower_bound=1)

_BENCHMARKS = ("train_step", "solve", "loader")


def compare(
  ours: Sequence[str], theirs: Sequence[str], *, rounds: int
) -> dict[str, Any]:
  """Runs two commands in turn and prints a line for each round.

  Args:
    ours: words of the first command.
    theirs: words of the second.
    rounds: runs of each.

  Returns:
    The last JSON object of each run, medians and ratios.

  Raises:
    NoResultError: a command failed or reported no seconds_per_step.
  """
  runs = []
  for number in range(1, rounds + 1):
    pair = commands.run(ours), commands.run(theirs)
    runs.append(pair)
    print(f"round {number} of {rounds}: {_in_words(*pair)}", flush=True)
  our_seconds, their_seconds = (
    [run["seconds_per_step"] for run in side]
    for side in zip(*runs, strict=True)
  )
  ratios = [b / a for a, b in zip(our_seconds, their_seconds, strict=True)]
  our_median = statistics.median(our_seconds)
  their_median = statistics.median(their_seconds)
  return {
    "benchmark": "compare",
    "ours": shlex.join(ours),
    "theirs": shlex.join(theirs),
    "seconds_per_step": our_median,
    "their_seconds_per_step": their_median,
    "ratio": their_median / our_median,
    "smallest_ratio": min(ratios),
    "largest_ratio": max(ratios),
    "rounds": [{"ours": a, "theirs": b} for a, b in runs],
  }


def _in_words(ours: dict[str, Any], theirs: dict[str, Any]) -> str:
  a, b = ours["seconds_per_step"], theirs["seconds_per_step"]
  return f"ours {a:.4g} s, theirs {b:.4g} s, ratio {b / a:.3f}"


def peer_command(text: str, flag: str) -> list[str]:
  """Splits a command as a shell would; raises UserError if it cannot be."""
  try:
    words = shlex.split(text)
  except ValueError as error:
    raise errors.UserError(f"{flag} is {text!r}: {error}") from error
  if not words:
    raise errors.UserError(f"{flag} is empty; name a command")
  return words


def main(argv: Sequence[str]) -> None:
  """Prints a line for each round, and one JSON line."""
  if command_line.CONFIG.present:
    raise errors.UserError(
      "--config is a flag of the benchmark and follows its name:"
      " ... -- train_step --config=..."
    )
  if _PEER.value is None:
    raise errors.UserError("name a command to compare with: --with='COMMAND'")
  if len(argv) < 2 or argv[1] not in _BENCHMARKS:
    raise errors.UserError(
      f"name a benchmark after the flags: -- {' or '.join(_BENCHMARKS)}, then"
      " its own flags"
    )
  commands.end_children_on_sigterm()
  _, name, *settings = argv
  ours = [sys.executable, "-m", f"benchmarks.{name}", *settings]
  theirs = peer_command(_PEER.value, "--with")
  print(json.dumps(compare(ours, theirs, rounds=_ROUNDS.value)))


if __name__ == "__main__":
  command_line.run(main)
