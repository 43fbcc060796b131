"""A part of a set of puzzles, for a quick look."""

import dataclasses
import hashlib

import numpy as np

from trm_jax.data import puzzle_set


@dataclasses.dataclass(frozen=True)
class Selection(puzzle_set.Grouped):
  """The first puzzles of the first groups; satisfies `puzzle_set.Puzzles`.

  Attributes:
    whole: Where they are taken from.
    puzzles: Their numbers there, int64 [N], rising.
    puzzle_ids: Row of the puzzle table for each puzzle, int32 [N].
    puzzle_indices: Puzzle p has the examples [p] to [p + 1], int64 [N + 1].
    group_indices: Group g has the puzzles [g] to [g + 1], int64 [G + 1].
  """

  whole: puzzle_set.Puzzles
  puzzles: np.ndarray
  puzzle_ids: np.ndarray
  puzzle_indices: np.ndarray
  group_indices: np.ndarray

  @property
  def seq_len(self) -> int:
    """L."""
    return self.whole.seq_len

  def fetch(
    self, examples: np.ndarray, puzzles: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """As `Puzzles.fetch`."""
    there = self.puzzles[puzzles]
    within = examples - self.puzzle_indices[puzzles]
    return self.whole.fetch(self.whole.puzzle_indices[there] + within, there)

  def fingerprint(self) -> str:
    """Returns a hex digest of the whole set and of the choice."""
    digest = hashlib.blake2b(self.whole.fingerprint().encode(), digest_size=16)
    digest.update(self.puzzles.tobytes())
    return digest.hexdigest()


def select(
  whole: puzzle_set.Puzzles, *, num_groups: int, num_variants: int
) -> Selection:
  """Selects the first puzzles of the first groups.

  Args:
    whole: The set.
    num_groups: How many groups; 0 for all.
    num_variants: How many puzzles of each, at most; 0 for all.

  Returns:
    The selection; groups with fewer puzzles keep all they have.
  """
  count = min(num_groups or whole.num_groups, whole.num_groups)
  first = whole.group_indices[:count]
  sizes = whole.group_indices[1 : count + 1] - first
  if num_variants:
    sizes = np.minimum(sizes, num_variants)
  group_indices = _indices(sizes)
  within = np.arange(group_indices[-1]) - np.repeat(group_indices[:-1], sizes)
  puzzles = np.repeat(first, sizes) + within
  return Selection(
    whole=whole,
    puzzles=puzzles,
    puzzle_ids=whole.puzzle_ids[puzzles],
    puzzle_indices=_indices(np.diff(whole.puzzle_indices)[puzzles]),
    group_indices=group_indices,
  )


def _indices(sizes: np.ndarray) -> np.ndarray:
  """Returns where parts of these sizes begin, and where the last one ends."""
  return np.concatenate([[0], np.cumsum(sizes)])
