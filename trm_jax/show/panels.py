"""A grid of tokens as an image, with its special cells marked.

Nothing is told by colour alone: a wrong symbol is underlined as well, a wrong
colour is crossed, and what changed has another ground or a frame.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from trm_jax.data import arc
from trm_jax.data import look as look_lib

PAPER, INK = "#ffffff", "#000000"
_RIGHT, _WRONG, _CHANGED = "#1558b0", "#c62828", "#ffe9a8"
_LINE, _SAMPLE = "#9e9e9e", "#7fb2e5"
_FINE_CELL = 20  # pixels; smaller cells have no lines between them
_LARGEST_CELL, _LARGEST_SIDE = 64, 480  # pixels, of a cell and of a grid


@dataclasses.dataclass(frozen=True)
class Marks:
  """Which cells of a grid are special, bool [L] each."""

  given: np.ndarray  # are as in the question
  wrong: np.ndarray  # are not as in the solution
  changed: np.ndarray  # are not as they were before


@dataclasses.dataclass(frozen=True)
class Extent:
  """The part of a grid that is shown: its first rows and columns."""

  rows: int
  cols: int

  @property
  def cell(self) -> int:
    """Pixels of a cell's side with which this fits into a panel."""
    return min(_LARGEST_CELL, _LARGEST_SIDE // max(self.rows, self.cols))


@functools.cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
  """Returns Matplotlib's own font, which is there on every machine."""
  properties = font_manager.FontProperties(
    family="DejaVu Sans", weight="bold" if bold else "normal"
  )
  return ImageFont.truetype(font_manager.findfont(properties), size)


def extent(look: look_lib.Look, grids: Sequence[np.ndarray]) -> Extent:
  """Finds how much of the grids must be seen: all, or up to ARC's last colour.

  Args:
    look: of the grids.
    grids: [L] tokens each.
  """
  if look.cut is None:
    return Extent(look.rows, look.cols)
  shown = np.any([is_cell(look, grid) for grid in grids], axis=0)
  rows, cols = np.nonzero(shown.reshape(look.rows, look.cols))
  if not rows.size:
    return Extent(1, 1)  # an answer without a grid
  return Extent(int(rows.max()) + 1, int(cols.max()) + 1)


def is_cell(look: look_lib.Look, tokens: np.ndarray) -> np.ndarray:
  """Tells which tokens are cells: not ARC's padding and ends; bool [L]."""
  if look.cut is None:
    return np.full(tokens.shape, True)
  return tokens >= arc.FIRST_COLOUR


def draw(
  look: look_lib.Look,
  tokens: np.ndarray,
  marks: Marks,
  *,
  extent: Extent,
  cell: int,
) -> Image.Image:
  """Draws a grid.

  Args:
    look: of the grid.
    tokens: [L].
    marks: of its cells.
    extent: what of it is shown.
    cell: pixels of a cell's side.

  Returns:
    An RGB image of `cell` pixels for each cell, and a border.
  """
  border = max(2, cell // 16)
  size = (extent.cols * cell + 2 * border, extent.rows * cell + 2 * border)
  image = Image.new("RGB", size, PAPER)
  pen = ImageDraw.Draw(image)
  for row in range(extent.rows):
    for col in range(extent.cols):
      place = row * look.cols + col
      box = _Box(border + col * cell, border + row * cell, cell)
      token = int(tokens[place])
      wrong, changed = bool(marks.wrong[place]), bool(marks.changed[place])
      if look.colours:
        _draw_colour(pen, box, look, token, wrong=wrong, changed=changed)
      else:
        given = bool(marks.given[place])
        _draw_symbol(
          pen,
          box,
          _symbol(look, token, wrong),
          given=given,
          wrong=wrong,
          changed=changed,
        )
  _draw_lines(pen, look, extent, cell, border)
  return image


@dataclasses.dataclass(frozen=True)
class _Box:
  """A cell's place in an image, in pixels."""

  left: int
  top: int
  side: int

  def inner(self, margin: int) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom, so far from the cell's edge."""
    right, bottom = self.left + self.side - 1, self.top + self.side - 1
    return (
      self.left + margin,
      self.top + margin,
      right - margin,
      bottom - margin,
    )

  @property
  def middle(self) -> tuple[float, float]:
    """Returns x and y of its middle."""
    return self.left + self.side / 2, self.top + self.side / 2


def _symbol(look: look_lib.Look, token: int, wrong: bool) -> str:
  """Returns what is written: an empty Sudoku cell is left empty."""
  symbol = look.drawn(token)
  return "" if look.box_rows and symbol == "." and not wrong else symbol


def sample(
  side: int,
  *,
  symbol: str,
  given: bool = False,
  wrong: bool = False,
  changed: bool = False,
) -> Image.Image:
  """Draws a cell of its own for a legend; without symbol a coloured one."""
  image = Image.new("RGB", (side, side), PAPER)
  pen = ImageDraw.Draw(image)
  box = _Box(0, 0, side)
  if symbol:
    _draw_symbol(pen, box, symbol, given=given, wrong=wrong, changed=changed)
  else:
    pen.rectangle(box.inner(0), fill=_SAMPLE)
    _mark_colour(pen, box, wrong=wrong, changed=changed)
  pen.rectangle(box.inner(0), outline=_LINE)
  return image


def _draw_symbol(
  pen: ImageDraw.ImageDraw,
  box: _Box,
  symbol: str,
  *,
  given: bool,
  wrong: bool,
  changed: bool,
) -> None:
  """Draws a cell with a character in it."""
  if changed:
    pen.rectangle(box.inner(0), fill=_CHANGED)
  ink = _WRONG if wrong else INK if given else _RIGHT
  pen.text(
    box.middle,
    symbol,
    fill=ink,
    font=font(max(8, box.side * 5 // 8), bold=given),
    anchor="mm",
  )
  if wrong:
    left, _, right, bottom = box.inner(max(2, box.side // 7))
    width = max(2, box.side // 14)
    pen.line((left, bottom, right, bottom), fill=_WRONG, width=width)


def _draw_colour(
  pen: ImageDraw.ImageDraw,
  box: _Box,
  look: look_lib.Look,
  token: int,
  *,
  wrong: bool,
  changed: bool,
) -> None:
  """Draws a cell that is filled with a colour."""
  is_absent = look.cut and token < arc.FIRST_COLOUR
  if not is_absent and 0 <= token < len(look.colours):
    fine = box.side < _FINE_CELL and not look.cut
    pen.rectangle(
      box.inner(0),
      fill=look.colours[token],
      outline=look.colours[token] if fine else _LINE,
    )
    if look.symbols[token].isupper():  # the start and the goal of a maze
      pen.text(
        box.middle,
        look.symbols[token],
        fill=PAPER,
        font=font(max(8, box.side * 3 // 4), bold=True),
        anchor="mm",
      )
  _mark_colour(pen, box, wrong=wrong, changed=changed)


def _mark_colour(
  pen: ImageDraw.ImageDraw, box: _Box, *, wrong: bool, changed: bool
) -> None:
  """Frames and crosses a cell in black on white, to be seen on all colours."""
  width = max(1, box.side // 16)
  if changed:
    pen.rectangle(box.inner(1), outline=PAPER, width=2 * width)
    pen.rectangle(box.inner(1), outline=INK, width=width)
  if wrong:
    left, top, right, bottom = box.inner(max(3, box.side // 4))
    for ink, thickness in ((PAPER, 3 * width), (_WRONG, width)):
      for line in ((left, top, right, bottom), (left, bottom, right, top)):
        pen.line(line, fill=ink, width=thickness)


def _draw_lines(
  pen: ImageDraw.ImageDraw,
  look: look_lib.Look,
  extent: Extent,
  cell: int,
  border: int,
) -> None:
  """Draws the lines between cells, those between boxes last and thick."""
  if look.cut:
    return  # each cell has its own: there may be fewer than are shown
  right = border + extent.cols * cell
  bottom = border + extent.rows * cell
  if cell >= _FINE_CELL and not look.colours:
    for row in range(1, extent.rows):
      pen.line([(border, y := border + row * cell), (right, y)], fill=_LINE)
    for col in range(1, extent.cols):
      pen.line([(x := border + col * cell, border), (x, bottom)], fill=_LINE)
  if look.box_rows:
    for row in range(look.box_rows, extent.rows, look.box_rows):
      y = border + row * cell
      pen.line([(border, y), (right, y)], fill=INK, width=border)
    for col in range(look.box_cols, extent.cols, look.box_cols):
      x = border + col * cell
      pen.line([(x, border), (x, bottom)], fill=INK, width=border)
  edge = INK if look.box_rows else _LINE
  size = (right + border - 1, bottom + border - 1)
  pen.rectangle((0, 0, *size), outline=edge, width=border)
