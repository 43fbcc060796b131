"""Puzzles in CSV files as TFDS builders: Sudoku-Extreme and Maze-Hard."""

import dataclasses
import functools
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from trm_jax import errors
from trm_jax.data import csv_files, puzzle_set
from trm_jax.data.downloads import prepare
from trm_jax.data.maze import rules as maze_rules
from trm_jax.data.sudoku import rules as sudoku_rules


@dataclasses.dataclass
class CsvConfig(tfds.core.BuilderConfig):
  """Says which files to prepare.

  Attributes:
    files: CSV file of each split; empty for the public download.
  """

  files: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)


_PUBLIC = CsvConfig(name="public", description="The public files.")


class CsvPuzzles(prepare.PuzzleBuilder):
  """Questions and answers of one size, in `train.csv` and `test.csv`."""

  BUILDER_CONFIGS = [_PUBLIC]  # noqa: RUF012, a list is what TFDS expects

  folder_hint = "train.csv and test.csv (or .csv.gz)"
  homepage: ClassVar[str]
  num_cells: ClassVar[int]  # L
  parse_pair: ClassVar[csv_files.ParsePair]

  @classmethod
  def public_url(cls) -> str:
    """Returns the address in which the public CSV files lie."""
    return f"{cls.homepage}/resolve/main/"

  def _info(self) -> tfds.core.DatasetInfo:
    grid = tfds.features.Tensor(
      shape=(self.num_cells,), dtype=np.uint8, encoding="bytes"
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"{self.title}: questions and answers as tokens.",
      features=tfds.features.FeaturesDict(
        {
          "inputs": grid,
          "labels": grid,
          "rating": np.int32,
          "source": tfds.features.Text(),
        }
      ),
      homepage=self.homepage,
      disable_shuffling=True,  # keep the order of the file
    )

  def _split_generators(self, dl_manager):
    origin = self.public_url()
    files = self.builder_config.files or self.download(
      dl_manager,
      {split: f"{origin}{split}.csv" for split in csv_files.SPLITS},
      origin=origin,
    )
    return {
      split: self._generate_examples(files[split]) for split in csv_files.SPLITS
    }

  def _generate_examples(self, path):
    path = pathlib.Path(path)
    with self.keeping_user_errors():
      for index, row in enumerate(csv_files.read_csv(path, self.parse_pair)):
        if index and index % prepare.PROGRESS_EVERY == 0:
          prepare.show_progress(f"preparing {path.name}: {index:,} puzzles")
        yield (
          index,
          {
            "inputs": row.question,
            "labels": row.answer,
            "rating": row.rating,
            "source": row.source,
          },
        )


class SudokuExtreme(CsvPuzzles):
  """Sudoku-Extreme: 9x9 puzzles with one solution, many of them very hard."""

  title = "Sudoku-Extreme"
  homepage = "https://huggingface.co/datasets/sapientinc/sudoku-extreme"
  num_cells = 81
  parse_pair = staticmethod(
    functools.partial(sudoku_rules.parse_pair, box_rows=3, box_cols=3)
  )


class MazeHard(CsvPuzzles):
  """Maze-Hard: 30x30 mazes whose shortest paths are long."""

  title = "Maze-Hard"
  homepage = "https://huggingface.co/datasets/sapientinc/maze-30x30-hard-1k"
  num_cells = maze_rules.ROWS * maze_rules.COLS
  parse_pair = staticmethod(maze_rules.parse_pair)


def load_sudoku_extreme(
  source: str, *, cache_dir: str, split: str, num_puzzles: int, seed: int
) -> puzzle_set.PuzzleSet:
  """Loads puzzles, prepared on first use and read from the cache afterwards.

  Args:
    source: A folder with `train.csv[.gz]` and `test.csv[.gz]`, or "" for the
      public files.
    cache_dir: Where prepared data are kept; "" for the default of TFDS.
    split: "train" or "test".
    num_puzzles: How many to draw without replacement, in the order of the
      file; 0 for all.
    seed: Of that draw.

  Returns:
    The puzzles.

  Raises:
    UserError: on missing or malformed files, a failed download, or if there
      are fewer puzzles than asked for.
  """
  return _load(
    SudokuExtreme,
    source,
    cache_dir=cache_dir,
    split=split,
    num_puzzles=num_puzzles,
    seed=seed,
  )


def load_maze_hard(
  source: str, *, cache_dir: str, split: str, num_puzzles: int, seed: int
) -> puzzle_set.PuzzleSet:
  """Loads mazes of 30 x 30 cells; otherwise as `load_sudoku_extreme`."""
  return _load(
    MazeHard,
    source,
    cache_dir=cache_dir,
    split=split,
    num_puzzles=num_puzzles,
    seed=seed,
  )


def _load(
  builder_class: type[CsvPuzzles],
  source: str,
  *,
  cache_dir: str,
  split: str,
  num_puzzles: int,
  seed: int,
) -> puzzle_set.PuzzleSet:
  if split not in csv_files.SPLITS:
    raise errors.UserError(f"split is {split!r}, expected 'train' or 'test'")
  builder = prepare.prepare(
    builder_class,
    config=_folder_config(source) if source else _PUBLIC,
    origin=source or builder_class.public_url(),
    cache_dir=cache_dir,
  )
  records = prepare.open_split(builder, split)
  total = len(records)
  if not 0 <= num_puzzles <= total:
    raise errors.UserError(
      f"config.data.num_{split} asks for {num_puzzles} puzzles, but the"
      f" {split} set has {total}; ask for fewer, or 0 for all"
    )
  chosen = np.arange(total)
  if num_puzzles:
    rng = np.random.default_rng([seed, csv_files.SPLITS.index(split)])
    chosen = np.sort(rng.choice(total, num_puzzles, replace=False))
  inputs = np.empty((len(chosen), builder.num_cells), np.uint8)
  labels = np.empty_like(inputs)
  rows = prepare.read(builder, split, records, chosen.tolist())
  for i, record in enumerate(rows):
    inputs[i] = record["inputs"]
    labels[i] = record["labels"]
  return puzzle_set.PuzzleSet.single(inputs, labels)


def _folder_config(source: str) -> CsvConfig:
  files = csv_files.find_files(source)
  return CsvConfig(
    name=f"folder_{prepare.digest(files.items())}",
    description=f"From {source}",
    files=files,
  )
