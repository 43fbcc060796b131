"""Weights of another ARC run, whose table may have other rows in front."""

import dataclasses
import functools
import json
import re

import jax
import numpy as np
import pytest
import saved_run
import tiny

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import identifiers
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.evaluation import evaluate
from trm_jax.runtime import checkpoint_metadata, program, restore
from trm_jax.runtime import checkpoints as checkpoints_lib


def _config(**data):
  config = tiny.arc_config_dict(**data)
  config.eval.supervision_steps = 1
  return config_lib.from_config_dict(config)


@functools.cache
def _run(**data):
  return program.load(_config(**data))


@pytest.fixture(name="old", scope="module")
def _old(tmp_path_factory):
  return saved_run.save(_run(), tmp_path_factory.mktemp("arc"), {1: 0.5})


def _permuted(workdir, to):
  """Copies a run; the rows of its table come in another order."""
  run = _run()
  names = run.task.identifiers
  order = np.random.default_rng(0).permutation(len(names) - 1) + 1
  order = np.concatenate([[0], order])
  task = dataclasses.replace(
    run.task, identifiers=[names[row] for row in order]
  )
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    state = checkpoints.restore(1, run.program.abstract_state())
  table = np.array(state.puzzle_table)
  table[: len(order)] = table[order]  # the rest is zeros
  with checkpoints_lib.Checkpoints(
    str(to), run.program.config.checkpoint
  ) as saved:
    saved.save(
      state.replace(
        puzzle_table=jax.device_put(table, state.puzzle_table.sharding)
      ),
      checkpoint_metadata.make_metadata(run.program.config, task, "data", 1),
      step=1,
    )
  path = restore.identifiers_path(str(to))
  identifiers.write(path, task.identifiers)
  return path


def _submission(workdir):
  path = arc_evaluation.folder(str(workdir), 1) / arc_evaluation.SUBMISSION_FILE
  return json.loads(path.read_text())


def _same_cells(report, names, other, other_names):
  """Share of cells that two evaluations answer alike, variant by variant."""
  answers = []
  for some, rows in ((report, names), (other, other_names)):
    ids = some.first_batch["puzzle_ids"].tolist()
    assert len(set(ids)) == some.num_puzzles  # all in one batch
    last = np.asarray(some.first_answers)[-1]
    answers.append(dict(zip([rows[row] for row in ids], last, strict=True)))
  assert answers[0].keys() == answers[1].keys()
  return np.mean([answers[0][name] == answers[1][name] for name in answers[0]])


def test_rows_in_another_order_give_the_same_evaluation(tmp_path, old):
  path = _permuted(old, tmp_path)
  with pytest.raises(errors.UserError) as caught:
    restore.ema_weights(*_run(), str(tmp_path))
  row, there, here = re.search(
    r"other puzzles: row (\d+) is '(.*)' there, '(.*)' here;",
    str(caught.value),
  ).groups()
  names = _run().task.identifiers
  shuffled = json.loads(path.read_text())
  assert (shuffled[int(row)], names[int(row)]) == (there, here)
  assert shuffled[: int(row)] == names[: int(row)]

  # The error's own advice.
  advice = re.search(r"--config\.data\.identifiers=(\S+)", str(caught.value))
  config = _config(identifiers=advice.group(1))
  expected = evaluate.evaluate_workdir(_config(), str(old))
  report = evaluate.evaluate_workdir(config, str(tmp_path))
  for name, values in expected.means.items():
    np.testing.assert_allclose(report.means[name], values, rtol=1e-5)
  assert report.summary.metrics == expected.summary.metrics
  assert _submission(tmp_path) == _submission(old)
  assert _same_cells(report, shuffled, expected, names) > 0.999

  # It depends on the rows: with those of others, answers are others.
  run = program.load(config)
  assert run.task.identifiers == shuffled
  weights = restore.ema_weights(*_run(), str(old)).weights
  report = evaluate.Evaluator(*run, str(tmp_path))(weights, 1)
  assert _same_cells(report, shuffled, expected, names) < 0.9


def test_a_checkpoint_that_learned_the_test_answers(tmp_path, old, capfd):
  trained = restore.ema_weights(*_run(), str(old))
  evaluate.Evaluator(*_run(), "", trained.learned)
  assert "WARNING" not in capfd.readouterr().err
  # Trained to solve "training", which leaves "evaluation" to learn from.
  other = _run(test_subset="training")
  assert other.task.identifiers == _run().task.identifiers
  saved_run.save(_run(), tmp_path, {1: 0.5}, task=other.task)
  trained = restore.ema_weights(*_run(), str(tmp_path))
  evaluator = evaluate.Evaluator(*_run(), "", trained.learned)
  (warning,) = capfd.readouterr().err.splitlines()
  assert warning.startswith(
    "WARNING: training saw the test answers of 2 of the 2 evaluation tasks"
    " (evaluation"
  )
  assert [f"WARNING: {text}" for text in evaluator._warnings] == [warning]
  # A run that starts from it hands that on.
  saved = checkpoint_metadata.make_metadata(
    _run().program.config,
    _run().task,
    "data",
    1,
    learned_before=trained.learned,
  )
  assert set(saved.learned) >= {*other.task.learned, *_run().task.learned}
