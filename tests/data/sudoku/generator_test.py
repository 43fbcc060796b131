"""Generated Sudoku puzzles and their fingerprints."""

import itertools

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import rng as rng_lib
from trm_jax.data.sudoku import augmentation as sudoku_augmentation
from trm_jax.data.sudoku import generator as sudoku_generator
from trm_jax.data.sudoku import rules as sudoku_rules

SHAPES = [(2, 2, 6), (2, 3, 14), (3, 3, 32)]


def _brute_force_count(question, box_rows, box_cols):
  """Counts all solutions cell by cell, sharing nothing with the solver."""
  n = box_rows * box_cols
  grid = (question.astype(int) - 1).reshape(n, n)

  def fits(i, j, digit):
    top, left = i // box_rows * box_rows, j // box_cols * box_cols
    box = grid[top : top + box_rows, left : left + box_cols]
    return not (
      (grid[i] == digit).any()
      or (grid[:, j] == digit).any()
      or (box == digit).any()
    )

  def count(cell):
    if cell == n * n:
      return 1
    i, j = divmod(cell, n)
    if grid[i, j]:
      return count(cell + 1)
    total = 0
    for digit in range(1, n + 1):
      if fits(i, j, digit):
        grid[i, j] = digit
        total += count(cell + 1)
        grid[i, j] = 0
    return total

  return count(0)


def _count(question, *, box_rows, box_cols, limit=2):
  digits = (np.maximum(question, 1) - 1).tolist()
  board = sudoku_generator.Board(digits, box_rows=box_rows, box_cols=box_cols)
  return board.count(limit)


@pytest.mark.parametrize(("box_rows", "box_cols", "num_clues"), SHAPES)
def test_puzzles_are_sound(box_rows, box_cols, num_clues):
  box = {"box_rows": box_rows, "box_cols": box_cols}
  x, y = sudoku_generator.generate(20, **box, num_clues=num_clues, seed=1)
  n = box_rows * box_cols
  assert x.shape == y.shape == (20, n * n)
  assert x.dtype == y.dtype == np.uint8
  clues = (x > sudoku_rules.BLANK).sum(axis=1)
  assert clues.min() >= num_clues
  assert clues.max() <= num_clues + sudoku_generator.EXTRA_CLUES
  assert sudoku_rules.is_valid_solution(y, **box).all()
  assert sudoku_rules.agrees_with_clues(x, y).all()
  assert len({row.tobytes() for row in y}) > 10
  for question in x:
    assert _count(question, **box) == 1


@pytest.mark.parametrize(("box_rows", "box_cols", "num_clues"), SHAPES[:2])
def test_solution_is_unique_by_brute_force(box_rows, box_cols, num_clues):
  x, _ = sudoku_generator.generate(
    5, box_rows=box_rows, box_cols=box_cols, num_clues=num_clues, seed=2
  )
  for question in x:
    assert _brute_force_count(question, box_rows, box_cols) == 1


def test_solver_counts_as_brute_force_does():
  rng = np.random.default_rng(0)
  _, y = sudoku_generator.generate(
    12, box_rows=2, box_cols=2, num_clues=16, seed=3
  )
  seen = set()
  for answer in y:
    question = np.where(rng.random(16) < 0.35, answer, 1).astype(np.uint8)
    expected = _brute_force_count(question, 2, 2)
    seen.add(expected)
    for limit in (1, 2, 1000):
      counted = _count(question, box_rows=2, box_cols=2, limit=limit)
      assert counted == min(limit, expected)
  assert len(seen) > 2  # otherwise this table shows nothing
  blank = np.ones(16, np.uint8)
  box = {"box_rows": 2, "box_cols": 2}
  assert _count(blank, **box, limit=1000) == 288
  blank[:2] = 2  # twice the digit 1 in a row
  assert _count(blank, **box) == 0


def test_seed_decides():
  arguments = {"box_rows": 2, "box_cols": 3, "num_clues": 16}
  first = sudoku_generator.generate(5, **arguments, seed=4)
  again = sudoku_generator.generate(5, **arguments, seed=4)
  other = sudoku_generator.generate(5, **arguments, seed=5)
  np.testing.assert_array_equal(first, again)
  assert (first[0] != other[0]).any()


def test_impossible_wishes_are_refused():
  box = {"box_rows": 2, "box_cols": 2}
  with pytest.raises(errors.UserError, match="ask for more clues"):
    sudoku_generator.generate(1, **box, num_clues=1, seed=0)
  with pytest.raises(errors.UserError, match="expected 0 to 16"):
    sudoku_generator.generate(1, **box, num_clues=17, seed=0)
  with pytest.raises(errors.UserError, match=r"found only \d+ different"):
    sudoku_generator.generate_split(10, 400, **box, num_clues=15, seed=0)


@pytest.mark.parametrize(("box_rows", "box_cols", "num_clues"), SHAPES)
def test_fingerprint_is_invariant(box_rows, box_cols, num_clues):
  box = {"box_rows": box_rows, "box_cols": box_cols}
  x, _ = sudoku_generator.generate(30, **box, num_clues=num_clues, seed=6)
  expected = sudoku_generator.fingerprints(x, **box)
  for seed in range(5):
    symmetries = sudoku_augmentation.draw(
      rng_lib.key(seed, np.arange(30)), **box
    )
    moved = sudoku_augmentation.apply(symmetries, x)
    assert (moved != x).any(axis=1).mean() > 0.8
    np.testing.assert_array_equal(
      sudoku_generator.fingerprints(moved, **box), expected
    )


def test_fingerprint_tells_puzzles_apart():
  box = {"box_rows": 2, "box_cols": 3}
  x, y = sudoku_generator.generate(200, **box, num_clues=16, seed=7)
  prints = sudoku_generator.fingerprints(x, **box)
  assert len(set(prints.tolist())) == 200
  one_more = x.copy()
  for row, answer in zip(one_more, y, strict=True):
    at = np.flatnonzero(row == sudoku_rules.BLANK)[0]
    row[at] = answer[at]
  assert (sudoku_generator.fingerprints(one_more, **box) != prints).all()


def _canonical(question):
  """Returns the smallest 4x4 puzzle that is the same up to symmetry."""
  lines = [
    [2 * band + i for band in bands for i in inside[band]]
    for bands in itertools.permutations((0, 1))
    for inside in itertools.product(itertools.permutations((0, 1)), repeat=2)
  ]
  grid = question.reshape(4, 4)
  best = None
  for side in (grid, grid.T):
    for rows, columns in itertools.product(lines, lines):
      names: dict[int, int] = {}
      cells = side[np.ix_(rows, columns)].reshape(-1).tolist()
      # Digits are renamed in the order in which they appear.
      form = tuple(
        names.setdefault(c, len(names) + 1) if c > 1 else 0 for c in cells
      )
      best = form if best is None else min(best, form)
  return best


def test_small_split_shares_nothing_by_full_enumeration():
  box = {"box_rows": 2, "box_cols": 2}
  train, test = sudoku_generator.generate_split(
    400, 200, **box, num_clues=6, seed=0
  )
  assert (train.num_examples, test.num_examples) == (400, 200)
  # Fingerprints are enough to tell: checked here by all symmetries of some.
  train_forms = {_canonical(x) for x in train.inputs[:150]}
  test_forms = {_canonical(x) for x in test.inputs[:100]}
  assert len(train_forms) == 150
  assert len(test_forms) == 100
  assert not train_forms & test_forms
  train_prints = sudoku_generator.fingerprints(train.inputs, **box).tolist()
  test_prints = sudoku_generator.fingerprints(test.inputs, **box).tolist()
  assert len(set(train_prints + test_prints)) == 600
  assert sudoku_rules.agrees_with_clues(train.inputs, train.labels).all()
  assert sudoku_rules.is_valid_solution(test.labels, **box).all()


def test_more_training_puzzles_than_kinds():
  box = {"box_rows": 2, "box_cols": 2}
  train, test = sudoku_generator.generate_split(
    600, 20, **box, num_clues=12, seed=0
  )
  train_prints = sudoku_generator.fingerprints(train.inputs, **box).tolist()
  test_prints = sudoku_generator.fingerprints(test.inputs, **box).tolist()
  assert len(train_prints) == 600 > len(set(train_prints))
  assert len(set(test_prints)) == 20
  assert not set(train_prints) & set(test_prints)


def test_split_is_deterministic():
  arguments = {"box_rows": 2, "box_cols": 3, "num_clues": 16}
  first = sudoku_generator.generate_split(50, 20, **arguments, seed=1)
  again = sudoku_generator.generate_split(50, 20, **arguments, seed=1)
  other = sudoku_generator.generate_split(50, 20, **arguments, seed=2)
  for i in range(2):
    assert first[i].fingerprint() == again[i].fingerprint()
    assert first[i].fingerprint() != other[i].fingerprint()
