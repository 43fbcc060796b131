"""Grids as images: every mark is visible, also without color."""

import itertools

import numpy as np
import pytest

from trm_jax.data import task as task_lib
from trm_jax.visualization import grid_image

SUDOKU = task_lib.Look(
  rows=4, cols=4, symbols=tuple(" .1234"), box_rows=2, box_cols=2
)
MAZE = task_lib.Look(
  rows=2,
  cols=3,
  symbols=tuple("?# SGo"),
  colours=("#ffffff", "#303030", "#ffffff", "#43a047", "#e65100", "#1e88e5"),
)
SOLUTION = np.array([2, 3, 4, 5] * 4, np.uint8)


def _drawn(shown, tokens, *, given=(), wrong=(), changed=(), cell=40):
  """Cells of a drawn grid, as arrays [cell, cell, 3] of 0..255."""

  def at(cells):
    marks = np.full(len(tokens), False)
    marks[list(cells)] = True
    return marks

  extent = grid_image.extent(shown, [tokens])
  image = grid_image.draw_grid(
    shown,
    tokens,
    extent,
    cell,
    given=at(given),
    wrong=at(wrong),
    changed=at(changed),
  )
  border = (image.width - cell * extent.cols) // 2
  pixels = np.asarray(image, int)
  return [
    pixels[top : top + cell, left : left + cell]
    for top in range(border, border + extent.rows * cell, cell)
    for left in range(border, border + extent.cols * cell, cell)
  ]


def _ink(cell):
  """The darkest color in the middle of a cell."""
  inner = cell[6:-9, 6:-6].reshape(-1, 3)
  return inner[inner.sum(-1).argmin()].tolist()


def test_clues_are_black_what_was_filled_in_blue_what_is_wrong_red():
  cells = _drawn(SUDOKU, SOLUTION, given=[0], wrong=[2])
  assert _ink(cells[0]) == [0, 0, 0]
  red, green, blue = _ink(cells[1])
  assert blue > 2 * max(red, green) - 100 > red
  red, green, blue = _ink(cells[2])
  assert red > 3 * max(green, blue)


@pytest.mark.parametrize("shown", [SUDOKU, MAZE])
def test_each_mark_is_visible_without_color(shown):
  tokens = np.full(shown.rows * shown.cols, 5)
  plain = _drawn(shown, tokens)[0].mean(-1)
  wrong = _drawn(shown, tokens, wrong=[0])[0].mean(-1)
  changed = _drawn(shown, tokens, changed=[0])[0].mean(-1)
  both = _drawn(shown, tokens, wrong=[0], changed=[0])[0].mean(-1)
  for one, other in itertools.combinations((plain, wrong, changed, both), 2):
    # In many places far from each other, not only a shade everywhere.
    assert (abs(one - other) > 15).sum() > 20


def test_marks_stay_in_their_own_cell():
  tokens = np.full(16, 5)
  plain = _drawn(SUDOKU, tokens)
  marked = _drawn(SUDOKU, tokens, wrong=[5], changed=[5])
  differs = [
    i
    for i, (a, b) in enumerate(zip(plain, marked, strict=True))
    if (a != b).any()
  ]
  assert differs == [5]


def test_clues_are_bold():
  ink = [
    (cell < 128).all(-1).sum()
    for given in ((0,), ())
    for cell in _drawn(SUDOKU, SOLUTION, given=given)[:1]
  ]
  assert ink[0] > ink[1]


def test_an_empty_cell_of_a_sudoku_is_empty_but_not_if_it_is_an_answer():
  empty, wrong = _drawn(SUDOKU, np.array([1] * 16), wrong=[1])[:2]
  assert (empty[6:-6, 6:-6] == 255).all()
  assert (wrong[6:-6, 6:-6] != 255).any()


@pytest.mark.parametrize(
  ("share", "text"),
  [
    (0.0, "0%"),
    (0.001, "<1%"),
    (0.5, "50%"),
    (0.997, ">99%"),
    (1.0, "100%"),
    (float("nan"), "unknown"),
  ],
)
def test_percent_is_never_more_certain_than_it_is(share, text):
  assert grid_image.percent(share) == text
