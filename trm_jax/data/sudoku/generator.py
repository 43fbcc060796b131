"""Generates Sudoku puzzles of any box shape with exactly one solution."""

import functools
import random

import numpy as np

from trm_jax import errors
from trm_jax.data import puzzle_set
from trm_jax.data import rng as rng_lib
from trm_jax.data.sudoku import rules as sudoku_rules

# Digging in random order can get stuck before the wanted number of clues is
# reached: up to EXTRA_CLUES more are accepted, and _MAX_TRIES grids are tried.
EXTRA_CLUES = 2
_MAX_TRIES = 200

# generate_split stops looking for new kinds of puzzles after this many puzzles
# per puzzle asked for.
_PUZZLES_PER_KIND = 40
# It allows one more clue if less than this fraction of a round was new.
_ENOUGH_NEW = 0.5

_FINGERPRINT_ROUNDS = 5


def generate(
  num_puzzles: int, *, box_rows: int, box_cols: int, num_clues: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Generates puzzles with one solution each.

  Clues are removed from a random full grid in random order as long as the
  solution stays unique, down to `num_clues`. A puzzle that ends with up to
  `EXTRA_CLUES` more is accepted; otherwise another grid is tried.

  Args:
    num_puzzles: N.
    box_rows: Rows of a box.
    box_cols: Columns of a box.
    num_clues: Wanted number of clues.
    seed: Seed of the draws; equal seeds give equal puzzles.

  Returns:
    Questions and answers, tokens, both uint8 [N, L].

  Raises:
    UserError: if no puzzle with so few clues is found.
  """
  rng = random.Random(seed)
  box = {"box_rows": box_rows, "box_cols": box_cols}
  num_cells = sudoku_rules.side(box_rows, box_cols) ** 2
  if not 0 <= num_clues <= num_cells:
    raise errors.UserError(
      f"number of clues is {num_clues}, expected 0 to {num_cells}"
    )
  questions = np.empty((num_puzzles, num_cells), np.uint8)
  answers = np.empty((num_puzzles, num_cells), np.uint8)
  for i in range(num_puzzles):
    questions[i], answers[i] = _generate_one(rng, num_clues, **box)
  return questions + np.uint8(sudoku_rules.BLANK), answers + np.uint8(
    sudoku_rules.BLANK
  )


def _generate_one(
  rng: random.Random, num_clues: int, *, box_rows: int, box_cols: int
) -> tuple[list[int], list[int]]:
  num_cells = (box_rows * box_cols) ** 2
  for _ in range(_MAX_TRIES):
    board = Board([0] * num_cells, box_rows=box_rows, box_cols=box_cols)
    board.count(1, rng)
    answer = board.digits.copy()
    left = num_cells
    # One pass is enough: a clue that is needed once is needed forever.
    for cell in rng.sample(range(num_cells), num_cells):
      if left == num_clues:
        break
      left -= board.dig(cell)
    if left <= num_clues + EXTRA_CLUES:
      return board.digits, answer
  raise errors.UserError(
    f"found no {box_rows}x{box_cols}-box Sudoku with at most "
    f"{num_clues + EXTRA_CLUES} clues in {_MAX_TRIES} tries: "
    "ask for more clues"
  )


def fingerprints(
  questions: np.ndarray, *, box_rows: int, box_cols: int
) -> np.ndarray:
  """Computes fingerprints that are invariant under the symmetries of Sudoku.

  Colour refinement (Weisfeiler-Lehman): in each round, the colour of a cell is
  hashed with the colours of its row, column, box, band, stack and digit, each
  a sum over the hashed colours of its cells, so that no order matters. Puzzles
  that are equal up to symmetry have equal fingerprints. The reverse can fail,
  which loses a puzzle where different ones are wanted, but never leaks one.

  Args:
    questions: Tokens, uint8 [N, L].
    box_rows: Rows of a box.
    box_cols: Columns of a box.

  Returns:
    uint64 [N].
  """
  n = sudoku_rules.side(box_rows, box_cols)
  grids = np.asarray(questions).reshape(-1, n, n)
  result = _refine(grids, box_rows, box_cols)
  if box_rows == box_cols:  # transposition is a symmetry
    flipped = _refine(grids.transpose(0, 2, 1), box_rows, box_cols)
    result = rng_lib.key(90, result) + rng_lib.key(90, flipped)
  return result


def _refine(grids: np.ndarray, box_rows: int, box_cols: int) -> np.ndarray:
  """Computes fingerprints, uint64 [N], of [N, n, n] up to transposition."""
  n = grids.shape[-1]
  bands, stacks = n // box_rows, n // box_cols
  clue = grids > sudoku_rules.BLANK
  colours = rng_lib.key(1, clue)
  for _ in range(_FINGERPRINT_ROUNDS):
    shares = rng_lib.key(2, colours)
    rows = rng_lib.key(3, shares.sum(axis=2))
    columns = rng_lib.key(4, shares.sum(axis=1))
    by_box = shares.reshape(-1, bands, box_rows, stacks, box_cols)
    boxes = rng_lib.key(5, by_box.sum(axis=(2, 4)))
    by_band = rows.reshape(-1, bands, box_rows).sum(axis=2)
    by_stack = columns.reshape(-1, stacks, box_cols).sum(axis=2)
    surroundings = (
      rows[:, :, None]
      + columns[:, None, :]
      + np.repeat(np.repeat(boxes, box_rows, axis=1), box_cols, axis=2)
      + np.repeat(rng_lib.key(6, by_band), box_rows, axis=1)[:, :, None]
      + np.repeat(rng_lib.key(7, by_stack), box_cols, axis=1)[:, None, :]
    )
    for token in range(sudoku_rules.BLANK + 1, n + sudoku_rules.BLANK + 1):
      has = grids == token
      total = np.where(has, shares, 0).sum(axis=(1, 2), keepdims=True)
      surroundings += np.where(has, rng_lib.key(8, total), 0)
    colours = rng_lib.key(9, colours, surroundings)
  return rng_lib.key(10, colours).sum(axis=(1, 2))


def generate_split(
  num_train: int,
  num_test: int,
  *,
  box_rows: int,
  box_cols: int,
  num_clues: int,
  seed: int,
) -> tuple[puzzle_set.PuzzleSet, puzzle_set.PuzzleSet]:
  """Generates a training and a test set that share no puzzle up to symmetry.

  Two puzzles are of the same kind if permuting digits, bands, rows in a band,
  stacks, columns in a stack, or (square boxes) transposing turns one into the
  other. No test puzzle is of the same kind as a training puzzle or another test
  puzzle. Training puzzles are of different kinds too, unless there are too few
  kinds (4x4); then several of a kind are kept. Where new kinds become rare,
  puzzles with up to `EXTRA_CLUES` more clues are generated.

  Args:
    num_train: Number of training puzzles.
    num_test: Number of test puzzles.
    box_rows: Rows of a box.
    box_cols: Columns of a box.
    num_clues: Wanted number of clues.
    seed: Seed of the draws.

  Returns:
    The training set and the test set.

  Raises:
    UserError: if there are not enough different puzzles.
  """
  box = {"box_rows": box_rows, "box_cols": box_cols}
  wanted = num_train + num_test
  rng = np.random.default_rng(seed)
  # Kind of every puzzle so far, and the index of the first of each kind.
  questions, answers = [], []
  kinds: list[int] = []
  first: dict[int, int] = {}
  extra = 0
  while len(first) < wanted and len(kinds) < _PUZZLES_PER_KIND * wanted:
    round_size = max(wanted - len(first), 64)
    x, y = generate(
      round_size,
      num_clues=num_clues + extra,
      seed=int(rng.integers(2**62)),
      **box,
    )
    num_kinds = len(first)
    for kind in fingerprints(x, **box).tolist():
      first.setdefault(kind, len(kinds))
      kinds.append(kind)
    questions.append(x)
    answers.append(y)
    if len(first) - num_kinds < _ENOUGH_NEW * round_size:
      most = min(EXTRA_CLUES, (box_rows * box_cols) ** 2 - num_clues)
      extra = (extra + 1) % (most + 1)
  x, y = np.concatenate(questions), np.concatenate(answers)

  picked = rng.permutation(np.array(list(first.values())))
  test = picked[:num_test]
  train = picked[num_test : num_test + num_train]
  if len(train) < num_train:
    in_test = {kinds[i] for i in test.tolist()}
    train = np.array([i for i, kind in enumerate(kinds) if kind not in in_test])
    train = rng.permutation(train)[:num_train]
  if len(test) < num_test or len(train) < num_train:
    raise errors.UserError(
      f"found only {len(first)} different {box_rows}x{box_cols}-box puzzles "
      f"with {num_clues} clues, too few for {num_train} training and "
      f"{num_test} test puzzles: ask for fewer"
    )
  return (
    puzzle_set.PuzzleSet.single(x[train], y[train]),
    puzzle_set.PuzzleSet.single(x[test], y[test]),
  )


# --- a small solver: fills grids, counts solutions, removes clues ------------


class Board:
  """A partly filled grid with the set of used digits of each unit.

  Attributes:
    digits: Digit of every cell, 0 for a blank; none twice in a unit.
  """

  def __init__(self, digits: list[int], *, box_rows: int, box_cols: int):
    n = sudoku_rules.side(box_rows, box_cols)
    self.digits = list(digits)
    self._full = (1 << n) - 1
    self._units_of, self._peers = _neighbours(box_rows, box_cols)
    # Rows, columns and boxes share one list, in the order of rules.units.
    self._used = [0] * (3 * n)
    for cell, digit in enumerate(self.digits):
      if digit:
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
      The smaller of `limit` and the number of solutions. If the limit was
      reached, `digits` holds the last solution found; otherwise it is
      unchanged.
    """
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
    """Blanks a cell if the solution stays unique.

    Args:
      cell: A filled cell.

    Returns:
      Whether the cell was blanked; if not, the board is unchanged.
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
      # A successful search leaves its marks: work on a copy.
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
  units = sudoku_rules.units(box_rows, box_cols).tolist()
  num_cells = len(units) ** 2 // 9
  units_of, peers = [], []
  for cell in range(num_cells):
    row, column, box = (i for i, unit in enumerate(units) if cell in unit)
    units_of.append((row, column, box))
    peers.append(
      [[c for c in units[u] if c != cell] for u in (row, column, box)]
    )
  return units_of, peers
