"""The words of a sweep file whose trials are the rows of a paper's table."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import ml_collections


class PaperRow(Protocol):
  """What the paper says of a row; see experiments/ablations.py."""

  @property
  def text(self) -> str:
    """As the paper's table names the row."""

  @property
  def accuracy(self) -> float | None:
    """In %; None where the paper ran out of memory."""

  @property
  def parameters(self) -> str:
    """As the paper writes their number, e.g. "5M"; empty if it does not."""


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of a paper; get_sweep() may return it instead of a Sweep.

  A trial is a row, trained with a seed. Its settings are its experiment's.
  """

  title: str  # of the table, with its source
  experiment: str  # as --config names it; the rows are its variants
  get_config: Callable[[str], ml_collections.ConfigDict]  # of its file
  rows: Mapping[str, PaperRow]  # by the names of the variants, in their order
  words: str = ""  # further variants of every row, e.g. "quickstart"
