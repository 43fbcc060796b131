"""Sudoku tokens, rules and CSV files."""

import gzip

import numpy as np
import pytest

from trm_jax import errors
from trm_jax.data import sudoku, sudoku_csv

BOX = {"box_rows": 2, "box_cols": 2}
QUESTION = "1..4" + "..1." + ".1.3" + "4..."
ANSWER = "1234" + "3412" + "2143" + "4321"
HEADER = "source,question,answer,rating\n"


def _parse(question=QUESTION, answer=ANSWER):
  return sudoku.parse_pair(question, answer, **BOX, where="a.csv line 2")


def test_tokens_are_digit_plus_one_and_blank_one():
  x, y = _parse()
  assert x.dtype == np.uint8
  assert x.tolist()[:8] == [2, 1, 1, 5, 1, 1, 2, 1]
  assert (y - 1).tolist() == [int(c) for c in ANSWER]
  np.testing.assert_array_equal(_parse(QUESTION.replace(".", "0"))[0], x)


def test_vocabulary_and_units_of_rectangular_boxes():
  assert sudoku.vocab_size(2, 3) == 8
  units = sudoku.units(2, 3)
  assert units.shape == (18, 6)
  assert units[1].tolist() == [6, 7, 8, 9, 10, 11]
  assert units[6 + 1].tolist() == [1, 7, 13, 19, 25, 31]
  assert units[12 + 1].tolist() == [3, 4, 5, 9, 10, 11]
  for kind in units.reshape(3, 36):
    assert sorted(kind) == list(range(36))


@pytest.mark.parametrize(
  ("question", "answer", "text"),
  [
    (QUESTION[1:], ANSWER, "question has 15 characters, expected 16"),
    (QUESTION, ANSWER + "1", "answer has 17 characters, expected 16"),
    (
      QUESTION[:5] + "x" + QUESTION[6:],
      ANSWER,
      r"question has 'x' at position 6 \(row 2, column 2\)",
    ),
    (QUESTION[:-1] + "5", ANSWER, "question has '5' at position 16 "),
    (QUESTION[:-1] + "é", ANSWER, "question has 'é' at position 16 "),
    (QUESTION, ANSWER[:-1] + ".", "answer has a blank at position 16"),
    (
      QUESTION,
      "1234" + "2143" + "3412" + "4321",
      "answer has the digit 1 more than once in box 1",
    ),
    (
      QUESTION,
      "1234" + "3412" + "2413" + "4321",
      "answer has the digit 4 more than once in column 2",
    ),
    (
      "3" + QUESTION[1:],
      ANSWER,
      "the clue 3 at position 1 contradicts the answer, which has 1",
    ),
  ],
)
def test_bad_pairs_name_the_fault(question, answer, text):
  with pytest.raises(errors.UserError, match="^a.csv line 2: " + text):
    _parse(question, answer)


def test_question_alone_with_repeated_clue_is_refused():
  with pytest.raises(errors.UserError, match="digit 1 more than once in row 1"):
    sudoku.parse_question("1..1" + "." * 12, **BOX, where="p")
  tokens = sudoku.parse_question(QUESTION, **BOX, where="p")
  np.testing.assert_array_equal(tokens, _parse()[0])


def test_only_sides_of_two_to_nine():
  with pytest.raises(errors.UserError, match="between 2 and 9"):
    sudoku.side(3, 4)
  with pytest.raises(errors.UserError, match="between 2 and 9"):
    sudoku.side(1, 1)


def test_validity_of_a_batch():
  _, y = _parse()
  swapped = y.copy()
  swapped[[0, 1]] = y[[1, 0]]  # rows stay right, columns do not
  blank = y.copy()
  blank[3] = sudoku.BLANK
  padded = y.copy()
  padded[3] = sudoku.PAD
  too_big = y.copy()
  too_big[y == 5] = 6
  grids = np.stack([y, swapped, blank, padded, too_big])
  valid = sudoku.is_valid_solution(grids, **BOX)
  assert valid.tolist() == [True, False, False, False, False]


def test_format_grid():
  x, _ = _parse()
  assert sudoku.format_grid(x, 2, 2) == (
    "1 . | . 4\n. . | 1 .\n----+----\n. 1 | . 3\n4 . | . ."
  )
  wide = sudoku.format_grid(np.ones(36), 2, 3).split("\n")
  assert {len(line) for line in wide} == {13}
  assert wide[2] == "------+------"


def _write(path, content):
  if isinstance(content, str):
    content = content.encode()
  path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
  return path


def _read(path):
  return list(sudoku_csv.read_csv(path, **BOX))


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv_rows(tmp_path, name):
  lines = f'"x, y",{QUESTION},{ANSWER},7\n\nz,{ANSWER},{ANSWER},0\n'
  rows = _read(_write(tmp_path / name, HEADER + lines))
  assert [(row.source, row.rating) for row in rows] == [("x, y", 7), ("z", 0)]
  np.testing.assert_array_equal(rows[0].question, _parse()[0])
  np.testing.assert_array_equal(rows[0].answer, _parse()[1])


GOOD = f"s,{QUESTION},{ANSWER},1\n"


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
    (
      HEADER + GOOD + GOOD.replace("1.", ".", 1),
      "^a.csv line 3: question has 15 characters, expected 16",
    ),
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
def test_bad_csv_names_file_and_line(tmp_path, content, text):
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
  rows = sudoku_csv.read_csv(path, **BOX)
  assert next(rows).source == "s"
  with pytest.raises(errors.UserError, match="line 3"):
    next(rows)
