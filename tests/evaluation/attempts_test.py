"""Rollouts in an evaluation: the table of steps and attempts, and the rules."""

import dataclasses

import numpy as np
import pytest
import tiny

from trm_jax import config as config_lib
from trm_jax.core import eval_step
from trm_jax.data import task as task_lib
from trm_jax.evaluation import attempts, evaluate, report
from trm_jax.runtime import mesh, program, setting_checks


@pytest.mark.parametrize(
  ("successes", "total", "low", "high"),
  [
    # R: binom::binom.wilson(x, n), to four digits.
    (8, 10, 0.4902, 0.9433),
    (0, 10, 0.0, 0.2775),
    (10, 10, 0.7225, 1.0),
    (500, 1000, 0.4691, 0.5309),
    (0, 0, 0.0, 1.0),
  ],
)
def test_wilson_intervals(successes, total, low, high):
  found = attempts.wilson_interval(successes, total)
  assert found == pytest.approx((low, high), abs=1e-4)


def _config(**knobs):
  config = tiny.config_dict()
  config.eval.solver = "rollouts"
  config.eval.rollouts = 4
  config.eval.update(knobs)
  return config_lib.from_config_dict(config)


def _sums():
  return {
    "count": np.full(4, 10.0),
    "rollouts_chosen": np.arange(12).reshape(3, 4) / 2,
    "rollouts_any": np.arange(12.0).reshape(3, 4) / 1.5,
    "rollouts_steps": 10.0 * np.outer([1, 2, 4], [1, 2, 3, 4]),
  }


def test_the_table_has_powers_of_two_and_all_attempts():
  table = attempts.AttemptTable.of(_sums(), _config())
  rows = list(table.rows())
  assert [(row.steps, row.attempts) for row in rows] == [
    (steps, number) for steps in (1, 2, 4) for number in (1, 2, 4)
  ]
  last = rows[-1]
  assert last.chosen.value == pytest.approx(0.55)
  assert last.chosen.low < 0.55 < last.chosen.high
  assert last.any_.value == pytest.approx(11 / 15)
  # 4 attempts of 4 steps of T cycles of 2 calls.
  calls = 4 * 4 * 2 * _config().model.recursion_cycles
  assert last.calls == calls
  head, names, *lines = table.lines()
  assert "chosen by confidence; 95 % intervals" in head
  assert names.split() == [
    *("steps", "attempts", "chosen", "any", "correct", "calls/puzzle"),
  ]
  assert len(lines) == 9
  assert lines[-1].split()[:3] == ["4", "4", "55.00%"]
  assert lines[-1].split()[-1] == str(calls)


def test_without_known_answers_there_is_no_table():
  sums = {**_sums(), "count": np.zeros(4)}
  assert attempts.AttemptTable.of(sums, _config()) is None


def _answers(questions, labels, made, halt_logits):
  made, halt_logits = np.array(made, np.uint8), np.array(halt_logits)
  return eval_step.Answers(
    questions=np.array(questions, np.uint8),
    labels=np.array(labels, np.int32),
    answers=made[0],
    halt_logits=halt_logits[0],
    steps=np.ones(len(questions), np.int32),
    rows=np.ones(len(questions), bool),
    attempts={"answers": made, "halt_logits": halt_logits},
  )


def test_the_rules_are_reported_separately():
  """Of three puzzles, one has no valid attempt and one a wrong valid one."""
  scorer = report.RulesScorer(
    task_lib.Rules(lambda x, y: (x == y).all(axis=1), "copy")
  )
  scorer.observe(
    0,
    {"rows": np.float32([3])},
    _answers(
      [[1], [2], [3]],
      [[1], [2], [9]],
      [[[5], [5], [3]], [[1], [6], [3]]],
      [[9.0, 9, 9], [0, 0, 0]],
    ),
  )
  summary = scorer.summary()
  assert summary.metrics == pytest.approx(
    {"valid_accuracy": 1 / 3, "any_valid": 2 / 3, "with_rules": 1 / 3}
  )
  assert [line.split(":")[0] for line in summary.lines[1:]] == [
    "with the rules"
  ] * 2


@pytest.fixture(scope="module", name="run")
def _run():
  run = program.load(tiny.config())
  weights = mesh.create_state(run.program.init, run.program.mesh).ema_weights
  return run, weights


@pytest.mark.parametrize(
  ("knobs", "rows"),
  [
    ({"rollout_variation": "symmetries", "rollout_selection": "rules"}, 12),
    (
      {
        "rollout_variation": "starts",
        "rollout_selection": "first",
        "rollout_halting": "attempt",
        "halt_threshold": 0.006,
      },
      12,
    ),
    ({"rollout_halting": "puzzle", "halt_threshold": 0.006}, 1),
  ],
)
def test_an_evaluation_prints_the_table(run, tmp_path, knobs, rows):
  (built, task), weights = run
  config = _config(supervision_steps=8, **knobs)
  built = dataclasses.replace(built, config=config)
  result = evaluate.Evaluator(built, task, str(tmp_path))(weights, 0)
  text = report.format_report(result, config.eval.report_steps).splitlines()
  start = next(i for i, line in enumerate(text) if line.startswith("exact by"))
  table = text[start + 2 : start + 2 + rows]
  assert [line.split()[0] for line in table] == (
    [n for n in "1248" for _ in range(3)] if rows > 1 else ["8"]
  )
  assert text[start + 2 + rows :][0].endswith("valid solution")
  assert result.attempts.num_puzzles == 12
  final = result.attempts.chosen[-1, -1] / 12
  assert final == pytest.approx(result.final["exact_accuracy"])
  assert result.numbers[-1] == 4
  assert result.axis == "rollouts"


@pytest.mark.parametrize(
  ("knobs", "words"),
  [
    ({"rollout_selection": "luck"}, "first, residual, vote, rules"),
    ({"rollout_variation": "luck"}, "noise, symmetries, starts"),
    ({"rollout_halting": "luck"}, "never, attempt, puzzle"),
  ],
)
def test_unknown_names_are_refused(knobs, words):
  with pytest.raises(config_lib.errors.UserError, match=words):
    setting_checks.check_names(_config(**knobs))


def test_first_needs_attempts_that_halt():
  with pytest.raises(config_lib.errors.UserError, match="rollout_halting"):
    setting_checks.check_names(_config(rollout_selection="first"))


def test_rules_need_a_game_with_rules():
  config = _config(rollout_selection="rules")
  config = config_lib.changed(config, {"data.task": "grid"})
  with pytest.raises(config_lib.errors.UserError, match="'grid' has none"):
    setting_checks.check_names(config)
