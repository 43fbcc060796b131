"""People's own grid puzzles in CSV files."""

import csv
import gzip
import io
import types

import folders
import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import tasks

TEST = "question,answer\nabab,bbbb\n"


def _write(folder, train, test=TEST):
  for split, text in (("train", train), ("test", test)):
    (folder / f"{split}.csv").write_bytes(text.encode())


def _load(folder, **changes):
  """Loads a task; adds what the look and the warnings say."""
  settings = {"task": "grid", "num_train": 0, "num_test": 0} | changes
  task = tasks.load(folders.data(source=str(folder), **settings))
  num_shared = int(task.warnings[0].split()[0]) if task.warnings else 0
  return types.SimpleNamespace(
    train=task.train,
    test=task.test,
    charset="".join(task.look.symbols[1:]),
    rows=task.look.rows,
    cols=task.look.cols,
    num_shared=num_shared,
  )


def _error(folder, **changes) -> str:
  with pytest.raises(errors.UserError) as caught:
    _load(folder, **changes)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def _rows(puzzles, charset) -> list[tuple[str, str]]:
  """What the files said."""
  return [
    tuple("".join(charset[token - 1] for token in grid) for grid in pair)
    for pair in zip(puzzles.inputs, puzzles.labels, strict=True)
  ]


def test_by_hand(tmp_path):
  _write(
    tmp_path,
    'answer,rating,question,source\ncbaa,1,"a, b",me\ncccc,,cbaa,"x,y"\n\n',
    'question,answer\n"a""a ",abca\n',
  )
  loaded = _load(tmp_path)
  assert loaded.charset == ' ",abc'
  assert (loaded.rows, loaded.cols, loaded.num_shared) == (2, 2, 0)
  assert loaded.train.inputs.tolist() == [[4, 3, 1, 5], [6, 5, 4, 4]]
  assert loaded.train.labels.tolist() == [[6, 5, 4, 4], [6, 6, 6, 6]]
  assert loaded.test.inputs.tolist() == [[4, 2, 4, 1]]
  assert loaded.test.labels.tolist() == [[4, 5, 6, 4]]
  assert loaded.train.inputs.dtype == np.uint8
  assert loaded.train.inputs.flags.c_contiguous
  assert loaded.train.num_groups == 2
  assert not loaded.train.puzzle_ids.any()


def test_any_characters_come_back(tmp_path):
  alphabet = 'é漢😀 ",;\tß\u0301z\\#'
  rng = np.random.default_rng(0)
  written = {}
  for split, count in (("train", 40), ("test", 20)):
    cells = rng.choice(list(alphabet), (count, 2, 12))
    written[split] = [tuple("".join(grid) for grid in row) for row in cells]
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(
      [("question", "answer"), *written[split]]
    )
    # As a spreadsheet writes it, with a byte order mark.
    data = text.getvalue().encode("utf-8-sig")
    (tmp_path / f"{split}.csv.gz").write_bytes(gzip.compress(data))
  loaded = _load(tmp_path, grid_rows=3, grid_cols=4)
  assert loaded.charset == "".join(sorted(alphabet))
  assert (loaded.rows, loaded.cols) == (3, 4)
  assert _rows(loaded.train, loaded.charset) == written["train"]
  assert _rows(loaded.test, loaded.charset) == written["test"]
  given = _load(tmp_path, grid_rows=3, grid_cols=4, charset="X" + alphabet)
  assert given.charset == "X" + alphabet
  assert _rows(given.train, given.charset) == written["train"]


def test_characters_of_the_test_file_count(tmp_path):
  _write(tmp_path, "question,answer\nbbbb,dddd\n", "question,answer\ncccc,aaaa")
  loaded = _load(tmp_path)
  assert loaded.charset == "abcd"
  assert loaded.train.inputs.tolist() == [[2] * 4]
  assert loaded.test.labels.tolist() == [[1] * 4]


def test_many_rows(tmp_path):
  # Several blocks; the last row brings a character that sorts first.
  numbers = [f"{i:04x}" for i in range(25_000)]
  rows = [f"{n},{n[::-1]}" for n in numbers] + ["!!!!,!fff"]
  _write(tmp_path, "\n".join(["question,answer", *rows]))
  loaded = _load(tmp_path)
  assert loaded.charset == "!0123456789abcdef"
  assert _rows(loaded.train, loaded.charset) == [
    tuple(row.split(",")) for row in rows
  ]
  (tmp_path / "train.csv").write_text(
    "\n".join(["question,answer", *rows, "0003,3001"])
  )
  assert _error(tmp_path) == (
    "train.csv line 25003: has the question of train.csv line 5 with another"
    " answer"
  )
  assert _error(tmp_path, charset="0123456789abcdef") == (
    "train.csv line 25002: question has '!' at position 1 (row 1, column 1), "
    "which is not in config.data.charset"
  )


def test_character_outside_the_charset(tmp_path):
  train = "question,answer\nabab,bbbb\nabab,bbbb\n\nabaa,baxa\nxxxx,aaaa\n"
  _write(tmp_path, train)
  assert _error(tmp_path, charset="ab") == (
    "train.csv line 5: answer has 'x' at position 3 (row 2, column 1), which "
    "is not in config.data.charset"
  )
  _write(tmp_path, TEST, "question,answer\nabaé,bbbb\n")
  assert "test.csv line 2: question has 'é' at position 4 (row 2, col" in (
    _error(tmp_path, charset="ab")
  )


@pytest.mark.parametrize(
  ("charset", "text"),
  [
    ("abca", "config.data.charset has 'a' twice"),
    ("".join(map(chr, range(300, 555))), "charset has 255 characters, at most"),
  ],
)
def test_bad_charset(tmp_path, charset, text):
  _write(tmp_path, TEST)
  assert text in _error(tmp_path, charset=charset)


def test_too_many_characters(tmp_path):
  characters = "".join(map(chr, range(0x4E00, 0x4E00 + 254)))
  rows = [f"{c * 4},{c * 4}" for c in characters]
  test = f"question,answer\n{rows[0]}\n"
  _write(tmp_path, "\n".join(["question,answer", *rows]), test)
  assert _load(tmp_path).charset == characters
  assert _load(tmp_path).train.labels.max() == 254
  # Two more come together: the first of them in the file is named.
  _write(tmp_path, "\n".join(["question,answer", *rows, "zzzz,zzaa"]), test)
  assert _error(tmp_path) == (
    "train.csv line 256: question has 'z' at position 1 (row 1, column 1), "
    "in addition to 254 others, the most supported"
  )


@pytest.mark.parametrize(
  ("train", "test", "settings", "text"),
  [
    (
      "abab,bbbb\nabab,bbb",
      "",
      {},
      "train.csv line 3: answer has 3 characters, expected 4 (2 x 2, as in "
      "train.csv line 2)",
    ),
    (
      "abab,bbbb",
      "abababaab,abababaab",
      {},
      "test.csv line 2: question has 9 characters, expected 4 (2 x 2, as in "
      "train.csv line 2)",
    ),
    (
      "ababab,bbbbbb",
      "",
      {"grid_rows": 2, "grid_cols": 2},
      "train.csv line 2: question has 6 characters, expected 4 (2 x 2, "
      "config.data.grid_rows x config.data.grid_cols)",
    ),
    (
      "ababab,bbbbbb",
      "",
      {},
      "train.csv line 2: question has 6 characters, which is no square of "
      "1 x 1 to 30 x 30 cells: set config.data.grid_rows and "
      "config.data.grid_cols",
    ),
    (
      f"{'a' * 961},{'b' * 961}",
      "",
      {},
      "train.csv line 2: question has 961 characters, which is no square",
    ),
    (",", "", {}, "train.csv line 2: question has 0 characters, which is no"),
    (
      "abab,bbbb",
      "",
      {"grid_rows": 2},
      "config.data.grid_rows is 2 and config.data.grid_cols 0, expected 1 to 30"
      " each, or 0 for both",
    ),
    (
      "abab,bbbb",
      "",
      {"grid_rows": 31, "grid_cols": 1},
      "config.data.grid_rows is 31; it must lie between 0 and 30",
    ),
    ("ab ,bbbb", "", {}, "train.csv line 2: question has 3 characters, which"),
  ],
)
def test_sizes(tmp_path, train, test, settings, text):
  _write(
    tmp_path,
    f"question,answer\n{train}\n",
    f"question,answer\n{test}\n" if test else TEST,
  )
  assert _error(tmp_path, **settings).startswith(text)


def test_the_largest_grid(tmp_path):
  row = f"{'ab' * 450},{'b' * 900}"
  _write(tmp_path, f"question,answer\n{row}", f"question,answer\n{row}")
  loaded = _load(tmp_path)
  assert (loaded.rows, loaded.cols) == (30, 30)


def test_the_same_question_again(tmp_path):
  _write(
    tmp_path,
    "question,answer\nabab,bbbb\nbbaa,bbbb\nabab,bbbb\n",
    "question,answer\nabab,aaaa\nbbba,abab\nabab,aaaa\n",
  )
  loaded = _load(tmp_path)
  assert loaded.train.num_examples == 3
  assert loaded.num_shared == 2  # another answer there does not help
  _write(tmp_path, TEST, "question,answer\nabab,bbbb\nbbaa,bbbb\nabab,bbba\n")
  assert _error(tmp_path) == (
    "test.csv line 4: has the question of test.csv line 2 with another answer"
  )


def test_draws(tmp_path):
  rows = [f"{i:04d},{9999 - i}" for i in range(60)]
  _write(
    tmp_path,
    "\n".join(["question,answer", *rows]),
    "\n".join(["question,answer", *rows[:30]]),
  )
  whole = _load(tmp_path)
  assert whole.num_shared == 30
  first = _load(tmp_path, num_train=12, num_test=10, seed=1)
  again = _load(tmp_path, num_train=12, num_test=10, seed=1)
  other = _load(tmp_path, num_train=12, num_test=10, seed=2)
  for split, count in (("train", 12), ("test", 10)):
    drawn = getattr(first, split)
    everything = _rows(getattr(whole, split), whole.charset)
    chosen = [everything.index(row) for row in _rows(drawn, first.charset)]
    assert chosen == sorted(set(chosen))
    assert len(chosen) == count
    assert drawn.fingerprint() == getattr(again, split).fingerprint()
    assert drawn.fingerprint() != getattr(other, split).fingerprint()
  # Of the puzzles that are used, and not of all in the files.
  questions = {row.tobytes() for row in first.train.inputs}
  shared = sum(row.tobytes() in questions for row in first.test.inputs)
  assert first.num_shared == shared < 10
  assert first.charset == whole.charset
  assert _error(tmp_path, num_test=31) == (
    "config.data.num_test asks for 31 puzzles, but the test set has 30; ask for"
    " fewer, or 0 for all"
  )
