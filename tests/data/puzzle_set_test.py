"""Puzzles in memory."""

import dataclasses
import itertools

import folders
import numpy as np
import pytest

from trm_jax.data import loader, puzzle_set


def _set(**changes):
  fields = {
    "inputs": np.zeros((5, 4), np.uint8),
    "labels": np.zeros((5, 4), np.uint8),
    "puzzle_ids": np.arange(3, dtype=np.int32),
    "puzzle_indices": np.array([0, 1, 3, 5]),
    "group_indices": np.array([0, 2, 3]),
  }
  return puzzle_set.PuzzleSet(**{**fields, **changes})


def test_sizes():
  some = _set()
  sizes = (some.num_examples, some.num_puzzles, some.num_groups, some.seq_len)
  assert sizes == (5, 3, 2, 4)
  single = puzzle_set.PuzzleSet.single(some.inputs, some.labels)
  assert (single.num_puzzles, single.num_groups) == (5, 5)
  assert not single.puzzle_ids.any()


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    ({"inputs": np.zeros((5, 4), np.int32)}, "inputs is int32"),
    ({"labels": np.zeros((5, 3), np.uint8)}, "inputs are"),
    ({"puzzle_ids": np.array([0, -1, 2], np.int32)}, "negative"),
    ({"puzzle_ids": np.arange(2, dtype=np.int32)}, "group_indices does not"),
    ({"puzzle_indices": np.array([0, 1, 3, 4])}, "puzzle_indices does not"),
    ({"puzzle_indices": np.array([0, 3, 3, 5])}, "puzzle_indices has an empty"),
    ({"puzzle_indices": np.array([0, 3, 5])}, "3 puzzle_ids but 3"),
    ({"group_indices": np.array([0, 2, 1, 3])}, "group_indices has an empty"),
  ],
)
def test_inconsistent_sets_are_refused(changes, text):
  with pytest.raises(ValueError, match=text):
    _set(**changes)


def test_fingerprint_sees_every_field():
  plain = _set()
  assert plain.fingerprint() == _set().fingerprint()
  labels = plain.labels.copy()
  labels[4, 3] = 1
  prints = {
    plain.fingerprint(),
    _set(labels=labels).fingerprint(),
    _set(inputs=labels).fingerprint(),
    _set(puzzle_ids=np.array([0, 2, 1], np.int32)).fingerprint(),
    _set(puzzle_indices=np.array([0, 2, 3, 5])).fingerprint(),
    dataclasses.replace(plain, group_indices=np.array([0, 3])).fingerprint(),
  }
  assert len(prints) == 6


# --- subsets, against a plain loop -------------------------------------------

CELLS = 3


def _random_set(seed, most):
  """A random layout: groups of puzzles of examples, up to `most` of each."""
  rng = np.random.default_rng(seed)

  def indices(num_parts):
    sizes = rng.integers(1, most + 1, num_parts)
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)

  group_indices = indices(rng.integers(1, 8))
  puzzle_indices = indices(group_indices[-1])
  count = puzzle_indices[-1]
  return puzzle_set.PuzzleSet(
    inputs=rng.integers(1, 256, (count, CELLS), np.uint8),
    labels=rng.integers(0, 256, (count, CELLS), np.uint8),
    puzzle_ids=rng.integers(0, 99, group_indices[-1], np.int32),
    puzzle_indices=puzzle_indices,
    group_indices=group_indices,
  )


LAYOUTS = [
  _random_set(seed, most) for seed, most in enumerate([1, 2, 3, 5, 5, 5])
]
CHOICES = list(itertools.product((0, 1, 2, 5, 100), repeat=2))


def _by_hand(whole, num_groups, num_augmentations):
  """Puzzles of each group, and examples of each puzzle, one by one."""
  groups = []
  for group in range(whole.num_groups):
    if num_groups and group >= num_groups:
      break
    first, end = whole.group_indices[group : group + 2].tolist()
    members = list(range(first, end))
    groups.append(members[:num_augmentations] if num_augmentations else members)
  examples = [
    list(range(*whole.puzzle_indices[puzzle : puzzle + 2]))
    for members in groups
    for puzzle in members
  ]
  return groups, examples


@pytest.mark.parametrize("whole", LAYOUTS)
def test_every_choice(whole):
  for num_groups, num_augmentations in CHOICES:
    chosen = puzzle_set.select(
      whole, num_groups=num_groups, num_augmentations=num_augmentations
    )
    groups, examples = _by_hand(whole, num_groups, num_augmentations)
    flat = list(itertools.chain(*examples))
    places = np.repeat(np.arange(len(examples)), [len(e) for e in examples])
    inputs, labels = chosen.fetch(np.arange(len(flat)), places)
    # A set of its own checks types and indices.
    own = puzzle_set.PuzzleSet(
      inputs=inputs,
      labels=labels,
      puzzle_ids=chosen.puzzle_ids,
      puzzle_indices=chosen.puzzle_indices,
      group_indices=chosen.group_indices,
    )
    assert np.diff(own.group_indices).tolist() == [len(g) for g in groups]
    assert np.diff(own.puzzle_indices).tolist() == [len(e) for e in examples]
    assert chosen.puzzles.tolist() == list(itertools.chain(*groups))
    np.testing.assert_array_equal(inputs, whole.inputs[flat])
    np.testing.assert_array_equal(labels, whole.labels[flat])
    np.testing.assert_array_equal(
      chosen.puzzle_ids, whole.puzzle_ids[list(itertools.chain(*groups))]
    )
    for name in ("num_examples", "num_puzzles", "num_groups", "seq_len"):
      assert getattr(chosen, name) == getattr(own, name)


@pytest.mark.parametrize("whole", LAYOUTS)
def test_examples_in_any_order_and_again(whole):
  rng = np.random.default_rng(0)
  chosen = puzzle_set.select(whole, num_groups=3, num_augmentations=2)
  _, by_puzzle = _by_hand(whole, 3, 2)
  flat = np.concatenate(by_puzzle)
  owners = np.repeat(chosen.puzzles, np.diff(chosen.puzzle_indices))
  for size in (0, 1, 40):
    examples = rng.integers(len(flat), size=size)
    places = np.searchsorted(chosen.puzzle_indices, examples, "right") - 1
    expected = whole.fetch(flat[examples], owners[examples])
    for actual, wanted in zip(
      chosen.fetch(examples, places), expected, strict=True
    ):
      np.testing.assert_array_equal(actual, wanted)


def test_zero_means_all():
  for whole in LAYOUTS:
    chosen = puzzle_set.select(whole, num_groups=0, num_augmentations=0)
    assert chosen.num_examples == whole.num_examples
    for actual, expected in zip(
      folders.everything(chosen), folders.everything(whole), strict=True
    ):
      np.testing.assert_array_equal(actual, expected)


def test_evaluation_batches_of_a_selection():
  whole = LAYOUTS[-1]
  chosen = puzzle_set.select(whole, num_groups=2, num_augmentations=2)
  groups, examples = _by_hand(whole, 2, 2)
  assert sum(map(len, groups)) > 2
  batches = list(loader.eval_batches(chosen, batch_size=4))
  seen = {
    name: np.concatenate([batch[name][batch["mask"]] for batch in batches])
    for name in ("inputs", "puzzle_ids")
  }
  flat = list(itertools.chain(*examples))
  np.testing.assert_array_equal(seen["inputs"], whole.inputs[flat])
  ids = [
    whole.puzzle_ids[puzzle]
    for puzzle, own in zip(itertools.chain(*groups), examples, strict=True)
    for _ in own
  ]
  assert seen["puzzle_ids"].tolist() == ids
  masks = np.concatenate([batch["mask"] for batch in batches])
  assert len(masks) == 4 * len(batches)
  assert masks[: len(flat)].all()
  assert not masks[len(flat) :].any()


def test_the_fingerprint_tells_choices_and_sets_apart():
  prints = {
    puzzle_set.select(
      whole, num_groups=groups, num_augmentations=variants
    ).fingerprint()
    for whole in LAYOUTS[-2:]
    for groups, variants in ((0, 0), (1, 0), (2, 0), (2, 1), (0, 1))
  }
  assert len(prints) == 10
  first, same = (
    puzzle_set.select(_random_set(3, 5), num_groups=2, num_augmentations=1)
    for _ in range(2)
  )
  assert first.fingerprint() == same.fingerprint()
