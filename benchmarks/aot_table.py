"""Compiles the experiments for TPUs and GPUs and prints what they would cost.

Each row is one process of `launch.aot`, which is named in it; nothing runs on a
TPU or GPU, and none has to be there:

  python -m benchmarks.aot_table slices growth attention gpus
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator

from launch import aot_gpus

_EXPERIMENTS = (
  "sudoku.py",
  "sudoku.py:attention",
  "maze.py",
  "arc.py",
  "arc.py:2",
)
_SLICES = ("v5e:2x4", "v5e:4x8", "v5p:2x2x2", "v5p:2x4x4", "v6e:2x4", "v6e:4x8")
_GROWTH = ("v5e:2x4", "v5e:4x4", "v5e:4x8", "v5e:8x8", "v5e:8x16", "v5e:16x16")
_GPU_SETTINGS = (
  (),  # remat 'auto'
  ("--config.model.remat=full",),
  ("--config.model.remat=dots",),
  ("--config.model.remat=none",),
  ("--config.model.gate_kernel=triton",),
)
_HEAD = (
  "experiment, slice and settings",
  "memory of training",
  "of it temporaries",
  "memory of evaluating",
  "fits",
  "TFLOP per chip and step",
  "collectives of a training step, MB",
)
_GPU_HEAD = (
  "experiment, GPUs and settings",
  "kept",
  "memory of training",
  "of evaluating",
  "fits",
  "a training step: GB moved",
  "least seconds",
  "rate at most",
  "an evaluation: least seconds",
  "rate at most",
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
  elif kind == "gpus":
    for experiment in ("sudoku.py", "sudoku.py:attention", "maze.py"):
      for settings in _GPU_SETTINGS:
        yield [experiment, "h200:1", *settings]
    parts = "--config.train.microbatches=2"
    yield ["maze.py", "h200:1", parts]
    yield ["maze.py", "h200:1", parts, "--config.model.gate_kernel=triton"]
    for topology in ("h200:1", "h100:1", "a100:1"):
      yield ["arc.py", topology]
    for topology in ("h100:1", "a100:1", "rtx4090:1"):
      yield ["sudoku.py", topology]
    yield ["arc.py:2", "h100:8"]
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
  name = " ".join((f"`{experiment}`", topology, *settings))
  train, evaluate = (found["steps"][step] for step in ("train", "evaluate"))
  if train["least_seconds"]:
    return [name, *_gpu_cells(found, train, evaluate)]
  traffic = train["collectives"]
  return [
    name,
    _gib(train["total"]),
    _gib(train["memory"].get("temporaries", 0)),
    _gib(evaluate["total"]),
    "yes" if found["fits"] else "no",
    f"{train['model_flops'] / found['chips'] / 1e12:.2f}",
    ", ".join(f"{kind} {size / 1e6:.2f}" for kind, size in traffic.items()),
  ]


def _gpu_cells(found, train, evaluate) -> Iterator[str]:
  gpu = aot_gpus.GPUS[found["topology"].partition(":")[0]]
  yield found["remat"] + (", unrolled" if found["unroll"] else "")
  yield _gib(train["total"])
  yield _gib(evaluate["total"])
  yield "yes" if found["fits"] else "no"
  yield f"{train['traffic_bytes'] / 1e9:,.0f}"
  for step in (train, evaluate):
    least = step["least_seconds"]
    yield f"{least:.3g}"
    rate = step["model_flops"] / found["chips"] / least
    yield f"{rate / gpu.flops:.0%}"


def _gib(size: int) -> str:
  return f"{size / 2**30:.2f} GiB"


def main() -> None:
  """Prints a Markdown table for each kind of rows, row by row."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    "kinds", nargs="+", choices=("slices", "growth", "attention", "gpus")
  )
  for kind in parser.parse_args().kinds:
    head = _GPU_HEAD if kind == "gpus" else _HEAD
    print("", _markdown(head), _markdown(["---"] * len(head)), sep="\n")
    for command in commands(kind):
      print(_markdown(_row(*command)), flush=True)


def _markdown(cells) -> str:
  return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
  main()
