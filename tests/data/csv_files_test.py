"""The reader of CSV rows, and data sets in folders of CSV files."""

import gzip
import itertools

import folders
import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import csv_files

HEADER = "source,question,answer,rating\n"
GOOD = "s, b,ab,1\n"


def _parse_pairs(questions, answers):
  """Two characters per text, each its own token."""
  found = {
    i: f"{pair!r} has not 2 characters each"
    for i, pair in enumerate(zip(questions, answers, strict=True))
    if set(map(len, pair)) != {2}
  }
  texts = [
    [text.ljust(2)[:2].encode() for text in pair]
    for pair in zip(questions, answers, strict=True)
  ]
  return np.array(
    [[list(text) for text in pair] for pair in texts], np.uint8
  ), found


def _write(path, content):
  if isinstance(content, str):
    content = content.encode()
  path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
  return path


def _read(path):
  rows = [row for block in csv_files.read_blocks(path) for row in block]
  csv_files.parse_block(rows, _parse_pairs)
  return rows


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_rows(tmp_path, name):
  lines = '"x, y", b,a ,7\n\n"z\nz",ab,bb,\n'
  rows = _read(_write(tmp_path / name, HEADER + lines))
  # No space is stripped; a quoted cell may span lines.
  assert [row.texts for row in rows] == [(" b", "a "), ("ab", "bb")]
  assert [row.where for row in rows] == [f"{name} line 2", f"{name} line 5"]


def test_byte_order_mark_and_windows_line_ends(tmp_path):
  content = b"\xef\xbb\xbf" + (HEADER + GOOD).replace("\n", "\r\n").encode()
  (row,) = _read(_write(tmp_path / "a.csv", content))
  assert row.texts == (" b", "ab")


@pytest.mark.parametrize(
  "content",
  [
    "Question, Answer\r\n b,ab\r\n",
    "quizzes;solutions\n b;ab\n",
    "id\tpuzzle\tsolution\n1\t b\tab\n",
    "\nsep=;\nquestion;answer;\n b;ab;\n",
    "question,answer\r b,ab\r",
    "question,answer\n b,ab\n\x1a",
    "question,answer\r\n b,ab\r\n".encode("utf-16"),
    "question,answer\r\n b,ab\r\n".encode("utf-16-be"),
    "\ufeffquestion,answer\n b,ab\0\n",
  ],
)
def test_what_spreadsheets_and_the_public_sets_write(tmp_path, content):
  (row,) = _read(_write(tmp_path / "a.csv", content))
  assert row.texts == (" b", "ab")


@pytest.mark.parametrize(
  ("content", "text"),
  [
    (HEADER + "s,\0b,ab,1\n", r"^a.csv line 2: has a NUL character: 's,\\x00b"),
    ("\0" * 2_000_000, "^a.csv line 1: does not end within 1,048,576 bytes"),
    ("", "^a.csv is empty: expected a header with one 'question' and one 'ans"),
    (HEADER, "^a.csv has a header but no puzzles"),
    (
      "question,result\n",
      "^a.csv line 1: the columns are 'question,result'; expected one"
      " 'question' and one 'answer'",
    ),
    (
      "question,question,answer\n",
      "^a.csv line 1: the columns are 'question,q",
    ),
    (HEADER + GOOD + "s,1,2\n", "^a.csv line 3: has 3 columns, the header 4"),
    (HEADER + GOOD + "    \n", "^a.csv line 3: has 1 columns, the header 4"),
    (HEADER + GOOD + "s,1,ab,1\n", "^a.csv line 3: .* has not 2 characters"),
    (
      (HEADER + GOOD).encode() + b"\xff" + GOOD.encode(),
      "^a.csv line 3: not UTF-8 text",
    ),
    (HEADER + GOOD + '"s' + GOOD, "^a.csv line 3: is not CSV"),
    (HEADER + GOOD + '"s"x' + GOOD, "^a.csv line 3: is not CSV"),
  ],
)
def test_faults_are_named_with_file_and_line(tmp_path, content, text):
  with pytest.raises(errors.UserError, match=text) as caught:
    _read(_write(tmp_path / "a.csv", content))
  assert "\n" not in str(caught.value)


def test_damaged_gzip(tmp_path):
  cut = tmp_path / "cut.csv.gz"
  cut.write_bytes(gzip.compress((HEADER + GOOD * 50).encode())[:-12])
  with pytest.raises(errors.UserError, match=r"^cut.csv.gz line \d+: cannot"):
    _read(cut)
  plain = tmp_path / "plain.csv.gz"
  plain.write_text(HEADER + GOOD)
  with pytest.raises(errors.UserError, match=r"^plain.csv.gz line 1: cannot"):
    _read(plain)


def test_the_first_malformed_puzzle_is_named_in_any_block(tmp_path, capfd):
  lines = [GOOD] * 12_000
  lines[11_000] = lines[11_500] = "s,,ab,1\n"
  path = _write(tmp_path / "a.csv", HEADER + "".join(lines))
  blocks = csv_files.read_blocks(path)
  assert len(next(blocks)) == 10_000
  with pytest.raises(errors.UserError, match=r"^a.csv line 11002: "):
    csv_files.parse_block(next(blocks), _parse_pairs)
  assert capfd.readouterr() == ("", "")
  # Also before a row that cannot be read at all.
  _write(path, HEADER + GOOD + "s,,ab,1\n" + GOOD + "s,1\n")
  (block,) = itertools.islice(csv_files.read_blocks(path), 1)
  with pytest.raises(errors.UserError, match=r"^a.csv line 3: "):
    csv_files.parse_block(block, _parse_pairs)


# --- folders -----------------------------------------------------------------


@pytest.fixture(name="folder")
def _folder(tmp_path):
  for name, numbers in (("train.csv", range(30)), ("test.csv.gz", range(40))):
    rows = "".join(f"s,{i:02d},{99 - i},\n" for i in numbers)
    _write(tmp_path / name, HEADER + rows)
  return tmp_path


def _load(folder, **changes):
  sizes = {"num_train": 0, "num_test": 0}
  data = folders.data(**sizes | changes, source=str(folder))
  return csv_files.load(data, _parse_pairs)


def test_a_folder_is_read_into_memory(folder):
  train, test = _load(folder)
  assert (train.num_examples, test.num_examples) == (30, 40)
  assert train.inputs[3].tobytes() == b"03"
  assert train.labels[3].tobytes() == b"96"
  assert test.inputs[39].tobytes() == b"39"
  # Nothing is cached: a changed file counts at once.
  _write(folder / "train.csv", HEADER + GOOD)
  assert _load(folder)[0].num_examples == 1


def test_puzzles_are_drawn_in_the_order_of_the_file(folder):
  whole, _ = _load(folder)
  first, test = _load(folder, num_train=10, num_test=7, seed=1)
  again, _ = _load(folder, num_train=10, seed=1)
  other, _ = _load(folder, num_train=10, seed=2)
  assert test.num_examples == 7
  assert first.fingerprint() == again.fingerprint() != other.fingerprint()
  chosen = [int(bytes(row)) for row in first.inputs]
  assert chosen == sorted(set(chosen))
  np.testing.assert_array_equal(first.labels, whole.labels[chosen])
  # By hand: the split's draw of these versions and all before them.
  rng = np.random.default_rng([1, 0])
  assert chosen == sorted(rng.choice(30, 10, replace=False).tolist())
  with pytest.raises(errors.UserError, match=r"num_train asks for 31.*has 30"):
    _load(folder, num_train=31)


def test_missing_files_are_named(folder):
  with pytest.raises(errors.UserError, match=r"nowhere', which is not a fold"):
    _load(folder / "nowhere")
  (folder / "train.csv.gz").write_bytes(b"")
  with pytest.raises(
    errors.UserError, match=r" has both train.csv and train.csv.gz: remove one"
  ):
    _load(folder)
  (folder / "train.csv.gz").unlink()
  (folder / "test.csv.gz").unlink()
  with pytest.raises(
    errors.UserError, match=r" has neither test.csv nor test.csv.gz"
  ):
    _load(folder)
