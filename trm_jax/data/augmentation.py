"""Data augmentation: its interface, which row gets which variant, grids."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import puzzle_set, rng
from trm_jax.data.arc import grids as arc_grids

NONE = "none"
FIXED = "fixed"
ENDLESS = "endless"

# Separate the random streams that are drawn from one seed.
_VARIANT_STREAM = 1
_FIXED_STREAM = 2
_ENDLESS_STREAM = 3
_ATTEMPT_STREAM = 4


class Augmentation(Protocol):
  """Augments a batch, each row by its position or its puzzle alone."""

  def __call__(
    self,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    batch_index: int,
    rows: np.ndarray,
    puzzle_indices: np.ndarray,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns augmented inputs and labels, uint8 [b, L] each.

    Args:
      inputs: Tokens, uint8 [b, L].
      labels: Tokens, uint8 [b, L].
      batch_index: Index k of the batch in the training run.
      rows: Rows of the global batch, [b].
      puzzle_indices: Puzzle of each row, [b].
    """


@dataclasses.dataclass(frozen=True)
class VariantSampler:
  """Samples which row of a batch gets which variant.

  Attributes:
    mode: "none"; "fixed": the original or one of `num_augmentations` symmetries
      per puzzle, all equally likely (the official data set without its copies
      on disk); "endless": a new symmetry at every visit.
    num_augmentations: Variants per puzzle in mode "fixed".
    seed: Seed of the draws.
  """

  mode: str
  num_augmentations: int
  seed: int

  @classmethod
  def from_settings(cls, data: config_lib.DataConfig) -> "VariantSampler":
    """Builds the sampler of the settings."""
    return cls(data.augmentation, data.num_augmentations, data.seed)

  def __post_init__(self):
    if self.mode not in (NONE, FIXED, ENDLESS):
      raise errors.UserError(
        f"augmentation mode is {self.mode!r}, expected {NONE!r}, {FIXED!r} "
        f"or {ENDLESS!r}"
      )
    if self.num_augmentations < 0:
      raise errors.UserError(
        f"number of variants is {self.num_augmentations}, expected 0 or more"
      )

  def draw(
    self, batch_index: int, rows: np.ndarray, puzzle_indices: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Draws a key for every row.

    Args:
      batch_index: Index k of the batch.
      rows: Rows of the global batch, [b].
      puzzle_indices: Puzzle of each row, [b].

    Returns:
      Keys that determine the symmetry of each row, uint64 [b], and whether it
      is applied at all, bool [b].
    """
    if self.mode == NONE:
      return np.zeros(len(rows), np.uint64), np.zeros(len(rows), bool)
    if self.mode == ENDLESS:
      row_keys = rng.key(self.seed, _ENDLESS_STREAM, batch_index, rows)
      return row_keys, np.ones(len(rows), bool)
    choice = rng.key(self.seed, _VARIANT_STREAM, batch_index, rows)
    variants = choice % np.uint64(self.num_augmentations + 1)
    row_keys = rng.key(self.seed, _FIXED_STREAM, puzzle_indices, variants)
    return row_keys, variants > 0


class BySymmetry(abc.ABC):
  """An `Augmentation` whose symmetries are functions of the rows' keys.

  Attributes:
    sampler: Which row gets which variant.
  """

  sampler: VariantSampler

  @abc.abstractmethod
  def mover(self, row_keys: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Draws a symmetry for every row.

    Args:
      row_keys: uint64 [b].

    Returns:
      A function that applies symmetry i to row i of tokens, uint8 [b, L].
    """

  @abc.abstractmethod
  def tables(self, row_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the symmetries of `mover` as tables.

    Args:
      row_keys: uint64 [b].

    Returns:
      Where each cell comes from, int64 [b, L], and the new token of every
      token, uint8 [b, V]: the grid is `tokens[i, old[cells[i]]]`.
    """

  def __call__(
    self,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    batch_index: int,
    rows: np.ndarray,
    puzzle_indices: np.ndarray,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Augments a batch; see `Augmentation`."""
    if self.sampler.mode == NONE:
      return inputs, labels
    row_keys, varied = self.sampler.draw(batch_index, rows, puzzle_indices)
    move = self.mover(row_keys)
    new_inputs, new_labels = (
      np.where(varied[:, None], move(tokens), tokens)
      for tokens in (inputs, labels)
    )
    return new_inputs, new_labels


def attempt_tables(
  symmetries: BySymmetry, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Draws the symmetries under which a puzzle is attempted several times.

  Args:
    symmetries: The known symmetries of the puzzles.
    count: Number of attempts, K.

  Returns:
    Cells, int64 [K, L], and tokens, uint8 [K, V], as `BySymmetry.tables`; the
    first is the identity.
  """
  attempts = np.arange(count)
  keys = rng.key(symmetries.sampler.seed, _ATTEMPT_STREAM, attempts)
  cells, tokens = symmetries.tables(keys)
  cells[0], tokens[0] = np.arange(cells.shape[1]), np.arange(tokens.shape[1])
  return cells, tokens


# --- symmetries of grids, drawn and applied to whole batches -----------------

# Moves of a grid as `arc.grids.dihedral` numbers them: first the four that keep
# the shape of any rectangle.
_TRANSFORMS = (0, 2, 4, 5, 6, 7, 1, 3)
_NUM_RECTANGLE_MOVES = 4
_MAX_VOCAB_SIZE = 256  # tokens are uint8


@functools.lru_cache(maxsize=16)
def move_cells(rows: int, cols: int) -> np.ndarray:
  """Returns where each cell comes from under each move.

  Args:
    rows: Rows of a grid.
    cols: Columns of a grid.

  Returns:
    Cell indices, int64 [M, L]: `new[i] = old[cells[i]]`; M is 8 for squares
    and 4 for other rectangles, whose shape is invariant only under rotation by
    180 degrees and reflection. Move 0 is the identity.
  """
  grid = np.arange(rows * cols).reshape(rows, cols)
  num_moves = len(_TRANSFORMS) if rows == cols else _NUM_RECTANGLE_MOVES
  result = np.stack(
    [
      arc_grids.dihedral(grid, transform=t).ravel()
      for t in _TRANSFORMS[:num_moves]
    ]
  )
  result.setflags(write=False)  # cached: callers share it
  return result


@dataclasses.dataclass(frozen=True)
class GridSymmetries:
  """One symmetry per row of a batch: a move of the cells, then new tokens.

  Attributes:
    moves: Rows of `move_cells`, int64 [B].
    tokens: New token of every token, uint8 [B, V]; 0 stays.
  """

  moves: np.ndarray
  tokens: np.ndarray


def draw(
  row_keys: np.ndarray,
  *,
  num_moves: int,
  relabel: tuple[int, ...],
  vocab_size: int,
) -> GridSymmetries:
  """Draws a uniformly random symmetry for every key.

  Args:
    row_keys: uint64 [B].
    num_moves: M, of which one is chosen: 1 (none), 4 or 8.
    relabel: Tokens that are permuted among themselves.
    vocab_size: V.

  Returns:
    B symmetries, row i a function of row_keys[i] alone.
  """
  stream = rng.stream(row_keys, 1 + len(relabel))
  named = np.array(relabel, np.uint8)
  tokens = np.tile(np.arange(vocab_size, dtype=np.uint8), (len(row_keys), 1))
  tokens[:, named] = named[_argsort(stream[:, 1:])]
  # Powers of two divide 2^64: the remainder is uniform.
  return GridSymmetries(
    moves=(stream[:, 0] % np.uint64(num_moves)).astype(np.int64), tokens=tokens
  )


def _argsort(values: np.ndarray) -> np.ndarray:
  return np.argsort(values, axis=-1, kind="stable")


def apply(
  symmetries: GridSymmetries, grids: np.ndarray, *, rows: int, cols: int
) -> np.ndarray:
  """Applies symmetry i to grid i.

  Args:
    symmetries: B symmetries.
    grids: Tokens, uint8 [B, L].
    rows: Rows of a grid.
    cols: Columns of a grid.

  Returns:
    New tokens, uint8 [B, L].
  """
  cells = move_cells(rows, cols)[symmetries.moves]
  moved = np.take_along_axis(grids, cells, axis=1)
  return np.take_along_axis(symmetries.tokens, moved, axis=1)


@dataclasses.dataclass(frozen=True)
class GridAugmentation(BySymmetry):
  """Augments puzzles by the symmetries of grids; call it on a batch.

  Attributes:
    rows: Rows of a grid.
    cols: Columns of a grid.
    dihedral: Whether grids are rotated and reflected: all 8 ways for squares,
      the 4 that keep the shape for other rectangles.
    relabel: Tokens that are permuted among themselves; empty for none.
    vocab_size: V; token 0, padding, is never changed.
    sampler: Which row gets which variant.
  """

  rows: int
  cols: int
  dihedral: bool
  relabel: tuple[int, ...]
  vocab_size: int
  sampler: VariantSampler

  def __post_init__(self):
    if not 1 <= self.vocab_size <= _MAX_VOCAB_SIZE:
      raise ValueError(f"vocab_size {self.vocab_size} does not fit uint8")
    if len(set(self.relabel)) < len(self.relabel):
      raise errors.UserError(
        f"tokens to relabel are {self.relabel}: one is named twice"
      )
    for token in self.relabel:
      if not puzzle_set.NO_LABEL < token < self.vocab_size:
        raise errors.UserError(
          f"tokens to relabel have {token}, expected 1 to {self.vocab_size - 1}"
        )

  def _draw(self, row_keys: np.ndarray) -> GridSymmetries:
    return draw(
      row_keys,
      num_moves=len(move_cells(self.rows, self.cols)) if self.dihedral else 1,
      relabel=self.relabel,
      vocab_size=self.vocab_size,
    )

  def mover(self, row_keys: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """See `BySymmetry.mover`."""
    return functools.partial(
      apply, self._draw(row_keys), rows=self.rows, cols=self.cols
    )

  def tables(self, row_keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `BySymmetry.tables`."""
    symmetries = self._draw(row_keys)
    return move_cells(self.rows, self.cols)[symmetries.moves], symmetries.tokens
