"""ARC evaluations: votes through the solver, killed and continued."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import tiny

from experiments import arc
from tests import scorer
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import eval_step
from trm_jax.data import tasks as tasks_lib
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.evaluation import evaluate
from trm_jax.runtime import mesh, program

STEP = 3


def _config(**evaluation):
  config = arc.get_config("smoke")
  # Batches in which one task ends and the next begins.
  config.data.num_test = 5
  config.eval.batch_size = 12
  config.eval.supervision_steps = 2
  config.model.recursion_cycles = 1
  config.model.compute_dtype = "float32"  # rounding must not change votes
  config.eval.update(evaluation)
  return config_lib.from_config_dict(config)


def _build(config):
  task = tasks_lib.load(config.data)
  return tiny.load_task(config, task, mesh.make_mesh(1))


@functools.cache
def _run(**evaluation):
  # One device: votes must not depend on how rounding differs between layouts.
  return _build(_config(**evaluation))


@functools.cache
def _weights(seed=0):
  """Random weights whose answers are not all the same."""
  run = _run()
  weights = jax.jit(run.program.init)().averaged_weights
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: (
      rng.standard_normal(leaf.shape, np.float32) * leaf.shape[0] ** -0.5
    ),
    jax.device_get(weights),
  )


@functools.cache
def _evaluator(**evaluation):
  return evaluate.Evaluator(*_run(**evaluation), "")


def _evaluate(workdir, weights=None, **evaluation):
  evaluator = _evaluator(**evaluation)  # compiled once
  evaluator._workdir = str(workdir)
  return evaluator(_weights() if weights is None else weights, STEP)


def _submission(workdir, **evaluation):
  path = (
    arc_evaluation.folder(str(workdir), STEP, **evaluation)
    / arc_evaluation.SUBMISSION_FILE
  )
  return json.loads(path.read_text())


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  return workdir, _evaluate(workdir)


class _KilledError(Exception):
  pass


def _killed_after(workdir, monkeypatch, num_batches, **arguments):
  see = arc_evaluation.Election.see
  calls = []

  def dies(self, *args):
    calls.append(1)
    if len(calls) > num_batches:
      raise _KilledError
    return see(self, *args)

  with monkeypatch.context() as patch:
    patch.setattr(arc_evaluation.Election, "see", dies)
    with pytest.raises(_KilledError):
      _evaluate(workdir, **arguments)


def test_every_task_has_an_attempt_at_each_test_input(whole):
  workdir, report = whole
  tasks = _run().task.ballot.tasks
  submission = _submission(workdir)
  assert list(submission) == [task.name for task in tasks]
  for task in tasks:
    assert len(submission[task.name]) == len(task.test)
    for attempts in submission[task.name]:
      assert set(attempts) == {"attempt_1", "attempt_2"}
  assert report.num_puzzles == _run().task.test.num_examples
  assert report.verdict.score == "pass@2"


def test_pass_at_2_is_what_a_scorer_of_its_own_makes_of_the_submission(
  tmp_path,
):
  """The vote is on the tasks' own answers, so that some tasks are solved."""
  run = _run()
  judged = arc_evaluation.Election(
    *run, run.program.test_puzzles(run.task), str(tmp_path), _weights(), 1
  )
  rng = np.random.default_rng(0)
  questions, answers = run.task.test.fetch(
    np.arange(run.task.test.num_examples),
    np.repeat(
      np.arange(run.task.test.num_puzzles),
      np.diff(run.task.test.puzzle_indices),
    ),
  )
  junk = rng.random(len(answers)) < 0.5
  answers = np.where(junk[:, None], rng.permutation(answers), answers)
  size = run.program.config.eval.batch_size
  for number, start in enumerate(range(0, len(questions), size)):
    rows = slice(start, start + size)
    judged.see(
      number,
      {"rows": np.ones(1)},
      _answers(questions[rows], answers[rows], rng),
    )
  verdict = judged.verdict()
  path = (
    arc_evaluation.folder(str(tmp_path), 1) / arc_evaluation.SUBMISSION_FILE
  )
  tasks = {
    task.name: json.loads(arc_tasks.to_json(task))
    for task in run.task.ballot.tasks
  }
  solutions = {
    name: [pair["output"] for pair in task["test"]]
    for name, task in tasks.items()
  }
  score = scorer.score(json.loads(path.read_text()), tasks, solutions)
  assert 0 < verdict.metrics["pass@2"] <= 1
  assert verdict.metrics["pass@2"] == pytest.approx(score)


def _answers(questions, answers, rng):
  return eval_step.Answers(
    questions=questions,
    labels=answers.astype(np.int32),
    answers=answers,
    halt_logits=rng.standard_normal(len(questions)).astype(np.float32),
    steps=np.ones(len(questions), np.int32),
    rows=np.ones(len(questions), bool),
  )


@pytest.mark.parametrize("num_batches", [0, 1, 2])
def test_a_killed_evaluation_goes_on_to_the_same_submission(
  tmp_path, monkeypatch, whole, num_batches, capsys
):
  workdir, expected = whole
  _killed_after(tmp_path, monkeypatch, num_batches)
  report = _evaluate(tmp_path)
  assert _submission(tmp_path) == _submission(workdir)
  assert report.verdict.metrics == expected.verdict.metrics
  assert report.num_puzzles == expected.num_puzzles
  for name, values in expected.means.items():
    np.testing.assert_allclose(report.means[name], values, rtol=1e-6)
  assert ("going on with the evaluation" in capsys.readouterr().out) == (
    num_batches > 0
  )


def test_a_finished_evaluation_is_not_counted_twice(tmp_path, whole):
  workdir, expected = whole
  _evaluate(tmp_path)
  log = arc_evaluation.folder(str(tmp_path), STEP) / arc_evaluation.LOG_FILE
  size = len(log.read_bytes())
  report = _evaluate(tmp_path)
  assert len(log.read_bytes()) == size
  assert _submission(tmp_path) == _submission(workdir)
  assert report.verdict.metrics == expected.verdict.metrics


def test_votes_for_other_weights_or_settings_are_not_mixed(
  tmp_path, monkeypatch, whole, capsys
):
  workdir, _ = whole
  _killed_after(tmp_path, monkeypatch, 2, weights=_weights(seed=5))
  _evaluate(tmp_path)
  assert "other weights" in capsys.readouterr().out
  assert _submission(tmp_path) == _submission(workdir)

  _killed_after(tmp_path, monkeypatch, 0, variants=2)
  assert "counted anew" not in capsys.readouterr().out
  assert _submission(tmp_path) == _submission(workdir)  # left alone


def test_a_quick_look_takes_the_first_tasks_and_variants(tmp_path):
  report = _evaluate(tmp_path, tasks=2, variants=3)
  names = [task.name for task in _run().task.ballot.tasks]
  assert list(_submission(tmp_path, tasks=2, variants=3)) == names[:2]
  assert report.num_puzzles == 6


def test_a_damaged_log_is_named(tmp_path):
  _evaluate(tmp_path)
  log = arc_evaluation.folder(str(tmp_path), STEP) / arc_evaluation.LOG_FILE
  lines = log.read_text().splitlines(keepends=True)
  log.write_text(lines[0] + "x" + "".join(lines[1:]))
  with pytest.raises(errors.UserError, match=r"votes\.jsonl line 2 is damaged"):
    _evaluate(tmp_path)


def test_unknown_solutions_still_give_a_submission(tmp_path, monkeypatch):
  generate = arc_load.generate

  def without_answers(*args, **kwargs):
    subsets = generate(*args, **kwargs)
    subsets["evaluation"] = [
      dataclasses.replace(
        task,
        test=tuple(
          dataclasses.replace(pair, output=None) for pair in task.test
        ),
      )
      for task in subsets["evaluation"]
    ]
    return subsets

  monkeypatch.setattr(arc_load, "generate", without_answers)
  run = _build(_config())
  report = evaluate.Evaluator(*run, str(tmp_path))(_weights(), STEP)
  assert len(_submission(tmp_path)) == 5
  assert report.verdict.metrics == {}
  assert np.isnan(report.score)
  assert np.isfinite(report.final["loss"])


# --- other solvers ---------------------------------------------------------

ADAPTIVE = (("solver", "adaptive"), ("halt_threshold", 1.0))


def test_adaptive_halting_that_never_halts_early_votes_the_same(
  tmp_path, whole, monkeypatch, capsys
):
  """Its batches hold several puzzles for each slot; also after a kill."""
  settings = dict(ADAPTIVE)
  monkeypatch.setattr(program, "PUZZLES_PER_SLOT", 2)
  run = _run(**settings)
  assert run.program.eval_batch_size(run.task) == 24
  _killed_after(tmp_path, monkeypatch, 1, **settings)
  report = _evaluate(tmp_path, **settings)
  assert "going on with the evaluation" in capsys.readouterr().out
  workdir, expected = whole
  assert _submission(tmp_path, solver="adaptive_1") == _submission(workdir)
  assert report.verdict.metrics == expected.verdict.metrics
  assert (report.axis, report.numbers) == ("adaptive", (2,))
  for name, values in expected.means.items():
    np.testing.assert_allclose(
      report.means[name], values[-1:], rtol=1e-5, err_msg=name
    )


def test_one_rollout_without_noise_votes_the_same(tmp_path, whole):
  settings = {"solver": "rollouts", "rollouts": 1, "noise": 0.0}
  report = _evaluate(tmp_path, **settings)
  workdir, expected = whole
  assert _submission(tmp_path, solver="rollouts_1_0_confidence") == _submission(
    workdir
  )
  assert report.verdict.metrics == expected.verdict.metrics


def test_solvers_and_their_settings_keep_votes_of_their_own(
  tmp_path, monkeypatch, capsys, whole
):
  monkeypatch.setattr(program, "PUZZLES_PER_SLOT", 2)
  settings = dict(ADAPTIVE)
  _killed_after(tmp_path, monkeypatch, 1, **settings)
  _evaluate(tmp_path)
  _evaluate(tmp_path, **settings | {"halt_threshold": 0.5})
  assert "counted anew" not in capsys.readouterr().out
  _evaluate(tmp_path, **settings)
  assert "going on with the evaluation" in capsys.readouterr().out
  assert _submission(tmp_path) == _submission(whole[0])
