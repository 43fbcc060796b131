"""How training examples are varied: the interface, and when which variant."""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from trm_jax import errors
from trm_jax.data import puzzle_set, rng
from trm_jax.data.arc import grids as arc_grids

NONE = "none"
FIXED = "fixed"
ENDLESS = "endless"

# Tell apart the streams that are drawn from one seed.
_VARIANT_STREAM = 1
_FIXED_STREAM = 2
_ENDLESS_STREAM = 3


class Augmentation(Protocol):
  """Varies the examples of a batch, each by its place or its puzzle alone."""

  def __call__(
    self,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    batch_index: int,
    rows: np.ndarray,
    puzzle_indices: np.ndarray,
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns new inputs and labels, uint8 [b, L], of these of the same shape.

    Args:
      inputs: Tokens, uint8 [b, L].
      labels: Tokens, uint8 [b, L].
      batch_index: k, which batch of the training run this is.
      rows: Rows of the global batch, [b].
      puzzle_indices: Puzzle of each row, [b].
    """


@dataclasses.dataclass(frozen=True)
class Schedule:
  """Says which row gets which variant.

  Attributes:
    mode: "none"; "fixed", a set of `num_variants` symmetries per puzzle beside
      the original, all equally likely (the official data set, without its
      copies on disk); "endless", a new symmetry at every visit.
    num_variants: Variants per puzzle in mode "fixed".
    seed: Of the draws.
  """

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

  def draw(
    self, batch_index: int, rows: np.ndarray, puzzle_indices: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Draws a key for every row.

    Args:
      batch_index: k.
      rows: Rows of the global batch, [b].
      puzzle_indices: Puzzle of each row, [b].

    Returns:
      uint64 [b], of which the row's symmetry is to be a function; and bool [b],
      False where the row keeps its original.
    """
    if self.mode == NONE:
      return np.zeros(len(rows), np.uint64), np.zeros(len(rows), bool)
    if self.mode == ENDLESS:
      row_keys = rng.key(self.seed, _ENDLESS_STREAM, batch_index, rows)
      return row_keys, np.ones(len(rows), bool)
    choice = rng.key(self.seed, _VARIANT_STREAM, batch_index, rows)
    variants = choice % np.uint64(self.num_variants + 1)
    row_keys = rng.key(self.seed, _FIXED_STREAM, puzzle_indices, variants)
    return row_keys, variants > 0


class BySymmetry(abc.ABC):
  """An `Augmentation` whose symmetries are functions of the rows' keys.

  Attributes:
    schedule: Which row gets which variant.
  """

  schedule: Schedule

  @abc.abstractmethod
  def mover(
    self, row_keys: np.ndarray, varied: np.ndarray
  ) -> Callable[[np.ndarray], np.ndarray]:
    """Draws a symmetry for every row.

    Args:
      row_keys: uint64 [b].
      varied: bool [b], False where the row keeps its original.

    Returns:
      What applies symmetry i to row i: tokens, uint8 [b, L], to new ones.
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
    """Varies a batch; as `Augmentation`."""
    if self.schedule.mode == NONE:
      return inputs, labels
    move = self.mover(*self.schedule.draw(batch_index, rows, puzzle_indices))
    return move(inputs), move(labels)


# Symmetries of grids, drawn and applied to whole batches.


# Moves of a grid, as `arc.dihedral` numbers them: first the four that keep the
# shape of any rectangle, last the two turns that undo each other.
_TRANSFORMS = (0, 2, 4, 5, 6, 7, 1, 3)
_NUM_RECTANGLE_MOVES = 4
_INVERSE_MOVES = np.array([0, 1, 2, 3, 4, 5, 7, 6])
_MAX_VOCAB_SIZE = 256  # tokens are uint8


@functools.lru_cache(maxsize=16)
def move_cells(rows: int, cols: int) -> np.ndarray:
  """Lists which cell every move brings to every place.

  Args:
    rows: Rows of a grid.
    cols: Columns of a grid.

  Returns:
    Cell indices, int64 [M, L]: `new[i] = old[cells[i]]`; M is 8 for squares
    and 4 for other rectangles, which only keep their shape when turned by 180
    degrees or mirrored. Move 0 changes nothing.
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
    relabel: Tokens that are permuted among each other.
    vocab_size: V.

  Returns:
    B symmetries, row i a function of row_keys[i] alone.
  """
  stream = rng.stream(row_keys, 1 + len(relabel))
  named = np.array(relabel, np.uint8)
  tokens = identity(len(row_keys), vocab_size=vocab_size).tokens
  tokens[:, named] = named[_argsort(stream[:, 1:])]
  # Whole powers of two divide 2^64: the remainder is uniform.
  return GridSymmetries(
    moves=(stream[:, 0] % np.uint64(num_moves)).astype(np.int64), tokens=tokens
  )


def _argsort(values: np.ndarray) -> np.ndarray:
  return np.argsort(values, axis=-1, kind="stable")


def identity(batch: int, *, vocab_size: int) -> GridSymmetries:
  """Builds `batch` symmetries that change nothing."""
  return GridSymmetries(
    moves=np.zeros(batch, np.int64),
    tokens=np.tile(np.arange(vocab_size, dtype=np.uint8), (batch, 1)),
  )


def select(
  mask: np.ndarray, chosen: GridSymmetries, other: GridSymmetries
) -> GridSymmetries:
  """Takes rows of `chosen` where mask [B] is True and of `other` elsewhere."""
  return GridSymmetries(
    moves=np.where(mask, chosen.moves, other.moves),
    tokens=np.where(mask[:, None], chosen.tokens, other.tokens),
  )


def inverse(symmetries: GridSymmetries) -> GridSymmetries:
  """Builds the symmetries that undo these."""
  # Cells and tokens are changed independently of each other.
  return GridSymmetries(
    moves=_INVERSE_MOVES[symmetries.moves],
    tokens=_argsort(symmetries.tokens).astype(np.uint8),
  )


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
  """Varies training puzzles by the symmetries of grids; call it on a batch.

  Attributes:
    rows: Rows of a grid.
    cols: Columns of a grid.
    dihedral: Whether grids are turned and mirrored: all 8 ways for squares, the
      4 that keep the shape for others.
    relabel: Tokens that are permuted among each other; empty for none.
    vocab_size: V, tokens 0..V-1; 0, padding, always stays.
    schedule: Which row gets which variant.
  """

  rows: int
  cols: int
  dihedral: bool
  relabel: tuple[int, ...]
  vocab_size: int
  schedule: Schedule

  def __post_init__(self):
    if not 1 <= self.vocab_size <= _MAX_VOCAB_SIZE:
      raise ValueError(f"vocab_size {self.vocab_size} does not fit uint8")
    if len(set(self.relabel)) < len(self.relabel):
      raise errors.UserError(
        f"tokens to exchange are {self.relabel}: one is named twice"
      )
    for token in self.relabel:
      if not puzzle_set.NO_LABEL < token < self.vocab_size:
        raise errors.UserError(
          f"tokens to exchange have {token}, expected 1 to "
          f"{self.vocab_size - 1}"
        )

  def mover(
    self, row_keys: np.ndarray, varied: np.ndarray
  ) -> Callable[[np.ndarray], np.ndarray]:
    """As `augmentation.BySymmetry.mover`."""
    drawn = draw(
      row_keys,
      num_moves=len(move_cells(self.rows, self.cols)) if self.dihedral else 1,
      relabel=self.relabel,
      vocab_size=self.vocab_size,
    )
    original = identity(len(row_keys), vocab_size=self.vocab_size)
    symmetries = select(varied, drawn, original)
    return functools.partial(apply, symmetries, rows=self.rows, cols=self.cols)
