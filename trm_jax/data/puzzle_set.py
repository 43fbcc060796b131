"""Sets of puzzles: the common form of every task's data."""

import abc
import dataclasses
import hashlib

import numpy as np

NO_LABEL = 0  # token of a cell without a label, in every task


class Puzzles(abc.ABC):
  """A set of puzzles, as the sampler and the loader need it.

  `PuzzleSet` keeps its examples in memory; others build them on access.

  Attributes:
    puzzle_ids: Row of the puzzle table for each puzzle, int32 [N].
    puzzle_indices: Puzzle p has the examples [p] to [p + 1] - 1, int64 [N + 1].
    group_indices: Group g has the puzzles [g] to [g + 1] - 1, int64 [G + 1].
  """

  puzzle_ids: np.ndarray
  puzzle_indices: np.ndarray
  group_indices: np.ndarray

  @property
  def num_examples(self) -> int:
    """E."""
    return int(self.puzzle_indices[-1])

  @property
  def num_puzzles(self) -> int:
    """N."""
    return len(self.puzzle_ids)

  @property
  def num_groups(self) -> int:
    """G."""
    return len(self.group_indices) - 1

  @property
  @abc.abstractmethod
  def seq_len(self) -> int:
    """L."""

  @abc.abstractmethod
  def fetch(
    self, examples: np.ndarray, puzzles: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens of some examples.

    Args:
      examples: Indices of the examples, int64 [b].
      puzzles: Puzzle of each of them, int64 [b].

    Returns:
      Inputs and labels, uint8 [b, L] each; label 0 for none.
    """

  @abc.abstractmethod
  def fingerprint(self) -> str:
    """Returns a hex digest of the contents."""


def puzzles_of(examples: np.ndarray, puzzle_indices: np.ndarray) -> np.ndarray:
  """Returns the puzzle of each example.

  Args:
    examples: Indices of examples, integers [b].
    puzzle_indices: As in `Puzzles`.
  """
  return np.searchsorted(puzzle_indices, examples, "right") - 1


@dataclasses.dataclass(frozen=True)
class PuzzleSet(Puzzles):
  """Un-augmented puzzles in memory: groups of puzzles of examples.

  An example is a pair of input and label. For ARC, a puzzle has the examples of
  one augmentation of a task, and a group all puzzles of a task; for Sudoku and
  mazes, all three are the same.

  Attributes:
    inputs: Tokens, uint8 [E, L].
    labels: Tokens, uint8 [E, L]; 0 for no label.
    puzzle_ids: As in `Puzzles`.
    puzzle_indices: As in `Puzzles`.
    group_indices: As in `Puzzles`.
  """

  inputs: np.ndarray
  labels: np.ndarray
  puzzle_ids: np.ndarray
  puzzle_indices: np.ndarray
  group_indices: np.ndarray

  def __post_init__(self):
    for name, dtype, rank in (
      ("inputs", np.uint8, 2),
      ("labels", np.uint8, 2),
      ("puzzle_ids", np.int32, 1),
      ("puzzle_indices", np.int64, 1),
      ("group_indices", np.int64, 1),
    ):
      array = getattr(self, name)
      if array.dtype != dtype or array.ndim != rank:
        raise ValueError(
          f"{name} is {array.dtype} of rank {array.ndim}, "
          f"expected {np.dtype(dtype)} of rank {rank}"
        )
    if self.inputs.shape != self.labels.shape:
      raise ValueError(
        f"inputs are {self.inputs.shape}, labels {self.labels.shape}"
      )
    _check_indices("puzzle_indices", self.puzzle_indices, len(self.inputs))
    _check_indices("group_indices", self.group_indices, self.num_puzzles)
    if len(self.puzzle_indices) != self.num_puzzles + 1:
      raise ValueError(
        f"{self.num_puzzles} puzzle_ids but "
        f"{len(self.puzzle_indices)} puzzle_indices"
      )
    if self.puzzle_ids.min() < 0:
      raise ValueError("puzzle_ids has negative numbers")

  @classmethod
  def single(cls, inputs: np.ndarray, labels: np.ndarray) -> "PuzzleSet":
    """Builds a set with one example per puzzle and group, all with id 0.

    Args:
      inputs: Tokens, uint8 [E, L].
      labels: Tokens, uint8 [E, L].

    Returns:
      The set.
    """
    indices = np.arange(len(inputs) + 1, dtype=np.int64)
    return cls(
      inputs=inputs,
      labels=labels,
      puzzle_ids=np.zeros(len(inputs), np.int32),
      puzzle_indices=indices,
      group_indices=indices,
    )

  @classmethod
  def of_pairs(cls, pairs: np.ndarray, chosen: np.ndarray) -> "PuzzleSet":
    """Builds a set of single puzzles.

    Args:
      pairs: Questions and answers, uint8 [N, 2, L].
      chosen: Which of them, integers [E].

    Returns:
      The set.
    """
    inputs, labels = (
      np.ascontiguousarray(pairs[chosen, part]) for part in (0, 1)
    )
    return cls.single(inputs, labels)

  @property
  def seq_len(self) -> int:
    """L."""
    return self.inputs.shape[1]

  def fetch(
    self, examples: np.ndarray, puzzles: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """See `Puzzles.fetch`."""
    del puzzles
    return self.inputs[examples], self.labels[examples]

  def fingerprint(self) -> str:
    """Returns a hex digest of the contents.

    Checkpoints store it, so that a run does not resume on other data.
    """
    digest = hashlib.blake2b(digest_size=16)
    for field in dataclasses.fields(self):
      array = np.ascontiguousarray(getattr(self, field.name))
      digest.update(f"{field.name} {array.dtype} {array.shape}".encode())
      digest.update(array.data)
    return digest.hexdigest()


# --- subsets -----------------------------------------------------------------


def _check_indices(name: str, indices: np.ndarray, count: int) -> None:
  """Raises ValueError unless indices split 0..count into non-empty parts."""
  if len(indices) < 2 or indices[0] != 0 or indices[-1] != count:
    raise ValueError(f"{name} does not go from 0 to {count}, at least one part")
  if (np.diff(indices) < 1).any():
    raise ValueError(f"{name} has an empty or negative part")


# --- subsets -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Subset(Puzzles):
  """The first puzzles of the first groups of a set.

  Attributes:
    whole: The set.
    puzzles: Indices of the puzzles in it, rising, int64 [N].
    puzzle_ids: As in `Puzzles`.
    puzzle_indices: As in `Puzzles`.
    group_indices: As in `Puzzles`.
  """

  whole: Puzzles
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
    """See `Puzzles.fetch`."""
    there = self.puzzles[puzzles]
    within = examples - self.puzzle_indices[puzzles]
    return self.whole.fetch(self.whole.puzzle_indices[there] + within, there)

  def fingerprint(self) -> str:
    """Returns a hex digest of the set and of the selection."""
    digest = hashlib.blake2b(self.whole.fingerprint().encode(), digest_size=16)
    digest.update(self.puzzles.tobytes())
    return digest.hexdigest()


def select(
  whole: Puzzles, *, num_groups: int, num_augmentations: int
) -> Subset:
  """Selects the first puzzles of the first groups.

  Args:
    whole: The set.
    num_groups: Number of groups; 0 for all.
    num_augmentations: Maximum number of puzzles per group; 0 for all.

  Returns:
    The subset.
  """
  count = min(num_groups or whole.num_groups, whole.num_groups)
  first = whole.group_indices[:count]
  sizes = whole.group_indices[1 : count + 1] - first
  if num_augmentations:
    sizes = np.minimum(sizes, num_augmentations)
  group_indices = _indices(sizes)
  within = np.arange(group_indices[-1]) - np.repeat(group_indices[:-1], sizes)
  puzzles = np.repeat(first, sizes) + within
  return Subset(
    whole=whole,
    puzzles=puzzles,
    puzzle_ids=whole.puzzle_ids[puzzles],
    puzzle_indices=_indices(np.diff(whole.puzzle_indices)[puzzles]),
    group_indices=group_indices,
  )


def _indices(sizes: np.ndarray) -> np.ndarray:
  """Returns the start of parts of these sizes, and the end of the last."""
  return np.concatenate([[0], np.cumsum(sizes)])
