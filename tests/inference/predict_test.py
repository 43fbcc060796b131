"""Prediction of rows: what is written, told and refused, without a network."""

import csv
import gzip
import io
import subprocess
import sys

import numpy as np
import pytest
import solver_stand_in
import tiny

from trm_jax import errors
from trm_jax.data import tasks
from trm_jax.data.sudoku import generator as sudoku_generator
from trm_jax.inference import outputs, predict
from trm_jax.runtime import program

HEADER = "question,answer,confidence,steps,valid,error"
QUESTION = "1..4..1..1.34..."
ANSWER = "1234" + "3412" + "2143" + "4321"
ROW = f"{QUESTION},{ANSWER},0.7500,3,yes,"


def _solver(**settings):
  config = solver_stand_in.changed(tiny.config(), "eval", **settings)
  return solver_stand_in.of(solver_stand_in.SudokuStandIn, config)


def _questions(count):
  tokens, _ = sudoku_generator.generate(
    count, box_rows=2, box_cols=2, num_clues=6, seed=5
  )
  return ["".join(".1234"[token - 1] for token in row) for row in tokens]


def _write(tmp_path, rows, name="puzzles.csv"):
  path = tmp_path / name
  path.write_text("\n".join(["question", *rows]))
  return str(path)


def _read(path):
  return list(csv.DictReader(io.StringIO(path.read_text())))


def _error(solver, source, output) -> str:
  with pytest.raises(errors.UserError) as caught:
    predict.predict_file(solver, str(source), str(output))
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_a_row_for_every_row_and_the_bad_ones_told(tmp_path, capfd):
  rows = [QUESTION, "12", *_questions(5), "a" + QUESTION[1:], QUESTION]
  output = tmp_path / "answers.csv"
  message = _error(_solver(), _write(tmp_path, rows), output)
  assert message == (
    "2 of 9 rows were invalid (first puzzles.csv line 3: question has 2"
    " characters, expected 16: '12'); the answers to the others are in"
    f" {output}, see its column `error`"
  )
  lines = output.read_text().splitlines()
  assert lines[0] == HEADER
  assert lines[1] == lines[-1] == ROW
  assert lines[2].startswith("12,,,,,")
  written = _read(output)
  assert [row["question"] for row in written] == rows
  for row in written:
    if row["error"]:
      assert not row["answer"] + row["confidence"] + row["steps"] + row["valid"]
    else:
      assert row["valid"] == "yes"
  assert "question has 'a' at position 1" in written[7]["error"]
  told = capfd.readouterr()
  assert told.out == ""
  assert (
    "7 puzzles answered by runs/stand_in, 7 (100.00%) of them a valid solution,"
    " mean confidence 75.0%, mean ACT steps 3.0" in told.err
  )
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    "answers.csv",  # and no draft
    "puzzles.csv",
  ]


@pytest.mark.parametrize("solver", ["fixed", "adaptive"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_size_of_a_batch_makes_no_difference(
  tmp_path, batch_size, solver, monkeypatch
):
  rows = [*_questions(6), "12", "34", "56", *_questions(2)]
  source = _write(tmp_path, rows)
  outputs = []
  for size, number in ((batch_size, 2), (100, 1)):
    monkeypatch.setattr(program, "PUZZLES_PER_SLOT", number)
    settings = _solver(solver=solver, batch_size=size)
    outputs.append(tmp_path / f"{size}.csv")
    _error(settings, source, outputs[-1])
  assert outputs[0].read_bytes() == outputs[1].read_bytes()
  assert len(_read(outputs[0])) == len(rows)


def test_a_puzzle_in_and_its_answer_printed(capfdbinary):
  predict.predict_file(_solver(), QUESTION, "-")
  told = capfdbinary.readouterr()
  assert told.out.decode() == f"{HEADER}\n{ROW}\n"
  assert b"1 puzzle answered by" in told.err


def test_from_pipe_to_pipe(monkeypatch, capfdbinary):
  content = f"{QUESTION}\n12\n".encode()
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
  message = _error(_solver(), "-", "-")
  assert "1 of 2 rows were invalid (first standard input line 2" in message
  assert "the answers to the others are in standard output" in message
  lines = capfdbinary.readouterr().out.decode().splitlines()
  assert lines[:2] == [HEADER, ROW]
  assert lines[2].startswith("12,,,,,")
  assert len(lines) == 3


def test_a_zipped_answer(tmp_path):
  path = tmp_path / "answers.csv.gz"
  predict.predict_file(_solver(), QUESTION, str(path))
  assert gzip.decompress(path.read_bytes()).decode() == f"{HEADER}\n{ROW}\n"


def test_the_answer_is_the_networks_even_against_a_clue(tmp_path):
  class Wrong(solver_stand_in.StandIn):
    """Answers another puzzle's solution, with a cell of padding."""

    def answer(self, tokens, puzzle_id):
      digits = "4321" * 4
      return np.array([0, *(int(digit) + 1 for digit in digits[1:])]), 0.25

  solver = solver_stand_in.of(Wrong, tiny.config())
  path = tmp_path / "answers.csv"
  predict.predict_file(solver, QUESTION, str(path))
  assert path.read_text().splitlines()[1] == (
    f"{QUESTION}, {('4321' * 4)[1:]},0.2500,3,no,"
  )


def test_own_grids_have_no_rules(tmp_path, capfd):
  config = solver_stand_in.changed(
    tiny.config(), "data", task="grid", grid_rows=1, grid_cols=2
  )
  look = tasks.look(config.data, ("?", *'",'), 2)
  solver = solver_stand_in.of(solver_stand_in.Echo, config, look=look)
  path = tmp_path / "answers.csv"
  predict.predict_file(solver, '",', str(path))
  (row,) = _read(path)
  assert row == {
    "question": '",',
    "answer": '",',
    "confidence": "0.5000",
    "steps": "3",
    "valid": "",
    "error": "",
  }
  assert "valid" not in capfd.readouterr().err


# --- nothing half-written ----------------------------------------------------


def _old(tmp_path):
  path = tmp_path / "answers.csv"
  path.write_text("old")
  return path


def _assert_untouched(path):
  assert path.read_text() == "old"
  assert not list(path.parent.glob(".*"))  # no draft


def test_nothing_is_written_if_no_row_can_be_read(tmp_path):
  output = _old(tmp_path)
  message = _error(_solver(), _write(tmp_path, ["12", "34"]), output)
  assert message == (
    "all 2 rows were invalid, nothing is written; first puzzles.csv line"
    " 2: question has 2 characters, expected 16: '12'"
  )
  assert _error(_solver(), "a" * 16, output).startswith("--input: question has")
  _assert_untouched(output)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_on_the_way_leaves_what_was_there(
  tmp_path, capfdbinary, error
):
  source = _write(tmp_path, _questions(5))
  output = _old(tmp_path)
  for place in (output, "-"):
    solver = _solver(batch_size=2)
    answer = solver.answer
    left = [3]

    def fails(tokens, puzzle_id, answer=answer, left=left):
      if not left[0]:
        raise error
      left[0] -= 1
      return answer(tokens, puzzle_id)

    solver.answer = fails
    with pytest.raises(error):
      predict.predict_file(solver, source, str(place))
  _assert_untouched(output)
  told = capfdbinary.readouterr()
  assert not told.out + told.err


def test_nobody_reads_any_more():
  """As with | head: one line, and no complaint at the end of the program."""
  program = (
    "import sys; from trm_jax.inference import outputs\n"
    "from trm_jax import errors\n"
    "try:\n"
    "  with outputs.writing('-', input_path='') as file:\n"
    "    sys.stdin.read()\n"
    "    file.write(b'x' * 100)\n"
    "except errors.UserError as error:\n"
    "  sys.exit(str(error))\n"
  )
  with subprocess.Popen(
    [sys.executable, "-c", program],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    process.stdout.close()
    process.stdin.close()
    told = process.stderr.read()
  assert process.returncode == 1
  assert told == "cannot write to standard output: Broken pipe\n"


def test_a_file_that_is_damaged_further_on(tmp_path):
  source = tmp_path / "puzzles.csv.gz"
  content = gzip.compress(f"question\n{QUESTION}\n{QUESTION}\n".encode())
  source.write_bytes(content[:-4])
  output = _old(tmp_path)
  message = _error(_solver(batch_size=1), source, output)
  assert message.startswith("puzzles.csv.gz line 4: cannot be read")
  _assert_untouched(output)


def test_rows_of_other_bytes_keep_no_other_from_being_solved(tmp_path):
  source = tmp_path / "puzzles.csv"
  bad = [b"\xff", b'"12', b"a" * 200_000]
  rows = [b"question", *bad, QUESTION.encode(), *bad[::-1], QUESTION.encode()]
  source.write_bytes(b"\n".join(rows))
  output = tmp_path / "answers.csv"
  message = _error(_solver(batch_size=1), source, output)
  assert message.startswith(
    "6 of 8 rows were invalid (first puzzles.csv line 2: not UTF-8 text, save"
  )
  # Answers can be read by who reads CSV, too.
  written = _read(output)
  assert [row["valid"] for row in written] == (["", "", "", "yes"] * 2)
  assert [bool(row["error"]) for row in written] == [True] * 3 + [False] + (
    [True] * 3 + [False]
  )


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
  solver = _solver()
  solver.answer = None  # is not asked
  source = _write(tmp_path, [QUESTION])
  message = _error(solver, source, tmp_path / "nowhere" / "answers.csv")
  assert f"there is no folder {tmp_path / 'nowhere'}" in message
  assert "which is not a file" in _error(solver, source, tmp_path)
  assert "which is the --input" in _error(solver, source, source)
  monkeypatch.setenv("HOME", str(tmp_path))
  message = _error(solver, "~/puzzles.csv", "~/puzzles.csv")
  assert "which is the --input" in message
  assert len(list(tmp_path.iterdir())) == 1


def test_inputs_without_an_end_and_closed_streams(tmp_path, monkeypatch):
  solver = _solver()
  solver.answer = None  # is not asked
  output = tmp_path / "answers.csv"
  message = _error(solver, "/dev/zero", output)
  assert message.startswith("zero line 1: does not end within")
  monkeypatch.setattr(predict, "_MAX_INVALID", 20)
  message = _error(solver, _write(tmp_path, ["12"] * 1000), output)
  assert "rows were invalid, nothing is written; first puzzles.csv" in message
  assert "the first" in message
  monkeypatch.setattr(sys, "stdin", None)
  assert "standard input is closed" in _error(solver, "-", output)
  monkeypatch.setattr(sys, "stdout", None)
  assert "standard output is closed" in _error(solver, QUESTION, "-")
  assert not output.exists()


# --- pictures ----------------------------------------------------------------


def test_the_first_puzzles_are_drawn_after_the_answers(tmp_path, monkeypatch):
  monkeypatch.setattr(outputs, "MOST_DRAWN", 2)
  source = _write(tmp_path, ["12", QUESTION, "34", QUESTION, QUESTION])
  output = tmp_path / "answers.csv"

  def draw(puzzles):
    assert len(_read(output)) == 5
    assert [puzzle.name for puzzle in puzzles] == ["puzzle_2", "puzzle_4"]
    np.testing.assert_array_equal(puzzles[0].tokens, puzzles[1].tokens)
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    predict.predict_file(_solver(batch_size=2), source, str(output), draw)
