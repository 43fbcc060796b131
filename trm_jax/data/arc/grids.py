"""ARC: grids of colours to tokens and back, and the symmetries of a task.

A grid has up to 30 x 30 cells of colours 0..9 and is stored as 900 uint8
tokens: 0 is padding, 1 marks the ends of rows and columns and c + 2 is colour
c, as in the official data builder. A variant of a task rotates or reflects all
its grids and permutes the colours 1..9; 0, the background, is kept.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np

from trm_jax import errors

SIDE = 30
SEQ_LEN = SIDE * SIDE
NUM_COLOURS = 10

PAD = 0
EOS = 1
FIRST_COLOUR = 2  # the token of colour 0
VOCAB_SIZE = FIRST_COLOUR + NUM_COLOURS

# Identity; rotation left by 90, 180, 270 degrees; left and right swapped;
# top and bottom swapped; the two transpositions.
NUM_TRANSFORMS = 8
# Whether height and width are swapped.
SWAPS_SIDES = np.array([0, 1, 0, 1, 0, 0, 1, 1], bool)
_INVERSES = (0, 3, 2, 1, 4, 5, 6, 7)

SAME_COLOURS = np.arange(NUM_COLOURS, dtype=np.uint8)
SAME_COLOURS.setflags(write=False)

SEPARATOR = "|||"
_VARIANT_NAME = re.compile(
  r"((?:(?!\|\|\|).)+)\|\|\|t([0-7])\|\|\|(0[1-9]{9})", re.DOTALL
)


def dihedral(grid: np.ndarray, transform: int) -> np.ndarray:
  """Rotates or reflects a grid.

  Args:
    grid: [h, w].
    transform: Index of the symmetry of the square, 0..7.

  Returns:
    [h, w], or [w, h] where `SWAPS_SIDES[transform]`.
  """
  match transform:
    case 0:
      return grid
    case 1 | 2 | 3:
      return np.rot90(grid, transform)
    case 4:
      return np.fliplr(grid)
    case 5:
      return np.flipud(grid)
    case 6:
      return grid.T
    case 7:
      return np.rot90(grid, 2).T
  raise ValueError(f"transform is {transform}, expected 0 to 7")


def apply(
  grid: np.ndarray, *, transform: int, colours: np.ndarray
) -> np.ndarray:
  """Returns a variant of a grid.

  Args:
    grid: Colours, uint8 [h, w].
    transform: As in `dihedral`.
    colours: The new colour of each old one, uint8 [10].

  Returns:
    Colours, uint8 of the transformed shape.
  """
  return dihedral(colours[grid], transform)


def invert(
  grid: np.ndarray, *, transform: int, colours: np.ndarray
) -> np.ndarray:
  """Inverts `apply`, with the same arguments."""
  old_colours = np.argsort(colours).astype(np.uint8)
  return old_colours[dihedral(grid, _INVERSES[transform])]


def variant_name(task: str, *, transform: int, digits: str) -> str:
  """Returns a variant's identifier, e.g. "007bbfb7|||t3|||0612397845"."""
  return f"{task}{SEPARATOR}t{transform}{SEPARATOR}{digits}"


def parse_name(name: str, *, where: str) -> tuple[str, int, str]:
  """Parses the identifier of a variant, or of an original (the task's name).

  Args:
    name: From `variant_name`, or a task's name.
    where: Begins an error message, e.g. "identifiers.json entry 7".

  Returns:
    The task's name, the transform, and the colours as ten digits.

  Raises:
    UserError: if the name has neither form.
  """
  if SEPARATOR not in name:
    return name, 0, "0123456789"
  match = _VARIANT_NAME.fullmatch(name)
  if not match or len(set(match[3])) != NUM_COLOURS:
    raise errors.UserError(
      f"{where}: {name[:100]!r} is not the name of a variant, expected "
      "'task|||t0|||0123456789' with t0 to t7 and each digit once, 0 first"
    )
  return match[1], int(match[2]), match[3]


def parse_names(
  names: Sequence[str], rows: Iterable[int], *, where: str
) -> tuple[list[str], np.ndarray, np.ndarray]:
  """Parses some identifiers of a list.

  Args:
    names: Identifiers.
    rows: Which of them, n.
    where: File of the identifiers; begins an error message.

  Returns:
    The task of each, n, transforms, uint8 [n], and colours, uint8 [n, 10].

  Raises:
    UserError: as `parse_name`.
  """
  parsed = [
    parse_name(names[row], where=f"{where} entry {row}") for row in rows
  ]
  tasks, transforms, digits = zip(*parsed, strict=True)
  colours = np.frombuffer("".join(digits).encode(), np.uint8) - np.uint8(
    ord("0")
  )
  return (
    list(tasks),
    np.array(transforms, np.uint8),
    colours.reshape(-1, NUM_COLOURS),
  )


def encode(grid: np.ndarray, *, row: int = 0, column: int = 0) -> np.ndarray:
  """Encodes a grid as tokens.

  Args:
    grid: Colours, uint8 [h, w].
    row: Row of the canvas for its first row, 0..30 - h.
    column: Column of the canvas for its first column, 0..30 - w.

  Returns:
    Tokens, uint8 [900], with a line of `EOS` below the last row and right of
    the last column where there is room.
  """
  height, width = grid.shape
  bottom, right = row + height, column + width
  tokens = np.zeros((SIDE, SIDE), np.uint8)
  tokens[row:bottom, column:right] = grid + np.uint8(FIRST_COLOUR)
  tokens[bottom : bottom + 1, column:right] = EOS
  tokens[row:bottom, right : right + 1] = EOS
  return tokens.reshape(-1)


def crop_sizes(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Finds the largest rectangle of colours that starts at the first cell.

  Ties go to the rectangle with the fewest rows.

  Args:
    tokens: Integers [..., 900].

  Returns:
    Heights and widths, int64 [...]; both 0 where the first cell has no colour.
  """
  canvas = tokens.reshape(*tokens.shape[:-1], SIDE, SIDE)
  is_colour = (canvas >= FIRST_COLOUR) & (canvas < VOCAB_SIZE)
  lengths = np.logical_and.accumulate(is_colour, axis=-1).sum(axis=-1)
  widths = np.minimum.accumulate(lengths, axis=-1)
  areas = widths * np.arange(1, SIDE + 1)
  best = areas.argmax(axis=-1)  # the first maximum
  width = np.take_along_axis(widths, best[..., None], axis=-1)[..., 0]
  return np.where(width > 0, best + 1, 0), width


def crop(tokens: np.ndarray) -> list[np.ndarray]:
  """Decodes a batch of answers.

  Args:
    tokens: Integers [b, 900].

  Returns:
    b grids of colours, uint8, of the sizes from `crop_sizes`.
  """
  heights, widths = crop_sizes(tokens)
  canvas = tokens.reshape(-1, SIDE, SIDE)
  return [
    (cells[:height, :width] - FIRST_COLOUR).astype(np.uint8)
    for cells, height, width in zip(
      canvas, heights.tolist(), widths.tolist(), strict=True
    )
  ]


def find(tokens: np.ndarray) -> np.ndarray:
  """Decodes the grid in tokens, [900], at whatever offset it is."""
  canvas = tokens.reshape(SIDE, SIDE)
  is_colour = canvas >= FIRST_COLOUR
  rows, columns = is_colour.any(axis=1), is_colour.any(axis=0)
  return (canvas[rows][:, columns] - FIRST_COLOUR).astype(np.uint8)
