"""Samples the examples of batch k as a pure function of (seed, k)."""

import dataclasses

import numpy as np

from trm_jax import errors
from trm_jax.data import puzzle_set

# Minimum, because the tail of a block is dropped.
_MIN_BATCHES_PER_BLOCK = 64
_MAX_CACHED_PLANS = 2

# Separate the random streams of one seed.
_PLAN_STREAM = 0
_ORDER_STREAM = 1


def pack(sizes: np.ndarray, batch_size: int) -> np.ndarray:
  """Packs visited puzzles into batches in the order of the visits.

  A batch takes whole puzzles until it is full; the puzzle that fills it is
  truncated, and the next batch starts with the next visit. A partial last batch
  is dropped.

  Args:
    sizes: Examples of the puzzle at each visit, int64 [visits].
    batch_size: B.

  Returns:
    First visit of each batch and of the tail, int64 [batches + 1].
  """
  ends = np.cumsum(sizes)
  # following[v]: the visit after the one that fills a batch started at v.
  following = np.searchsorted(ends, ends - sizes + batch_size) + 1
  starts = [0]
  while starts[-1] < len(sizes) and following[starts[-1]] <= len(sizes):
    starts.append(int(following[starts[-1]]))
  return np.array(starts, np.int64)


@dataclasses.dataclass(frozen=True)
class Plan:
  """One block of epochs: the puzzles in order of use.

  Attributes:
    puzzles: Puzzle sampled at each visit of a group, int64 [visits].
    starts: First visit of each batch and of the tail, int64 [batches + 1].
  """

  puzzles: np.ndarray
  starts: np.ndarray


def _rng(*entropy: int) -> np.random.Generator:
  return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


class GroupSampler:
  """Samples batches as the official code does.

  An epoch visits each group once in random order, samples one of its puzzles
  and packs the puzzle's examples, shuffled, into batches; examples that do not
  fit at the end of a batch are left out. A block has a fixed number of epochs
  and of batches, so that batch k is found by division; the rest of the block is
  dropped.

  Attributes:
    batch_size: B, over all hosts.
    epochs_per_block: Epochs per block.
    batches_per_block: Batches per block.
  """

  def __init__(
    self, puzzles: puzzle_set.Puzzles, *, batch_size: int, seed: int
  ):
    if batch_size < 1:
      raise errors.UserError(f"batch size is {batch_size}, expected 1 or more")
    if seed < 0:
      raise errors.UserError(f"data seed is {seed}, expected 0 or more")
    self.batch_size = batch_size
    self._seed = seed
    self._puzzle_indices = puzzles.puzzle_indices
    self._group_indices = puzzles.group_indices
    self._sizes = np.diff(puzzles.puzzle_indices)
    # Fewest examples of an epoch, and most examples used up by a batch.
    smallest = np.minimum.reduceat(self._sizes, self._group_indices[:-1])
    shortest = int(smallest.sum())
    used = batch_size + int(self._sizes.max()) - 1
    self.epochs_per_block = -(-_MIN_BATCHES_PER_BLOCK * used // shortest)
    self.batches_per_block = self.epochs_per_block * shortest // used
    self._plans: dict[int, Plan] = {}

  def __getstate__(self):
    return {
      **self.__dict__,
      "_plans": {},
    }  # plans are large and cheap to rebuild

  def batch(self, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the examples of batch k and their puzzles, both int64 [B]."""
    block, offset = divmod(k, self.batches_per_block)
    plan = self._plan(block)
    chosen = plan.puzzles[plan.starts[offset] : plan.starts[offset + 1]]
    sizes = self._sizes[chosen]
    visits = np.repeat(np.arange(len(chosen)), sizes)
    first = np.cumsum(sizes) - sizes
    within = np.arange(len(visits)) - first[visits]
    if (sizes > 1).any():
      # Sorting random numbers within each visit shuffles its examples.
      noise = _rng(self._seed, _ORDER_STREAM, k).random(len(visits))
      within = within[np.lexsort((noise, visits))]
    puzzle_indices = chosen[visits][: self.batch_size]
    within = within[: self.batch_size]
    return self._puzzle_indices[puzzle_indices] + within, puzzle_indices

  def _plan(self, block: int) -> Plan:
    # Reader threads share the cache; at worst, two of them build one plan.
    plan = self._plans.get(block)
    if plan is None:
      plan = self._make_plan(block)
      kept = list(self._plans.items())[1 - _MAX_CACHED_PLANS :]
      self._plans = {**dict(kept), block: plan}
    return plan

  def _make_plan(self, block: int) -> Plan:
    rng = _rng(self._seed, _PLAN_STREAM, block)
    num_groups = len(self._group_indices) - 1
    groups = np.concatenate(
      [rng.permutation(num_groups) for _ in range(self.epochs_per_block)]
    )
    chosen = rng.integers(
      self._group_indices[groups], self._group_indices[groups + 1]
    )
    starts = pack(self._sizes[chosen], self.batch_size)
    return Plan(puzzles=chosen, starts=starts[: self.batches_per_block + 1])
