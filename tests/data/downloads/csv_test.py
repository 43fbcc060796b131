"""Public CSV files: downloaded and prepared once."""

import shutil
import urllib.error
import urllib.request
from unittest import mock

import folders
import numpy as np
import pytest
import tensorflow_datasets as tfds

from trm_jax import errors
from trm_jax.data import tasks
from trm_jax.data.downloads import csv as download_csv
from trm_jax.data.sudoku import generator as sudoku_generator

HEADER = "source,question,answer,rating\n"
NUM_TRAIN, NUM_TEST = 30, 12


@pytest.fixture(scope="module", name="grids")
def _grids():
  return sudoku_generator.generate(
    NUM_TRAIN + NUM_TEST, box_rows=3, box_cols=3, num_clues=35, seed=0
  )


@pytest.fixture(name="files")
def _files(tmp_path, grids):
  """What the download has."""
  texts = [
    "".join(str(token - 1) for token in grid.tolist())
    for pair in zip(*grids, strict=True)
    for grid in pair
  ]
  rows = [
    f"me,{x},{y},7\n" for x, y in zip(texts[::2], texts[1::2], strict=True)
  ]
  (tmp_path / "train.csv").write_text(HEADER + "".join(rows[:NUM_TRAIN]))
  (tmp_path / "test.csv").write_text(HEADER + "".join(rows[NUM_TRAIN:]))
  return tmp_path


@pytest.fixture(name="cache")
def _cache(tmp_path):
  return tmp_path / "cache"


def _load(files, cache, *, task="sudoku", **changes):
  """Loads from files in place of the download; returns the addresses too."""
  asked = {}

  def download(self, urls):
    asked.update(urls)
    return {split: files / f"{split}.csv" for split in urls}

  sizes = {"num_train": 0, "num_test": 0}
  data = folders.data(task=task, cache_dir=str(cache), **sizes | changes)
  with (
    mock.patch.object(tfds.download.DownloadManager, "download", download),
    mock.patch.object(urllib.request, "urlopen") as opened,
  ):
    loaded = tasks.load(data)
  for call in opened.call_args_list:
    assert call.args[0].get_method() == "HEAD"
  return loaded.train, loaded.test, asked


def _prepared(cache):
  return [path for path in cache.rglob("*array_record*") if path.is_file()]


def test_prepared_once_and_quietly(files, cache, grids, capfd):
  train, test, asked = _load(files, cache)
  url = (
    "https://huggingface.co/datasets/sapientinc/sudoku-extreme/resolve/main/"
  )
  assert asked == {"train": f"{url}train.csv", "test": f"{url}test.csv"}
  assert capfd.readouterr() == (
    "",
    f"preparing Sudoku-Extreme, once, from {url}\n",
  )
  np.testing.assert_array_equal(train.inputs, grids[0][:NUM_TRAIN])
  np.testing.assert_array_equal(train.labels, grids[1][:NUM_TRAIN])
  np.testing.assert_array_equal(test.inputs, grids[0][NUM_TRAIN:])
  np.testing.assert_array_equal(test.labels, grids[1][NUM_TRAIN:])
  assert len(_prepared(cache)) == 2
  # The same draw as of a local folder, and only its records are read.
  folder = folders.data(source=str(files), num_train=7, num_test=5, seed=3)
  local = tasks.load(folder)
  read = []
  original = download_csv.SudokuExtreme.as_data_source

  def spy(self, split):
    source = original(self, split)
    wrapped = mock.MagicMock(wraps=source)
    wrapped.__len__.return_value = len(source)
    wrapped.__getitems__ = lambda keys: (
      read.extend(keys) or source.__getitems__(keys)
    )
    return wrapped

  with mock.patch.object(download_csv.SudokuExtreme, "as_data_source", spy):
    drawn, some, asked = _load(files, cache, num_train=7, num_test=5, seed=3)
  assert drawn.fingerprint() == local.train.fingerprint()
  assert some.fingerprint() == local.test.fingerprint()
  assert len(read) == 12
  assert asked == {}
  assert capfd.readouterr() == ("", "")
  with pytest.raises(errors.UserError, match=r"asks for 31 puzzles.*has 30"):
    _load(files, cache, num_train=31)


def test_damaged_prepared_data_are_named(files, cache):
  _load(files, cache)
  path = next(cache.rglob("*train.array_record*"))
  whole = path.read_bytes()
  path.write_bytes(whole[:1000])
  with pytest.raises(errors.UserError, match=r"damaged.*delete that folder"):
    _load(files, cache)
  path.write_bytes(whole)
  (info,) = cache.rglob("dataset_info.json")
  info.write_text(info.read_text()[:100])
  with pytest.raises(errors.UserError, match=r"damaged.*delete that folder"):
    _load(files, cache)
  shutil.rmtree(info.parent)
  assert _load(files, cache)[0].num_examples == NUM_TRAIN


def test_failed_preparation_leaves_nothing(files, cache):
  text = (files / "train.csv").read_text()
  lines = text.splitlines()
  grid = lines[16].split(",")[1]
  lines[16] = lines[16].replace(",", ",.", 1)
  (files / "train.csv").write_text("\n".join(lines))
  with pytest.raises(errors.UserError) as caught:
    _load(files, cache)
  assert str(caught.value).startswith(
    f"train.csv line 17: question has 82 characters, expected 81: '.{grid[:9]}"
  )
  assert not _prepared(cache)
  assert not list(cache.glob("sudoku_extreme"))


def test_cache_that_cannot_be_written(tmp_path, files):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match=r"data.cache_dir .*file'"):
    _load(files, tmp_path / "file")


def test_failed_download_says_what_to_do(cache):
  with (
    mock.patch.object(
      urllib.request, "urlopen", side_effect=urllib.error.URLError("no\nnet")
    ),
    pytest.raises(
      errors.UserError, match=r"set config\.data\.source to a folder"
    ) as e,
  ):
    tasks.load(folders.data(cache_dir=str(cache)))
  assert "\n" not in str(e.value)
  assert not _prepared(cache)


def test_public_mazes(tmp_path, cache):
  """The test maze begins and ends with open cells."""
  train = "SG" + "#" * 898
  question = " S" + " " * 27 + "G" + "#" * 868 + "  "
  answer = question.replace("S" + " " * 27, "S" + "o" * 27)
  (tmp_path / "train.csv").write_text(f"{HEADER}me,{train},{train},1\n")
  (tmp_path / "test.csv").write_text(f"{HEADER}me,{question},{answer},28\n")
  _, test, asked = _load(tmp_path, cache, task="maze")
  base = "https://huggingface.co/datasets/sapientinc/maze-30x30-hard-1k/resolve"
  assert asked == {
    "train": f"{base}/main/train.csv",
    "test": f"{base}/main/test.csv",
  }
  cells = [0, 1, 2, 29, 30, 899]
  assert test.inputs[0, cells].tolist() == [2, 3, 2, 4, 1, 2]
  assert test.labels[0, cells].tolist() == [2, 3, 5, 4, 1, 2]
  sizes = {"num_train": 0, "num_test": 0}
  local = tasks.load(folders.data(task="maze", source=str(tmp_path), **sizes))
  assert local.test.fingerprint() == test.fingerprint()
