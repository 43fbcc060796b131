"""Puzzle sets and the Sudoku-Extreme builder."""

import dataclasses
import gzip
import urllib.error
import urllib.request
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from trm_jax import errors
from trm_jax.data import puzzle_set, puzzles, sudoku_generator

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
  return puzzles.load_sudoku_extreme(
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
    puzzles.SudokuExtreme,
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
  builder = puzzles.SudokuExtreme
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
    test = puzzles.load_sudoku_extreme(
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


def test_failed_download_says_what_to_do(cache):
  with (
    mock.patch.object(
      urllib.request, "urlopen", side_effect=urllib.error.URLError("no\nnet")
    ),
    pytest.raises(
      errors.UserError, match=r"set config\.data\.source to a folder"
    ) as e,
  ):
    puzzles.load_sudoku_extreme(
      "", cache_dir=str(cache), split="test", num_puzzles=0, seed=0
    )
  assert "\n" not in str(e.value)
  assert not _prepared(cache)


def _set(**changes):
  fields = {
    "inputs": np.zeros((5, 4), np.uint8),
    "labels": np.zeros((5, 4), np.uint8),
    "puzzle_ids": np.arange(3, dtype=np.int32),
    "puzzle_indices": np.array([0, 1, 3, 5]),
    "group_indices": np.array([0, 2, 3]),
  }
  return puzzle_set.PuzzleSet(**{**fields, **changes})


def test_sizes():
  some = _set()
  sizes = (some.num_examples, some.num_puzzles, some.num_groups, some.seq_len)
  assert sizes == (5, 3, 2, 4)
  single = puzzle_set.PuzzleSet.single(some.inputs, some.labels)
  assert (single.num_puzzles, single.num_groups) == (5, 5)
  assert not single.puzzle_ids.any()


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    ({"inputs": np.zeros((5, 4), np.int32)}, "inputs is int32"),
    ({"labels": np.zeros((5, 3), np.uint8)}, "inputs are"),
    ({"puzzle_ids": np.array([0, -1, 2], np.int32)}, "negative"),
    ({"puzzle_ids": np.arange(2, dtype=np.int32)}, "group_indices does not"),
    ({"puzzle_indices": np.array([0, 1, 3, 4])}, "puzzle_indices does not"),
    ({"puzzle_indices": np.array([0, 3, 3, 5])}, "puzzle_indices has an empty"),
    ({"puzzle_indices": np.array([0, 3, 5])}, "3 puzzle_ids but 3"),
    ({"group_indices": np.array([0, 2, 1, 3])}, "group_indices has an empty"),
  ],
)
def test_inconsistent_sets_are_refused(changes, text):
  with pytest.raises(ValueError, match=text):
    _set(**changes)


def test_fingerprint_sees_every_field():
  plain = _set()
  assert plain.fingerprint() == _set().fingerprint()
  labels = plain.labels.copy()
  labels[4, 3] = 1
  prints = {
    plain.fingerprint(),
    _set(labels=labels).fingerprint(),
    _set(inputs=labels).fingerprint(),
    _set(puzzle_ids=np.array([0, 2, 1], np.int32)).fingerprint(),
    _set(puzzle_indices=np.array([0, 2, 3, 5])).fingerprint(),
    dataclasses.replace(plain, group_indices=np.array([0, 3])).fingerprint(),
  }
  assert len(prints) == 6
