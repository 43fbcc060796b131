"""Puzzles as people write them: all are read, and nothing is guessed."""

import pytest
import solver_stand_in
import tiny

from trm_jax.data import tasks
from trm_jax.inference import inputs

DATA = solver_stand_in.changed(tiny.config(), "data", box_cols=3).data  # 6x6
LOOK = tasks.look(DATA)
MAZE = solver_stand_in.changed(
  tiny.config(), "data", task="generated_maze", grid_rows=3, grid_cols=4
).data

Q = ".32.1..........24.4...316143.2...1.."
SOLUTION = "532416146523361245425631614352253164"
ROWS = [Q[i : i + 6] for i in range(0, 36, 6)]
ZERO_ROWS = [row.replace(".", "0") for row in ROWS]
GRID = "\n".join(ROWS)


def _framed(line, between):
  """Rows of two boxes, `between` after every second one but the last."""
  lines = [line.format(*row, row[:3], row[3:]) for row in ROWS]
  return "\n".join(
    text + (between if i % 2 and i < 5 else "") for i, text in enumerate(lines)
  )


def _read(tmp_path, content, data=DATA):
  path = tmp_path / "p.txt"
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  blocks = inputs.read_blocks(str(path), tasks.look(data), data, num_rows=100)
  return [
    fault or text
    for block in blocks
    for text, fault in zip(block.texts, block.faults, strict=True)
  ]


# One puzzle in each, or the number given.
FORMS = {
  "other blanks": ("\n".join(Q.replace(".", b) for b in "0*_-xX? "), 8),
  "comments": (f"# rated 9.0, hard\n{Q} # easy\n// a\n{Q} // b\n", 2),
  "ratings, numbers": (f"{Q} 9.0\n9.1 {Q}\n1. {Q}\n2) {Q}\n", 4),
  "spaces and tabs": (f"{Q}  \t\n\t{Q}\n{Q}\xa0\n", 3),
  "puzzle and solution": (f"{Q},{SOLUTION}\n{Q}\t{SOLUTION}\n", 2),
  "rows in a line": (f"{'|'.join(ROWS)}\n{' '.join(ROWS)}\n", 2),
  "spaced cells in a line": (" ".join(Q), 1),
  "old line ends": (f"{Q}\r{Q}\r{Q}\r\n\x1a", 3),
  "other line ends": (f"{Q}\u2028{Q}\n{Q}\f\n{Q}\v\n", 4),
  "byte order marks": (f"\ufeff{Q}\n\ufeff{Q}\n", 2),
  "NUL at the end": (f"{Q}\0\n{Q}\0\0\n", 2),
  "UTF-16": (f"question\r\n{Q}\r\n".encode("utf-16"), 1),
  "UTF-16, no mark": (f"{Q}\n{Q}".encode("utf-16-le"), 2),
  "UTF-16, big": (f"{Q}\n{Q}".encode("utf-16-be"), 2),
  "row per line": (f"{GRID}\n", 1),
  "row per line, twice": (f"{GRID}\n\n{GRID}", 2),
  "title per puzzle": (f"Grid 01\n{GRID}\nNo. 123456\n{GRID}\n", 2),
  "sdk": (f"#AMe\n#CHard\n[Puzzle]\n{GRID}\n[State]\n{GRID}\n", 1),
  "ss": ("*---*\n" + _framed("|{6}|{7}|", "\n|---+---|") + "\n*---*", 1),
  "boxes": (_framed("{0} {1} {2} | {3} {4} {5}", "\n------+------"), 1),
  "bands": (_framed("{6}{7}", "\n"), 1),
  "dashes between bands": (_framed("{6}{7}", "\n------"), 1),
  "dashes for blanks": (GRID.replace(".", "-"), 1),
  "spaces for blanks": (GRID.replace(".", " "), 1),
  "spaces cut at the end": (
    "\n".join(f"{row.replace('.', ' ')}".rstrip() or "0" * 6 for row in ROWS),
    1,
  ),
  "cells of a sheet": (
    "\n".join("\t".join(c.strip(".") for c in row) for row in ROWS),
    1,
  ),
  "cells of a CSV": ("\n".join(map(",".join, ZERO_ROWS)), 1),
  "JSON": (str([[int(cell) for cell in row] for row in ZERO_ROWS]), 1),
  "markdown": (
    "\n".join(f"|{'|'.join(row.replace('.', ' '))}|" for row in ROWS),
    1,
  ),
  "header in capitals": (f"Question,Solution\n{Q},\n", 1),
  "header of the field": (f"quizzes,solutions\n{Q},\n", 1),
  "Kaggle": (f"id,puzzle,solution,clues\n1,{Q},{SOLUTION},13\n", 1),
  "index": (f",question\n0,{Q}\n1,{Q}\n", 2),
  "trailing comma": (f"question,\n{Q},\n", 1),
  "spaces after commas": (f"id, question\n1, {Q}\n", 1),
  "semicolons": (f"sep=;\nquestion;answer\n{Q};\n", 1),
  "tabs": (f"question\tanswer\n{Q}\t\n", 1),
  "more columns than the header": (f"question,a,b\n{Q},1,2,3\n", 1),
  "quoted lines": (f'question,note\n{Q},"two\nlines"\n{Q},x\n', 2),
  "quoted grid": (f'question,note\n"{GRID}",a\n{Q},b\n', 2),
  "open quotation": (f'question,note\n"{Q},a\n{Q},b\n"{Q}",c\n', 3),
  "no header": (f"1,{Q},{SOLUTION}\n2,{Q},{SOLUTION}\n", 2),
  "a title like a header": (f"Puzzle\n{GRID}\n", 1),
  "a title like a longer header": (f"Puzzle,5 stars\n{GRID}\n", 1),
  "complete": (f"{SOLUTION}\n", 1),
  "empty": ("." * 36, 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_puzzles_as_people_write_them(tmp_path, form):
  content, count = FORMS[form]
  found = _read(tmp_path, content)
  assert len(found) == count, found
  expected = {"complete": SOLUTION, "empty": "." * 36}.get(form, Q)
  for text in found:
    same = text.translate(str.maketrans("0*_-xX? ", "." * 8))
    assert same == expected, text


@pytest.mark.parametrize(
  ("content", "faults"),
  [
    (
      "\n".join(ROWS[:5]) + f"\n\n{GRID}\n",
      ["p.txt line 1: a puzzle begins that has 5 rows of 6 cells, expected 6"],
    ),
    (
      f"{GRID}\n{ROWS[0]}\n{Q}\n",
      ["p.txt line 7: question has 6 characters, expected 36: '.32.1.'"],
    ),
    (
      f"{ROWS[0]}\n{ROWS[1]}\n\n{GRID}",  # one band, then a puzzle
      ["p.txt line 1: a puzzle begins that has 2 rows of 6 cells, expected 6"],
    ),
    (f"{Q} {Q}\n", ["p.txt line 1: question has 73 characters, expected 36"]),
    (f"{Q}7\n{Q}", ["p.txt line 1: question has 37 characters, expected 36"]),
    (f'question,note\n"{Q}1,a\n{Q},b\n', ["p.txt line 2: is not CSV"]),
    ("question,id\n,1\n", ["p.txt line 2: question has 0 characters"]),
    ("question\n320000000000000000000000000\n", ["taken it for a number?"]),
    ("question\n3.21E+34\n", ["taken it for a number? import it as text"]),
    (f"{Q[:9]}\0{Q[10:]}\n", ["p.txt line 1: has a NUL character: '.32"]),
    (f"{SOLUTION[:-1]}6", ["the digit 6 more than once in row 6"]),
  ],
)
def test_a_fault_is_one_line_with_its_number(tmp_path, content, faults):
  found = _read(tmp_path, content)
  bad = [text for text in found if len(text) != 36]
  assert len(bad) == len(faults)
  for fault, part in zip(bad, faults, strict=True):
    assert part in fault
    assert fault.isprintable()
  assert all(len(text) == 36 for text in found if text not in bad)


def test_prose_is_passed_over_and_told(tmp_path, capfd):
  assert _read(tmp_path, f"hello\n{Q}\nso long\n") == [Q]
  assert capfd.readouterr().err == (
    "passed over 2 lines without a puzzle (first p.txt line 1: 'hello')\n"
  )


def test_a_maze_has_spaces_and_no_comments(tmp_path):
  rows = ["  S ", "##  ", " G  "]
  maze = "".join(rows)
  for content in ("\n".join(rows), "  S\n##\n G\n", f"{maze}\n", f"{maze}\t\n"):
    assert _read(tmp_path, content, MAZE) == [maze]
  (fault,) = _read(tmp_path, f"#{maze}", MAZE)
  assert "line 1: question has 13 characters, expected 12" in fault


def test_text_in_python_and_on_the_command_line():
  tokens = inputs.tokens_of(Q, LOOK, DATA, "puzzle 1").tolist()
  for text in (GRID, _framed("{6}|{7}", "\n---+---"), f"  {Q}\n"):
    assert inputs.tokens_of(text, LOOK, DATA, "puzzle 1").tolist() == tokens
    (block,) = inputs.read_blocks(text, LOOK, DATA, num_rows=1)
    assert block.texts == (Q,)
