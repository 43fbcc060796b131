"""What an evaluation found, as numbers and as text."""

import dataclasses

import numpy as np

from trm_jax.evaluation import report


def _report(**verdict):
  names = (
    *("exact_accuracy", "cell_accuracy", "halt_accuracy", "answer_loss"),
    *("steps", "count"),
  )
  return report.Report(
    num_puzzles=4,
    means={name: np.array([0.25, 0.5]) for name in names},
    seconds=1.0,
    first_batch={},
    first_answers=None,
    axis="steps",
    numbers=(1, 2),
    verdict=report.Verdict(
      **({"metrics": {}, "score": "exact_accuracy"} | verdict)
    ),
  )


def test_the_score_is_exact_accuracy_unless_the_verdict_names_another():
  assert _report().score == 0.5
  voted = _report(metrics={"pass@2": 0.75}, score="pass@2")
  assert voted.score == 0.75
  assert voted.final["exact_accuracy"] == 0.5
  assert "pass@2" not in voted.after(1)


def test_the_text_has_the_steps_the_verdict_and_the_warnings():
  found = _report(lines=("75 % are fine",)).warned(["but beware"])
  lines = report.format_report(found, (1, 2)).splitlines()
  assert lines[1].split()[:2] == ["1", "25.00%"]
  assert lines[2].split()[:2] == ["2", "50.00%"]
  assert lines[3:] == ["  75 % are fine", "  WARNING: but beware"]


def test_without_warnings_a_report_stays_as_it_is():
  found = _report(lines=("fine",))
  assert found.warned(()).verdict == found.verdict


def test_unknown_answers_are_no_numbers():
  found = dataclasses.replace(
    _report(), means=_report().means | {"count": np.array([0, 0])}
  )
  lines = report.format_report(found, (2,)).splitlines()
  assert lines[1].split(maxsplit=1) == ["2", "no right answers are known"]


def test_rollouts_are_told_by_powers_of_two_and_the_last():
  found = dataclasses.replace(
    _report(),
    axis="rollouts",
    numbers=tuple(range(1, 7)),
    means={name: np.ones(6) for name in _report().means},
  )
  assert found.shown((16,)) == (1, 2, 4, 6)
  assert (
    report.format_report(found, ()).splitlines()[0].split()[0] == "rollouts"
  )


def test_adaptive_halting_has_one_entry_and_tells_the_steps():
  found = dataclasses.replace(
    _report(),
    axis="adaptive",
    numbers=(16,),
    means={name: np.array([2.5]) for name in _report().means},
  )
  assert found.final["steps"] == 2.5
  lines = report.format_report(found, (1, 4)).splitlines()
  assert lines[1].split()[0] == "16"
  assert lines[2:] == ["  2.50 steps on average"]
