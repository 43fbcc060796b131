"""A task: its puzzles, their symmetries, and how they are written down."""

import dataclasses

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import (
  augmentation,
  puzzle_set,
  puzzles,
  sudoku,
  sudoku_generator,
  sudoku_symmetries,
)


@dataclasses.dataclass(frozen=True)
class Task:
  """What training and evaluation need to know of a kind of puzzle.

  Attributes:
    train: Un-augmented puzzles to learn from.
    test: Puzzles to evaluate on.
    vocab_size: V, tokens 0..V-1.
    num_puzzle_ids: N, rows of the puzzle table.
    augmentation: Applied to training batches on the fly.
    box_rows: Rows of a Sudoku box.
    box_cols: Columns of a Sudoku box.
  """

  train: puzzle_set.PuzzleSet
  test: puzzle_set.PuzzleSet
  vocab_size: int
  num_puzzle_ids: int
  augmentation: augmentation.Augmentation
  box_rows: int
  box_cols: int

  @property
  def seq_len(self) -> int:
    """L, tokens of a grid."""
    return self.train.seq_len

  def format_grid(self, tokens) -> str:
    """Returns [L] tokens as text for the terminal."""
    return sudoku.format_grid(tokens, self.box_rows, self.box_cols)


def load(data: config_lib.DataConfig) -> Task:
  """Loads the task of the settings.

  Args:
    data: the settings.

  Returns:
    The task, its puzzles in memory.

  Raises:
    UserError: files are missing or malformed, or settings contradict.
  """
  box = {"box_rows": data.box_rows, "box_cols": data.box_cols}
  varied = sudoku_symmetries.SudokuAugmentation(
    **box,
    schedule=augmentation.Schedule(
      data.augmentation, data.num_variants, data.seed
    ),
  )
  if data.task == "generated_sudoku":
    if data.source:
      raise errors.UserError(
        "config.data.source has no meaning for the task 'generated_sudoku';"
        " set config.data.task to 'sudoku' to train on files"
      )
    if not data.num_train or not data.num_test:
      raise errors.UserError(
        "how many puzzles shall be generated? set config.data.num_train and"
        " config.data.num_test to at least 1"
      )
    train, test = sudoku_generator.generate_split(
      data.num_train,
      data.num_test,
      **box,
      num_clues=data.num_clues,
      seed=data.seed,
    )
  else:
    if (data.box_rows, data.box_cols) != (3, 3):
      raise errors.UserError(
        "Sudoku-Extreme has boxes of 3 x 3 cells; set config.data.box_rows"
        " and config.data.box_cols to 3"
      )
    train, test = (
      puzzles.load_sudoku_extreme(
        data.source,
        cache_dir=data.cache_dir,
        split=split,
        num_puzzles=number,
        seed=data.seed,
      )
      for split, number in (("train", data.num_train), ("test", data.num_test))
    )
  return Task(
    train=train,
    test=test,
    vocab_size=sudoku.vocab_size(**box),
    num_puzzle_ids=1,  # all share one puzzle vector
    augmentation=varied,
    **box,
  )
