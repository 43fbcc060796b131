"""Draws grids of tokens with their marks, and sheets of several grids.

No mark relies on color alone: an incorrect symbol is underlined as well, an
incorrect color is crossed, and a changed cell is shaded or framed.
"""

import functools
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids

SAMPLE = 40  # pixels, width and height of a legend's image

_PAPER, _INK, _LINE = "#ffffff", "#000000", "#9e9e9e"
_FILLED_IN, _WRONG, _CHANGED = "#1558b0", "#c62828", "#ffe9a8"
_SAMPLE_FILL, _WORDS_INK = "#7fb2e5", "#444444"
_BAR_TRACK, _BAR_FILL = "#dddddd", "#1558b0"

# Pixels. Images have twice the size at which they are shown.
_FINE_CELL = 20  # smaller cells have no lines between them
_LARGEST_CELL, _LARGEST_SIDE = 64, 480  # of a cell and of a grid
_MARGIN, _GAP, _TITLE, _BAR, _WORDS = 28, 40, 26, 10, 22
_NARROWEST = 250  # column: a title must fit
_MAX_IN_ROW = 4  # panels


class Extent(NamedTuple):
  """The part of a grid that is drawn: its first rows and columns."""

  rows: int
  cols: int

  @property
  def cell(self) -> int:
    """Pixels of a cell's side with which this fits into a panel."""
    return min(_LARGEST_CELL, _LARGEST_SIDE // max(self.rows, self.cols))


class Panel(NamedTuple):
  """A grid's image with its title.

  Attributes:
    title: Written above the image.
    image: Of the grid.
    confidence: Probability of a correct answer; None for no bar.
  """

  title: str
  image: Image.Image
  confidence: float | None = None


class LegendEntry(NamedTuple):
  """What a mark means.

  Attributes:
    words: The meaning.
    image: An example, `SAMPLE` pixels wide and high.
  """

  words: str
  image: Image.Image


@functools.cache
def _load_font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
  """Loads Matplotlib's own font, available on every machine."""
  name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
  folder = pathlib.Path(matplotlib.get_data_path()) / "fonts/ttf"
  return ImageFont.truetype(folder / name, size)


def percent(share: float) -> str:
  """Formats a share in whole percent; 0% and 100% only if exact."""
  if math.isnan(share):
    return "unknown"
  if 0 < share < 0.005:
    return "<1%"
  return ">99%" if 0.995 <= share < 1 else f"{share:.0%}"


def extent(look: task_lib.Look, grids: Sequence[np.ndarray]) -> Extent:
  """Computes what must be drawn: all, or up to the last color of ARC's grids.

  Args:
    look: Look of the grids.
    grids: Tokens, [L] each.
  """
  if look.cut is None:
    return Extent(look.rows, look.cols)
  shown = np.any([is_cell(look, grid) for grid in grids], axis=0)
  rows, cols = np.nonzero(shown.reshape(look.rows, look.cols))
  if not rows.size:
    return Extent(1, 1)  # an answer without a grid
  return Extent(int(rows.max()) + 1, int(cols.max()) + 1)


def is_cell(look: task_lib.Look, tokens: np.ndarray) -> np.ndarray:
  """Returns which tokens are cells, not ARC's padding or ends; bool [L]."""
  if look.cut is None:
    return np.full(tokens.shape, True)
  return tokens >= arc_grids.FIRST_COLOUR


def draw_grid(
  look: task_lib.Look,
  tokens: np.ndarray,
  extent: Extent,
  cell: int,
  **marks: np.ndarray,
) -> Image.Image:
  """Draws a grid.

  Args:
    look: Look of the grid.
    tokens: Its tokens, [L].
    extent: The part of it to draw.
    cell: Side of a cell in pixels.
    **marks: Cells that are `given` (equal to the question's), `wrong` (differ
      from the solution) or `changed` (differ from the previous answer), bool
      [L] each; by default none.

  Returns:
    An RGB image of the cells with a border.
  """
  border = max(2, cell // 16)
  size = (extent.cols * cell + 2 * border, extent.rows * cell + 2 * border)
  image = Image.new("RGB", size, _PAPER)
  for row, col in np.ndindex(extent.rows, extent.cols):
    place = row * look.cols + col
    token = int(tokens[place])
    marked = {name: bool(cells[place]) for name, cells in marks.items()}
    drawn = _draw_cell(
      cell,
      symbol=_symbol(look, token, wrong=marked.get("wrong", False)),
      fill=_fill(look, token) if look.colours else None,
      outline=_LINE if cell >= _FINE_CELL or look.cut else "",
      **marked,
    )
    image.paste(drawn, (border + col * cell, border + row * cell))
  _draw_lines(ImageDraw.Draw(image), look, extent, cell, border)
  return image


def draw_sample(symbol: str, **marks: bool) -> Image.Image:
  """Draws a single cell for a legend; a colored one without a symbol.

  Args:
    symbol: Character in the cell, or empty.
    **marks: `given`, `wrong` and `changed`, by default False.
  """
  fill = None if symbol else _SAMPLE_FILL
  image = _draw_cell(SAMPLE, symbol=symbol, fill=fill, **marks).copy()
  pen = ImageDraw.Draw(image)
  pen.rectangle((0, 0, SAMPLE - 1, SAMPLE - 1), outline=_LINE)
  return image


def draw_bar_sample() -> Image.Image:
  """Draws a confidence bar for a legend."""
  image = Image.new("RGB", (SAMPLE, SAMPLE), _PAPER)
  pen = ImageDraw.Draw(image)
  _draw_bar(pen, 0, (SAMPLE - _BAR) // 2, SAMPLE - 1, 0.6)
  return image


def draw_sheet(
  panels: Sequence[Panel], legend: Sequence[LegendEntry]
) -> Image.Image:
  """Draws panels side by side, in several rows if there are many.

  Args:
    panels: At least one.
    legend: What to explain below them.
  """
  num_rows = math.ceil(len(panels) / _MAX_IN_ROW)
  in_row = math.ceil(len(panels) / num_rows)
  width = max(_NARROWEST, *(panel.image.width for panel in panels))
  has_bars = any(panel.confidence is not None for panel in panels)
  head = _TITLE + (3 * _BAR if has_bars else _BAR)
  height = head + max(panel.image.height for panel in panels)
  total = in_row * (width + _GAP) - _GAP
  explained = _draw_legend(legend, total)
  bottom = _MARGIN + num_rows * (height + _GAP)
  size = (total + 2 * _MARGIN, bottom + explained.height + _MARGIN)
  sheet = Image.new("RGB", size, _PAPER)
  pen = ImageDraw.Draw(sheet)
  for number, panel in enumerate(panels):
    row, place = divmod(number, in_row)
    left = _MARGIN + place * (width + _GAP)
    top = _MARGIN + row * (height + _GAP)
    _draw_head(pen, panel, left, top, width)
    sheet.paste(panel.image, (left, top + head))
  sheet.paste(explained, (_MARGIN, bottom))
  return sheet


def _symbol(look: task_lib.Look, token: int, *, wrong: bool) -> str:
  """Returns what is written in a cell."""
  symbol = look.drawn(token)
  if look.colours:  # only the start and the goal of a maze
    return symbol if symbol.isupper() and _fill(look, token) else ""
  is_empty = look.box_rows and symbol == "." and not wrong  # of a Sudoku
  return "" if is_empty else symbol


def _fill(look: task_lib.Look, token: int) -> str:
  """Returns the color of a cell; none outside of ARC's grids."""
  is_absent = look.cut and token < arc_grids.FIRST_COLOUR
  has_color = 0 <= token < len(look.colours) and not is_absent
  return look.colours[token] if has_color else ""


@functools.cache
def _draw_cell(
  side: int,
  *,
  symbol: str = "",
  fill: str | None = None,
  outline: str = "",
  given: bool = False,
  wrong: bool = False,
  changed: bool = False,
) -> Image.Image:
  """Draws a cell.

  Args:
    side: Width and height in pixels.
    symbol: Character in it.
    fill: Its color, "" for an absent cell; None where symbols are drawn.
    outline: Color of its edge; "" for `fill`.
    given: As in `draw_grid`; so are `wrong` and `changed`.
    wrong: Underlined or crossed.
    changed: Shaded or framed.
  """
  image = Image.new("RGB", (side, side), _PAPER)
  pen = ImageDraw.Draw(image)
  middle = (side / 2, side / 2)
  if fill is None:
    if changed:
      pen.rectangle((0, 0, side - 1, side - 1), fill=_CHANGED)
    ink = _WRONG if wrong else _INK if given else _FILLED_IN
    font = _load_font(max(8, side * 5 // 8), bold=given)
    pen.text(middle, symbol, fill=ink, font=font, anchor="mm")
    if wrong:
      margin = max(2, side // 7)
      left, bottom = margin, side - 1 - margin
      width = max(2, side // 14)
      pen.line((left, bottom, bottom, bottom), fill=_WRONG, width=width)
    return image
  if fill:
    pen.rectangle((0, 0, side - 1, side - 1), fill, outline=outline or fill)
    font = _load_font(max(8, side * 3 // 4), bold=True)
    pen.text(middle, symbol, fill=_PAPER, font=font, anchor="mm")
  # Black and red lines have white ones beside them for contrast on any color.
  width = max(1, side // 16)
  if changed:
    frame = (1, 1, side - 2, side - 2)
    pen.rectangle(frame, outline=_PAPER, width=2 * width)
    pen.rectangle(frame, outline=_INK, width=width)
  if wrong:
    start = max(3, side // 4)
    end = side - 1 - start
    for ink, thickness in ((_PAPER, 3 * width), (_WRONG, width)):
      pen.line((start, start, end, end), fill=ink, width=thickness)
      pen.line((start, end, end, start), fill=ink, width=thickness)
  return image


def _draw_lines(
  pen: ImageDraw.ImageDraw,
  look: task_lib.Look,
  extent: Extent,
  cell: int,
  border: int,
) -> None:
  """Draws the lines between cells; those between boxes last and thick."""
  if look.cut:
    return  # each cell of ARC's grids has its own lines
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
      pen.line([(border, y), (right, y)], fill=_INK, width=border)
    for col in range(look.box_cols, extent.cols, look.box_cols):
      x = border + col * cell
      pen.line([(x, border), (x, bottom)], fill=_INK, width=border)
  edge = _INK if look.box_rows else _LINE
  size = (right + border - 1, bottom + border - 1)
  pen.rectangle((0, 0, *size), outline=edge, width=border)


def _draw_head(
  pen: ImageDraw.ImageDraw, panel: Panel, left: int, top: int, width: int
) -> None:
  """Draws a panel's title, and its confidence as a number and a bar."""
  font = _load_font(_TITLE)
  pen.text((left, top), panel.title, fill=_INK, font=font)
  if panel.confidence is None:
    return
  words = percent(panel.confidence)
  pen.text((left + width, top), words, fill=_INK, font=font, anchor="ra")
  share = 0.0 if math.isnan(panel.confidence) else panel.confidence
  _draw_bar(pen, left, top + _TITLE + _BAR, width, share)


def _draw_bar(
  pen: ImageDraw.ImageDraw, left: int, top: int, width: int, share: float
) -> None:
  pen.rectangle((left, top, left + width, top + _BAR), fill=_BAR_TRACK)
  if share > 0:
    filled = (left, top, left + round(width * share), top + _BAR)
    pen.rectangle(filled, fill=_BAR_FILL)


def _draw_legend(legend: Sequence[LegendEntry], width: int) -> Image.Image:
  """Draws entries in lines of at most `width` pixels."""
  font = _load_font(_WORDS)
  places: list[tuple[int, int]] = []
  left = line = 0
  for entry in legend:
    needed = SAMPLE + 12 + round(font.getlength(entry.words))
    if left and left + needed > width:
      left, line = 0, line + 1
    places.append((left, line * (SAMPLE + 12)))
    left += needed + _GAP
  image = Image.new("RGB", (width, (line + 1) * (SAMPLE + 12)), _PAPER)
  pen = ImageDraw.Draw(image)
  for entry, (left, top) in zip(legend, places, strict=True):
    image.paste(entry.image, (left, top))
    place = (left + SAMPLE + 12, top + SAMPLE // 2)
    pen.text(place, entry.words, fill=_WORDS_INK, font=font, anchor="lm")
  return image
