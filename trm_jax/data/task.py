"""Tasks: their puzzles and symmetries, and how they are shown and judged."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from trm_jax import config as config_lib
from trm_jax.data import augmentation as augmentation_lib
from trm_jax.data import characters, puzzle_set
from trm_jax.data import identifiers as identifiers_lib
from trm_jax.data.arc import leakage
from trm_jax.data.arc import tasks as arc_tasks


@dataclasses.dataclass(frozen=True)
class Look:
  """How a task's grids are shown.

  Attributes:
    rows: Rows of a grid.
    cols: Columns of a grid; L = rows * cols.
    symbols: One character per token, V; the first is the padding token's. A
      network reads only the vocabulary that it was trained on.
    colours: "#rrggbb" per token; empty to draw the symbols instead.
    interchangeable: Tokens that may be permuted in a puzzle and its answer, if
      answers consist of these; else empty.
    box_rows: Rows between two horizontal lines; 0 for no lines.
    box_cols: Columns between two vertical lines; 0 for no lines.
    cut: Blanks the cells of an answer that do not count, [L] -> [L], or None.
  """

  rows: int
  cols: int
  symbols: tuple[str, ...]
  colours: tuple[str, ...] = ()
  interchangeable: tuple[int, ...] = ()
  box_rows: int = 0
  box_cols: int = 0
  cut: Callable[[np.ndarray], np.ndarray] | None = None

  def drawn(self, token: int) -> str:
    """Returns a token's symbol; "?" if it is outside the vocabulary."""
    return self.symbols[token] if 0 <= token < len(self.symbols) else "?"

  def text(self, tokens: np.ndarray) -> str:
    """Returns tokens [L] as text without blank lines at the end."""
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
  """Rules that judge an answer without a label.

  Attributes:
    is_valid: Maps questions and answers, uint8 [b, L] each, to bool [b].
    what: A correct answer in words, e.g. "valid shortest path".
  """

  is_valid: Callable[[np.ndarray, np.ndarray], np.ndarray]
  what: str


@dataclasses.dataclass(frozen=True)
class AugmentationTable:
  """The augmentations of an ARC test set, to invert them before the vote.

  Attributes:
    tasks: The ARC task of each group of the test set, G.
    transforms: Transform of each puzzle, for `arc.grids.undo`, uint8 [N].
    colours: Colours of each puzzle, for `arc.grids.undo`, uint8 [N, 10].
  """

  tasks: tuple[arc_tasks.ArcTask, ...]
  transforms: np.ndarray
  colours: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
  """The data and properties of a task, as training and evaluation need them.

  Attributes:
    train: Training puzzles.
    test: Test puzzles.
    look: Vocabulary, and how to show a grid.
    augmentation: Applied to training batches on the fly, or None.
    identifiers: What each row of the puzzle table stands for; row 0 is blank
      and shared by all puzzles without a row of their own.
    rules: If an answer can be correct without being equal to the label.
    augmentation_table: If several puzzles are augmentations of one task that
      vote.
    learned: Marks of the ARC tasks whose test answers are trained on; see
      `arc.leakage`.
    notes: Lines to log at the start.
    warnings: Reasons to doubt the score; logged at the start and with it.
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
    """L, tokens per grid."""
    return self.train.seq_len

  @property
  def vocab_size(self) -> int:
    """V, size of the vocabulary."""
    return len(self.look.symbols)

  @property
  def num_puzzle_ids(self) -> int:
    """Rows of the puzzle table."""
    return len(self.identifiers)

  @functools.cached_property
  def identifiers_digest(self) -> str:
    """Hex digest of the identifiers."""
    return identifiers_lib.digest(self.identifiers)

  def leak(self, learned: Collection[str]) -> str:
    """Returns a warning if test answers are among `learned`, or ""."""
    if self.augmentation_table is None:
      return ""
    return leakage.warning(self.augmentation_table.tasks, learned)


@dataclasses.dataclass(frozen=True)
class TaskType:
  """An entry of the registry `tasks.TASKS`.

  Attributes:
    load: Loads or generates the data.
    look: Returns the look from the settings, the character of each token of the
      vocabulary and L, without any data.
    rules: Returns the rules, or None if only the label is a correct answer.
    parse_questions: Parses user-provided questions, n texts, into tokens, uint8
      [n, L], and errors; None for ARC, whose tasks are JSON.
    symmetries: Returns the known symmetries of the puzzles, or None.
    digits: Whether cells may also be given as numbers, 0 for a blank.
    own_settings: Settings in `config.data` that not all tasks read.
    file_task: If puzzles are generated, the task that reads them from files.
  """

  load: Callable[[config_lib.DataConfig], Task]
  look: Callable[[config_lib.DataConfig, Sequence[str], int], Look]
  rules: Callable[[config_lib.DataConfig], Rules | None]
  parse_questions: (
    Callable[
      [Sequence[str], config_lib.DataConfig, Look],
      tuple[np.ndarray, characters.Errors],
    ]
    | None
  )
  symmetries: Callable[
    [config_lib.DataConfig, Look], augmentation_lib.BySymmetry | None
  ] = lambda data, look: None
  digits: bool = False
  own_settings: tuple[str, ...] = ()
  file_task: str = ""

  @property
  def is_arc(self) -> bool:
    """Whether puzzles are ARC tasks, whose augmentations vote."""
    return self.parse_questions is None
