"""What people hand in: every form of it, and all that can be wrong with it."""

import gzip
import io
import sys

import numpy as np
import pytest
import solver_stand_in
import tiny

from trm_jax import errors
from trm_jax.data import tasks
from trm_jax.inference import inputs, outputs

QUESTION = "1..4..1..1.34..."
TOKENS = [2, 1, 1, 5, 1, 1, 2, 1, 1, 2, 1, 4, 5, 1, 1, 1]
SUDOKU = tiny.config().data  # 4x4
MAZE = solver_stand_in.changed(
  tiny.config(), "data", task="generated_maze", grid_rows=3, grid_cols=4
).data
MAZE_QUESTION = "  S ##   G  "  # three rows of four
GRID = solver_stand_in.changed(
  tiny.config(), "data", task="grid", grid_rows=2, grid_cols=3
).data
ARC = solver_stand_in.changed(tiny.config(), "data", task="arc").data


def _look(data):
  return tasks.look(data, ("?", *".,ä"), 6)


def _tokens(puzzle, data=SUDOKU):
  return inputs.tokens_of(puzzle, _look(data), data, "puzzle 1")


def _fault(puzzle, data=SUDOKU) -> str:
  with pytest.raises(errors.UserError) as caught:
    _tokens(puzzle, data)
  assert "\n" not in str(caught.value)
  return str(caught.value)


# --- one puzzle --------------------------------------------------------------


@pytest.mark.parametrize(
  "puzzle",
  [
    QUESTION,
    QUESTION.replace(".", "0"),
    ["1..4", "..1.", ".1.3", "4..."],
    [list("1..4"), list("..1."), list(".1.3"), list("4...")],
    [[1, 0, 0, 4], [0, 0, 1, 0], [0, 1, 0, 3], [4, 0, 0, 0]],
    [["1", 0, ".", 4], (0, 0, 1, 0), ".1.3", "4..."],
    np.array([[1, 0, 0, 4], [0, 0, 1, 0], [0, 1, 0, 3], [4, 0, 0, 0]], np.int8),
    np.array([list("1..4"), list("..1."), list(".1.3"), list("4...")]),
  ],
)
def test_all_ways_to_write_a_sudoku_are_the_same(puzzle):
  tokens = _tokens(puzzle)
  assert tokens.dtype == np.uint8
  assert tokens.tolist() == TOKENS


def test_mazes_and_own_grids():
  assert _tokens(MAZE_QUESTION, MAZE).tolist() == [
    *(2, 2, 3, 2, 1, 1),
    *(2, 2, 2, 4, 2, 2),
  ]
  assert _tokens(".ä,,.ä", GRID).tolist() == [1, 3, 2, 2, 1, 3]
  assert _tokens([".ä,", ",.ä"], GRID).tolist() == [1, 3, 2, 2, 1, 3]
  assert "row 2, column 1 is 5, expected a character" in _fault(
    [".ä,", [5, ".", "."]], GRID
  )


def test_an_arc_grid_has_an_end_below_and_beside_it():
  tokens = _tokens([[0, 9]], ARC).reshape(30, 30)
  assert tokens[:2, :3].tolist() == [[2, 11, 1], [1, 1, 0]]
  assert np.count_nonzero(tokens) == 5


@pytest.mark.parametrize(
  ("puzzle", "text"),
  [
    (QUESTION[1:], "question has 15 characters, expected 16"),
    ("a" + QUESTION[1:], "question has 'a' at position 1 "),
    ("11" + QUESTION[2:], "the digit 1 more than once in row 1"),
    (["1..4", "..1."], "has 2 rows of 4 cells, expected 4 of 4"),
    (["1..4", "..1", ".1.3", "4..."], "has 4 rows of 3 or 4 cells"),
    ([], "has 0 rows of no cells"),
    ([1, 2, 3, 4], r"is [1, 2, 3, 4], expected a text or rows of cells"),
    (None, "is None, expected a text or rows of cells"),
    (np.full((4, 4), 0.0), "row 1, column 1 is 0.0, expected a"),
    ([[True] * 4] * 4, "row 1, column 1 is True, expected a digit"),
    ([[10] * 4] * 4, "row 1, column 1 is 10, expected a digit"),
    ([["12"] * 4] * 4, "row 1, column 1 is '12', expected a digit"),
  ],
)
def test_a_bad_puzzle_is_named(puzzle, text):
  message = _fault(puzzle)
  assert message.startswith("puzzle 1: ")
  assert text in message


@pytest.mark.parametrize(
  "puzzle",
  [
    "0" * 900,
    [[0, 1], [2]],
    [[10]],
    [[-1]],
    [[0.5]],
    [],
    [[]],
    [0, 1],
    [[0] * 31],
    [[True]],
  ],
)
def test_a_bad_arc_grid_is_refused(puzzle):
  assert "expected 1 to 30 rows of 1 to 30 colours" in _fault(puzzle, ARC)


def test_characters_that_were_not_learned():
  assert "question has 5 characters, expected 6 (2 x 3)" in _fault(
    ".....", GRID
  )
  # The "?" that stands for padding in pictures is no character of the data.
  assert (
    "question has '?' at position 5 (row 2, column 2), which is not in the"
    " training data: '.,ä'" in _fault("....?.", GRID)
  )


# --- many puzzles ------------------------------------------------------------


def _read(source, data=SUDOKU, *, num_rows=100):
  return list(
    inputs.read_blocks(str(source), _look(data), data, num_rows=num_rows)
  )


def _only_block(source, data=SUDOKU):
  (block,) = _read(source, data)
  return block


def _error(source, data=SUDOKU) -> str:
  with pytest.raises(errors.UserError) as caught:
    _read(source, data)
  assert "\n" not in str(caught.value)
  return str(caught.value)


def _file(tmp_path, content, name="p.csv"):
  path = tmp_path / name
  content = content.encode() if isinstance(content, str) else content
  path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
  return path


def _pipe(monkeypatch, content):
  content = content.encode() if isinstance(content, str) else content
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


OTHER = QUESTION[::-1]
FORMS = {
  "plain": f"question\n{QUESTION}\n{OTHER}\n",
  "no last end": f"question\n{QUESTION}\n{OTHER}",
  "official": "source,question,answer,rating\n"
  f"x,{QUESTION},?,1\n\ny,{OTHER},,\n",
  "windows": f"\ufeffquestion,source\r\n{QUESTION},x\r\n{OTHER},y\r\n",
  "quoted": f'"source", question\n"a, ""b""",{QUESTION}\nd,"{OTHER}"\n',
  "lines": f"{QUESTION}\n\n{OTHER}\n",
  "windows lines": f"\ufeff{QUESTION}\r\n{OTHER}\r\n",
}


@pytest.mark.parametrize(
  ("form", "way"),
  [
    (form, way)
    for form in FORMS
    for way in ("p.csv", "p.csv.gz", "p.txt", "p.txt.gz", "-")
    # A file that says CSV has a header.
    if not (form.endswith("lines") and ".csv" in way)
  ],
)
def test_forms_of_a_file(tmp_path, monkeypatch, form, way):
  source = way
  if way == "-":
    _pipe(monkeypatch, FORMS[form])
  else:
    source = _file(tmp_path, FORMS[form], way)
  block = _only_block(source)
  assert block.texts == (QUESTION, OTHER)
  assert block.faults == ("", "")
  assert block.tokens.tolist() == [TOKENS, TOKENS[::-1]]


def test_a_bad_row_leaves_the_others(tmp_path):
  rows = [f"a,{QUESTION}", "b,12", "c", f"d,a{QUESTION[1:]}", f"e,{QUESTION}"]
  path = _file(tmp_path, "source,question\n" + "\n".join(rows))
  block = _only_block(path)
  assert block.texts == (QUESTION, "12", "", "a" + QUESTION[1:], QUESTION)
  assert block.faults[0] == block.faults[4] == ""
  assert block.faults[1] == (
    "p.csv line 3: question has 2 characters, expected 16: '12'"
  )
  assert block.faults[2] == "p.csv line 4: has 1 columns, the header 2"
  assert block.faults[3].startswith("p.csv line 5: question has 'a' at")
  assert block.tokens.tolist() == [TOKENS, TOKENS]  # one question twice


def test_lines_are_counted_as_an_editor_counts_them(monkeypatch):
  _pipe(monkeypatch, f"\n{QUESTION}\n\n12\n")
  assert _only_block("-").faults == (
    "",
    "standard input line 4: question has 2 characters, expected 16: '12'",
  )


@pytest.mark.parametrize(
  "form", ["question\n{}\n", "{}\n", "{}\r\n{}", "\ufeffa,question\r\n,{}\r\n"]
)
@pytest.mark.parametrize("way", ["p.txt", "-"])
def test_blanks_of_a_maze_are_never_stripped(tmp_path, monkeypatch, form, way):
  content = form.replace("{}", MAZE_QUESTION)
  source = way
  if way == "-":
    _pipe(monkeypatch, content)
  else:
    source = _file(tmp_path, content, way)
  block = _only_block(source, MAZE)
  assert set(block.texts) == {MAZE_QUESTION}
  assert not any(block.faults)


def test_a_grid_with_commas_is_no_header(monkeypatch):
  _pipe(monkeypatch, ".,.,.,\n.....ä\n")
  assert _only_block("-", GRID).texts == (".,.,.,", ".....ä")


def test_a_puzzle_itself(tmp_path, monkeypatch):
  block = _only_block(QUESTION)
  assert block.texts == (QUESTION,)
  assert block.tokens.tolist() == [TOKENS]
  assert (
    _only_block("a" + QUESTION[1:])
    .faults[0]
    .startswith("--input: question has 'a' at position 1")
  )
  assert _only_block(MAZE_QUESTION, MAZE).texts == (MAZE_QUESTION,)
  # A file of that name goes first.
  monkeypatch.chdir(tmp_path)
  _file(tmp_path, f"{OTHER}\n", QUESTION)
  assert _only_block(QUESTION).texts == (OTHER,)


def test_neither_a_file_nor_a_puzzle(tmp_path):
  assert (
    "--input is 'nowhere.csv': there is no such file, nor is it a puzzle of 16"
    " characters (it has 11)" in _error("nowhere.csv")
  )
  assert "which is a folder" in _error(tmp_path)


@pytest.mark.parametrize(
  ("name", "content", "text"),
  [
    ("p.csv", "", "p.csv is empty"),
    ("p.txt", "", "p.txt is empty"),
    ("p.txt", "\n\n", "p.txt has no puzzles"),
    ("p.csv", "a,question\n\n", "p.csv has a header but no puzzles"),
    ("p.csv", "name,grid\n", "no puzzles; first p.csv line 1: 'name,grid'"),
    ("p.csv", "question,question\n", "p.csv has no puzzles; first p.csv line"),
    ("p.csv", "question".encode("utf-16"), "p.csv has a header but no puzzles"),
    ("p.bin", b"\0" * 3_000_000, "p.bin line 1: does not end within 1,048,576"),
    ("p.txt", "hello\n" * 100_000, "p.txt has no puzzle in its first 100,000"),
    ("p.csv.gz", b"", "p.csv.gz is empty"),
  ],
)
def test_files_that_are_none(tmp_path, name, content, text):
  assert text in _error(_file(tmp_path, content, name))


def test_a_damaged_file_and_a_damaged_pipe(tmp_path, monkeypatch):
  path = _file(tmp_path, f"question\n{QUESTION}\n", "p.csv.gz")
  path.write_bytes(path.read_bytes()[:-9])
  assert "p.csv.gz line" in _error(path)
  _pipe(monkeypatch, "")
  assert "standard input is empty" in _error("-")
  monkeypatch.setattr(sys, "stdin", solver_stand_in.broken_pipe())
  assert _error("-") == "standard input cannot be read: Input/output error"


LONG = "a" * 200_000
BAD_LINES = {
  b"\xff" + QUESTION[1:].encode(): "not UTF-8 text, save the file as UTF-8: ",
  b"1." + QUESTION.encode() + b"\0.": "has a NUL character: ",
  f'"{QUESTION[1:]}'.encode(): "is not CSV (unexpected end of data)",
  LONG.encode(): "is not CSV (field larger than field limit (131072))",
  f'"{QUESTION}1"x'.encode(): "is not CSV (',' expected after '\"')",
  b"12": "question has 2 characters, expected 16: '12'",
  b"3.21E+14": "question has 8 characters, expected 16: '3.21E+14' (has a s",
}


@pytest.mark.parametrize("way", ["p.csv", "p.csv.gz", "-"])
@pytest.mark.parametrize("header", [b"question", b"question,"])
def test_whatever_is_wrong_with_a_line_the_next_one_is_read(
  tmp_path, monkeypatch, way, header
):
  lines = [header]
  for bad in BAD_LINES:
    lines += [bad, QUESTION.encode()]
  content = b"\n".join(lines)
  source = way
  if way == "-":
    _pipe(monkeypatch, content)
  else:
    source = _file(tmp_path, content, way)
  block = _only_block(source)
  assert block.texts[1::2] == (QUESTION,) * len(BAD_LINES)
  assert block.faults[1::2] == ("",) * len(BAD_LINES)
  name = "standard input" if way == "-" else way
  numbers = range(2, 2 + len(lines), 2)
  for number, fault, told in zip(
    numbers, block.faults[::2], BAD_LINES.values(), strict=False
  ):
    assert fault.startswith(f"{name} line {number}: {told}")
    assert len(fault) < 200
    assert fault.isprintable()
  assert block.texts[0] == "\ufffd" + QUESTION[1:]
  # What has no end is not shown in full.
  assert max(map(len, block.texts)) < 2000
  assert len(block.tokens) == len(BAD_LINES)


def test_lines_of_text_that_are_none(monkeypatch):
  first = b"\xff" + QUESTION[1:].encode()
  _pipe(
    monkeypatch,
    b"\n".join([first, QUESTION.encode(), b"1" * 200_000, b"1\xff"]),
  )
  block = _only_block("-")
  starts = (
    "standard input line 1: not UTF-8 text",
    "",
    "standard input line 3: question has 200000 characters, expected 16: '11",
    "standard input line 4: not UTF-8 text",
  )
  for fault, start in zip(block.faults, starts, strict=True):
    assert fault.startswith(start)
  assert block.texts[1] == QUESTION
  assert block.texts[2] == "1" * 1000 + "..."
  assert block.tokens.tolist() == [TOKENS]


@pytest.mark.parametrize("num_rows", [1, 3, 100])
def test_blocks_hold_the_rows_in_order(tmp_path, num_rows):
  rows = ["12" if number % 3 == 2 else QUESTION for number in range(7)]
  path = _file(tmp_path, "question\n" + "\n".join(rows))
  blocks = _read(path, num_rows=num_rows)
  assert [len(block.texts) for block in blocks[:-1]] == (
    [num_rows] * (len(blocks) - 1)
  )
  assert [text for block in blocks for text in block.texts] == rows
  for block in blocks:
    assert block.tokens.shape == (block.faults.count(""), 16)


# --- answers -----------------------------------------------------------------


def test_answers_are_written_as_questions_are_read():
  for question, data in (
    (QUESTION, SUDOKU),
    (MAZE_QUESTION, MAZE),
    (".ä,,.ä", GRID),
  ):
    tokens = _tokens(question, data)
    assert outputs.texts(tokens[None], _look(data)) == [question]
  # Padding is no answer, and is shown as such.
  assert outputs.texts(np.zeros((1, 6), np.uint8), _look(GRID)) == ["?" * 6]
