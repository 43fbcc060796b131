"""The Sudoku-Extreme data set as a TFDS builder, from the web or a folder."""

import contextlib
import dataclasses
import io
import pathlib
import sys
import urllib.request
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from trm_jax import errors
from trm_jax.data import puzzle_set, sudoku_csv

PUBLIC_URL = (
  "https://huggingface.co/datasets/sapientinc/sudoku-extreme/resolve/main/"
)

_BOX = {"box_rows": 3, "box_cols": 3}
_NUM_CELLS = 81
_READ_CHUNK = 10_000  # records fetched at once
_CONNECT_SECONDS = 20
_PROGRESS_EVERY = 100_000  # puzzles between two lines of progress


@dataclasses.dataclass
class SudokuExtremeConfig(tfds.core.BuilderConfig):
  """Says which files to prepare.

  Attributes:
    files: CSV file of each split; empty for the public download.
  """

  files: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)


class SudokuExtreme(tfds.core.GeneratorBasedBuilder):
  """Sudoku-Extreme: 9x9 puzzles with one solution, many of them very hard."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = [  # noqa: RUF012, a list is what TFDS expects
    SudokuExtremeConfig(name="public", description="The public files.")
  ]

  # What stopped a preparation. TFDS rewrites the exceptions of its generators;
  # this is the original.
  user_error: errors.UserError | None = None

  def _info(self) -> tfds.core.DatasetInfo:
    grid = tfds.features.Tensor(
      shape=(_NUM_CELLS,), dtype=np.uint8, encoding="bytes"
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description="Sudoku puzzles and solutions as tokens.",
      features=tfds.features.FeaturesDict(
        {
          "inputs": grid,
          "labels": grid,
          "rating": np.int32,
          "source": tfds.features.Text(),
        }
      ),
      homepage="https://huggingface.co/datasets/sapientinc/sudoku-extreme",
      disable_shuffling=True,  # keep the order of the file
    )

  def _split_generators(self, dl_manager):
    files = self.builder_config.files or self._download(dl_manager)
    return {
      split: self._generate_examples(files[split])
      for split in sudoku_csv.SPLITS
    }

  def _download(self, dl_manager) -> dict[str, pathlib.Path]:
    urls = {split: f"{PUBLIC_URL}{split}.csv" for split in sudoku_csv.SPLITS}
    try:
      # TFDS tries for minutes; without a network, say so at once.
      request = urllib.request.Request(urls["train"], method="HEAD")
      with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS):
        pass
      return dl_manager.download(urls)
    except Exception as error:  # whatever the network comes up with
      reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
      self.user_error = errors.UserError(
        f"cannot download {PUBLIC_URL} ({reason}): set config.data.source to a "
        "folder with train.csv and test.csv (or .csv.gz)"
      )
      raise self.user_error from error

  def _generate_examples(self, path):
    try:
      rows = sudoku_csv.read_csv(pathlib.Path(path), **_BOX)
      for index, row in enumerate(rows):
        if index and index % _PROGRESS_EVERY == 0:
          _progress(f"preparing {pathlib.Path(path).name}: {index:,} puzzles")
        yield (
          index,
          {
            "inputs": row.question,
            "labels": row.answer,
            "rating": row.rating,
            "source": row.source,
          },
        )
    except errors.UserError as error:
      self.user_error = error
      raise


def _progress(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
  """Keeps TFDS from reporting every step it takes."""
  verbosity = logging.get_verbosity()
  tfds.disable_progress_bar()
  logging.set_verbosity(min(verbosity, logging.ERROR))
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


def _prepare(source: str, cache_dir: str) -> SudokuExtreme:
  """Returns a builder whose data are prepared, preparing them if need be."""
  config: SudokuExtremeConfig | str = "public"
  if source:
    files = sudoku_csv.find_files(source)
    config = SudokuExtremeConfig(
      name=f"folder_{sudoku_csv.digest(files)}",
      description=f"From {source}",
      files=files,
    )
  arguments = {
    "data_dir": pathlib.Path(cache_dir).expanduser() if cache_dir else None,
    "config": config,
    "file_format": "array_record",
  }
  builder = SudokuExtreme(**arguments)
  if builder.data_path.exists():
    return builder
  _progress(f"preparing Sudoku-Extreme, once, from {source or PUBLIC_URL}")
  try:
    builder.download_and_prepare()
  except Exception as error:
    if builder.user_error is not None:
      _remove_empty(builder.data_path.parent)
      raise builder.user_error from None
    if builder.data_path.exists():  # another process was faster
      return SudokuExtreme(**arguments)
    if not isinstance(error, OSError):
      raise
    raise errors.UserError(
      f"cannot write the prepared puzzles to config.data.cache_dir "
      f"{cache_dir!r}: {error}"
    ) from error
  return builder


def _remove_empty(folder: epath.Path) -> None:
  """Removes a failed preparation's empty folder, if it got as far as that."""
  if folder.exists() and not any(folder.iterdir()):
    folder.rmdir()


@contextlib.contextmanager
def _damage_named(folder: epath.Path) -> Iterator[None]:
  """Turns whatever a damaged file raises into advice."""
  try:
    with _quiet_tfds():
      yield
  except Exception as error:  # array_record and TFDS raise many kinds
    raise errors.UserError(
      f"the prepared puzzles in {folder} are damaged"
      f" ({errors.first_line(error)}); delete that folder to have them"
      " prepared again"
    ) from error


def _read_records(
  records, chosen: np.ndarray, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Reads the chosen records: inputs and labels, uint8 [len(chosen), L]."""
  inputs = np.empty((len(chosen), _NUM_CELLS), np.uint8)
  labels = np.empty_like(inputs)
  for start in range(0, len(chosen), _READ_CHUNK):
    if start and start % _PROGRESS_EVERY == 0:
      _progress(f"reading the {split} set: {start:,} of {len(chosen):,}")
    chunk = records.__getitems__(chosen[start : start + _READ_CHUNK].tolist())
    for i, record in enumerate(chunk, start):
      inputs[i] = record["inputs"]
      labels[i] = record["labels"]
  return inputs, labels


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
  if split not in sudoku_csv.SPLITS:
    raise errors.UserError(f"split is {split!r}, expected 'train' or 'test'")
  with _quiet_tfds():
    builder = _prepare(source, cache_dir)
  with _damage_named(builder.data_path):
    records = builder.as_data_source(split)
    total = len(records)
  if not 0 <= num_puzzles <= total:
    raise errors.UserError(
      f"config.data.num_{split} asks for {num_puzzles} puzzles, but the"
      f" {split} set has {total}; ask for fewer, or 0 for all"
    )
  chosen = np.arange(total)
  if num_puzzles:
    rng = np.random.default_rng([seed, sudoku_csv.SPLITS.index(split)])
    chosen = np.sort(rng.choice(total, num_puzzles, replace=False))
  with _damage_named(builder.data_path):
    inputs, labels = _read_records(records, chosen, split)
  return puzzle_set.PuzzleSet.single(inputs, labels)
