"""Draws the variants of an ARC task, and tells which of them are the same.

A turned or recoloured task can be one that was there before: a task of one
colour has few variants, and one of symmetric grids has fewer than others. Two
variants are the same when they hold the same pairs, in whatever order.
"""

from collections.abc import Iterable

import numpy as np

from trm_jax.data import rng as rng_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks

_TRIALS_PER_VARIANT = 5  # then a task has to do with fewer variants
_NEW_COLOURS = np.arange(1, arc_grids.NUM_COLOURS, dtype=np.uint8)
# The official builder takes it for an answer that is not known.
_NO_ANSWER = np.zeros((1, 1), np.uint8)

# Random weights of the cells, for inputs and for outputs.
_WEIGHT_SALT = 0x41524321
_WEIGHTS = rng_lib.key(
  _WEIGHT_SALT,
  np.arange(2)[:, None, None],
  np.arange(arc_grids.SIDE)[:, None],
  np.arange(arc_grids.SIDE),
)


def _colour_sums(grid: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Adds up the weights of each colour's cells after each transform.

  Args:
    grid: Colours, uint8 [h, w].
    weights: Of the places of a grid, uint64 [30, 30].

  Returns:
    uint64 [8, 10].
  """
  cells = np.arange(grid.size).reshape(grid.shape)
  placed = np.empty((arc_grids.NUM_TRANSFORMS, grid.size), np.uint64)
  for transform in range(arc_grids.NUM_TRANSFORMS):
    moved = arc_grids.dihedral(cells, transform)
    height, width = moved.shape
    placed[transform, moved] = weights[:height, :width]
  has_colour = grid.reshape(-1, 1) == np.arange(arc_grids.NUM_COLOURS)
  return placed @ has_colour.astype(np.uint64)


class Fingerprints:
  """Computes a 64-bit number for each variant of one task.

  A pair's number is the sum over its cells, after the transform, of weight *
  (new colour + 1), modulo 2^64; cells outside the grid add nothing, so that the
  sum knows the shape. A task's number is the sum of its pairs' scrambled
  numbers. Equal variants have equal numbers. Two that differ have equal numbers
  with a chance of 2^-61, since colours + 1 differ by 10 at most and so by no
  multiple of 16: below 10^-8 for one mistake in a plan of a thousand tasks,
  each with 5,000 trials against up to 1,000 variants.
  """

  def __init__(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]):
    """Looks at every cell once.

    Args:
      pairs: Inputs and outputs, colours, uint8 [h, w] each.
    """
    self._sums = np.stack(  # [8, 10, pairs]
      [
        _colour_sums(x, _WEIGHTS[0]) + _colour_sums(y, _WEIGHTS[1])
        for x, y in pairs
      ],
      axis=-1,
    )

  def __call__(self, transforms: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Computes the numbers of n variants.

    Args:
      transforms: uint8 [n].
      colours: uint8 [n, 10].

    Returns:
      uint64 [n].
    """
    factors = colours.astype(np.uint64) + np.uint64(1)
    result = np.empty(len(transforms), np.uint64)
    for transform in range(arc_grids.NUM_TRANSFORMS):
      chosen = transforms == transform
      pairs = factors[chosen] @ self._sums[transform]
      result[chosen] = rng_lib.key(pairs).sum(axis=1, dtype=np.uint64)
    return result


def draw(
  count: int, *, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
  """Draws variants, equal ones among them, as the official builder does.

  Args:
    count: n.
    rng: Is advanced by n draws of a transform and a permutation each.

  Returns:
    Transforms, uint8 [n], and colours, uint8 [n, 10].
  """
  transforms = np.empty(count, np.uint8)
  colours = np.zeros((count, arc_grids.NUM_COLOURS), np.uint8)
  for i in range(count):
    transforms[i] = rng.randint(0, arc_grids.NUM_TRANSFORMS)
    colours[i, 1:] = rng.permutation(_NEW_COLOURS)
  return transforms, colours


def distinct(
  task: arc_tasks.ArcTask, *, num_variants: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a task's variants, no two the same, as the official builder does.

  It tries five times as often as variants are wanted and takes what it has by
  then.

  Args:
    task: Its training and test pairs count alike.
    num_variants: Wanted, beside the original.
    rng: Is advanced as by the official builder.

  Returns:
    Transforms, uint8 [n], and colours, uint8 [n, 10]; the original comes first.
  """
  fingerprints = Fingerprints(
    (pair.input, _NO_ANSWER if pair.output is None else pair.output)
    for pair in (*task.train, *task.test)
  )
  transforms = [np.zeros(1, np.uint8)]
  colours = [arc_grids.SAME_COLOURS[None]]
  seen = set(fingerprints(transforms[0], colours[0]).tolist())
  left = _TRIALS_PER_VARIANT * num_variants
  # As many trials as are missing: what follows finds rng as the official
  # builder does, which stops at the last variant that it needs.
  while count := min(num_variants + 1 - len(seen), left):
    left -= count
    new_transforms, new_colours = draw(count, rng=rng)
    numbers = fingerprints(new_transforms, new_colours).tolist()
    kept = []
    for i, number in enumerate(numbers):
      if number not in seen:
        seen.add(number)
        kept.append(i)
    transforms.append(new_transforms[kept])
    colours.append(new_colours[kept])
  return np.concatenate(transforms), np.concatenate(colours)
