"""Measures what a full-size puzzle table costs in memory and time.

  python -m benchmarks.puzzle_table

times a training step of a narrow network twice, each in a process of its own:
with a table of one row and with ARC-AGI-1's 876,406 rows of 512. The last line
is one JSON object; `added_over_table` is what the large table adds to the peak
memory, over the size of the table.
"""

import json
import os
import sys

from benchmarks import commands
from trm_jax import errors

ROWS, WIDTH = 876_406, 512


def _train_step(rows: int) -> list[str]:
  return [
    *(sys.executable, "-m", "benchmarks.train_step"),
    "--config=experiments/arc.py:smoke",
    f"--config.model.puzzle_embed_dim={WIDTH}",
    "--config.model.num_prefix_tokens=16",
    f"--num_puzzle_ids={rows}",
    *("--nocompile_seconds", "--calls=5", "--warm_up=1"),
  ]


def main() -> None:
  """Prints one JSON line."""
  commands.end_children_on_sigterm()
  # Memory that malloc keeps for the next step would count as the table's.
  environment = os.environ | {"MALLOC_CHECK_": "0"}
  one, full = (
    commands.run(_train_step(rows), environment=environment)
    for rows in (1, ROWS)
  )
  table_gb = ROWS * WIDTH * 4 / 1e9
  result = {
    "benchmark": "puzzle_table",
    **{name: full[name] for name in ("device", "cpu", "cores", "jax")},
    "rows": ROWS,
    "table_gb": table_gb,
    "peak_gb_one_row": one["peak_gb"],
    "peak_gb": full["peak_gb"],
    "added_over_table": (full["peak_gb"] - one["peak_gb"]) / table_gb,
    "seconds_per_step_one_row": one["seconds_per_step"],
    "seconds_per_step": full["seconds_per_step"],
  }
  print(json.dumps(result))


if __name__ == "__main__":
  try:
    main()
  except errors.UserError as error:
    raise SystemExit(f"error: {error}") from error
