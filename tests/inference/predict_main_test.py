"""Prediction with a network, as a person types it and beside an evaluation."""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys

import command_line
import folders
import numpy as np
import pytest
import saved_run
import tiny

from trm_jax import config as config_lib
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.evaluation import evaluate
from trm_jax.inference import inputs, predict, solver
from trm_jax.runtime import program

ROOT = pathlib.Path(__file__).parent.parent.parent
BAD = "1..4"


@pytest.fixture(name="sudoku", scope="module")
def _sudoku(tiny_run):
  """A workdir, its network, and the questions of its test set."""
  run, workdir = tiny_run
  return (
    workdir,
    solver.load(workdir),
    [
      "".join(run.task.look.symbols[token] for token in question)
      for question in run.task.test.inputs.tolist()
    ],
  )


def _main(workdir, *arguments, given=None):
  environment = os.environ | {"XLA_FLAGS": command_line.COMPILES_FAST}
  return subprocess.run(
    [
      *(sys.executable, "-m", "trm_jax.main", "--mode=predict"),
      f"--workdir={workdir}",
      *arguments,
    ],
    cwd=ROOT,
    env=environment,
    input=given,
    capture_output=True,
    text=True,
    check=False,
  )


def _check(text, loaded, rows):
  """The rows are the input's, with what the network answers to each."""
  answers = list(csv.DictReader(io.StringIO(text)))
  assert [row["question"] for row in answers] == rows
  expected_answers = iter(
    loaded.solve([question for question in rows if question != BAD])
  )
  for row in answers:
    if row["question"] == BAD:
      assert "question has 4 characters, expected 16" in row["error"]
      continue
    expected = next(expected_answers)
    assert row["answer"] == expected.text
    assert float(row["confidence"]) == pytest.approx(
      expected.confidence, abs=1e-3
    )
    assert row["steps"] == "4"
    assert row["valid"] == ("yes" if expected.valid else "no")
    assert not row["error"]


def test_from_pipe_to_pipe_with_a_bad_row_and_pictures(tmp_path, sudoku):
  workdir, loaded, puzzles = sudoku
  rows = [*puzzles[:3], BAD, puzzles[3]]
  result = _main(
    workdir,
    "--input=-",
    "--output=-",
    f"--pictures={tmp_path / 'pictures'}",
    given="\n".join(["question", *rows]),
  )
  assert result.returncode == 1
  assert result.stderr.splitlines()[-1].startswith(
    "error: 1 of 5 rows were invalid (first standard input line 5: question"
  )
  assert "Traceback" not in result.stderr
  _check(result.stdout, loaded, rows)
  assert len(list((tmp_path / "pictures").glob("*.gif"))) == 4


@pytest.mark.slow
def test_arc_answers_are_those_of_an_evaluation(tmp_path):
  """From JSON without answers, in another order, in other batches."""
  config = tiny.arc_config_dict()
  config.eval.supervision_steps = 2
  config = config_lib.from_config_dict(config)
  run = program.load(config)
  workdir = tmp_path / "run"
  saved_run.save(run, workdir, {1: 0.5})
  evaluate.evaluate_workdir(config, str(workdir))
  path = arc_evaluation.folder(str(workdir), 1) / arc_evaluation.SUBMISSION_FILE
  expected = json.loads(path.read_text())
  attempts = [entry for task in expected.values() for entry in task]
  assert any(entry["attempt_1"] != [[0, 0], [0, 0]] for entry in attempts)

  challenges = {
    task.name: folders.as_json(task)
    for task in run.task.augmentation_table.tasks[::-1]
  }
  for task in challenges.values():
    for pair in task["test"]:
      del pair["output"]
  folders.write_json(tmp_path / "tasks.json", challenges)
  output = tmp_path / "answers.json"
  loaded = solver.load(str(workdir))
  predict.predict_file(loaded, str(tmp_path / "tasks.json"), str(output))
  assert list(json.loads(output.read_text())) == list(challenges)
  assert json.loads(output.read_text()) == expected
  details = json.loads((tmp_path / "answers_details.json").read_text())
  for name, task in challenges.items():
    own = [row for row in run.task.identifiers if row.startswith(name)]
    votes = [entry["votes"] for entry in details[name]["test"]]
    assert votes == [len(own)] * len(task["test"])


def test_a_puzzle_itself(sudoku, capsys):
  _, loaded, puzzles = sudoku
  predict.predict_file(loaded, puzzles[0], "-")
  _check(capsys.readouterr().out, loaded, puzzles[:1])


def test_both_doors_read_the_same(sudoku):
  """A text in a file and a grid in Python become the same tokens."""
  _, loaded, puzzles = sudoku
  settings = (loaded.look, loaded.config.data)
  grid = [list(puzzles[0][i : i + 4]) for i in range(0, 16, 4)]
  np.testing.assert_array_equal(
    inputs.tokens_of(grid, *settings, "grid"),
    inputs.tokens_of(puzzles[0], *settings, "text"),
  )
