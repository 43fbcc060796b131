"""A part of a set of puzzles, for a quick look."""

import dataclasses
import functools
import hashlib

import numpy as np

from trm_jax.data import puzzle_set


@dataclasses.dataclass(frozen=True)
class Selection:
  """The first puzzles of the first groups; satisfies `puzzle_set.Puzzles`.

  Attributes:
    whole: Where they are taken from.
    puzzles: Their numbers there, int64 [N], rising.
    group_indices: Group g has the puzzles [g] to [g + 1], int64 [G + 1].
  """

  whole: puzzle_set.Puzzles
  puzzles: np.ndarray
  group_indices: np.ndarray

  @functools.cached_property
  def puzzle_ids(self) -> np.ndarray:
    """Row of the puzzle table for each puzzle, int32 [N]."""
    return self.whole.puzzle_ids[self.puzzles]

  @functools.cached_property
  def puzzle_indices(self) -> np.ndarray:
    """Puzzle p has the examples [p] to [p + 1], int64 [N + 1]."""
    sizes = np.diff(self.whole.puzzle_indices)[self.puzzles]
    return np.concatenate([[0], np.cumsum(sizes)])

  @property
  def num_examples(self) -> int:
    """E."""
    return int(self.puzzle_indices[-1])

  @property
  def num_puzzles(self) -> int:
    """N."""
    return len(self.puzzles)

  @property
  def num_groups(self) -> int:
    """G."""
    return len(self.group_indices) - 1

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
  group_indices = np.concatenate([[0], np.cumsum(sizes)])
  within = np.arange(group_indices[-1]) - np.repeat(group_indices[:-1], sizes)
  return Selection(
    whole=whole,
    puzzles=np.repeat(first, sizes) + within,
    group_indices=group_indices,
  )
