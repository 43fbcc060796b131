"""ARC evaluations: votes through the solver, and the log they resume from."""

import dataclasses
import errno
import functools
import json
import os
from unittest import mock

import jax
import numpy as np
import pytest
import tiny
from etils import epath

from tests import folders, scorer
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
  # Batches in which one task ends and the next begins.
  config = tiny.arc_config_dict(num_train=6, num_test=5, num_augmentations=4)
  config.eval.batch_size = 8
  config.eval.supervision_steps = 2
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
  weights = jax.jit(run.program.init)().ema_weights
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: (
      rng.standard_normal(leaf.shape, np.float32) * leaf.shape[0] ** -0.5
    ),
    jax.device_get(weights),
  )


@functools.cache
def _evaluate_batch(solver="fixed", **settings):
  """Solves what was not solved before; the rest of an evaluation is real."""
  evaluate_batch = _run(solver=solver, **settings).program.evaluate_batch()
  solved = {}

  def remembered(weights, batch, rows):
    arrays = (batch.inputs, batch.labels, batch.puzzle_ids, rows)
    key = (id(weights), *(np.asarray(array).tobytes() for array in arrays))
    if key not in solved:
      solved[key] = jax.device_get(evaluate_batch(weights, batch, rows))
    return solved[key]

  return remembered


@functools.cache
def _evaluator(**evaluation):
  evaluator = evaluate.Evaluator(*_run(**evaluation), "")
  solver = evaluation if "solver" in evaluation else {}
  evaluator._evaluate_batch = _evaluate_batch(**solver)
  return evaluator


def _evaluate(workdir, weights=None, **evaluation):
  evaluator = _evaluator(**evaluation)
  evaluator._workdir = str(workdir)
  return evaluator(_weights() if weights is None else weights, STEP)


def _path(workdir, name, **evaluation):
  return arc_evaluation.folder(str(workdir), STEP, **evaluation) / name


def _submission(workdir, **evaluation):
  path = _path(workdir, arc_evaluation.SUBMISSION_FILE, **evaluation)
  return json.loads(path.read_text())


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  return workdir, _evaluate(workdir)


class _KilledError(Exception):
  pass


def _killed_after(workdir, monkeypatch, num_batches, **arguments):
  observe = arc_evaluation.ArcEvaluator.observe
  calls = []

  def dies(self, *args):
    calls.append(1)
    if len(calls) > num_batches:
      raise _KilledError
    return observe(self, *args)

  with monkeypatch.context() as patch:
    patch.setattr(arc_evaluation.ArcEvaluator, "observe", dies)
    with pytest.raises(_KilledError):
      _evaluate(workdir, **arguments)


def test_every_task_has_an_attempt_at_each_test_input(whole):
  workdir, report = whole
  tasks = _run().task.augmentation_table.tasks
  submission = _submission(workdir)
  assert list(submission) == [task.name for task in tasks]
  for task in tasks:
    assert len(submission[task.name]) == len(task.test)
    for attempts in submission[task.name]:
      assert set(attempts) == {"attempt_1", "attempt_2"}
  assert report.num_puzzles == _run().task.test.num_examples
  assert report.summary.score == "pass@2"


def test_pass_at_2_is_what_a_scorer_of_its_own_makes_of_the_submission(
  tmp_path,
):
  """The vote is on the tasks' own answers, so that some tasks are solved."""
  run = _run()
  evaluator = _evaluator()
  evaluator._workdir = str(tmp_path)
  scored = evaluator._scorer(_weights(), STEP)
  rng = np.random.default_rng(0)
  questions, answers = folders.everything(run.task.test)
  junk = rng.random(len(answers)) < 0.5
  answers = np.where(junk[:, None], rng.permutation(answers), answers)
  size = run.program.config.eval.batch_size
  for number, start in enumerate(range(0, len(questions), size)):
    rows = slice(start, start + size)
    scored.observe(
      number,
      {"rows": np.ones(1)},
      _answers(questions[rows], answers[rows], rng),
    )
  summary = scored.summary()
  tasks = {
    task.name: json.loads(arc_tasks.to_json(task))
    for task in run.task.augmentation_table.tasks
  }
  solutions = {
    name: [pair["output"] for pair in task["test"]]
    for name, task in tasks.items()
  }
  score = scorer.score(_submission(tmp_path), tasks, solutions)
  assert 0 < summary.metrics["pass@2"] <= 1
  assert summary.metrics["pass@2"] == pytest.approx(score)
  assert [result.name for result in summary.task_results] == list(tasks)


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
  assert report.summary.metrics == expected.summary.metrics
  assert report.num_puzzles == expected.num_puzzles
  for name, values in expected.means.items():
    np.testing.assert_allclose(report.means[name], values, rtol=1e-6)
  assert ("resuming the evaluation" in capsys.readouterr().out) == (
    num_batches > 0
  )


def test_a_finished_evaluation_is_not_counted_twice(tmp_path, whole):
  workdir, expected = whole
  _evaluate(tmp_path)
  log = _path(tmp_path, arc_evaluation.LOG_FILE)
  size = len(log.read_bytes())
  report = _evaluate(tmp_path)
  assert len(log.read_bytes()) == size
  assert _submission(tmp_path) == _submission(workdir)
  assert report.summary.metrics == expected.summary.metrics


@pytest.mark.slow
def test_votes_for_other_weights_or_settings_are_not_mixed(
  tmp_path, monkeypatch, whole, capsys
):
  workdir, _ = whole
  _killed_after(tmp_path, monkeypatch, 1, weights=_weights(seed=5))
  _evaluate(tmp_path)
  assert "different weights" in capsys.readouterr().out
  assert _submission(tmp_path) == _submission(workdir)

  _killed_after(tmp_path, monkeypatch, 0, max_augmentations=2)
  assert "counted anew" not in capsys.readouterr().out
  assert _submission(tmp_path) == _submission(workdir)  # left alone


def test_a_quick_look_takes_the_first_tasks_and_variants(tmp_path):
  report = _evaluate(tmp_path, max_tasks=2, max_augmentations=3)
  names = [task.name for task in _run().task.augmentation_table.tasks]
  part = _submission(tmp_path, max_tasks=2, max_augmentations=3)
  assert list(part) == names[:2]
  assert report.num_puzzles == 6


def test_a_damaged_log_is_named(tmp_path):
  _evaluate(tmp_path)
  log = _path(tmp_path, arc_evaluation.LOG_FILE)
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
  evaluator = evaluate.Evaluator(*_build(_config()), str(tmp_path))
  evaluator._evaluate_batch = _evaluate_batch()
  report = evaluator(_weights(), STEP)
  assert len(_submission(tmp_path)) == 5
  assert report.summary.metrics == {}
  assert np.isnan(report.score)
  assert np.isfinite(report.final["loss"])


# --- other solvers ---------------------------------------------------------


@pytest.mark.slow
def test_adaptive_halting_that_never_halts_early_votes_the_same(
  tmp_path, whole, monkeypatch, capsys
):
  """Its batches hold several puzzles for each slot; also after a kill."""
  monkeypatch.setattr(program, "PUZZLES_PER_SLOT", 2)
  settings = {"solver": "adaptive", "halt_threshold": 1.0}
  run = _run(**settings)
  assert run.program.eval_batch_size(run.task) == 16
  other = _run(**settings | {"halt_threshold": 0.5}).program.solver_config()
  label = run.program.solver_config().label
  assert other.label != label == "adaptive_1"
  _killed_after(tmp_path, monkeypatch, 1, **settings)
  _evaluate(tmp_path)  # with fixed steps: has votes of its own
  report = _evaluate(tmp_path, **settings)
  output = capsys.readouterr().out
  assert "counted anew" not in output
  assert "resuming the evaluation" in output
  workdir, expected = whole
  assert _submission(tmp_path) == _submission(workdir)
  assert _submission(tmp_path, solver="adaptive_1") == _submission(workdir)
  assert report.summary.metrics == expected.summary.metrics
  assert (report.axis, report.numbers) == ("adaptive", (2,))
  for name, values in expected.means.items():
    np.testing.assert_allclose(
      report.means[name], values[-1:], rtol=1e-5, err_msg=name
    )


@pytest.mark.slow
def test_one_rollout_without_noise_votes_the_same(tmp_path, whole):
  settings = {"solver": "rollouts", "rollouts": 1, "noise": 0.0}
  report = _evaluate(tmp_path, **settings)
  workdir, expected = whole
  assert _submission(tmp_path, solver="rollouts_1_0_confidence") == _submission(
    workdir
  )
  assert report.summary.metrics == expected.summary.metrics


# --- the log -----------------------------------------------------------------

HEADER = {"checkpoint": 300, "data": "a1b2", "attempts": 2, "sizes": (3, 4)}


def _entry(k):
  """An entry with awkward texts and numbers."""
  results = [
    {"name": f"täsk{k}\n{number}", "attempts": [[[k, 1]], []], "rank": k}
    for number in range(k % 3)
  ]
  return {
    "sums": {"loss": [0.1 + 0.2, k / 7, 5e-324, -np.inf]},
    "results": results,
  }


def _assert_holds(log, indices, replaced=()):
  assert log.replaced == replaced
  assert log.entries == [_entry(k) for k in indices]


def _append(log, indices):
  for k in indices:
    log.append(_entry(k))


def _written(path):
  with arc_evaluation.EvaluationLog(path, HEADER) as log:
    _append(log, range(4))
  return path.read_bytes()


@pytest.fixture(name="path")
def _log_path(tmp_path):
  return tmp_path / "votes.jsonl"


def test_the_log_reads_what_it_wrote(tmp_path):
  path = tmp_path / "new" / "folder" / "votes.jsonl"
  with arc_evaluation.EvaluationLog(str(path), HEADER) as log:
    _assert_holds(log, [])
    _append(log, [0, 1, 2])
  with arc_evaluation.EvaluationLog(epath.Path(path), HEADER) as log:
    _assert_holds(log, [0, 1, 2])
    _append(log, [3, 4])
  with arc_evaluation.EvaluationLog(path, HEADER) as log:
    _assert_holds(log, range(5))
  assert len(path.read_bytes().splitlines()) == 6


def test_a_log_truncated_anywhere_by_a_kill(path, monkeypatch):
  whole = _written(path)
  ends = [k + 1 for k, byte in enumerate(whole) if byte == ord("\n")]
  sizes = {end + k for end in ends for k in (-1, 0, 1) if end + k <= len(whole)}
  monkeypatch.setattr(os, "fsync", lambda _: None)
  for size in {0, *range(1, len(whole), 31)} | sizes:
    path.write_bytes(whole[:size])
    num_entries = max(0, sum(end <= size for end in ends) - 1)
    with arc_evaluation.EvaluationLog(path, HEADER) as log:
      _assert_holds(log, range(num_entries))
      _append(log, range(num_entries, 4))
    assert path.read_bytes() == whole


def _assert_damaged(path, content, line):
  path.write_bytes(content)
  with pytest.raises(errors.UserError) as caught:
    arc_evaluation.EvaluationLog(path, HEADER)
  assert str(caught.value) == (
    f"{path} line {line} is damaged; delete the file to count the votes of"
    " all tasks anew"
  )
  assert path.read_bytes() == content


def test_any_other_damage_of_a_log_is_named(path):
  whole = _written(path)
  for place in range(0, len(whole) - 1, 3):  # the last line feed: see above
    line = whole[:place].count(b"\n") + 1
    _assert_damaged(path, whole[:place] + b"~" + whole[place + 1 :], line)
  _assert_damaged(path, whole.replace(b'"rank": 2', b'"rank": 0'), 4)
  _assert_damaged(path, whole + b"\n", 6)
  lines = whole.splitlines(keepends=True)
  _assert_damaged(path, b"".join([*lines, lines[-1]]), 6)  # twice
  _assert_damaged(path, b"".join([*lines[:2], *lines[3:]]), 3)  # missing
  for text in (b"\n", b"7\n", b"{}\n", b"[" * 100_000 + b"\n"):
    _assert_damaged(path, text, 1)


@pytest.mark.parametrize(
  ("changes", "names"),
  [
    ({"data": "c3d4"}, ("data",)),
    ({"checkpoint": 600, "attempts": 3}, ("attempts", "checkpoint")),
    ({"new": None}, ("new",)),
  ],
)
def test_a_log_of_another_evaluation_is_replaced(path, changes, names):
  _written(path)
  other = {**HEADER, **changes}
  with arc_evaluation.EvaluationLog(path, other) as log:
    _assert_holds(log, [], names)
    _append(log, [0])
  with arc_evaluation.EvaluationLog(path, other) as log:
    _assert_holds(log, [0])


def test_a_log_of_another_format_is_replaced(path, monkeypatch):
  with monkeypatch.context() as patch:
    patch.setattr(arc_evaluation, "_FORMAT", 0)
    _written(path)
  with arc_evaluation.EvaluationLog(path, HEADER) as log:
    _assert_holds(log, [], ("format",))


def test_what_is_appended_is_on_disk_and_locked(path):
  with arc_evaluation.EvaluationLog(path, HEADER) as log:
    with mock.patch.object(os, "fsync", wraps=os.fsync) as fsync:
      _append(log, [0, 1])
    assert fsync.call_count == 2
    # While the log is open, as after a kill.
    copy = path.with_name("copy.jsonl")
    copy.write_bytes(path.read_bytes())
    with arc_evaluation.EvaluationLog(copy, HEADER) as reader:
      _assert_holds(reader, [0, 1])
    with pytest.raises(errors.UserError, match="another evaluation is writing"):
      arc_evaluation.EvaluationLog(path, HEADER)
    log.append(_entry(2))
  with arc_evaluation.EvaluationLog(path, HEADER) as log:
    _assert_holds(log, range(3))


def test_places_where_a_log_cannot_be_written(path):
  path.write_text("")
  for place in (path.parent, path / "votes.jsonl"):
    with pytest.raises(errors.UserError, match="cannot keep the votes in") as e:
      arc_evaluation.EvaluationLog(place, HEADER)
    assert "\n" not in str(e.value)


class _FullDisk:
  def write(self, _):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk(path):
  with arc_evaluation.EvaluationLog(path, HEADER) as log:
    log.append(_entry(0))
    with (
      mock.patch.object(log, "_file", _FullDisk()),
      pytest.raises(errors.UserError, match="No space left"),
    ):
      log.append(_entry(1))
  with arc_evaluation.EvaluationLog(path, HEADER) as log:
    _assert_holds(log, [0])
