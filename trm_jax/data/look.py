"""How a grid of tokens is shown to people, as text or in colours."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np


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
