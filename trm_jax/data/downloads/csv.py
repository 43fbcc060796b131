"""The public CSV files as TFDS builders: Sudoku-Extreme and Maze-Hard."""

import pathlib
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from trm_jax import config as config_lib
from trm_jax.data import characters, csv_files, puzzle_set
from trm_jax.data.downloads import prepare
from trm_jax.data.maze import rules as maze_rules
from trm_jax.data.sudoku import rules as sudoku_rules


class CsvPuzzles(prepare.PuzzleBuilder):
  """Questions and answers of one size, in `train.csv` and `test.csv`.

  Attributes:
    homepage: Address of the data set.
    num_cells: L.
  """

  folder_hint = "train.csv and test.csv (or .csv.gz)"
  homepage: ClassVar[str]
  num_cells: ClassVar[int]

  def parse_pairs(
    self, questions: Sequence[str], answers: Sequence[str]
  ) -> tuple[np.ndarray, characters.Errors]:
    """Parses questions and answers; as `csv_files.ParsePairs`."""
    raise NotImplementedError

  @classmethod
  def public_url(cls) -> str:
    """Returns the folder of the CSV files."""
    return f"{cls.homepage}/resolve/main/"

  def _info(self) -> tfds.core.DatasetInfo:
    pair = tfds.features.Tensor(
      shape=(2, self.num_cells), dtype=np.uint8, encoding="bytes"
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"{self.title}: questions and answers as tokens.",
      features=tfds.features.FeaturesDict({"pair": pair}),
      homepage=self.homepage,
      disable_shuffling=True,  # keep the order of the file
    )

  def _split_generators(self, dl_manager):
    url = self.public_url()
    urls = {split: f"{url}{split}.csv" for split in csv_files.SPLITS}
    files = self.download(dl_manager, urls, origin=url)
    return {
      split: self._generate_examples(files[split]) for split in csv_files.SPLITS
    }

  def _generate_examples(self, path):
    index = 0
    with self.keeping_user_errors():
      for block in csv_files.read_blocks(pathlib.Path(path)):
        for pair in csv_files.parse_block(block, self.parse_pairs):
          yield index, {"pair": pair}
          index += 1


class SudokuExtreme(CsvPuzzles):
  """Sudoku-Extreme: 9x9 puzzles with one solution, many of them very hard."""

  title = "Sudoku-Extreme"
  homepage = "https://huggingface.co/datasets/sapientinc/sudoku-extreme"
  num_cells = 81

  def parse_pairs(self, questions, answers):
    """As `CsvPuzzles.parse_pairs`."""
    return sudoku_rules.parse_pairs(questions, answers, box_rows=3, box_cols=3)


class MazeHard(CsvPuzzles):
  """Maze-Hard: 30x30 mazes whose shortest paths are long."""

  title = "Maze-Hard"
  homepage = "https://huggingface.co/datasets/sapientinc/maze-30x30-hard-1k"
  num_cells = maze_rules.ROWS * maze_rules.COLS

  def parse_pairs(self, questions, answers):
    """As `CsvPuzzles.parse_pairs`."""
    return maze_rules.parse_pairs(questions, answers)


def load(
  builder_class: type[CsvPuzzles], data: config_lib.DataConfig
) -> tuple[puzzle_set.PuzzleSet, puzzle_set.PuzzleSet]:
  """Loads public puzzles, downloaded and prepared on first use.

  Args:
    builder_class: The data set.
    data: Settings: where prepared data are cached, how many puzzles to draw.

  Returns:
    The training and the test set.

  Raises:
    UserError: if the download fails or there are too few puzzles.
  """
  builder = prepare.prepare(
    builder_class,
    origin=builder_class.public_url(),
    cache_dir=data.cache_dir,
  )
  sets = []
  for split in csv_files.SPLITS:
    records = prepare.open_split(builder, split)
    chosen = csv_files.choose(data, split=split, total=len(records))
    pairs = np.empty((len(chosen), 2, builder.num_cells), np.uint8)
    rows = prepare.read(builder, split, records, chosen.tolist())
    for i, record in enumerate(rows):
      pairs[i] = record["pair"]
    sets.append(puzzle_set.PuzzleSet.of_pairs(pairs, np.arange(len(pairs))))
  train, test = sets
  return train, test
