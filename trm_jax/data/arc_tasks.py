"""ARC tasks as they are written down: grids of colours, in pairs."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Pair:
  """A question and its answer.

  Attributes:
    input: Colours 0..9, uint8 [h, w] with 1 <= h, w <= 30.
    output: The same of another shape, or None if it is not known.
  """

  input: np.ndarray
  output: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class ArcTask:
  """One task: pairs that show a rule, and inputs to apply it to.

  Attributes:
    name: Identifier, e.g. "007bbfb7".
    train: Pairs that show the rule; their outputs are always known.
    test: Pairs to solve.
    test_first: Whether the file names "test" before "train"; the official
      builder keeps that order among a training task's examples.
  """

  name: str
  train: tuple[Pair, ...]
  test: tuple[Pair, ...]
  test_first: bool
