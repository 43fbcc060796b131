"""Data augmentation by the symmetries of Sudoku, for whole batches.

The symmetry of a row is a pure function of its 64-bit key.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from trm_jax.data import augmentation, rng
from trm_jax.data.sudoku import rules as sudoku_rules


@dataclasses.dataclass(frozen=True)
class SudokuSymmetries:
  """One symmetry per row of a batch.

  Applied in this order: transposition, then the permutations as in
  `new[i, j] = old[row_permutation[i], column_permutation[j]]`, then the digits.

  Attributes:
    digits: New token of every token, uint8 [B, n + 2]; 0 and 1 stay.
    transpose: Whether rows and columns are swapped, bool [B].
    row_permutation: Old row of every new row, int64 [B, n].
    column_permutation: Old column of every new column, int64 [B, n].
  """

  digits: np.ndarray
  transpose: np.ndarray
  row_permutation: np.ndarray
  column_permutation: np.ndarray


def draw(
  row_keys: np.ndarray, *, box_rows: int, box_cols: int
) -> SudokuSymmetries:
  """Draws a uniformly random symmetry for every key.

  Args:
    row_keys: uint64 [B].
    box_rows: Rows of a box.
    box_cols: Columns of a box.

  Returns:
    B symmetries, row i a function of row_keys[i] alone. Only square boxes are
    transposed.
  """
  n = sudoku_rules.side(box_rows, box_cols)
  batch = row_keys.shape[0]
  bands, stacks = n // box_rows, n // box_cols
  splits = np.cumsum([1, n, bands, n, stacks])
  stream = rng.stream(row_keys, int(splits[-1]) + n)
  flip, digits, band, row, stack, column = np.split(stream, splits, axis=1)

  tokens = np.empty((batch, n + 2), np.uint8)
  tokens[:, : sudoku_rules.BLANK + 1] = np.arange(sudoku_rules.BLANK + 1)
  tokens[:, sudoku_rules.BLANK + 1 :] = (
    _argsort(digits) + sudoku_rules.BLANK + 1
  )
  transpose = (flip[:, 0] >> np.uint64(63)).astype(bool)
  return SudokuSymmetries(
    digits=tokens,
    transpose=transpose & (box_rows == box_cols),
    row_permutation=_line_permutation(band, row),
    column_permutation=_line_permutation(stack, column),
  )


def _argsort(values: np.ndarray) -> np.ndarray:
  return np.argsort(values, axis=-1, kind="stable")


def _line_permutation(blocks: np.ndarray, lines: np.ndarray) -> np.ndarray:
  """Permutes blocks [B, k] and, inside each, lines [B, n]: int64 [B, n]."""
  batch, num_blocks = blocks.shape
  within = _argsort(lines.reshape(batch, num_blocks, -1))
  first = _argsort(blocks)[:, :, None] * within.shape[-1]
  return (first + within).reshape(batch, -1)


def apply(symmetries: SudokuSymmetries, grids: np.ndarray) -> np.ndarray:
  """Applies symmetry i to grid i.

  Args:
    symmetries: B symmetries.
    grids: Tokens, uint8 [B, L].

  Returns:
    New tokens, uint8 [B, L].
  """
  moved = np.take_along_axis(grids, moved_cells(symmetries), axis=1)
  return np.take_along_axis(symmetries.digits, moved, axis=1)


def moved_cells(symmetries: SudokuSymmetries) -> np.ndarray:
  """Returns where each cell comes from, int64 [B, L]."""
  batch, n = symmetries.row_permutation.shape
  rows = symmetries.row_permutation[:, :, None]
  columns = symmetries.column_permutation[:, None, :]
  # The transposed grid has old[c, r] at [r, c]: swap the strides.
  flipped = symmetries.transpose[:, None, None]
  cells = rows * np.where(flipped, 1, n) + columns * np.where(flipped, n, 1)
  return cells.reshape(batch, n * n)


@dataclasses.dataclass(frozen=True)
class SudokuAugmentation(augmentation.BySymmetry):
  """Augments puzzles by the symmetries of Sudoku; call it on a batch.

  Attributes:
    box_rows: Rows of a box.
    box_cols: Columns of a box.
    sampler: Which row gets which variant.
  """

  box_rows: int
  box_cols: int
  sampler: augmentation.VariantSampler

  def __post_init__(self):
    sudoku_rules.side(self.box_rows, self.box_cols)

  def mover(self, row_keys: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """See `augmentation.BySymmetry.mover`."""
    return functools.partial(apply, self._draw(row_keys))

  def tables(self, row_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `augmentation.BySymmetry.tables`."""
    symmetries = self._draw(row_keys)
    return moved_cells(symmetries), symmetries.digits

  def _draw(self, row_keys: np.ndarray) -> SudokuSymmetries:
    return draw(row_keys, box_rows=self.box_rows, box_cols=self.box_cols)
