"""Puzzles in memory."""

import dataclasses

import numpy as np
import pytest

from trm_jax.data import puzzle_set


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
