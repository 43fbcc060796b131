"""Symmetries of Sudoku, drawn and applied to whole batches.

Every row has a 64-bit key of its own, and its symmetry is a pure function of
that key: no generator is carried along, so a row comes out the same in any
batch, on any host and after any restart.
"""

import dataclasses

import numpy as np

from trm_jax import errors
from trm_jax.data import sudoku

NONE = "none"
FIXED = "fixed"
ENDLESS = "endless"

# Constants of splitmix64 (Steele, Lea, Flood 2014).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)

# Tell apart the streams that are drawn from one seed.
_VARIANT_STREAM = 1
_FIXED_STREAM = 2
_ENDLESS_STREAM = 3


@dataclasses.dataclass(frozen=True)
class SudokuSymmetries:
  """One symmetry per row of a batch.

  Applied in this order: transposition, then the permutations as in
  `new[i, j] = old[row_permutation[i], column_permutation[j]]`, then the digits.

  Attributes:
    digits: New token of every token, uint8 [B, n + 2]; 0 and 1 stay.
    transpose: Whether rows and columns are exchanged, bool [B].
    row_permutation: Old row of every new row, int64 [B, n].
    column_permutation: Old column of every new column, int64 [B, n].
  """

  digits: np.ndarray
  transpose: np.ndarray
  row_permutation: np.ndarray
  column_permutation: np.ndarray


def _mix(values: np.ndarray) -> np.ndarray:
  """Scrambles uint64 values one to one (the finaliser of splitmix64)."""
  values = (values ^ (values >> np.uint64(30))) * _MIX_1
  values = (values ^ (values >> np.uint64(27))) * _MIX_2
  return values ^ (values >> np.uint64(31))


def key(*parts: int | np.ndarray) -> np.ndarray:
  """Mixes integers into keys.

  Args:
    *parts: Integers or integer arrays of shapes that broadcast; their order
      matters.

  Returns:
    uint64 keys, of the parts' common shape and at least [1].
  """
  result = np.zeros(1, np.uint64)  # 1-d: scalar arithmetic warns on overflow
  for part in parts:
    whole = part % 2**64 if isinstance(part, int) else part
    result = _mix((result ^ np.asarray(whole).astype(np.uint64)) + _GOLDEN)
  return result


def draw(keys: np.ndarray, *, box_rows: int, box_cols: int) -> SudokuSymmetries:
  """Draws a uniformly random symmetry for every key.

  Args:
    keys: uint64 [B].
    box_rows: Rows of a box.
    box_cols: Columns of a box.

  Returns:
    B symmetries, row i a function of keys[i] alone. Only square boxes are
    transposed.
  """
  n = sudoku.side(box_rows, box_cols)
  batch = keys.shape[0]
  bands, stacks = n // box_rows, n // box_cols
  splits = np.cumsum([1, n, bands, n, stacks])
  counters = np.arange(1, splits[-1] + n + 1, dtype=np.uint64)
  stream = _mix(_mix(keys)[:, None] + counters * _GOLDEN)
  flip, digits, band, row, stack, column = np.split(stream, splits, axis=1)

  tokens = np.empty((batch, n + 2), np.uint8)
  tokens[:, : sudoku.BLANK + 1] = np.arange(sudoku.BLANK + 1)
  tokens[:, sudoku.BLANK + 1 :] = _argsort(digits) + sudoku.BLANK + 1
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


def identity(batch: int, *, box_rows: int, box_cols: int) -> SudokuSymmetries:
  """Builds `batch` symmetries that change nothing."""
  n = sudoku.side(box_rows, box_cols)
  return SudokuSymmetries(
    digits=np.tile(np.arange(n + 2, dtype=np.uint8), (batch, 1)),
    transpose=np.zeros(batch, bool),
    row_permutation=np.tile(np.arange(n), (batch, 1)),
    column_permutation=np.tile(np.arange(n), (batch, 1)),
  )


def select(
  mask: np.ndarray, chosen: SudokuSymmetries, other: SudokuSymmetries
) -> SudokuSymmetries:
  """Takes rows of `chosen` where mask [B] is True and of `other` elsewhere."""
  rows = mask[:, None]
  return SudokuSymmetries(
    digits=np.where(rows, chosen.digits, other.digits),
    transpose=np.where(mask, chosen.transpose, other.transpose),
    row_permutation=np.where(
      rows, chosen.row_permutation, other.row_permutation
    ),
    column_permutation=np.where(
      rows, chosen.column_permutation, other.column_permutation
    ),
  )


def apply(symmetries: SudokuSymmetries, grids: np.ndarray) -> np.ndarray:
  """Applies symmetry i to grid i.

  Args:
    symmetries: B symmetries.
    grids: Tokens, uint8 [B, L].

  Returns:
    New tokens, uint8 [B, L].
  """
  batch, n = symmetries.row_permutation.shape
  rows = symmetries.row_permutation[:, :, None]
  columns = symmetries.column_permutation[:, None, :]
  # The transposed grid has old[c, r] at [r, c]: exchange the strides.
  flipped = symmetries.transpose[:, None, None]
  cells = rows * np.where(flipped, 1, n) + columns * np.where(flipped, n, 1)
  moved = np.take_along_axis(grids, cells.reshape(batch, n * n), axis=1)
  return np.take_along_axis(symmetries.digits, moved, axis=1)


def inverse(symmetries: SudokuSymmetries) -> SudokuSymmetries:
  """Builds the symmetries that undo these, in the same form.

  Undoing starts with the permutations and ends with the transposition; moving
  the transposition to the front exchanges what is done to rows and columns.
  """
  rows = _argsort(symmetries.row_permutation)
  columns = _argsort(symmetries.column_permutation)
  flipped = symmetries.transpose[:, None]
  return SudokuSymmetries(
    digits=_argsort(symmetries.digits).astype(np.uint8),
    transpose=symmetries.transpose,
    row_permutation=np.where(flipped, columns, rows),
    column_permutation=np.where(flipped, rows, columns),
  )


@dataclasses.dataclass(frozen=True)
class SudokuAugmentation:
  """Says how training puzzles are varied; call it on a batch.

  Attributes:
    box_rows: Rows of a box.
    box_cols: Columns of a box.
    mode: "none"; "fixed", a set of `num_variants` symmetries per puzzle beside
      the original, all equally likely (the official data set, without its
      copies on disk); "endless", a new symmetry at every visit.
    num_variants: Variants per puzzle in mode "fixed".
    seed: Of the draws.
  """

  box_rows: int
  box_cols: int
  mode: str
  num_variants: int
  seed: int

  def __post_init__(self):
    if self.mode not in (NONE, FIXED, ENDLESS):
      raise errors.UserError(
        f"augmentation mode is {self.mode!r}, expected {NONE!r}, {FIXED!r} "
        f"or {ENDLESS!r}"
      )
    if self.num_variants < 0:
      raise errors.UserError(
        f"number of variants is {self.num_variants}, expected 0 or more"
      )
    sudoku.side(self.box_rows, self.box_cols)

  def __call__(
    self,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    batch_index: int,
    rows: np.ndarray,
    puzzle_indices: np.ndarray,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Varies a batch, question and answer alike.

    Args:
      inputs: Tokens, uint8 [b, L].
      labels: Tokens, uint8 [b, L].
      batch_index: Which batch of the training run this is.
      rows: Row of the global batch that each example stands in, [b].
      puzzle_indices: Puzzle of each example, [b].

    Returns:
      New inputs and labels, uint8 [b, L].
    """
    if self.mode == NONE:
      return inputs, labels
    symmetries = self._draw(batch_index, rows, puzzle_indices)
    return apply(symmetries, inputs), apply(symmetries, labels)

  def _draw(
    self, batch_index: int, rows: np.ndarray, puzzle_indices: np.ndarray
  ) -> SudokuSymmetries:
    box = {"box_rows": self.box_rows, "box_cols": self.box_cols}
    if self.mode == ENDLESS:
      return draw(key(self.seed, _ENDLESS_STREAM, batch_index, rows), **box)
    choice = key(self.seed, _VARIANT_STREAM, batch_index, rows)
    variants = choice % np.uint64(self.num_variants + 1)
    drawn = draw(key(self.seed, _FIXED_STREAM, puzzle_indices, variants), **box)
    return select(variants > 0, drawn, identity(len(rows), **box))
