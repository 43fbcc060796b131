"""ARC data sets, augmented on the fly from a table of variants.

In memory are the pairs of the original tasks, as tokens in each of the eight
transforms; colours and the offset in the 30 x 30 cells are applied on access.
"""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from trm_jax import errors
from trm_jax.data import puzzle_set, rng
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks

# Separate the random streams of one seed; `augmentation` has lower numbers.
_TRANSLATION_STREAM = 4
_UNMOVED_STREAM = 5


class AugmentedDataset(puzzle_set.Puzzles):
  """Puzzles whose groups are the variants of one task each.

  Attributes:
    tasks: The task of each group, G.
    transforms: Transform of each puzzle, for `grids.apply`, uint8 [N].
    colours: Colours of each puzzle, for `grids.apply`, uint8 [N, 10].
    puzzle_ids: Row of the puzzle table for each puzzle, int32 [N].
    puzzle_indices: Puzzle p has the examples [p] to [p + 1], int64 [N + 1].
    group_indices: Group g has the puzzles [g] to [g + 1], int64 [G + 1].
  """

  def __init__(
    self,
    table: arc_plan.VariantTable,
    tasks: Sequence[arc_tasks.ArcTask],
    pairs: Sequence[Sequence[arc_tasks.Pair]],
    *,
    translation_seed: int | None,
  ):
    """Encodes the pairs of all tasks.

    Args:
      table: The variants of these tasks.
      tasks: The task of each group.
      pairs: The pairs of each group, at least one; they are the examples.
      translation_seed: Seed of the grids' offsets in the 30 x 30 cells; None
        for no offsets.
    """
    self.tasks = tuple(tasks)
    self.transforms = table.transforms
    self.colours = table.colours
    self.puzzle_ids = table.rows
    self.group_indices = table.group_indices
    counts = np.array([len(group) for group in pairs])
    sizes = np.diff(table.group_indices)
    self._group_of = np.repeat(np.arange(len(counts), dtype=np.int32), sizes)
    self.puzzle_indices = np.cumsum(
      np.concatenate([[0], np.repeat(counts, sizes)]), dtype=np.int64
    )
    self._counts = counts
    self._first_pair = np.cumsum(counts) - counts
    flat = [pair for group in pairs for pair in group]
    self._inputs = _tokens([pair.input for pair in flat])
    self._labels = _tokens([pair.output for pair in flat])
    self._sides = np.array([_sides(pair) for pair in flat])
    self._seed = translation_seed

  @property
  def seq_len(self) -> int:
    """L."""
    return arc_grids.SEQ_LEN

  def fetch(
    self, examples: np.ndarray, puzzles: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """See `puzzle_set.Puzzles.fetch`."""
    groups = self._group_of[puzzles]
    within = examples - self.puzzle_indices[puzzles]
    pairs = self._first_pair[groups] + within
    transforms = self.transforms[puzzles]
    colours = self.colours[puzzles]
    inputs = _recoloured(self._inputs[transforms, pairs], colours)
    labels = _recoloured(self._labels[transforms, pairs], colours)
    if self._seed is None:
      return inputs, labels
    sides = self._sides[pairs]
    swapped = arc_grids.SWAPS_SIDES[transforms][:, None]
    rows, columns = _places(
      puzzles,
      within,
      self._counts[groups],
      room=arc_grids.SIDE - np.where(swapped, sides[:, ::-1], sides),
      seed=self._seed,
    )
    return _moved(inputs, rows, columns), _moved(labels, rows, columns)

  def fingerprint(self) -> str:
    """See `puzzle_set.Puzzles.fingerprint`."""
    digest = hashlib.blake2b(repr(self._seed).encode(), digest_size=16)
    for array in (
      self.puzzle_ids,
      self.puzzle_indices,
      self.group_indices,
      self.transforms,
      self.colours,
      self._inputs[0],
      self._labels[0],
    ):
      digest.update(f"{array.dtype} {array.shape}".encode())
      digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _tokens(grids: Sequence[np.ndarray | None]) -> np.ndarray:
  """Encodes grids in every transform: uint8 [8, E, 900], 0 for None."""
  tokens = np.zeros(
    (arc_grids.NUM_TRANSFORMS, len(grids), arc_grids.SEQ_LEN), np.uint8
  )
  for i, grid in enumerate(grids):
    if grid is not None:
      for transform in range(arc_grids.NUM_TRANSFORMS):
        tokens[transform, i] = arc_grids.encode(
          arc_grids.dihedral(grid, transform)
        )
  return tokens


def _sides(pair: arc_tasks.Pair) -> tuple[int, int]:
  """Returns height and width of a box that fits both grids."""
  height, width = pair.input.shape
  if pair.output is None:
    return height, width
  return max(height, pair.output.shape[0]), max(width, pair.output.shape[1])


def _recoloured(tokens: np.ndarray, colours: np.ndarray) -> np.ndarray:
  """Permutes the colours, uint8 [b, 10], of tokens, uint8 [b, 900]."""
  table = np.empty((len(tokens), arc_grids.VOCAB_SIZE), np.uint8)
  table[:, arc_grids.PAD] = arc_grids.PAD
  table[:, arc_grids.EOS] = arc_grids.EOS
  table[:, arc_grids.FIRST_COLOUR :] = colours + np.uint8(
    arc_grids.FIRST_COLOUR
  )
  # A flat index is twice as fast as take_along_axis.
  starts = np.arange(0, table.size, arc_grids.VOCAB_SIZE)
  return table.reshape(-1)[tokens + starts[:, None]]


def _places(
  puzzles: np.ndarray,
  within: np.ndarray,
  counts: np.ndarray,
  room: np.ndarray,
  *,
  seed: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Draws the offset of each example of each puzzle.

  One example of each puzzle is not moved, as officially.

  Args:
    puzzles: Puzzle of each example, int64 [b].
    within: Index of the example in its puzzle, int64 [b].
    counts: Number of examples of that puzzle, int64 [b].
    room: Largest row and column offset of the pair, int64 [b, 2].
    seed: Seed of the draws.

  Returns:
    Row offsets and column offsets, int64 [b] each.
  """
  unmoved = rng.key(seed, _UNMOVED_STREAM, puzzles)
  stays = unmoved % counts.astype(np.uint64) == within
  drawn = rng.stream(rng.key(seed, _TRANSLATION_STREAM, puzzles, within), 2)
  offsets = (drawn % (room + 1).astype(np.uint64)).astype(np.int64)
  offsets[stays] = 0
  return offsets[:, 0], offsets[:, 1]


def _moved(
  tokens: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
  """Moves grids down by rows and right by columns, [b], and crops them.

  Each grid is in the last quarter of a canvas of twice the side, and the result
  is a window that starts at the offset before it.
  """
  count, side = len(tokens), arc_grids.SIDE
  canvas = np.zeros((count, 2 * side, 2 * side), np.uint8)
  canvas[:, side:, side:] = tokens.reshape(count, side, side)
  windows = np.lib.stride_tricks.sliding_window_view(
    canvas, (side, side), axis=(1, 2)
  )
  moved = windows[np.arange(count), side - rows, side - columns]
  return moved.reshape(count, arc_grids.SEQ_LEN)


def training_set(
  tasks: arc_plan.Tasks,
  table: arc_plan.VariantTable,
  *,
  test_subset: str,
  seed: int,
) -> AugmentedDataset:
  """Builds the training set: all known pairs but the test subset's answers.

  Tasks of the test subset contribute their training pairs, all others their
  test pairs too, in the order of the file, as officially; pairs without a known
  output are left out. Each example has a random offset in the 30 x 30 cells.

  Args:
    tasks: Tasks of each subset.
    table: The variants of these tasks.
    test_subset: The subset to evaluate on.
    seed: Seed of the offsets.

  Returns:
    The set; its groups are those of the table.

  Raises:
    UserError: if a task has no pair to train on.
  """
  by_name = _by_name(tasks)
  pairs = []
  for subset, name in table.groups:
    task = by_name[subset, name]
    if subset == test_subset:
      given = task.train
    elif task.test_first:
      given = (*task.test, *task.train)
    else:
      given = (*task.train, *task.test)
    known = [pair for pair in given if pair.output is not None]
    if not known:
      raise errors.UserError(
        f"task {name!r} of the subset {subset!r} has no pair to train on, "
        "expected at least one with an output"
      )
    pairs.append(known)
  members = [by_name[group] for group in table.groups]
  return AugmentedDataset(table, members, pairs, translation_seed=seed)


def test_set(
  tasks: arc_plan.Tasks, table: arc_plan.VariantTable, *, test_subset: str
) -> AugmentedDataset:
  """Builds the test set: the test pairs of the test subset's variants.

  Args:
    tasks: Tasks of each subset.
    table: The variants of these tasks.
    test_subset: The subset to evaluate on.

  Returns:
    The set, without offsets; its groups are the subset's tasks in the order of
    the table. Labels are 0 where the output is unknown.

  Raises:
    UserError: if the subset has no tasks or a task no test pair.
  """
  by_name = _by_name(tasks)
  chosen = _of_subset(table, test_subset)
  members = [by_name[group] for group in chosen.groups]
  for task in members:
    if not task.test:
      raise errors.UserError(
        f"task {task.name!r} of the subset {test_subset!r} has no test pair"
      )
  pairs = [task.test for task in members]
  return AugmentedDataset(chosen, members, pairs, translation_seed=None)


def _of_subset(
  table: arc_plan.VariantTable, subset: str
) -> arc_plan.VariantTable:
  """Returns the part of a table, whose subsets are contiguous."""
  groups = [g for g, (name, _) in enumerate(table.groups) if name == subset]
  if not groups:
    raise errors.UserError(
      f"no tasks in the test subset {subset!r}; the subsets are "
      f"{', '.join(dict.fromkeys(name for name, _ in table.groups))}"
    )
  first, last = groups[0], groups[-1] + 1
  puzzles = slice(table.group_indices[first], table.group_indices[last])
  return dataclasses.replace(
    table,
    groups=table.groups[first:last],
    group_indices=table.group_indices[first : last + 1] - puzzles.start,
    rows=table.rows[puzzles],
    transforms=table.transforms[puzzles],
    colours=table.colours[puzzles],
  )


def _by_name(
  tasks: arc_plan.Tasks,
) -> dict[tuple[str, str], arc_tasks.ArcTask]:
  return {
    (subset, task.name): task
    for subset, members in tasks.items()
    for task in members
  }
