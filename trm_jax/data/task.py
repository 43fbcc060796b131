"""A task: its puzzles and symmetries, and how they are shown and judged."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable

import numpy as np

from trm_jax.data import augmentation as augmentation_lib
from trm_jax.data import identifiers as identifiers_lib
from trm_jax.data import puzzle_set
from trm_jax.data.arc import leakage
from trm_jax.data.arc import tasks as arc_tasks


@dataclasses.dataclass(frozen=True)
class Look:
  """What a task's grids look like.

  Attributes:
    rows: Rows of a grid.
    cols: Columns of a grid; L = rows * cols.
    symbols: One character per token; the first is padding's. They are the
      task's vocabulary: a network trained on one cannot read another.
    colours: "#rrggbb" per token, or empty: symbols are drawn instead.
    box_rows: Rows between two horizontal lines; 0 for no lines.
    box_cols: Columns between two vertical lines; 0 for no lines.
    cut: Blanks the cells of an answer that do not count, [L] -> [L], or None.
  """

  rows: int
  cols: int
  symbols: tuple[str, ...]
  colours: tuple[str, ...] = ()
  box_rows: int = 0
  box_cols: int = 0
  cut: Callable[[np.ndarray], np.ndarray] | None = None

  def drawn(self, token: int) -> str:
    """Returns a token's symbol; "?" for what is not in the vocabulary."""
    return self.symbols[token] if 0 <= token < len(self.symbols) else "?"

  def text(self, tokens: np.ndarray) -> str:
    """Returns [L] tokens as text; blank lines at the end are left out."""
    cells = [
      [self.drawn(token) for token in row]
      for row in np.asarray(tokens).reshape(self.rows, self.cols).tolist()
    ]
    if self.box_rows:
      return "\n".join(self._boxed(cells))
    return "\n".join("".join(row).rstrip() for row in cells).rstrip("\n")

  def _boxed(self, cells: list[list[str]]) -> Iterable[str]:
    starts = range(0, self.cols, self.box_cols)
    rule = "+".join(["-" * (2 * self.box_cols + 1)] * len(starts))[1:-1]
    for i, row in enumerate(cells):
      if i and i % self.box_rows == 0:
        yield rule
      yield " | ".join(" ".join(row[j : j + self.box_cols]) for j in starts)


@dataclasses.dataclass(frozen=True)
class Rules:
  """Tells a right answer where a puzzle has several.

  Attributes:
    is_valid: Questions and answers, uint8 [b, L] each -> bool [b].
    what: A right answer in words, e.g. "valid shortest path".
  """

  is_valid: Callable[[np.ndarray, np.ndarray], np.ndarray]
  what: str


@dataclasses.dataclass(frozen=True)
class AugmentationTable:
  """What is needed to undo the variants of the test set and to vote.

  Attributes:
    tasks: The ARC task of each group of the test set, G.
    transforms: Of each puzzle, for `arc.undo`, uint8 [N].
    colours: Of each puzzle, for `arc.undo`, uint8 [N, 10].
  """

  tasks: tuple[arc_tasks.ArcTask, ...]
  transforms: np.ndarray
  colours: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
  """What training and evaluation need to know of a kind of puzzle.

  Attributes:
    train: Puzzles to learn from.
    test: Puzzles to evaluate on.
    look: Their vocabulary, and how to show them.
    augmentation: Applied to training batches on the fly, or None.
    identifiers: What each row of the puzzle table stands for; row 0 is blank
      and is shared by all puzzles that have no row of their own.
    rules: Where an answer may be right without being the label.
    augmentation_table: Where several puzzles are variants that vote for an
      answer.
    learned: Marks of the ARC tasks whose test answers are learned from; see
      `leaks`.
    notes: Lines for the user to read at the start.
    warnings: Reasons to doubt the score; told at the start and with it.
  """

  train: puzzle_set.Puzzles
  test: puzzle_set.Puzzles
  look: Look
  augmentation: augmentation_lib.Augmentation | None
  identifiers: list[str] = dataclasses.field(
    default_factory=lambda: [identifiers_lib.BLANK]
  )
  rules: Rules | None = None
  augmentation_table: AugmentationTable | None = None
  learned: tuple[str, ...] = ()
  notes: tuple[str, ...] = ()
  warnings: tuple[str, ...] = ()

  @property
  def seq_len(self) -> int:
    """L, tokens of a grid."""
    return self.train.seq_len

  @property
  def vocab_size(self) -> int:
    """V, tokens 0..V-1."""
    return len(self.look.symbols)

  @property
  def num_puzzle_ids(self) -> int:
    """N, rows of the puzzle table."""
    return len(self.identifiers)

  @functools.cached_property
  def identifiers_digest(self) -> str:
    """Hex digest of what the rows of the puzzle table stand for."""
    return identifiers_lib.digest(self.identifiers)

  def leak(self, learned: Collection[str]) -> str:
    """Returns a warning if test answers are among `learned`, or ""."""
    if self.augmentation_table is None:
      return ""
    return leakage.warning(self.augmentation_table.tasks, learned)
