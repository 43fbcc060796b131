"""Training and evaluation batches, through Grain.

Batch k is a function of k alone, so the position in the data is one integer,
from which a run resumes on any number of hosts.
"""

import sys
from collections.abc import Iterator

import grain
import numpy as np

from trm_jax import errors
from trm_jax.data import augmentation as augmentation_lib
from trm_jax.data import puzzle_set, sampler

IGNORE_LABEL = -100  # a cell without loss and metrics

Batch = dict[str, np.ndarray]


def host_rows(batch_size: int, shard: tuple[int, int]) -> slice:
  """Returns this host's rows of the global batch.

  Args:
    batch_size: Rows of the global batch.
    shard: Index of this host and number of hosts.

  Returns:
    A slice of batch_size / count rows.

  Raises:
    UserError: if the batch is empty or not divisible by the number of hosts.
  """
  index, count = shard
  if batch_size < 1:
    raise errors.UserError(f"batch size is {batch_size}, expected 1 or more")
  if batch_size % count:
    raise errors.UserError(
      f"batch size {batch_size} is not divisible by {count} hosts"
    )
  if not 0 <= index < count:
    raise ValueError(f"shard {index} of {count}")
  share = batch_size // count
  return slice(index * share, (index + 1) * share)


def _as_batch(
  inputs: np.ndarray, labels: np.ndarray, puzzle_ids: np.ndarray
) -> Batch:
  labels = labels.astype(np.int32)
  return {
    "inputs": inputs.astype(np.int32),
    "labels": np.where(
      labels == puzzle_set.NO_LABEL, np.int32(IGNORE_LABEL), labels
    ),
    "puzzle_ids": puzzle_ids.astype(np.int32),
  }


class TrainBatches(grain.MapDataset):
  """An infinite data set whose element k is this host's part of batch k."""

  def __init__(
    self,
    puzzles: puzzle_set.Puzzles,
    *,
    batch_size: int,
    seed: int,
    augmentation: augmentation_lib.Augmentation | None = None,
    shard: tuple[int, int] = (0, 1),
  ):
    """Initializes the data set; arguments as of `train_batches`."""
    super().__init__()
    self._puzzles = puzzles
    self._rows = host_rows(batch_size, shard)
    self._row_numbers = np.arange(self._rows.start, self._rows.stop)
    self._sampler = sampler.GroupSampler(
      puzzles, batch_size=batch_size, seed=seed
    )
    self._augmentation = augmentation

  def __len__(self) -> int:
    return sys.maxsize

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    # All hosts sample the same batch; each builds only its own rows.
    examples, puzzle_indices = self._sampler.batch(int(index))
    examples = examples[self._rows]
    puzzle_indices = puzzle_indices[self._rows]
    inputs, labels = self._puzzles.fetch(examples, puzzle_indices)
    if self._augmentation is not None:
      inputs, labels = self._augmentation(
        inputs,
        labels,
        batch_index=int(index),
        rows=self._row_numbers,
        puzzle_indices=puzzle_indices,
      )
    return _as_batch(inputs, labels, self._puzzles.puzzle_ids[puzzle_indices])


def train_batches(
  puzzles: puzzle_set.Puzzles,
  *,
  batch_size: int,
  seed: int,
  augmentation: augmentation_lib.Augmentation | None = None,
  shard: tuple[int, int] = (0, 1),
  first_batch: int = 0,
  num_threads: int = 2,
  prefetch: int = 8,
) -> grain.DatasetIterator:
  """Returns an infinite iterator over training batches.

  Args:
    puzzles: The training set.
    batch_size: Rows of the global batch.
    seed: Seed of the sampler.
    augmentation: Applied to each batch, or None.
    shard: Index of this host and number of hosts.
    first_batch: k of the first batch; not 0 when training resumes.
    num_threads: Threads that build batches; 0 for none.
    prefetch: Batches built ahead; 0 for none.

  Returns:
    An iterator over dicts of `inputs` int32 [b, L], `labels` int32 [b, L] with
    -100 for no label, and `puzzle_ids` int32 [b], b rows per host.

  Raises:
    UserError: if the batch is empty or not divisible by the number of hosts.
  """
  dataset = TrainBatches(
    puzzles,
    batch_size=batch_size,
    seed=seed,
    augmentation=augmentation,
    shard=shard,
  )
  options = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=prefetch
  )
  iterator = iter(dataset.to_iter_dataset(options))
  grain.experimental.set_next_index(iterator, first_batch)
  return iterator


def eval_batches(
  puzzles: puzzle_set.Puzzles,
  *,
  batch_size: int,
  shard: tuple[int, int] = (0, 1),
  first_batch: int = 0,
) -> Iterator[Batch]:
  """Returns an iterator once over all examples, in order.

  Args:
    puzzles: The test set.
    batch_size: Rows of the global batch.
    shard: Index of this host and number of hosts.
    first_batch: k of the first batch.

  Returns:
    An iterator over dicts as in `train_batches`, plus `mask` bool [b]. All
    batches have the same size and all hosts the same number of batches: padding
    rows have inputs 0, labels -100, id 0 and mask False.

  Raises:
    UserError: if the batch is empty or not divisible by the number of hosts.
  """
  rows = host_rows(batch_size, shard)  # raises at once, not on first use
  return _eval_batches(puzzles, batch_size, rows, first_batch)


def _eval_batches(
  puzzles: puzzle_set.Puzzles, batch_size: int, rows: slice, first_batch: int
) -> Iterator[Batch]:
  share = rows.stop - rows.start
  first = first_batch * batch_size
  for start in range(first, puzzles.num_examples, batch_size):
    end = min(start + rows.stop, puzzles.num_examples)
    examples = np.arange(start + rows.start, max(start + rows.start, end))
    places = puzzle_set.puzzles_of(examples, puzzles.puzzle_indices)
    inputs, labels = puzzles.fetch(examples, places)
    missing = share - len(examples)
    fill = ((0, missing), (0, 0))
    batch = _as_batch(
      np.pad(inputs, fill),
      np.pad(labels, fill),
      np.pad(puzzles.puzzle_ids[places], fill[0]),
    )
    yield {**batch, "mask": np.arange(share) < len(examples)}
