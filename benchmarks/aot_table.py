"""Compiles the experiments for TPU slices and prints what they would cost.

Each row is one process of `launch.aot`, which is named in it; nothing runs on a
TPU, and none has to be there:

  python -m benchmarks.aot_table slices growth attention
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator

_EXPERIMENTS = (
  "sudoku.py",
  "sudoku.py:attention",
  "maze.py",
  "arc.py",
  "arc.py:2",
)
_SLICES = ("v5e:2x4", "v5e:4x8", "v5p:2x2x2", "v5p:2x4x4", "v6e:2x4", "v6e:4x8")
_GROWTH = ("v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16")
_HEAD = (
  "experiment, slice and settings",
  "memory of training",
  "of it temporaries",
  "memory of evaluating",
  "fits",
  "TFLOP per chip and step",
  "collectives of a training step, MB",
)


def commands(kind: str) -> Iterator[list[str]]:
  """Yields the arguments of each row."""
  if kind == "slices":
    for experiment in _EXPERIMENTS:
      for topology in _SLICES:
        yield [experiment, topology]
    yield ["arc.py:2", "v5e:2x2"]
  elif kind == "growth":
    for topology in _GROWTH:
      # 3 slots on each of 256 chips, as many on any other slice.
      yield ["arc.py:2", topology]
  else:
    for topology in ("v5e:2x4", "v5e:4x8"):
      for remat in ("full", "dots"):
        for kernel in ("xla", "splash"):
          yield [
            "arc.py:2",
            topology,
            f"--config.model.remat={remat}",
            f"--config.model.attention_kernel={kernel}",
          ]


def _row(experiment: str, topology: str, *settings: str) -> list[str]:
  command = [
    *(sys.executable, "-m", "launch.aot", "--json"),
    *(f"--config=experiments/{experiment}", f"--topology={topology}"),
    *settings,
  ]
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  lines = result.stdout.splitlines()
  if not lines or not lines[-1].startswith("{"):
    raise RuntimeError(f"{' '.join(command)}: {result.stderr}")
  found = json.loads(lines[-1])
  train, evaluate = (found["steps"][step] for step in ("train", "evaluate"))
  traffic = train["collectives"]
  return [
    " ".join((f"`{experiment}`", topology, *settings)),
    _gib(train["total"]),
    _gib(train["memory"].get("temporaries", 0)),
    _gib(evaluate["total"]),
    "yes" if found["fits"] else "no",
    f"{train['model_flops'] / found['chips'] / 1e12:.2f}",
    ", ".join(f"{kind} {size / 1e6:.2f}" for kind, size in traffic.items()),
  ]


def _gib(size: int) -> str:
  return f"{size / 2**30:.2f} GiB"


def main() -> None:
  """Prints a Markdown table for each kind of rows, row by row."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    "kinds", nargs="+", choices=("slices", "growth", "attention")
  )
  for kind in parser.parse_args().kinds:
    print("", _markdown(_HEAD), _markdown(["---"] * len(_HEAD)), sep="\n")
    for command in commands(kind):
      print(_markdown(_row(*command)), flush=True)


def _markdown(cells) -> str:
  return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
  main()
