"""A grid of tokens as an image, with its special cells marked.

Nothing is told by colour alone: a wrong symbol is underlined as well, a wrong
colour is crossed, and what changed has another ground or a frame.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont

from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids

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
def load_font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
  """Returns Matplotlib's own font, which is there on every machine."""
  properties = font_manager.FontProperties(
    family="DejaVu Sans", weight="bold" if bold else "normal"
  )
  return ImageFont.truetype(font_manager.findfont(properties), size)


def extent(look: task_lib.Look, grids: Sequence[np.ndarray]) -> Extent:
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


def is_cell(look: task_lib.Look, tokens: np.ndarray) -> np.ndarray:
  """Tells which tokens are cells: not ARC's padding and ends; bool [L]."""
  if look.cut is None:
    return np.full(tokens.shape, True)
  return tokens >= arc_grids.FIRST_COLOUR


def draw_panel(
  look: task_lib.Look,
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


def _symbol(look: task_lib.Look, token: int, wrong: bool) -> str:
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
    font=load_font(max(8, box.side * 5 // 8), bold=given),
    anchor="mm",
  )
  if wrong:
    left, _, right, bottom = box.inner(max(2, box.side // 7))
    width = max(2, box.side // 14)
    pen.line((left, bottom, right, bottom), fill=_WRONG, width=width)


def _draw_colour(
  pen: ImageDraw.ImageDraw,
  box: _Box,
  look: task_lib.Look,
  token: int,
  *,
  wrong: bool,
  changed: bool,
) -> None:
  """Draws a cell that is filled with a colour."""
  is_absent = look.cut and token < arc_grids.FIRST_COLOUR
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
        font=load_font(max(8, box.side * 3 // 4), bold=True),
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
  look: task_lib.Look,
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


# Panels side by side with titles and confidence, a legend below.


# Pixels. Pictures are drawn at twice the size at which they are to be seen.
SAMPLE = 40  # of the legend
_MARGIN, _GAP, _TITLE, _BAR, _WORDS = 28, 40, 26, 10, 22
_NARROWEST = 250  # of a column: its title must have room
_GREY, _TRACK, _FILLED = "#444444", "#dddddd", "#1558b0"
_MOST_IN_ROW = 4


@dataclasses.dataclass(frozen=True)
class Panel:
  """A grid with what stands above it."""

  title: str
  image: Image.Image
  confidence: float | None = None


@dataclasses.dataclass(frozen=True)
class Meaning:
  """An entry of a legend."""

  words: str
  image: Image.Image  # SAMPLE pixels wide and high


def percent(share: float) -> str:
  """Returns a share in whole percent, which is 0% or 100% only if exact."""
  if math.isnan(share):
    return "not known"
  if 0 < share < 0.005:
    return "<1%"
  return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def draw_sheet(
  columns: Sequence[Panel], legend: Sequence[Meaning]
) -> Image.Image:
  """Puts panels side by side, in several rows if there are many.

  Args:
    columns: the panels, at least one.
    legend: what to explain below them.
  """
  num_rows = math.ceil(len(columns) / _MOST_IN_ROW)
  in_row = math.ceil(len(columns) / num_rows)
  width = max(_NARROWEST, *(column.image.width for column in columns))
  has_bars = any(column.confidence is not None for column in columns)
  head = _TITLE + (3 * _BAR if has_bars else _BAR)
  height = head + max(column.image.height for column in columns)
  total = in_row * (width + _GAP) - _GAP
  explained = _draw_legend(legend, total)
  bottom = _MARGIN + num_rows * (height + _GAP)
  size = (total + 2 * _MARGIN, bottom + explained.height + _MARGIN)
  sheet = Image.new("RGB", size, PAPER)
  pen = ImageDraw.Draw(sheet)
  for number, column in enumerate(columns):
    row, place = divmod(number, in_row)
    left = _MARGIN + place * (width + _GAP)
    top = _MARGIN + row * (height + _GAP)
    _write_head(pen, column, left, top, width)
    sheet.paste(column.image, (left, top + head))
  sheet.paste(explained, (_MARGIN, bottom))
  return sheet


def bar_sample() -> Image.Image:
  """Draws a confidence bar for the legend."""
  image = Image.new("RGB", (SAMPLE, SAMPLE), PAPER)
  pen = ImageDraw.Draw(image)
  _draw_bar(pen, 0, (SAMPLE - _BAR) // 2, SAMPLE - 1, 0.6)
  return image


def _write_head(
  pen: ImageDraw.ImageDraw, column: Panel, left: int, top: int, width: int
) -> None:
  """Writes a panel's title, and its confidence as a number and as a bar."""
  font = load_font(_TITLE)
  pen.text((left, top), column.title, fill=INK, font=font)
  if column.confidence is None:
    return
  said = percent(column.confidence)
  pen.text((left + width, top), said, fill=INK, font=font, anchor="ra")
  share = 0.0 if math.isnan(column.confidence) else column.confidence
  _draw_bar(pen, left, top + _TITLE + _BAR, width, share)


def _draw_bar(
  pen: ImageDraw.ImageDraw, left: int, top: int, width: int, share: float
) -> None:
  pen.rectangle((left, top, left + width, top + _BAR), fill=_TRACK)
  if share > 0:
    filled = (left, top, left + round(width * share), top + _BAR)
    pen.rectangle(filled, fill=_FILLED)


def _draw_legend(legend: Sequence[Meaning], width: int) -> Image.Image:
  """Draws entries in lines no wider than `width` pixels."""
  font = load_font(_WORDS)
  places: list[tuple[int, int]] = []
  left = line = 0
  for meaning in legend:
    needed = SAMPLE + 12 + round(font.getlength(meaning.words))
    if left and left + needed > width:
      left, line = 0, line + 1
    places.append((left, line * (SAMPLE + 12)))
    left += needed + _GAP
  size = (width, (line + 1) * (SAMPLE + 12))
  image = Image.new("RGB", size, PAPER)
  pen = ImageDraw.Draw(image)
  for meaning, (left, top) in zip(legend, places, strict=True):
    image.paste(meaning.image, (left, top))
    place = (left + SAMPLE + 12, top + SAMPLE // 2)
    pen.text(place, meaning.words, fill=_GREY, font=font, anchor="lm")
  return image
