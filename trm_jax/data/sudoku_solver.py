"""A small Sudoku solver: fills grids, counts solutions, digs out clues.

Bit sets in plain integers, always branching on the cell with the fewest
candidates. It works on lists of digits 0..n, 0 for a blank, not on tokens.
"""

import functools
import random

import numpy as np

from trm_jax.data import sudoku


class Board:
  """A partly filled grid that knows which digits each unit has used.

  Attributes:
    digits: Digit of every cell, 0 for a blank.
  """

  def __init__(self, digits: list[int], *, box_rows: int, box_cols: int):
    n = sudoku.side(box_rows, box_cols)
    self.digits = list(digits)
    self._full = (1 << n) - 1
    self._units_of, self._peers = _neighbours(box_rows, box_cols)
    # Rows, columns and boxes share one list, in the order of sudoku.units.
    self._used = [0] * (3 * n)
    self.consistent = True
    for cell, digit in enumerate(self.digits):
      if digit:
        if not self._candidates(cell) >> (digit - 1) & 1:
          self.consistent = False
        self._mark(cell, 1 << (digit - 1))

  def _mark(self, cell: int, bit: int) -> None:
    row, column, box = self._units_of[cell]
    self._used[row] |= bit
    self._used[column] |= bit
    self._used[box] |= bit

  def _unmark(self, cell: int, bit: int) -> None:
    row, column, box = self._units_of[cell]
    self._used[row] &= ~bit
    self._used[column] &= ~bit
    self._used[box] &= ~bit

  def _candidates(self, cell: int) -> int:
    row, column, box = self._units_of[cell]
    used = self._used
    return self._full & ~(used[row] | used[column] | used[box])

  def _blanks(self) -> list[int]:
    return [cell for cell, digit in enumerate(self.digits) if not digit]

  def count(self, limit: int, rng: random.Random | None = None) -> int:
    """Counts solutions, stopping at `limit`.

    Args:
      limit: Where to stop, at least 1.
      rng: If given, digits are tried in random order.

    Returns:
      The smaller of `limit` and the number of solutions. When the limit was
      reached, `digits` holds the solution found last; otherwise it is as
      before.
    """
    if not self.consistent:
      return 0
    return self._search(self._blanks(), limit, rng)

  def _search(
    self, blanks: list[int], limit: int, rng: random.Random | None
  ) -> int:
    if not blanks:
      return 1
    best, best_count, best_mask = -1, 99, 0
    used, units_of, full = self._used, self._units_of, self._full
    for index, cell in enumerate(blanks):
      row, column, box = units_of[cell]
      mask = full & ~(used[row] | used[column] | used[box])
      count = mask.bit_count()
      if count < best_count:
        if not count:
          return 0
        best, best_count, best_mask = index, count, mask
        if count == 1:
          break
    cell = blanks[best]
    rest = blanks[:best] + blanks[best + 1 :]
    bits = _bits(best_mask)
    if rng is not None:
      rng.shuffle(bits)
    found = 0
    for bit in bits:
      self._mark(cell, bit)
      found += self._search(rest, limit - found, rng)
      if found >= limit:
        self.digits[cell] = bit.bit_length()
        return found
      self._unmark(cell, bit)
    return found

  def dig(self, cell: int) -> bool:
    """Blanks a cell, if that leaves a puzzle with one solution that way.

    Args:
      cell: A filled cell.

    Returns:
      Whether the cell was blanked; if not, the board is as before.
    """
    digit = self.digits[cell]
    bit = 1 << (digit - 1)
    self.digits[cell] = 0
    self._unmark(cell, bit)
    # Another solution would have another digit here: the old one is forced if
    # no other is a candidate, or if no other cell of a unit can take it.
    others = self._candidates(cell) & ~bit
    if not others:
      return True
    for peers in self._peers[cell]:
      if not any(
        not self.digits[peer] and self._candidates(peer) & bit for peer in peers
      ):
        return True
    blanks = self._blanks()
    blanks.remove(cell)
    for other in _bits(others):
      self._mark(cell, other)
      # A search that finds something leaves its marks: keep a copy.
      used, digits = self._used.copy(), self.digits.copy()
      found = self._search(blanks, 1, None)
      self._used, self.digits = used, digits
      self._unmark(cell, other)
      if found:
        self.digits[cell] = digit
        self._mark(cell, bit)
        return False
    return True


def _bits(mask: int) -> list[int]:
  bits = []
  while mask:
    bit = mask & -mask
    bits.append(bit)
    mask ^= bit
  return bits


@functools.lru_cache(maxsize=16)
def _neighbours(
  box_rows: int, box_cols: int
) -> tuple[list[tuple[int, int, int]], list[list[list[int]]]]:
  """Returns every cell's units and the other cells of each of these."""
  units = sudoku.units(box_rows, box_cols).tolist()
  num_cells = len(units) ** 2 // 9
  units_of, peers = [], []
  for cell in range(num_cells):
    row, column, box = (i for i, unit in enumerate(units) if cell in unit)
    units_of.append((row, column, box))
    peers.append(
      [[c for c in units[u] if c != cell] for u in (row, column, box)]
    )
  return units_of, peers


def count_solutions(
  question: np.ndarray, *, box_rows: int, box_cols: int, limit: int = 2
) -> int:
  """Counts the solutions of a puzzle, stopping at `limit`.

  Args:
    question: Tokens [L].
    box_rows: Rows of a box.
    box_cols: Columns of a box.
    limit: Where to stop; 2 tells whether the solution is unique.

  Returns:
    The smaller of `limit` and the number of solutions.
  """
  digits = (np.maximum(question, sudoku.BLANK) - sudoku.BLANK).tolist()
  board = Board(digits, box_rows=box_rows, box_cols=box_cols)
  return board.count(limit)
