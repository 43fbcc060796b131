"""Batches for training and evaluation, through Grain.

Batch k is computed from k alone, so the position in the data is one integer,
and resuming, on any number of hosts, is starting at that integer.
"""

import sys
from collections.abc import Iterator

import grain
import numpy as np

from trm_jax import errors
from trm_jax.data import augmentation as augmentation_lib
from trm_jax.data import puzzle_set, sampler

IGNORE_LABEL = -100  # a cell that counts in no loss and in no metric

Batch = dict[str, np.ndarray]


def host_rows(batch_size: int, shard: tuple[int, int]) -> slice:
  """Returns this host's rows of the global batch.

  Args:
    batch_size: Rows of the global batch.
    shard: This host's number and the number of hosts.

  Returns:
    A slice of batch_size / count rows.

  Raises:
    UserError: if the batch cannot be shared out evenly.
  """
  index, count = shard
  if batch_size < 1:
    raise errors.UserError(f"batch size is {batch_size}, expected 1 or more")
  if batch_size % count:
    raise errors.UserError(
      f"batch size {batch_size} cannot be divided by {count} hosts"
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
  """An endless data set whose element k is this host's part of batch k."""

  def __init__(
    self,
    puzzles: puzzle_set.Puzzles,
    *,
    batch_size: int,
    seed: int,
    augmentation: augmentation_lib.Augmentation | None = None,
    shard: tuple[int, int] = (0, 1),
  ):
    """Sets up the data set.

    Args:
      puzzles: What to draw from.
      batch_size: Rows of the global batch.
      seed: Of the sampler.
      augmentation: How examples are varied, or None.
      shard: This host's number and the number of hosts.

    Raises:
      UserError: if the batch is empty or cannot be shared out evenly.
    """
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
    # All hosts draw the same batch; each builds only its own rows.
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
  """Iterates over training batches without end.

  Args:
    puzzles: What to draw from.
    batch_size: Rows of the global batch.
    seed: Of the sampler.
    augmentation: How examples are varied, or None.
    shard: This host's number and the number of hosts.
    first_batch: k of the first batch; not 0 when training is continued.
    num_threads: Threads that build batches; 0 for none.
    prefetch: Batches built ahead; 0 for none.

  Returns:
    An iterator of `inputs` int32 [b, L], `labels` int32 [b, L] with -100 where
    there is none, and `puzzle_ids` int32 [b], b being this host's share.

  Raises:
    UserError: if the batch is empty or cannot be shared out evenly.
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
  """Iterates once over all examples, in order.

  Args:
    puzzles: What to evaluate.
    batch_size: Rows of the global batch.
    shard: This host's number and the number of hosts.
    first_batch: Batches before this one are left out.

  Returns:
    An iterator of dicts as in `train_batches` with `mask` bool [b] beside. All
    batches have the same size and all hosts the same number of batches: what is
    missing has inputs 0, labels -100, id 0 and mask False.

  Raises:
    UserError: if the batch is empty or cannot be shared out evenly.
  """
  rows = host_rows(batch_size, shard)  # here, so that it raises at once
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
