"""ARC's grids as tokens, and the symmetries of a task."""

import itertools

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data.arc import grids as arc_grids

P, E = arc_grids.PAD, arc_grids.EOS
GRID = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
TURNED = (
  [[1, 2, 3], [4, 5, 6]],
  [[3, 6], [2, 5], [1, 4]],
  [[6, 5, 4], [3, 2, 1]],
  [[4, 1], [5, 2], [6, 3]],
  [[3, 2, 1], [6, 5, 4]],
  [[4, 5, 6], [1, 2, 3]],
  [[1, 4], [2, 5], [3, 6]],
  [[6, 3], [5, 2], [4, 1]],
)


def _random_grid(rng, most=arc_grids.SIDE):
  shape = rng.integers(1, most + 1, 2)
  return rng.integers(arc_grids.NUM_COLOURS, size=shape, dtype=np.uint8)


def _random_colours(rng):
  return np.concatenate([[0], 1 + rng.permutation(9)]).astype(np.uint8)


# --- symmetries --------------------------------------------------------------


@pytest.mark.parametrize("transform", range(arc_grids.NUM_TRANSFORMS))
def test_transforms(transform):
  turned = arc_grids.dihedral(GRID, transform)
  np.testing.assert_array_equal(turned, TURNED[transform])
  assert arc_grids.SWAPS_SIDES[transform] == (turned.shape == (3, 2))


def test_there_is_no_ninth_transform():
  with pytest.raises(ValueError, match="transform is 8"):
    arc_grids.dihedral(GRID, 8)


def test_transforms_are_a_group():
  square = np.arange(9).reshape(3, 3)
  all_of_them = {arc_grids.dihedral(square, t).tobytes() for t in range(8)}
  assert len(all_of_them) == 8
  for first, second in itertools.product(range(8), repeat=2):
    both = arc_grids.dihedral(arc_grids.dihedral(square, first), second)
    assert both.tobytes() in all_of_them


@pytest.mark.parametrize("transform", range(arc_grids.NUM_TRANSFORMS))
def test_undo_undoes(transform):
  rng = np.random.default_rng(transform)
  for _ in range(20):
    grid = _random_grid(rng)
    variant = {"transform": transform, "colours": _random_colours(rng)}
    made = arc_grids.apply(grid, **variant)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(arc_grids.invert(made, **variant), grid)
    np.testing.assert_array_equal(
      arc_grids.apply(arc_grids.invert(grid, **variant), **variant), grid
    )
    np.testing.assert_array_equal(
      made == 0, arc_grids.dihedral(grid == 0, transform)
    )


def test_colours_are_from_old_to_new():
  colours = np.array([0, 5, 1, 2, 3, 4, 6, 7, 8, 9], np.uint8)
  made = arc_grids.apply(GRID, transform=0, colours=colours)
  np.testing.assert_array_equal(made, [[5, 1, 2], [3, 4, 6]])


# --- names -------------------------------------------------------------------


def test_names():
  name = arc_grids.variant_name("007bbfb7", transform=3, digits="0612397845")
  assert name == "007bbfb7|||t3|||0612397845"
  assert arc_grids.parse_name(name, where="x") == ("007bbfb7", 3, "0612397845")
  assert arc_grids.parse_name("a|b", where="x") == ("a|b", 0, "0123456789")


@pytest.mark.parametrize(
  "name",
  [
    "a|||t8|||0123456789",
    "a|||t|||0123456789",
    "a|||3|||0123456789",
    "a|||t3",
    "a|||t3|||012345678",
    "a|||t3|||01234567899",
    "a|||t3|||0123456788",
    "a|||t3|||1023456789",
    "a|||t3|||0123456789 ",
    "a|||t3|||0123456789\n",
    "a|||t3|||0\u066123456789",
    "|||t3|||0123456789",
    "a|||b|||t3|||0123456789",
  ],
)
def test_malformed_names(name):
  with pytest.raises(errors.UserError) as caught:
    arc_grids.parse_name(name, where="file.json entry 7")
  text = str(caught.value)
  assert text.startswith("file.json entry 7: ")
  assert repr(name) in text
  assert "\n" not in text


# --- tokens ------------------------------------------------------------------


def test_encode_by_hand():
  canvas = arc_grids.encode(GRID[:, :2], row=1, column=2).reshape(30, 30)
  expected = [
    [P, P, P, P, P, P],
    [P, P, 3, 4, E, P],
    [P, P, 6, 7, E, P],
    [P, P, E, E, P, P],
    [P, P, P, P, P, P],
  ]
  np.testing.assert_array_equal(canvas[:5, :6], expected)
  assert np.count_nonzero(canvas) == 8


def test_no_end_where_there_is_no_room():
  low = arc_grids.encode(GRID, row=28).reshape(30, 30)
  assert np.count_nonzero(low == E) == 2
  right = arc_grids.encode(GRID, column=27).reshape(30, 30)
  assert np.count_nonzero(right == E) == 3
  corner = arc_grids.encode(GRID, row=28, column=27).reshape(30, 30)
  assert np.count_nonzero(corner == E) == 0
  np.testing.assert_array_equal(corner[28:, 27:], GRID + 2)
  full = np.full((30, 30), 9, np.uint8)
  assert (arc_grids.encode(full) == 11).all()


def test_crop_reads_what_encode_wrote():
  rng = np.random.default_rng(0)
  grids = [_random_grid(rng) for _ in range(100)]
  grids += [np.zeros(shape, np.uint8) for shape in ((1, 1), (30, 30), (1, 30))]
  tokens = np.stack([arc_grids.encode(grid) for grid in grids])
  for dtype in (np.uint8, np.int32):
    for cropped, grid in zip(
      arc_grids.crop(tokens.astype(dtype)), grids, strict=True
    ):
      assert cropped.dtype == np.uint8
      np.testing.assert_array_equal(cropped, grid)


def _crop_sizes_in_words(canvas):
  """For 1, 2, ... rows, as many columns as have a colour in all of them."""
  best = 0, 0
  width = arc_grids.SIDE
  for height in range(1, arc_grids.SIDE + 1):
    run = 0
    while run < width and 2 <= canvas[height - 1, run] <= 11:
      run += 1
    width = run
    if height * width > best[0] * best[1]:
      best = height, width
  return best


def test_crop_of_noise():
  rng = np.random.default_rng(1)
  # From answers that are nearly all colours to such that have hardly any.
  parts = [
    np.where(
      rng.random((100, arc_grids.SEQ_LEN)) < part,
      rng.integers(2, 12, (100, arc_grids.SEQ_LEN)),
      rng.choice([0, 1, 12, 255], (100, arc_grids.SEQ_LEN)),
    )
    for part in (0.999, 0.99, 0.9, 0.5)
  ]
  tokens = np.stack(parts)
  heights, widths = arc_grids.crop_sizes(tokens)
  assert heights.shape == widths.shape == (4, 100)
  for index in np.ndindex(4, 100):
    canvas = tokens[index].reshape(30, 30)
    size = _crop_sizes_in_words(canvas)
    assert (heights[index], widths[index]) == size
    (grid,) = arc_grids.crop(tokens[index][None])
    np.testing.assert_array_equal(grid, canvas[: size[0], : size[1]] - 2)
  assert len(set(zip(heights.ravel(), widths.ravel(), strict=True))) > 20
  assert (heights == 0).any()


def test_crop_takes_the_fewest_rows_of_equal_areas():
  canvas = np.zeros((30, 30), np.uint8)
  canvas[0, :6] = canvas[1, :3] = canvas[2, :2] = 5
  (grid,) = arc_grids.crop(canvas.reshape(1, -1))
  np.testing.assert_array_equal(grid, [[3] * 6])
  canvas[0, 5] = arc_grids.EOS
  (grid,) = arc_grids.crop(canvas.reshape(1, -1))
  np.testing.assert_array_equal(grid, [[3] * 3] * 2)


def test_crop_without_a_first_cell():
  canvas = np.full((30, 30), 4, np.uint8)
  canvas[0, 0] = arc_grids.EOS
  (grid,) = arc_grids.crop(canvas.reshape(1, -1))
  assert grid.shape == (0, 0)
