"""How training examples are varied: the interface, and when which variant."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from trm_jax import errors
from trm_jax.data import keys

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
      row_keys = keys.key(self.seed, _ENDLESS_STREAM, batch_index, rows)
      return row_keys, np.ones(len(rows), bool)
    choice = keys.key(self.seed, _VARIANT_STREAM, batch_index, rows)
    variants = choice % np.uint64(self.num_variants + 1)
    row_keys = keys.key(self.seed, _FIXED_STREAM, puzzle_indices, variants)
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
