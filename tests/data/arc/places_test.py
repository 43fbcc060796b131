"""Where ARC's grids are put in the 30 x 30 cells."""

import numpy as np

from trm_jax.data.arc import dataset as arc_dataset
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks


def _training_set(tasks, *, num_variants=6, seed=0):
  plan = arc_plan.build(
    tasks, num_variants=num_variants, rng=np.random.RandomState(0)
  )
  return arc_dataset.training_set(
    tasks, plan, test_subset="evaluation", seed=seed
  )


def _first_cells(variants):
  """Row and column of each example's first colour, [E, 2]."""
  examples = np.arange(variants.num_examples)
  puzzles = np.searchsorted(variants.puzzle_indices, examples, "right") - 1
  inputs, labels = variants.fetch(examples, puzzles)
  cells = [
    np.argmax(tokens >= arc_grids.FIRST_COLOUR, axis=1)
    for tokens in (inputs, labels)
  ]
  np.testing.assert_array_equal(*cells)  # both grids of a pair stand together
  return np.stack(np.divmod(cells[0], arc_grids.SIDE), axis=1)


def test_one_example_of_each_puzzle_stays_at_the_first_cell():
  variants = _training_set(arc_load.generate(40, 1, seed=0))
  unmoved = (_first_cells(variants) == 0).all(axis=1)
  starts = variants.puzzle_indices[:-1]
  counts = np.add.reduceat(unmoved.astype(int), starts)
  assert counts.min() == 1
  # Of the others, one in 26 * 26 or fewer stays there by chance.
  assert (counts == 1).mean() > 0.95
  sizes = np.diff(variants.puzzle_indices)
  at = np.flatnonzero(unmoved) - np.repeat(starts, counts)
  of_four = at[np.repeat(sizes, counts) == 4]
  share = np.bincount(of_four, minlength=4) / len(of_four)
  assert len(of_four) >= 280
  assert abs(share - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / len(of_four))


def test_all_places_are_equally_likely():
  rng = np.random.default_rng(0)
  shapes = ((1, 27), (2, 1))  # together, room for 28 rows beside 3 columns
  pairs = tuple(
    arc_tasks.Pair(
      *(rng.integers(10, size=shape, dtype=np.uint8) for shape in shapes)
    )
    for _ in range(9)
  )
  tasks = {"training": [arc_tasks.ArcTask("t", pairs, (), test_first=False)]}
  variants = _training_set(tasks, num_variants=1000)
  cells = _first_cells(variants)
  swapped = arc_grids.SWAPS_SIDES[variants.transforms].repeat(9)
  cells[swapped] = cells[swapped][:, ::-1]
  seen = np.zeros((30, 30), int)
  np.add.at(seen, tuple(cells.T), 1)
  assert not seen[29:].any()
  assert not seen[:, 4:].any()
  # Where all begin, one example of each puzzle stands in any case.
  seen = seen[:29, :4].ravel()
  seen[0] -= variants.num_puzzles
  expected = 8 * variants.num_puzzles / len(seen)
  assert expected > 60
  assert abs(seen - expected).max() < 5 * np.sqrt(expected)


def test_places_depend_on_the_seed_alone():
  tasks = arc_load.generate(5, 1, seed=0)
  first, same, other = (
    _first_cells(_training_set(tasks, seed=seed)) for seed in (1, 1, 2)
  )
  np.testing.assert_array_equal(first, same)
  assert (first != other).any(axis=1).mean() > 0.5
