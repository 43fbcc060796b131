"""Puzzles that are prepared once: the machinery, Sudoku-Extreme, Maze-Hard."""

import gzip
import shutil
import urllib.error
import urllib.request
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from trm_jax import errors
from trm_jax.data.downloads import csv as download_csv
from trm_jax.data.maze import rules as maze_rules
from trm_jax.data.sudoku import generator as sudoku_generator

HEADER = "source,question,answer,rating\n"
NUM_TRAIN, NUM_TEST = 30, 12


@pytest.fixture(scope="module", name="grids")
def _grids():
  return sudoku_generator.generate(
    NUM_TRAIN + NUM_TEST, box_rows=3, box_cols=3, num_clues=35, seed=0
  )


def _csv(grids, rows):
  x, y = grids
  lines = [
    f"me,{''.join('.' if t == 1 else str(t - 1) for t in x[i].tolist())},"
    f"{''.join(str(t - 1) for t in y[i].tolist())},{i}\n"
    for i in rows
  ]
  return HEADER + "".join(lines)


@pytest.fixture(name="folder")
def _folder(tmp_path, grids):
  folder = tmp_path / "raw"
  folder.mkdir()
  (folder / "train.csv").write_text(_csv(grids, range(NUM_TRAIN)))
  test = _csv(grids, range(NUM_TRAIN, NUM_TRAIN + NUM_TEST))
  (folder / "test.csv.gz").write_bytes(gzip.compress(test.encode()))
  return folder


@pytest.fixture(name="cache")
def _cache(tmp_path):
  return tmp_path / "cache"


def _load(folder, cache, *, split="train", num_puzzles=0, seed=0):
  return download_csv.load_sudoku_extreme(
    str(folder),
    cache_dir=str(cache),
    split=split,
    num_puzzles=num_puzzles,
    seed=seed,
  )


def _prepared(cache):
  return [path for path in cache.rglob("*array_record*") if path.is_file()]


def test_folder_with_plain_and_gzipped_file(folder, cache, grids):
  train = _load(folder, cache)
  test = _load(folder, cache, split="test")
  np.testing.assert_array_equal(train.inputs, grids[0][:NUM_TRAIN])
  np.testing.assert_array_equal(train.labels, grids[1][:NUM_TRAIN])
  np.testing.assert_array_equal(test.inputs, grids[0][NUM_TRAIN:])
  np.testing.assert_array_equal(test.labels, grids[1][NUM_TRAIN:])
  assert len(_prepared(cache)) == 2


def test_prepared_once_and_quietly(folder, cache, capfd):
  _load(folder, cache)
  first = capfd.readouterr()
  assert first.out == ""
  assert first.err.count("\n") == 1
  assert first.err.startswith("preparing Sudoku-Extreme, once, from ")
  with mock.patch.object(
    download_csv.SudokuExtreme,
    "download_and_prepare",
    side_effect=AssertionError("prepared twice"),
  ):
    _load(folder, cache, split="test")
  assert capfd.readouterr() == ("", "")


def test_records_keep_rating_and_source(folder, cache):
  _load(folder, cache)
  (folder,) = {path.parent for path in _prepared(cache)}
  records = tfds.builder_from_directory(folder).as_data_source("train")
  assert [record["rating"] for record in records] == list(range(NUM_TRAIN))
  assert {record["source"] for record in records} == {b"me"}


def test_subsample(folder, cache):
  whole = _load(folder, cache)
  first = _load(folder, cache, num_puzzles=10, seed=1)
  again = _load(folder, cache, num_puzzles=10, seed=1)
  other = _load(folder, cache, num_puzzles=10, seed=2)
  assert first.fingerprint() == again.fingerprint() != other.fingerprint()
  place = {row.tobytes(): i for i, row in enumerate(whole.inputs)}
  chosen = [place[row.tobytes()] for row in first.inputs]
  assert chosen == sorted(set(chosen))
  np.testing.assert_array_equal(first.labels, whole.labels[chosen])


def test_subsample_reads_only_its_records(folder, cache):
  _load(folder, cache)
  read = []
  builder = download_csv.SudokuExtreme
  original = builder.as_data_source

  def spy(self, split):
    source = original(self, split)
    wrapped = mock.MagicMock(wraps=source)
    wrapped.__len__.return_value = len(source)
    wrapped.__getitems__ = lambda keys: (
      read.extend(keys) or source.__getitems__(keys)
    )
    return wrapped

  with mock.patch.object(builder, "as_data_source", spy):
    _load(folder, cache, num_puzzles=7)
  assert len(read) == 7


def test_too_many_puzzles_or_unknown_split(folder, cache):
  with pytest.raises(errors.UserError, match=r"asks for 31 puzzles.*has 30"):
    _load(folder, cache, num_puzzles=31)
  with pytest.raises(errors.UserError, match="split is 'dev'"):
    _load(folder, cache, split="dev")


def test_changed_file_is_prepared_again(folder, cache, grids):
  old = _load(folder, cache)
  content = _csv(grids, [3, *range(1, NUM_TRAIN)])
  (folder / "train.csv").write_text(content)
  new = _load(folder, cache)
  np.testing.assert_array_equal(new.inputs[0], grids[0][3])
  assert old.fingerprint() != new.fingerprint()


def test_missing_files_are_named(tmp_path, folder, cache):
  with pytest.raises(errors.UserError, match=r"nowhere', which is not a fold"):
    _load(tmp_path / "nowhere", cache)
  (folder / "train.csv.gz").write_bytes(b"")
  with pytest.raises(
    errors.UserError, match=r"both train.csv and train.csv.gz are in .*: remove"
  ):
    _load(folder, cache)
  (folder / "train.csv.gz").unlink()
  (folder / "test.csv.gz").unlink()
  with pytest.raises(
    errors.UserError, match=r"neither test.csv nor test.csv.gz is in "
  ):
    _load(folder, cache)


def test_failed_preparation_leaves_nothing(folder, cache, grids):
  good = (folder / "train.csv").read_text()
  lines = good.splitlines()
  lines[16] = lines[16].replace(",", ",.", 1)
  (folder / "train.csv").write_text("\n".join(lines))
  with pytest.raises(errors.UserError) as caught:
    _load(folder, cache)
  assert str(caught.value) == (
    "train.csv line 17: question has 82 characters, expected 81"
  )
  assert not _prepared(cache)
  assert not list(cache.glob("sudoku_extreme/folder_*"))
  (folder / "train.csv").write_text(good)
  np.testing.assert_array_equal(
    _load(folder, cache).inputs, grids[0][:NUM_TRAIN]
  )


def test_cache_that_cannot_be_written(tmp_path, folder):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match=r"data.cache_dir .*file'"):
    _load(folder, tmp_path / "file")


def test_public_download(folder, cache, grids):
  (folder / "test.csv").write_bytes(
    gzip.decompress((folder / "test.csv.gz").read_bytes())
  )
  asked = []

  def download(self, urls):
    asked.append(urls)
    return {split: folder / f"{split}.csv" for split in urls}

  with (
    mock.patch.object(tfds.download.DownloadManager, "download", download),
    mock.patch.object(urllib.request, "urlopen"),
  ):
    test = download_csv.load_sudoku_extreme(
      "", cache_dir=str(cache), split="test", num_puzzles=0, seed=0
    )
  np.testing.assert_array_equal(test.inputs, grids[0][NUM_TRAIN:])
  base = "https://huggingface.co/datasets/sapientinc/sudoku-extreme/resolve/"
  assert asked == [
    {"train": f"{base}main/train.csv", "test": f"{base}main/test.csv"}
  ]


def test_damaged_prepared_data_are_named(folder, cache):
  _load(folder, cache)
  for path in cache.rglob("*train.array_record*"):
    path.write_bytes(path.read_bytes()[:1000])
  with pytest.raises(errors.UserError, match=r"damaged.*delete that folder"):
    _load(folder, cache)


def test_damaged_description_of_prepared_data_is_named(folder, cache):
  _load(folder, cache)
  (path,) = cache.rglob("dataset_info.json")
  path.write_text(path.read_text()[:100])
  with pytest.raises(errors.UserError, match=r"damaged.*delete that folder"):
    _load(folder, cache)
  shutil.rmtree(path.parent)
  assert _load(folder, cache).num_examples == NUM_TRAIN


def test_failed_download_says_what_to_do(cache):
  with (
    mock.patch.object(
      urllib.request, "urlopen", side_effect=urllib.error.URLError("no\nnet")
    ),
    pytest.raises(
      errors.UserError, match=r"set config\.data\.source to a folder"
    ) as e,
  ):
    download_csv.load_sudoku_extreme(
      "", cache_dir=str(cache), split="test", num_puzzles=0, seed=0
    )
  assert "\n" not in str(e.value)
  assert not _prepared(cache)


@pytest.fixture(name="mazes")
def _mazes(tmp_path):
  """A folder of two mazes; the test maze begins and ends with open cells."""
  folder = tmp_path / "mazes"
  folder.mkdir()
  train = "SG" + "#" * 898
  question = " S" + " " * 27 + "G" + "#" * 868 + "  "
  answer = question.replace("S" + " " * 27, "S" + "o" * 27)
  (folder / "train.csv").write_text(f"{HEADER}me,{train},{train},1\n")
  (folder / "test.csv").write_text(f"{HEADER}me,{question},{answer},28\n")
  return folder


def test_mazes(mazes, cache, capfd):
  test = download_csv.load_maze_hard(
    str(mazes), cache_dir=str(cache), split="test", num_puzzles=0, seed=0
  )
  assert capfd.readouterr().err.startswith("preparing Maze-Hard, once, from ")
  assert test.inputs.shape == (1, 900)
  assert test.inputs[0, [0, 1, 2, 29, 30, 899]].tolist() == [2, 3, 2, 4, 1, 2]
  assert test.labels[0, [0, 1, 2, 29, 30, 899]].tolist() == [2, 3, 5, 4, 1, 2]
  assert maze_rules.is_shortest_path(test.inputs, test.labels).all()


def test_fault_in_a_maze_is_named_and_leaves_nothing(mazes, cache):
  text = (mazes / "train.csv").read_text()
  (mazes / "train.csv").write_text(text.replace("SG", "S ", 1))
  with pytest.raises(errors.UserError) as caught:
    download_csv.load_maze_hard(
      str(mazes), cache_dir=str(cache), split="train", num_puzzles=0, seed=0
    )
  assert str(caught.value) == (
    "train.csv line 2: question has 0 times 'G', expected exactly one"
  )
  assert not _prepared(cache)


def test_public_mazes(mazes, cache):
  asked = []

  def download(self, urls):
    asked.append(urls)
    return {split: mazes / f"{split}.csv" for split in urls}

  with (
    mock.patch.object(tfds.download.DownloadManager, "download", download),
    mock.patch.object(urllib.request, "urlopen") as opened,
  ):
    train = download_csv.load_maze_hard(
      "", cache_dir=str(cache), split="train", num_puzzles=1, seed=0
    )
  assert train.num_examples == 1
  base = "https://huggingface.co/datasets/sapientinc/maze-30x30-hard-1k/resolve"
  assert asked == [
    {"train": f"{base}/main/train.csv", "test": f"{base}/main/test.csv"}
  ]
  assert opened.call_args.args[0].get_method() == "HEAD"
