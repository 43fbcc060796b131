"""Folders that the official builders wrote."""

import json
import pickle
import zipfile

import golden_support as golden
import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import loader, official, puzzle_set


def _arrays(num_examples=None):
  """Groups of 1 to 3 puzzles with 1 to 4 examples of 6 cells, 9 tokens."""
  rng = np.random.default_rng(0)
  if num_examples is None:
    group_indices = np.concatenate([[0], np.cumsum(rng.integers(1, 4, 8))])
    sizes = rng.integers(1, 5, group_indices[-1])
    puzzle_indices = np.concatenate([[0], np.cumsum(sizes)])
  else:
    puzzle_indices = group_indices = np.arange(num_examples + 1)
  count = puzzle_indices[-1]
  return {
    "inputs": rng.integers(1, 9, (count, 6)).astype(np.uint8),
    "labels": rng.integers(0, 9, (count, 6)).astype(np.uint8),
    "puzzle_identifiers": np.arange(1, len(puzzle_indices), dtype=np.int32),
    "puzzle_indices": puzzle_indices.astype(np.int32),
    "group_indices": group_indices.astype(np.int32),
  }


def _metadata(arrays, **changes):
  num_puzzles = len(arrays["puzzle_identifiers"])
  return {
    "pad_id": 0,
    "ignore_label_id": 0,
    "blank_identifier_id": 0,
    "vocab_size": 9,
    "seq_len": arrays["inputs"].shape[1],
    "num_puzzle_identifiers": num_puzzles + 1,
    "total_groups": len(arrays["group_indices"]) - 1,
    "mean_puzzle_examples": len(arrays["inputs"]) / num_puzzles,
    "total_puzzles": num_puzzles,
    "sets": ["all"],
    **changes,
  }


def _write(source, arrays, metadata=None, split="train"):
  folder = source / split
  folder.mkdir(parents=True, exist_ok=True)
  for field, array in arrays.items():
    np.save(folder / f"all__{field}.npy", array)
  (folder / "dataset.json").write_text(
    json.dumps(_metadata(arrays) if metadata is None else metadata)
  )


def _load(source, split="train"):
  return official.load_split(str(source), split)


def _error(source, split="train") -> str:
  with pytest.raises(errors.UserError) as caught:
    _load(source, split)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def _everything(puzzles):
  examples = np.arange(puzzles.num_examples)
  places = np.searchsorted(puzzles.puzzle_indices, examples, "right") - 1
  return puzzles.fetch(examples, places)


@pytest.mark.parametrize("token_type", [np.uint8, np.int64])
@pytest.mark.parametrize("index_type", [np.int32, np.int64])
def test_round_trip(tmp_path, token_type, index_type):
  arrays = _arrays()
  stored = {
    field: array.astype(
      token_type if field in ("inputs", "labels") else index_type
    )
    for field, array in arrays.items()
  }
  _write(tmp_path, stored)
  puzzles = _load(tmp_path)
  inputs, labels = _everything(puzzles)
  assert inputs.dtype == labels.dtype == np.uint8
  assert type(inputs) is np.ndarray
  np.testing.assert_array_equal(inputs, arrays["inputs"])
  np.testing.assert_array_equal(labels, arrays["labels"])
  for ours, field, dtype in (
    (puzzles.puzzle_ids, "puzzle_identifiers", np.int32),
    (puzzles.puzzle_indices, "puzzle_indices", np.int64),
    (puzzles.group_indices, "group_indices", np.int64),
  ):
    assert ours.dtype == dtype
    np.testing.assert_array_equal(ours, arrays[field])
  assert (puzzles.vocab_size, puzzles.seq_len) == (9, 6)
  assert puzzles.num_puzzle_ids == puzzles.num_puzzles + 1
  assert puzzles.num_groups == 8
  # Reading some rows, in any order and repeatedly.
  rows = np.array([3, 0, 3])
  np.testing.assert_array_equal(
    puzzles.fetch(rows, rows)[1], arrays["labels"][rows]
  )


def test_examples_stay_on_disk(tmp_path):
  _write(tmp_path, _arrays())
  puzzles = _load(tmp_path)
  assert isinstance(puzzles.inputs, np.memmap)
  assert isinstance(puzzles.labels, np.memmap)
  assert not puzzles.inputs.flags.writeable
  copied = pickle.dumps(puzzles)
  assert len(copied) < 500  # the path and no array
  assert pickle.loads(copied).fingerprint() == puzzles.fingerprint()


def test_loader_and_selection_take_it(tmp_path):
  arrays = _arrays()
  _write(tmp_path, arrays, split="test")
  puzzles = _load(tmp_path, "test")
  batch = next(loader.train_batches(puzzles, batch_size=5, seed=0))
  known = {row.tobytes() for row in arrays["inputs"].astype(np.int32)}
  assert {row.tobytes() for row in batch["inputs"]} <= known
  seen = list(loader.eval_batches(puzzles, batch_size=7))
  np.testing.assert_array_equal(
    np.concatenate([b["inputs"][b["mask"]] for b in seen]), arrays["inputs"]
  )
  some = puzzle_set.select(puzzles, num_groups=2, num_augmentations=1)
  chosen = arrays["group_indices"][:2]  # the first puzzle of either group
  by_puzzle = np.split(arrays["inputs"], arrays["puzzle_indices"][1:-1])
  np.testing.assert_array_equal(
    _everything(some)[0], np.concatenate([by_puzzle[p] for p in chosen])
  )


def test_golden_evaluation_set(tmp_path):
  case = golden.load("case09_eval")
  arrays = golden.under(case, "dataset/all/")
  metadata = golden.json_of(case, "metadata")
  # The official folder has two sets; each becomes a folder of its own.
  metadata |= {
    "sets": ["all"],
    "total_groups": len(arrays["group_indices"]) - 1,
  }
  _write(tmp_path, arrays, metadata, split="test")
  batches = list(loader.eval_batches(_load(tmp_path, "test"), batch_size=6))
  sets = golden.json_of(case, "batch_sets")
  assert sets.count("all") == len(batches) > 1
  for t, batch in enumerate(batches):
    expected = golden.under(case, f"batch{t}/batch/")
    np.testing.assert_array_equal(batch["inputs"], expected["inputs"])
    np.testing.assert_array_equal(batch["labels"], expected["labels"])
    np.testing.assert_array_equal(
      batch["puzzle_ids"], expected["puzzle_identifiers"]
    )


def test_is_official(tmp_path, monkeypatch):
  assert not official.is_official(str(tmp_path))
  assert not official.is_official(str(tmp_path / "nowhere"))
  (tmp_path / "train.csv").write_text("question,answer\n")
  assert not official.is_official(str(tmp_path))
  _write(tmp_path, _arrays())
  assert official.is_official(str(tmp_path))
  monkeypatch.chdir(tmp_path)
  assert not official.is_official("")  # no folder, and not the current one
  assert "test/dataset.json cannot be read" in _error(tmp_path, "test")


def test_fingerprint(tmp_path):
  arrays = _arrays()
  _write(tmp_path / "plain", arrays)
  plain = _load(tmp_path / "plain").fingerprint()
  wide = {field: array.astype(np.int64) for field, array in arrays.items()}
  _write(tmp_path / "wide", wide)
  assert _load(tmp_path / "wide").fingerprint() == plain
  prints = {plain}
  for field, place, value in (
    ("inputs", (0, 0), arrays["inputs"][0, 0] % 8 + 1),
    ("labels", (-1, -1), (arrays["labels"][-1, -1] + 1) % 9),
    ("puzzle_identifiers", 2, 0),
  ):
    changed = arrays[field].copy()
    changed[place] = value
    _write(tmp_path / field, {**arrays, field: changed})
    prints.add(_load(tmp_path / field).fingerprint())
  _write(tmp_path / "vocab", arrays, _metadata(arrays, vocab_size=10))
  prints.add(_load(tmp_path / "vocab").fingerprint())
  joined = np.delete(arrays["group_indices"], 1)
  _write(tmp_path / "groups", {**arrays, "group_indices": joined})
  prints.add(_load(tmp_path / "groups").fingerprint())
  assert len(prints) == 6


def test_fingerprint_of_a_large_set_reads_a_part(tmp_path, monkeypatch):
  arrays = _arrays(num_examples=9001)
  _write(tmp_path, arrays)
  puzzles = _load(tmp_path)
  plain = puzzles.fingerprint()
  read = []
  fetch = official.OfficialSet.fetch
  monkeypatch.setattr(
    official.OfficialSet,
    "fetch",
    lambda self, rows, places: read.extend(rows) or fetch(self, rows, places),
  )
  assert puzzles.fingerprint() == plain
  assert len(set(read)) == len(read) == 4096
  assert (read[0], read[-1]) == (0, 9000)
  assert set(np.diff(read)) <= {2, 3}
  arrays["inputs"][-1] = arrays["inputs"][-1] % 8 + 1
  _write(tmp_path / "other", arrays)
  assert _load(tmp_path / "other").fingerprint() != plain


@pytest.mark.parametrize(
  ("changes", "text"),
  [
    ({"vocab_size": 257}, "vocab_size is 257, at most 256"),
    ({"vocab_size": "9"}, "vocab_size is '9', expected a whole number"),
    ({"seq_len": None}, "seq_len is None, expected a whole number"),
    ({"total_groups": True}, "total_groups is True, expected a whole number"),
    ({"pad_id": 1}, "pad_id is 1, only 0 is supported"),
    ({"ignore_label_id": -100}, "ignore_label_id is -100, only 0 is supported"),
    ({"ignore_label_id": None}, "ignore_label_id is None, only 0"),
    ({"blank_identifier_id": 3}, "blank_identifier_id is 3, only 0"),
    ({"sets": ["all", "extra"]}, "sets is ['all', 'extra'], only ['all'] is"),
    ({"seq_len": 7}, "expected the same of both with rows of 7"),
    ({"total_groups": 9}, "group_indices.npy has 9 numbers, expected 10"),
    (
      {"num_puzzle_identifiers": 10},
      "puzzle_identifiers.npy has 10 for puzzle 9, expected 0 to 9",
    ),
  ],
)
def test_metadata_that_do_not_fit(tmp_path, changes, text):
  arrays = _arrays()
  _write(tmp_path, arrays, _metadata(arrays, **changes))
  assert text in _error(tmp_path)


@pytest.mark.parametrize(
  ("field", "change", "text"),
  [
    ("inputs", lambda a: a[1:], "expected the same of both"),
    ("labels", lambda a: a[:, 1:], "expected the same of both"),
    ("inputs", lambda a: a.astype(np.float32), "holds float32 of rank 2, exp"),
    ("inputs", lambda a: a.ravel(), "of rank 1, expected uint8 or int64 of"),
    ("puzzle_indices", lambda a: a.astype(np.uint8), "expected int32 or int64"),
    ("puzzle_indices", lambda a: a[:-1], "numbers, expected"),
    ("puzzle_indices", lambda a: np.append(1, a[1:]), "goes from 1 to"),
    ("group_indices", lambda a: np.append(a[:-1], a[-1] - 1), "expected 0 to"),
    (
      "puzzle_indices",
      lambda a: np.concatenate([a[:2], a[1:2], a[3:]]),
      "puzzle_indices.npy: part 1 is empty",
    ),
    ("puzzle_identifiers", lambda a: a - 2, "has -1 for puzzle 0, expected 0"),
    (
      "labels",
      lambda a: np.array([{}]),
      "the file is damaged or not an array (",
    ),
  ],
)
def test_arrays_that_do_not_fit(tmp_path, field, change, text):
  arrays = _arrays()
  _write(tmp_path, arrays)
  np.save(tmp_path / f"train/all__{field}.npy", change(arrays[field]))
  assert text in _error(tmp_path)


@pytest.mark.parametrize("field", _arrays())
def test_missing_and_damaged_arrays(tmp_path, field):
  _write(tmp_path, _arrays())
  path = tmp_path / "train" / f"all__{field}.npy"
  content = path.read_bytes()
  for data in (
    content[:-1],
    content[:40],
    b"",
    content.replace(b"NUMPY", b"NUMPI"),
    content.replace(b"shape", b"sha(e"),
  ):
    path.write_bytes(data)
    assert f"all__{field}.npy cannot be read, the file is" in _error(tmp_path)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("a.npy", content)
  assert f"all__{field}.npy is an archive" in _error(tmp_path)
  path.unlink()
  assert _error(tmp_path).endswith(f"all__{field}.npy is missing")


@pytest.mark.parametrize("token_type", [np.uint8, np.int64])
@pytest.mark.parametrize("field", ["inputs", "labels"])
def test_tokens_are_checked_when_fetched(tmp_path, token_type, field):
  arrays = _arrays()
  arrays[field] = arrays[field].astype(token_type)
  bad = [9] if token_type == np.uint8 else [9, -1, 256]
  for token in bad:
    arrays[field][7, 4] = token
    _write(tmp_path, arrays)
    puzzles = _load(tmp_path)
    puzzles.fetch(np.array([6, 8]), np.array([0, 0]))
    with pytest.raises(
      errors.UserError,
      match=rf"all__{field}.npy has the token {token} in example 7, cell 4, "
      "expected 0 to 8",
    ):
      puzzles.fetch(np.array([6, 7]), np.array([0, 0]))


def test_damaged_metadata(tmp_path):
  _write(tmp_path, _arrays())
  path = tmp_path / "train" / "dataset.json"
  path.write_text('{\n"pad_id": 0,\n')
  assert "dataset.json line 3, column 1: is not JSON" in _error(tmp_path)
  path.write_text("[]")
  assert "is not a JSON object" in _error(tmp_path)
  path.unlink()
  assert "dataset.json cannot be read" in _error(tmp_path)
  (tmp_path / "file").write_text("")
  assert "cannot be read: Not a directory" in _error(tmp_path / "file")


def test_identifiers(tmp_path):
  def read(names):
    (tmp_path / "identifiers.json").write_text(json.dumps(names))
    return official.read_identifiers(str(tmp_path), num_puzzle_ids=3)

  with pytest.raises(errors.UserError, match=r"identifiers\.json cannot be re"):
    official.read_identifiers(str(tmp_path), num_puzzle_ids=3)
  assert read(["<blank>", "a", "b"]) == ["<blank>", "a", "b"]
  with pytest.raises(errors.UserError, match=r"has 2 entries, but .* is 3"):
    read(["<blank>", "a"])
  with pytest.raises(errors.UserError, match="entry 0 is 'a'"):
    read(["a", "b", "c"])
  with pytest.raises(errors.UserError, match="entry 2: 'a' is entry 1 already"):
    read(["<blank>", "a", "a"])
