"""Panels side by side with titles and confidence, a legend below."""

import dataclasses
import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

from trm_jax.show import panels

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


def draw(columns: Sequence[Panel], legend: Sequence[Meaning]) -> Image.Image:
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
  sheet = Image.new("RGB", size, panels.PAPER)
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
  image = Image.new("RGB", (SAMPLE, SAMPLE), panels.PAPER)
  pen = ImageDraw.Draw(image)
  _draw_bar(pen, 0, (SAMPLE - _BAR) // 2, SAMPLE - 1, 0.6)
  return image


def _write_head(
  pen: ImageDraw.ImageDraw, column: Panel, left: int, top: int, width: int
) -> None:
  """Writes a panel's title, and its confidence as a number and as a bar."""
  font = panels.font(_TITLE)
  pen.text((left, top), column.title, fill=panels.INK, font=font)
  if column.confidence is None:
    return
  said = percent(column.confidence)
  pen.text((left + width, top), said, fill=panels.INK, font=font, anchor="ra")
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
  font = panels.font(_WORDS)
  places: list[tuple[int, int]] = []
  left = line = 0
  for meaning in legend:
    needed = SAMPLE + 12 + round(font.getlength(meaning.words))
    if left and left + needed > width:
      left, line = 0, line + 1
    places.append((left, line * (SAMPLE + 12)))
    left += needed + _GAP
  size = (width, (line + 1) * (SAMPLE + 12))
  image = Image.new("RGB", size, panels.PAPER)
  pen = ImageDraw.Draw(image)
  for meaning, (left, top) in zip(legend, places, strict=True):
    image.paste(meaning.image, (left, top))
    place = (left + SAMPLE + 12, top + SAMPLE // 2)
    pen.text(place, meaning.words, fill=_GREY, font=font, anchor="lm")
  return image
