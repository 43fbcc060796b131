"""Symmetries of Sudoku."""

import dataclasses

import golden_support as golden
import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import augmentation as augmentation_lib
from trm_jax.data import rng as rng_lib
from trm_jax.data.sudoku import augmentation as sudoku_augmentation
from trm_jax.data.sudoku import generator as sudoku_generator
from trm_jax.data.sudoku import rules as sudoku_rules

SHAPES = [(2, 2), (2, 3), (3, 2), (3, 3)]


def _draw(batch, box, seed=0):
  return sudoku_augmentation.draw(rng_lib.key(seed, np.arange(batch)), **box)


@pytest.fixture(params=SHAPES, ids=str, name="box")
def _box(request):
  return {"box_rows": request.param[0], "box_cols": request.param[1]}


def test_every_cell_goes_to_one_place(box):
  size = (box["box_rows"] * box["box_cols"]) ** 2
  cells = np.tile(np.arange(size, dtype=np.uint8), (200, 1))
  symmetries = dataclasses.replace(_draw(200, box), digits=cells)
  moved = sudoku_augmentation.apply(symmetries, cells)
  assert (moved != cells).any(axis=1).mean() > 0.9
  np.testing.assert_array_equal(np.sort(moved, axis=1), cells)


def test_puzzles_stay_puzzles(box):
  x, y = sudoku_generator.generate(
    20, **box, num_clues=(box["box_rows"] * box["box_cols"]) ** 2 // 2, seed=0
  )
  for seed in range(5):
    symmetries = _draw(20, box, seed)
    new_x, new_y = (
      sudoku_augmentation.apply(symmetries, x),
      sudoku_augmentation.apply(symmetries, y),
    )
    assert sudoku_rules.is_valid_solution(new_y, **box).all()
    assert sudoku_rules.agrees_with_clues(new_x, new_y).all()
    np.testing.assert_array_equal(
      (new_x == sudoku_rules.BLANK).sum(axis=1),
      (x == sudoku_rules.BLANK).sum(axis=1),
    )


def test_row_depends_on_its_own_key_alone(box):
  row_keys = rng_lib.key(3, np.arange(40))
  whole = sudoku_augmentation.draw(row_keys, **box)
  others = sudoku_augmentation.draw(rng_lib.key(4, np.arange(40)), **box)
  order = np.random.default_rng(0).permutation(40)[:15]
  part = sudoku_augmentation.draw(row_keys[order], **box)
  for field in dataclasses.fields(whole):
    values = getattr(whole, field.name)
    np.testing.assert_array_equal(values[order], getattr(part, field.name))
    if field.name != "transpose" or box["box_rows"] == box["box_cols"]:
      assert (values != getattr(others, field.name)).any()


def test_padding_and_blanks_stay(box):
  n = box["box_rows"] * box["box_cols"]
  symmetries = _draw(10, box)
  for token in (sudoku_rules.PAD, sudoku_rules.BLANK):
    grid = np.full((10, n * n), token, np.uint8)
    np.testing.assert_array_equal(
      sudoku_augmentation.apply(symmetries, grid), grid
    )


def test_draws_are_uniform():
  box = {"box_rows": 2, "box_cols": 3}
  batch = 6000
  symmetries = _draw(batch, box)
  for permutation in (
    symmetries.digits[:, 2:] - 2,
    symmetries.row_permutation,
    symmetries.column_permutation,
  ):
    assert (np.sort(permutation, axis=1) == np.arange(6)).all()
    for place in range(6):
      counts = np.bincount(permutation[:, place], minlength=6)
      # 1000 expected, standard deviation 29.
      assert abs(counts - batch / 6).max() < 150
  # Rows and columns of a box stay together.
  assert (np.diff(symmetries.row_permutation.reshape(-1, 3, 2) // 2) == 0).all()
  by_stack = symmetries.column_permutation.reshape(-1, 2, 3) // 3
  assert (np.diff(by_stack) == 0).all()
  bands = symmetries.row_permutation[:, ::2] // 2
  assert len({tuple(row) for row in bands.tolist()}) == 6
  assert not symmetries.transpose.any()
  square = _draw(batch, {"box_rows": 3, "box_cols": 3}).transpose
  assert abs(square.mean() - 0.5) < 0.04  # 6 standard deviations
  # Rows and columns are drawn independently of each other.
  agree = (
    symmetries.row_permutation[:, 0] == symmetries.column_permutation[:, 0]
  )
  assert abs(agree.mean() - 1 / 6) < 0.03


def test_keys_mix_all_parts():
  thousand = rng_lib.key(1, 2, np.arange(1000))
  assert thousand.dtype == np.uint64
  assert len(set(thousand.tolist())) == 1000
  assert rng_lib.key(1, 2) != rng_lib.key(2, 1)
  assert rng_lib.key(1) != rng_lib.key(1, 0)
  assert rng_lib.key(-1) == rng_lib.key(2**64 - 1)
  grid = rng_lib.key(np.arange(3)[:, None], np.arange(4))
  assert grid.shape == (3, 4)
  assert grid[2, 3] == rng_lib.key(2, 3)[0]


def _augmentation(mode, num_augmentations=3, seed=0):
  return sudoku_augmentation.SudokuAugmentation(
    box_rows=3,
    box_cols=3,
    sampler=augmentation_lib.VariantSampler(mode, num_augmentations, seed),
  )


_CELLS = np.arange(9)
# A full grid whose symmetric forms hardly ever coincide.
GRID = np.tile(
  ((_CELLS[:, None] % 3 * 3 + _CELLS[:, None] // 3 + _CELLS) % 9 + 2).reshape(
    1, 81
  ),
  (400, 1),
).astype(np.uint8)


def _vary(augmentation, batch_index, puzzle_indices):
  return augmentation(
    GRID,
    GRID,
    batch_index=batch_index,
    rows=np.arange(400),
    puzzle_indices=puzzle_indices,
  )


def test_mode_none():
  inputs, labels = _vary(_augmentation("none"), 0, np.zeros(400, int))
  np.testing.assert_array_equal(inputs, GRID)
  np.testing.assert_array_equal(labels, GRID)


def test_mode_fixed_has_the_original_and_a_fixed_set():
  augmentation = _augmentation("fixed")
  seen = {}
  for puzzle in range(2):
    rows = [
      row.tobytes()
      for k in range(2)
      for row in _vary(augmentation, k, np.full(400, puzzle))[0]
    ]
    seen[puzzle] = set(rows)
    assert GRID[0].tobytes() in rows
    assert 150 < rows.count(GRID[0].tobytes()) < 250  # 200 expected
    assert len(seen[puzzle]) == 4
  assert seen[0] != seen[1]
  other = _vary(_augmentation("fixed", seed=1), 0, np.zeros(400, int))[0]
  assert {row.tobytes() for row in other} != seen[0]


def test_mode_endless_draws_anew():
  augmentation = _augmentation("endless")
  puzzle = np.zeros(400, int)
  first, labels = _vary(augmentation, 5, puzzle)
  again, _ = _vary(augmentation, 5, puzzle)
  later, _ = _vary(augmentation, 6, puzzle)
  np.testing.assert_array_equal(first, again)
  np.testing.assert_array_equal(first, labels)
  assert (first != later).any(axis=1).mean() > 0.9
  assert len({row.tobytes() for row in first}) > 390


def test_augmentation_refuses_nonsense():
  with pytest.raises(errors.UserError, match="mode is 'some'"):
    _augmentation("some")
  with pytest.raises(errors.UserError, match="number of variants is -1"):
    _augmentation("fixed", num_augmentations=-1)


def test_golden_sudoku_augmentation():
  data = golden.load("case10_arc")
  cases = [
    name.removesuffix("/board") for name in data if name.endswith("/board")
  ]
  assert cases
  for case in cases:
    read = {
      name: data[f"{case}/{name}"]
      for name in ("bands", "rows_in_band", "stacks", "cols_in_stack")
    }
    rows = read["bands"][:, None] * 3 + read["rows_in_band"]
    columns = read["stacks"][:, None] * 3 + read["cols_in_stack"]
    digits = np.concatenate([[0, 1], data[f"{case}/digit_perm"] + 1])
    symmetry = sudoku_augmentation.SudokuSymmetries(
      digits=digits[None].astype(np.uint8),
      transpose=data[f"{case}/transpose_draw"][None] < 0.5,
      row_permutation=rows.reshape(1, 9),
      column_permutation=columns.reshape(1, 9),
    )
    for name in ("board", "solution"):
      tokens = data[f"{case}/{name}"].reshape(1, 81) + np.uint8(1)
      expected = data[f"{case}/new_{name}"].reshape(1, 81) + 1
      np.testing.assert_array_equal(
        sudoku_augmentation.apply(symmetry, tokens), expected
      )
