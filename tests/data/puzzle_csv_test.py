"""CSV files of puzzles of any kind."""

import gzip

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import csv_files

HEADER = "source,question,answer,rating\n"
GOOD = "s, b,ab,1\n"


def _parse_pair(question, answer, *, where):
  """Makes tokens of two characters each; a space is one of them."""
  for text in (question, answer):
    if len(text) != 2:
      raise errors.UserError(f"{where}: {text!r} has not 2 characters")
  return tuple(
    np.frombuffer(text.encode(), np.uint8) for text in (question, answer)
  )


def _write(path, content):
  if isinstance(content, str):
    content = content.encode()
  path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
  return path


def _read(path):
  return list(csv_files.read_csv(path, _parse_pair))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_rows(tmp_path, name):
  lines = '"x, y", b,a ,7\n\nz,ab,bb,-1\n'
  rows = _read(_write(tmp_path / name, HEADER + lines))
  assert [(row.source, row.rating) for row in rows] == [("x, y", 7), ("z", -1)]
  assert bytes(rows[0].question) == b" b"  # no space is stripped
  assert bytes(rows[0].answer) == b"a "
  assert bytes(rows[1].question) == b"ab"


def test_byte_order_mark_and_windows_line_ends(tmp_path):
  content = b"\xef\xbb\xbf" + (HEADER + GOOD).replace("\n", "\r\n").encode()
  (row,) = _read(_write(tmp_path / "a.csv", content))
  assert (row.source, row.rating) == ("s", 1)


@pytest.mark.parametrize(
  ("content", "text"),
  [
    ("", "^a.csv is empty, expected the header source,question"),
    (HEADER, "^a.csv has a header but no puzzles"),
    (
      "question,answer\n",
      "^a.csv line 1: the header is 'question,answer', expected source,",
    ),
    (HEADER + GOOD + "s,1,2\n", "^a.csv line 3: has 3 columns, expected 4"),
    (HEADER + GOOD + "s,1,ab,1\n", "^a.csv line 3: '1' has not 2 characters"),
    (
      HEADER + GOOD.replace(",1\n", ",hard\n"),
      "^a.csv line 2: rating 'hard' is not a whole number",
    ),
    (
      HEADER + GOOD.replace(",1\n", ",99999999999\n"),
      "^a.csv line 2: rating '99999999999' is not a whole number",
    ),
    (
      (HEADER + GOOD).encode() + b"\xff" + GOOD.encode(),
      "^a.csv line 3: not UTF-8 text",
    ),
    (HEADER + GOOD + '"s' + GOOD, "^a.csv line 3: is not CSV"),
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


def test_rows_before_the_fault_are_yielded(tmp_path):
  path = _write(tmp_path / "a.csv", HEADER + GOOD + "s,1,2\n")
  rows = csv_files.read_csv(path, _parse_pair)
  assert next(rows).source == "s"
  with pytest.raises(errors.UserError, match="line 3"):
    next(rows)
