"""Sampling and batching."""

import itertools
import pickle
import subprocess
import sys

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import augmentation, loader, puzzle_set
from trm_jax.data import sampler as sampler_lib
from trm_jax.data.sudoku import augmentation as sudoku_augmentation
from trm_jax.data.sudoku import generator as sudoku_generator

BOX = {"box_rows": 2, "box_cols": 2}


@pytest.fixture(scope="module", name="single")
def _single():
  x, y = sudoku_generator.generate(50, **BOX, num_clues=7, seed=0)
  return puzzle_set.PuzzleSet.single(x, y)


@pytest.fixture(scope="module", name="grouped")
def _grouped():
  """Groups of 1 to 4 puzzles with 1 to 5 examples; inputs tell them apart."""
  rng = np.random.default_rng(0)
  group_indices = np.concatenate([[0], np.cumsum(rng.integers(1, 5, 20))])
  num_puzzles = group_indices[-1]
  sizes = rng.integers(1, 6, num_puzzles)
  puzzle_indices = np.concatenate([[0], np.cumsum(sizes)])
  num_examples = puzzle_indices[-1]
  inputs = np.zeros((num_examples, 4), np.uint8)
  inputs[:, 0] = np.arange(num_examples)
  inputs[:, 1] = np.repeat(np.arange(num_puzzles), sizes)
  return puzzle_set.PuzzleSet(
    inputs=inputs,
    labels=inputs,
    puzzle_ids=np.arange(num_puzzles, dtype=np.int32) + 100,
    puzzle_indices=puzzle_indices,
    group_indices=group_indices,
  )


def _augmentation(mode="endless"):
  return sudoku_augmentation.SudokuAugmentation(
    **BOX,
    sampler=augmentation.VariantSampler(mode, num_augmentations=5, seed=1),
  )


def _take(iterator, count):
  return list(itertools.islice(iterator, count))


def _assert_equal(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])
      assert a[name].dtype == b[name].dtype


def test_every_example_once_per_epoch(single):
  sampler = sampler_lib.GroupSampler(single, batch_size=10, seed=0)
  orders = []
  for epoch in range(30):  # 64 batches are 13 epochs: across blocks, too
    block, offset = divmod(epoch, sampler.epochs_per_block)
    first = block * sampler.batches_per_block + 5 * offset
    drawn = np.concatenate([sampler.batch(first + i)[0] for i in range(5)])
    assert sorted(drawn) == list(range(50))
    orders.append(tuple(drawn))
  assert len(set(orders)) == 30


def test_only_the_tail_of_a_block_is_dropped(single):
  sampler = sampler_lib.GroupSampler(single, batch_size=12, seed=0)
  drawn = sampler.epochs_per_block * 50
  used = sampler.batches_per_block * 12
  assert drawn - 12 < used <= drawn
  assert sampler.batches_per_block >= 64
  counts = np.zeros(50, int)
  for k in range(sampler.batches_per_block):
    np.add.at(counts, sampler.batch(k)[0], 1)
  assert counts.sum() == used
  assert counts.max() == sampler.epochs_per_block
  assert counts.min() >= sampler.epochs_per_block - 1


def test_groups_puzzles_and_examples(grouped):
  sampler = sampler_lib.GroupSampler(grouped, batch_size=16, seed=0)
  group_of = np.repeat(np.arange(20), np.diff(grouped.group_indices))
  sizes = np.diff(grouped.puzzle_indices)
  visited = []
  picked = set()
  orders = set()
  for k in range(sampler.batches_per_block):
    examples, puzzle_indices = sampler.batch(k)
    assert examples.shape == puzzle_indices.shape == (16,)
    np.testing.assert_array_equal(grouped.inputs[examples, 1], puzzle_indices)
    runs = [
      (puzzle, [int(examples[i]) for i in rows])
      for puzzle, rows in itertools.groupby(
        range(16), key=lambda i: int(puzzle_indices[i])
      )
    ]
    for index, (puzzle, members) in enumerate(runs):
      visited.append(int(group_of[puzzle]))
      picked.add(puzzle)
      orders.add(tuple(members))
      # One puzzle twice running is rare but possible: count it as two.
      visits = -(-len(members) // int(sizes[puzzle]))
      visited.extend([visited[-1]] * (visits - 1))
      assert max(members.count(m) for m in members) <= visits
      if index < len(runs) - 1:
        assert len(members) == visits * sizes[puzzle]
  # Full epochs: each 20 visits in a row see each group once.
  for start in range(0, len(visited) - 19, 20):
    assert sorted(visited[start : start + 20]) == list(range(20))
  assert picked == set(range(grouped.num_puzzles))
  by_set = {}
  for order in orders:
    by_set.setdefault(frozenset(order), set()).add(order)
  assert max(len(ways) for ways in by_set.values()) > 4


def test_truncated_puzzle_shows_other_examples_each_time():
  inputs = np.arange(16, dtype=np.uint8).reshape(8, 2)
  one = puzzle_set.PuzzleSet(
    inputs=inputs,
    labels=inputs,
    puzzle_ids=np.zeros(1, np.int32),
    puzzle_indices=np.array([0, 8]),
    group_indices=np.array([0, 1]),
  )
  sampler = sampler_lib.GroupSampler(one, batch_size=4, seed=0)
  drawn = [tuple(sampler.batch(k)[0].tolist()) for k in range(200)]
  assert all(len(set(examples)) == 4 for examples in drawn)
  assert len(set(drawn)) > 150  # of 8 * 7 * 6 * 5 = 1680 ways
  counts = np.bincount(np.concatenate(drawn), minlength=8)
  assert abs(counts - 100).max() < 43  # 6 standard deviations


def test_sampler_is_a_pure_function(grouped):
  sampler = sampler_lib.GroupSampler(grouped, batch_size=8, seed=3)
  ks = [0, 70, 5, 400, 1, 1000, 0]
  forward = [sampler.batch(k) for k in ks]
  fresh = [
    sampler_lib.GroupSampler(grouped, batch_size=8, seed=3).batch(k) for k in ks
  ]
  copied = pickle.loads(pickle.dumps(sampler))
  assert not copied._plans
  np.testing.assert_array_equal(forward, fresh)
  np.testing.assert_array_equal(forward, [copied.batch(k) for k in ks])
  other = sampler_lib.GroupSampler(grouped, batch_size=8, seed=4)
  assert any((other.batch(k)[0] != sampler.batch(k)[0]).any() for k in ks)
  assert len(sampler._plans) <= 2


def test_batch_larger_than_the_set(single):
  sampler = sampler_lib.GroupSampler(single, batch_size=130, seed=0)
  counts = np.bincount(sampler.batch(0)[0], minlength=50)
  assert counts.sum() == 130
  assert counts.min() >= 2
  assert counts.max() <= 3


def test_batches_of_training(single):
  batch = next(
    loader.train_batches(
      single, batch_size=6, seed=0, augmentation=_augmentation()
    )
  )
  assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {
    "inputs": (np.int32, (6, 16)),
    "labels": (np.int32, (6, 16)),
    "puzzle_ids": (np.int32, (6,)),
  }
  clue = batch["inputs"] > 1
  np.testing.assert_array_equal(batch["inputs"][clue], batch["labels"][clue])


def test_missing_labels_become_minus_100(grouped):
  batch = next(loader.train_batches(grouped, batch_size=8, seed=0))
  expected = np.where(batch["inputs"] == 0, -100, batch["inputs"])
  np.testing.assert_array_equal(batch["labels"], expected)
  assert (batch["labels"] == -100).any()
  np.testing.assert_array_equal(
    batch["puzzle_ids"], batch["inputs"][:, 1] + 100
  )


@pytest.mark.parametrize("mode", ["none", "fixed", "endless"])
def test_resumed_anywhere_is_never_stopped(single, mode):
  arguments = {
    "batch_size": 6,
    "seed": 2,
    "augmentation": _augmentation(mode),
  }
  whole = _take(loader.train_batches(single, **arguments), 150)
  for first in (1, 63, 64, 149):
    resumed = loader.train_batches(single, **arguments, first_batch=first)
    _assert_equal(_take(resumed, 150 - first), whole[first:])
  alone = loader.train_batches(single, **arguments, num_threads=0, prefetch=0)
  _assert_equal(_take(alone, 150), whole)
  dataset = loader.TrainBatches(single, **arguments)
  _assert_equal([dataset[k] for k in (149, 3)], [whole[149], whole[3]])


@pytest.mark.parametrize("mode", ["none", "fixed", "endless"])
def test_shards_together_are_the_whole(single, mode):
  arguments = {
    "batch_size": 12,
    "seed": 2,
    "augmentation": _augmentation(mode),
  }
  whole = _take(loader.train_batches(single, **arguments), 20)
  for count in (2, 3):
    shards = [
      _take(loader.train_batches(single, **arguments, shard=(i, count)), 20)
      for i in range(count)
    ]
    joined = [
      {
        name: np.concatenate([part[name] for part in parts])
        for name in whole[0]
      }
      for parts in zip(*shards, strict=True)
    ]
    _assert_equal(joined, whole)


def test_evaluation_sees_everything_once(grouped):
  total = grouped.num_examples
  batch_size = 16
  assert total % batch_size  # the last batch is a partial one
  whole = list(loader.eval_batches(grouped, batch_size=batch_size))
  assert len(whole) == -(-total // batch_size)
  real = {
    name: np.concatenate([batch[name][batch["mask"]] for batch in whole])
    for name in whole[0]
  }
  np.testing.assert_array_equal(real["inputs"], grouped.inputs)
  np.testing.assert_array_equal(
    real["puzzle_ids"], grouped.inputs[:, 1].astype(int) + 100
  )
  for batch in whole:
    assert batch["inputs"].shape == (batch_size, 4)
    assert (batch["labels"][~batch["mask"]] == -100).all()
    assert not batch["inputs"][~batch["mask"]].any()
    assert not batch["puzzle_ids"][~batch["mask"]].any()
  shards = [
    list(loader.eval_batches(grouped, batch_size=batch_size, shard=(i, 8)))
    for i in range(8)
  ]
  joined = [
    {name: np.concatenate([part[name] for part in parts]) for name in whole[0]}
    for parts in zip(*shards, strict=True)
  ]
  _assert_equal(joined, whole)


def test_evaluation_of_less_than_a_batch(single):
  shards = [
    list(loader.eval_batches(single, batch_size=128, shard=(i, 2)))
    for i in range(2)
  ]
  assert [len(shard) for shard in shards] == [1, 1]
  assert [shard[0]["mask"].sum() for shard in shards] == [50, 0]


@pytest.mark.parametrize(
  "batches",
  [
    lambda puzzles, **kwargs: loader.train_batches(puzzles, seed=0, **kwargs),
    loader.eval_batches,
  ],
)
def test_bad_batch_sizes(single, batches):
  with pytest.raises(errors.UserError, match="batch size is 0"):
    batches(single, batch_size=0)
  with pytest.raises(errors.UserError, match="9 is not divisible by 2 hosts"):
    batches(single, batch_size=9, shard=(0, 2))


def test_negative_seed(single):
  with pytest.raises(errors.UserError, match="data seed is -1"):
    loader.train_batches(single, batch_size=4, seed=-1)


def test_pickled_data_set_gives_the_same_batches(single):
  dataset = loader.TrainBatches(
    single, batch_size=6, seed=0, augmentation=_augmentation()
  )
  dataset[3]
  copied = pickle.loads(pickle.dumps(dataset))
  _assert_equal([copied[7]], [dataset[7]])


def test_no_jax_in_data():
  # Workers that import these modules must not open the accelerator.
  code = (
    "import pkgutil, importlib, sys, trm_jax.data as d\n"
    "names = [m.name for m in pkgutil.iter_modules(d.__path__)]\n"
    "own = {n for n in names if 'jax' in vars("
    "importlib.import_module(f'trm_jax.data.{n}'))}\n"
    # TFDS takes seconds to import and is for public downloads alone.
    "own |= {'tensorflow_datasets'} & set(sys.modules)\n"
    "sys.exit(f'{own} in data' if own or len(names) < 8 else 0)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
