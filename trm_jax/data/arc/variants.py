"""Draws the distinct variants of an ARC task.

A transformed or recoloured task can be equal to an earlier one: tasks of one
colour or of symmetric grids have few variants. Two variants are equal if they
have the same pairs in any order. The official builder compares SHA-256 hashes,
to which the tests compare the fingerprints used here.
"""

from collections.abc import Iterable

import numpy as np

from trm_jax.data import rng as rng_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks

_TRIALS_PER_VARIANT = 5  # after these, a task has fewer variants
_NEW_COLOURS = np.arange(1, arc_grids.NUM_COLOURS, dtype=np.uint8)
# The official builder's placeholder for an unknown answer.
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
  """Sums the weights of each colour's cells after each transform.

  Args:
    grid: Colours, uint8 [h, w].
    weights: Weight of each cell, uint64 [30, 30].

  Returns:
    Sums, uint64 [8, 10].
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
  """Computes a 64-bit fingerprint of each variant of one task.

  The fingerprint of a pair is the sum over its cells, after the transform, of
  weight * (new colour + 1), modulo 2^64; cells outside the grid add nothing, so
  it depends on the shape. The fingerprint of a task is the sum of its pairs'
  hashed fingerprints. Equal variants have equal fingerprints. Different ones
  collide with probability 2^-61, as colours + 1 differ by at most 10 and so by
  no multiple of 16: less than 10^-8 for one collision in a table of a thousand
  tasks, each with 5,000 trials against up to 1,000 variants.
  """

  def __init__(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]):
    """Sums the weights of all cells.

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
    """Computes the fingerprints of n variants.

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
  """Draws variants with repetition, as the official builder does.

  Args:
    count: n.
    rng: Advanced by n draws of a transform and a permutation each.

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
  task: arc_tasks.ArcTask, *, num_augmentations: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a task's distinct variants, as the official builder does.

  After five trials per variant, the variants found so far have to do.

  Args:
    task: Task; its training and test pairs count alike.
    num_augmentations: Number of variants wanted in addition to the original.
    rng: Advanced exactly as by the official builder.

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
  left = _TRIALS_PER_VARIANT * num_augmentations
  # Only as many trials as variants are missing, so that rng ends in the same
  # state as in the official builder, which stops at the last variant it needs.
  while count := min(num_augmentations + 1 - len(seen), left):
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
