"""Symmetries of grids."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import tiny

from trm_jax import errors
from trm_jax.data import augmentation, loader, puzzle_set, tasks
from trm_jax.data import rng as rng_lib
from trm_jax.data.sudoku import rules as sudoku_rules

VOCAB = 7
RELABEL = (2, 3, 5, 6)
SHAPES = [(4, 4), (9, 9), (3, 5), (5, 2), (1, 6), (30, 30)]


def _draw(batch, *, num_moves=8, relabel=RELABEL, seed=0):
  return augmentation.draw(
    rng_lib.key(seed, np.arange(batch)),
    num_moves=num_moves,
    relabel=relabel,
    vocab_size=VOCAB,
  )


def _grids(batch, rows, cols, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, VOCAB, (batch, rows * cols)).astype(np.uint8)


def _augmentation(
  *, rows=4, cols=4, dihedral=True, relabel=RELABEL, mode="endless", seed=0
):
  return augmentation.GridAugmentation(
    rows=rows,
    cols=cols,
    dihedral=dihedral,
    relabel=relabel,
    vocab_size=VOCAB,
    sampler=augmentation.VariantSampler(mode, num_augmentations=3, seed=seed),
  )


def _vary(varied, inputs, labels, *, batch_index=0, rows=None, puzzles=None):
  count = len(inputs)
  return varied(
    inputs,
    labels,
    batch_index=batch_index,
    rows=np.arange(count) if rows is None else rows,
    puzzle_indices=np.zeros(count, int) if puzzles is None else puzzles,
  )


def test_moves_by_hand():
  cells = augmentation.move_cells(2, 2)
  assert {tuple(move) for move in cells.tolist()} == {
    (0, 1, 2, 3),
    (1, 3, 0, 2),
    (3, 2, 1, 0),
    (2, 0, 3, 1),
    (1, 0, 3, 2),
    (2, 3, 0, 1),
    (0, 2, 1, 3),
    (3, 1, 2, 0),
  }
  flat = augmentation.move_cells(2, 3)
  assert {tuple(move) for move in flat.tolist()} == {
    (0, 1, 2, 3, 4, 5),
    (5, 4, 3, 2, 1, 0),
    (3, 4, 5, 0, 1, 2),
    (2, 1, 0, 5, 4, 3),
  }


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_moves_keep_neighbours_and_are_a_group(rows, cols):
  cells = augmentation.move_cells(rows, cols)
  assert len(cells) == (8 if rows == cols else 4)
  assert (np.sort(cells, axis=1) == np.arange(rows * cols)).all()
  np.testing.assert_array_equal(cells[0], np.arange(rows * cols))
  moves = {tuple(move) for move in cells.tolist()}
  if min(rows, cols) > 1:
    assert len(moves) == len(cells)
  for first, second in itertools.product(cells, cells):
    assert tuple(first[second].tolist()) in moves
  for move in cells:
    row, col = np.divmod(move.reshape(rows, cols), cols)
    for axis in (0, 1):
      far = abs(np.diff(row, axis=axis)) + abs(np.diff(col, axis=axis))
      assert (far == 1).all()


def test_all_eight_forms_of_a_square_are_seen():
  grid = np.arange(16, dtype=np.uint8)[None] % VOCAB
  grids = np.tile(grid, (300, 1))
  varied = _augmentation(relabel=())
  seen, _ = _vary(varied, grids, grids)
  expected = {
    np.ascontiguousarray(form).tobytes()
    for turned in (np.rot90(grid.reshape(4, 4), k) for k in range(4))
    for form in (turned, turned.T)
  }
  assert len(expected) == 8
  assert {row.tobytes() for row in seen} == expected


def test_rectangles_are_not_laid_on_their_side():
  # A cross-section of stripes: rows stay rows whatever is done to them.
  stripes = np.repeat(np.arange(3, dtype=np.uint8), 5)[None]
  seen, _ = _vary(
    _augmentation(rows=3, cols=5, relabel=()),
    np.tile(stripes, (100, 1)),
    np.tile(stripes, (100, 1)),
  )
  assert {row.tobytes() for row in seen} == {
    stripes.tobytes(),
    stripes[0, ::-1].tobytes(),
  }


def test_draws_are_uniform():
  batch = 8000
  symmetries = _draw(batch)
  counts = np.bincount(symmetries.moves, minlength=8)
  assert abs(counts - 1000).max() < 180  # 6 standard deviations
  four = np.bincount(_draw(batch, num_moves=4).moves, minlength=4)
  assert abs(four - 2000).max() < 235
  orders, counts = np.unique(
    symmetries.tokens[:, RELABEL], axis=0, return_counts=True
  )
  assert len(orders) == 24
  assert (np.sort(orders, axis=1) == RELABEL).all()
  assert abs(counts - batch / 24).max() < 108
  # Moves and tokens are drawn independently of each other.
  both = np.bincount(
    symmetries.moves * VOCAB + symmetries.tokens[:, RELABEL[0]]
  ).reshape(8, VOCAB)[:, RELABEL]
  assert abs(both - batch / 32).max() < 95


def test_unnamed_tokens_stay():
  symmetries = _draw(100)
  unnamed = [token for token in range(VOCAB) if token not in RELABEL]
  assert 0 in unnamed
  assert (symmetries.tokens[:, unnamed] == unnamed).all()
  still = _draw(100, num_moves=1, relabel=())
  assert (still.moves == 0).all()
  assert (still.tokens == np.arange(VOCAB)).all()


def test_question_and_answer_are_changed_alike():
  grids = _grids(64, 4, 4)
  varied = _augmentation()
  question, answer = _vary(varied, grids, grids)
  np.testing.assert_array_equal(question, answer)
  other = _grids(64, 4, 4, seed=1)
  unrelated, _ = _vary(varied, other, grids)
  # What the same cells held before still shares a cell afterwards.
  for i in range(64):
    pairs = sorted(zip(other[i] == 0, grids[i] == 0, strict=True))
    moved = sorted(zip(unrelated[i] == 0, answer[i] == 0, strict=True))
    assert pairs == moved


def test_row_comes_out_the_same_in_another_batch():
  grids = _grids(40, 4, 4)
  varied = _augmentation()
  rows = np.arange(100, 140)
  whole, _ = _vary(varied, grids, grids, batch_index=9, rows=rows)
  part = np.random.default_rng(0).permutation(40)[:15]
  again, _ = _vary(
    varied, grids[part], grids[part], batch_index=9, rows=rows[part]
  )
  np.testing.assert_array_equal(again, whole[part])
  later, _ = _vary(varied, grids, grids, batch_index=10, rows=rows)
  assert (later != whole).any(axis=1).mean() > 0.9


def test_mode_fixed_keeps_originals_and_a_set_per_puzzle():
  # A grid whose 8 * 6! variants all differ: they hardly ever coincide.
  grid = np.array([0, 1, 2, 3, 4, 5, 6, 2, 2, 3, 3, 0, 5, 5, 1, 6], np.uint8)
  grids = np.tile(grid, (400, 1))
  varied = _augmentation(mode="fixed", relabel=(1, 2, 3, 4, 5, 6))
  seen = {}
  for puzzle in range(2):
    rows = [
      row.tobytes()
      for k in range(2)
      for row in _vary(
        varied, grids, grids, batch_index=k, puzzles=np.full(400, puzzle)
      )[0]
    ]
    seen[puzzle] = set(rows)
    assert 120 < rows.count(grid.tobytes()) < 280  # 200 expected
    assert len(seen[puzzle]) == 4
  assert seen[0] != seen[1]


def test_mode_none():
  grids = _grids(20, 4, 4)
  inputs, labels = _vary(_augmentation(mode="none"), grids, grids[::-1])
  np.testing.assert_array_equal(inputs, grids)
  np.testing.assert_array_equal(labels, grids[::-1])


def test_switched_off_symmetries_change_nothing():
  grids = _grids(20, 4, 4)
  inputs, _ = _vary(_augmentation(dihedral=False, relabel=()), grids, grids)
  np.testing.assert_array_equal(inputs, grids)
  relabelled, _ = _vary(_augmentation(dihedral=False), grids, grids)
  fixed = ~np.isin(grids, RELABEL)
  np.testing.assert_array_equal(relabelled[fixed], grids[fixed])
  assert (relabelled != grids).any()


def test_loader_takes_it():
  grids = _grids(10, 3, 5)
  batches = loader.train_batches(
    puzzle_set.PuzzleSet.single(grids, grids),
    batch_size=6,
    seed=0,
    augmentation=pickle.loads(pickle.dumps(_augmentation(rows=3, cols=5))),
  )
  batch = next(batches)
  assert batch["inputs"].shape == (6, 15)
  np.testing.assert_array_equal(
    batch["inputs"], np.where(batch["labels"] == -100, 0, batch["labels"])
  )


@pytest.mark.parametrize(
  ("relabel", "text"),
  [
    ((2, 3, 2), "named twice"),
    ((0, 1), "have 0, expected 1 to 6"),
    ((6, 7), "have 7, expected 1 to 6"),
  ],
)
def test_impossible_tokens_are_refused(relabel, text):
  with pytest.raises(errors.UserError, match=text):
    _augmentation(relabel=relabel)


# --- symmetries of attempts --------------------------------------------------


def _attempt_tables(task, count=5, **settings):
  data = tiny.config_dict().data
  data.task = task
  data.update(settings)
  frozen = dataclasses.replace(tiny.config().data, **data)
  look = tasks.look(frozen, ("?", *"abcd"), 12)
  return look, tasks.attempt_tables(frozen, look, count)


@pytest.mark.parametrize(
  ("task", "settings"),
  [
    ("generated_sudoku", {"box_rows": 2, "box_cols": 3}),
    ("generated_sudoku", {}),
    ("generated_maze", {"grid_rows": 5, "grid_cols": 5}),
    ("generated_maze", {"grid_rows": 5, "grid_cols": 7}),
    ("grid", {"grid_rows": 3, "relabel": "bd", "dihedral": True}),
  ],
)
def test_attempts_have_symmetries_and_the_first_is_the_identity(task, settings):
  look, (cells, tokens) = _attempt_tables(task, **settings)
  length, vocab = look.rows * look.cols, len(look.symbols)
  assert cells.shape == (5, length)
  assert tokens.shape == (5, vocab)
  assert cells[0].tolist() == list(range(length))
  assert tokens[0].tolist() == list(range(vocab))
  assert (np.sort(cells) == np.arange(length)).all()
  assert (np.sort(tokens) == np.arange(vocab)).all()
  both = [
    (*a, *b) for a, b in zip(cells.tolist(), tokens.tolist(), strict=True)
  ]
  assert len(set(both)) > 2
  again = _attempt_tables(task, 3, **settings)[1]
  np.testing.assert_array_equal(again[0], cells[:3])


def test_a_solution_stays_one_under_every_symmetry():
  _, (cells, tokens) = _attempt_tables(
    "generated_sudoku", 20, box_rows=2, box_cols=2
  )
  solution = np.array([2, 3, 4, 5, 4, 5, 2, 3, 3, 2, 5, 4, 5, 4, 3, 2])
  moved = np.take_along_axis(tokens, solution[cells].astype(np.int64), axis=1)
  assert sudoku_rules.is_valid_solution(moved, box_rows=2, box_cols=2).all()


def test_the_tables_are_the_symmetries_of_training():
  augmentations = [
    task_type.symmetries(data, tasks.look(data))
    for task_type, data in (
      (tasks.TASKS["generated_sudoku"], tiny.config().data),
      (
        tasks.TASKS["generated_maze"],
        dataclasses.replace(
          tiny.config().data, task="generated_maze", grid_rows=6, grid_cols=6
        ),
      ),
    )
  ]
  for symmetries, length, vocab in zip(
    augmentations, (16, 36), (6, 6), strict=True
  ):
    keys = rng_lib.key(np.arange(7))
    grids = np.random.default_rng(0).integers(0, vocab, (7, length))
    grids = grids.astype(np.uint8)
    cells, tokens = symmetries.tables(keys)
    moved = np.take_along_axis(grids, cells, axis=1)
    np.testing.assert_array_equal(
      np.take_along_axis(tokens, moved, axis=1), symmetries.mover(keys)(grids)
    )


@pytest.mark.parametrize(
  ("task", "words"),
  [("grid", "declare them by"), ("generated_arc", "has none")],
)
def test_puzzles_without_symmetries_are_refused(task, words):
  with pytest.raises(errors.UserError, match=words):
    _attempt_tables(task)
