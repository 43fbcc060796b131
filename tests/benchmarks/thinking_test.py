"""Accuracy against inference cost, of a run with random weights."""

import json

import numpy as np
import pytest

from benchmarks import thinking
from tests import saved_run, tiny
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data.sudoku import generator as sudoku_generator
from trm_jax.data.sudoku import rules as sudoku_rules
from trm_jax.runtime import program, restore

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def workdir(one_device, tmp_path_factory):
  run = program.load(tiny.config())
  folder = tmp_path_factory.mktemp("run")
  return str(saved_run.save(run, folder, {1: 0.5}))


def test_a_cell_without_a_label_is_always_correct():
  puzzles = thinking.Puzzles(
    inputs=np.ones((2, 3), np.uint8), labels=np.array([[1, 2, 0], [1, 2, 3]])
  )
  answers = np.array([[1, 2, 9], [1, 2, 9]])
  assert puzzles.correct(answers).tolist() == [True, False]
  assert puzzles.subset(np.array([False, True])).labels.tolist() == [[1, 2, 3]]


def test_as_many_puzzles_as_wanted_are_new():
  values = tiny.config_dict()
  values.data.update(box_rows=2, box_cols=3, num_clues=14, num_train=300)
  config = config_lib.from_config_dict(values)
  box = {"box_rows": 2, "box_cols": 3}
  puzzles = thinking.unseen(config, 30)
  assert puzzles.inputs.shape == (30, 36)
  train, _ = sudoku_generator.generate_split(
    300, config.data.num_test, **box, num_clues=14, seed=config.data.seed
  )
  kinds = sudoku_generator.fingerprints
  assert not set(kinds(puzzles.inputs, **box)) & set(kinds(train.inputs, **box))
  assert sudoku_rules.is_valid_solution(puzzles.labels, **box).all()


def test_too_few_new_puzzles_are_one_line(workdir, monkeypatch):
  monkeypatch.setattr(
    thinking, "_fingerprints", lambda _, inputs: [1] * len(inputs)
  )
  with pytest.raises(errors.UserError, match="lower --num_puzzles"):
    thinking.unseen(restore.saved_config(workdir), 5)


def _some(config, num_puzzles):
  return thinking._first(program.load(config).task.test, num_puzzles)


def test_halting_is_compared(workdir, capsys, monkeypatch):
  monkeypatch.setattr(thinking, "unseen", _some)
  thinking.main(
    f"halting --workdir={workdir} --num_puzzles=9 --rounds=1"
    " --thresholds 0 1".split()
  )
  first, last = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
  assert (first["steps"], last["steps"]) == (1, 4)
  assert (first["share_of_calls"], last["share_of_calls"]) == (0.25, 1)


def test_rollouts_try_what_is_wrong(workdir, capsys, monkeypatch):
  monkeypatch.setattr(thinking, "unseen", _some)
  monkeypatch.setattr(thinking, "SIGMAS", thinking.SIGMAS[:1])
  thinking.main(
    f"rollouts --workdir={workdir} --num_puzzles=9 --rollouts=2".split()
  )
  found = json.loads(capsys.readouterr().out.splitlines()[-1])
  assert found["wrong"] == 9
  assert len(found["rows"]) == 2 * len(thinking.SIGMAS)
  assert all(set(row["solved"]) == {"1", "2"} for row in found["rows"])
