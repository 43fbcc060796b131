"""Small made-up ARC tasks that need no files."""

import numpy as np

from trm_jax.data import arc, arc_tasks

_SIDES = (2, 6)  # of a grid, the first and one past the last
_NUM_PAIRS = 3  # that show the rule


def generate(
  num_train: int, num_test: int, *, seed: int
) -> dict[str, list[arc_tasks.ArcTask]]:
  """Draws tasks whose rule is to turn or mirror a grid and to recolour it.

  Args:
    num_train: Tasks of the subset "training".
    num_test: Tasks of the subset "evaluation".
    seed: Of the draws.

  Returns:
    The two subsets.
  """
  rng = np.random.default_rng(seed)
  return {
    "training": [_task(rng, f"training{i}") for i in range(num_train)],
    "evaluation": [_task(rng, f"evaluation{i}") for i in range(num_test)],
  }


def _task(rng: np.random.Generator, name: str) -> arc_tasks.ArcTask:
  transform = int(rng.integers(arc.NUM_TRANSFORMS))
  colours = rng.permutation(arc.NUM_COLOURS).astype(np.uint8)
  pairs = []
  for _ in range(_NUM_PAIRS + 1):
    shape = rng.integers(*_SIDES, size=2)
    grid = rng.integers(arc.NUM_COLOURS, size=shape, dtype=np.uint8)
    output = arc.apply(grid, transform=transform, colours=colours)
    pairs.append(arc_tasks.Pair(input=grid, output=output))
  return arc_tasks.ArcTask(
    name=name, train=tuple(pairs[:-1]), test=tuple(pairs[-1:]), test_first=False
  )
