"""Results of evaluations: scores by the rules, numbers and text."""

import dataclasses

import numpy as np
import pytest

from trm_jax.core import eval_step
from trm_jax.data import task as task_lib
from trm_jax.data.maze import rules as maze_rules
from trm_jax.evaluation import report


def _result(**summary):
  names = (
    *("exact_accuracy", "cell_accuracy", "halt_accuracy", "answer_loss"),
    *("steps", "count"),
  )
  return report.EvalResult(
    num_puzzles=4,
    means={name: np.array([0.25, 0.5]) for name in names},
    seconds=1.0,
    first_batch={},
    first_answers=None,
    axis="steps",
    numbers=(1, 2),
    summary=report.ScoreSummary(**summary),
  )


def test_the_score_is_exact_accuracy_unless_the_summary_names_another():
  assert _result().score == 0.5
  voted = _result(metrics={"pass@2": 0.75}, score="pass@2")
  assert voted.score == 0.75
  assert voted.final["exact_accuracy"] == 0.5
  assert "pass@2" not in voted.after(1)


def test_the_text_has_the_steps_the_summary_and_the_warnings():
  found = _result(lines=("75 % are fine",))
  assert found.warned(()).summary == found.summary
  text = report.format_report(found.warned(["but beware"]), (1, 2))
  lines = text.splitlines()
  assert lines[1].split()[:2] == ["1", "25.00%"]
  assert lines[2].split()[:2] == ["2", "50.00%"]
  assert lines[3:] == ["  75 % are fine", "  WARNING: but beware"]


def test_unknown_answers_have_no_numbers():
  found = dataclasses.replace(
    _result(), means=_result().means | {"count": np.array([0, 0])}
  )
  lines = report.format_report(found, (2,)).splitlines()
  assert lines[1].split(maxsplit=1) == [
    "2",
    "the correct answers are not known",
  ]


def test_rollouts_are_shown_by_powers_of_two_and_the_last():
  found = dataclasses.replace(
    _result(),
    axis="rollouts",
    numbers=tuple(range(1, 7)),
    means={name: np.ones(6) for name in _result().means},
  )
  assert found.shown((16,)) == (1, 2, 4, 6)
  text = report.format_report(found, ())
  assert text.splitlines()[0].split()[0] == "rollouts"


def test_adaptive_halting_has_one_entry_and_the_mean_steps():
  found = dataclasses.replace(
    _result(),
    axis="adaptive",
    numbers=(16,),
    means={name: np.array([2.5]) for name in _result().means},
  )
  assert found.final["steps"] == 2.5
  lines = report.format_report(found, (1, 4)).splitlines()
  assert lines[1].split()[0] == "16"
  assert lines[2:] == ["  mean ACT steps 2.50"]


# --- by the rules ------------------------------------------------------------


def _observe(scorer, questions, answers, rows, exact=0.0):
  """Passes a batch to a scorer, with the sums of its real rows."""
  rows = np.array(rows, bool)
  scorer.observe(
    0,
    {"rows": np.float32([rows.sum()]), "exact_accuracy": np.float32([exact])},
    eval_step.Answers(
      questions=np.array(questions, np.uint8),
      labels=np.array(answers, np.int32),
      answers=np.array(answers, np.uint8),
      halt_logits=np.zeros(len(rows), np.float32),
      steps=np.ones(len(rows), np.int32),
      rows=rows,
    ),
  )


def test_valid_answers_are_counted_over_batches_without_padding():
  seen = []

  def is_copy(questions, answers):
    seen.append(questions.tolist())
    return (questions == answers).all(axis=1)

  scorer = report.RulesScorer(task_lib.Rules(is_copy, "copy"))
  assert scorer.first_batch == 0
  assert scorer.sums == {}
  _observe(scorer, [[1], [9], [2]], [[1], [9], [3]], [True, False, True], 1)
  _observe(scorer, [[4], [0]], [[4], [0]], [True, False], 1)
  _observe(scorer, [[5], [0]], [[6], [0]], [True, False])
  assert seen == [[[1], [2]], [[4]], [[5]]]
  assert scorer.sums == {"rows": [4.0], "exact_accuracy": [2.0]}
  assert scorer.progress() == ""
  assert scorer.summary() == report.ScoreSummary(
    metrics={"valid_accuracy": 2 / 4}, lines=("50.00% are a copy",)
  )


def test_a_mirrored_path_is_valid():
  def tokens(*lines):
    return [maze_rules.CHARSET.index(cell) + 1 for cell in "".join(lines)]

  maze = tokens("S   ", "    ", "    ", "   G")
  answers = [
    tokens("S   ", "o   ", "o   ", "oooG"),
    tokens("Sooo", "   o", "   o", "   G"),  # its mirror image: as short
    tokens("Soo ", " oo ", " o  ", " ooG"),  # a detour
    maze,
  ]
  scorer = report.RulesScorer(
    task_lib.Rules(
      lambda x, y: maze_rules.is_shortest_path(x, y, rows=4, cols=4),
      "valid shortest path",
    )
  )
  _observe(scorer, [maze] * 4, answers, [True] * 4)
  assert scorer.summary().metrics["valid_accuracy"] == pytest.approx(2 / 4)


def test_a_plain_scorer_adds_up_the_metrics_alone():
  scorer = report.Scorer()
  _observe(scorer, [[1]], [[1]], [True], 1)
  assert scorer.sums == {"rows": [1.0], "exact_accuracy": [1.0]}
  assert scorer.summary() == report.ScoreSummary({}, "exact_accuracy")
