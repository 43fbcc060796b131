"""What a trial's folder says of it, handed on to the study."""

import difflib
import math
from collections.abc import Mapping
from typing import Any

import optuna
from etils import epath

from launch.sweeps import study as study_lib
from launch.sweeps import trial_process
from trm_jax import errors


class Progress:
  """Evaluations and end of a trial; all that was read before is known."""

  def __init__(
    self,
    study: study_lib.Study,
    trial: optuna.trial.Trial,
    workdir: epath.Path,
  ):
    """Reads nothing yet.

    Args:
      study: that the trial is of.
      trial: that runs.
      workdir: of the trial.
    """
    self._study = study
    self._metric = study.plan.sweep.metric
    self._trial = trial
    self._workdir = workdir
    self._title = study.plan.title(trial.number, trial.params)
    self._last_step = study.plan.last_step(trial.params)
    self._known = study.reported_steps(trial.number)
    # Noted before the process is told: a kill in between changes nothing.
    self.is_pruned = bool(trial.user_attrs.get(study_lib.IS_PRUNED))

  def say(self, text: str) -> None:
    """Prints a line about the trial."""
    print(f"{self._title} {text}", flush=True)

  def read(self) -> bool:
    """Reports new evaluations, and decides whether to prune.

    Returns:
      Whether there was any.

    Raises:
      UserError: the evaluations do not have the metric.
    """
    new = [
      row
      for row in trial_process.evaluations(self._workdir)
      if row["step"] not in self._known
    ]
    for row in new:
      step, value = row["step"], self._value(row)
      self._known.add(step)
      self._trial.report(value, step)
      self.say(f"step {step}: {self._metric}={value:.4f}")
      # At the last step pruning would save nothing and cost the result.
      if step < self._last_step and not self.is_pruned:
        self.is_pruned = self._trial.should_prune()
        if self.is_pruned:
          self._trial.set_user_attr(study_lib.IS_PRUNED, True)
    return bool(new)

  def conclude(self) -> bool:
    """Ends the trial if its folder says how; nothing may run in it.

    Returns:
      Whether it has ended: with a result, or pruned.
    """
    result = trial_process.result(self._workdir)
    if result is not None:
      self._conclude_with(result)
    elif self.is_pruned:
      self.say(f"is pruned at step {max(self._known)}")
      self._study.end(self._trial, study_lib.PRUNED)
    return result is not None or self.is_pruned

  def fail(self, reason: str) -> None:
    """Ends the trial as failed."""
    self.say(f"failed: {reason}")
    self._study.end(self._trial, study_lib.FAILED, reason=reason)

  def note_minutes(self, minutes: float) -> None:
    """Writes down how long the trial has run."""
    self._trial.set_user_attr(study_lib.MINUTES, minutes)

  def _conclude_with(self, result: Mapping[str, Any]) -> None:
    value = self._value(result["metrics"])
    if math.isnan(value):
      self.fail(f"its result's {self._metric} is not a number")
      return
    self.say(f"ends at step {result['step']}: {self._metric}={value:.4f}")
    self._study.end(self._trial, study_lib.COMPLETE, value=value)

  def _value(self, metrics: Mapping[str, Any]) -> float:
    if self._metric not in metrics:
      names = sorted(set(metrics) - {"step", "group"})
      close = difflib.get_close_matches(self._metric, names, n=1)
      raise errors.UserError(
        f"the sweep's metric {self._metric!r} is not in the evaluations, which"
        f" have {', '.join(names)}"
        + (f"; did you mean {close[0]!r}?" if close else "")
        + " (then with another --workdir)"
      )
    return trial_process.number(metrics[self._metric])
