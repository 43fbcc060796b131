"""Runs the trials of a sweep in Optuna's loop; one process is one worker.

A trial is a training in a process and a folder of its own. The folder is named
by the trial's settings: a trial that is retried, by any worker, finds its
checkpoint there and resumes. Optuna's heartbeat shows which workers are alive;
the trial of a dead one is queued again.
"""

import difflib
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import optuna

from launch import sweep_spec, sweep_study
from trm_jax import errors
from trm_jax.runtime import metric_writer

STOP_SECONDS = 120  # for a trainer to save when it is stopped
POLL_SECONDS = 0.5
# What trains; tests put a small stand-in here.
TRAINER: tuple[str, ...] = (sys.executable, "-m", "trm_jax.main")

_SHIM = pathlib.Path(__file__).with_name("dies_with_parent.py")
_MAX_STARTS = 3  # of a trainer that is killed again without an evaluation
_State = optuna.trial.TrialState


class _Failed(Exception):  # noqa: N818
  """This trial has no result; the worker takes the next one."""


class Worker:
  """Runs queued trials, one at a time."""

  def __init__(
    self, study: optuna.Study, plan: sweep_spec.Plan, place: sweep_study.Place
  ):
    """Starts nothing yet, but takes SIGINT and SIGTERM."""
    self._study = study
    self._plan = plan
    self._place = place
    self._number = -1  # of the trial that runs
    self.signals: list[int] = []  # received; the second one kills the trainer
    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, lambda received, _: self.signals.append(received))

  def run(self) -> int:
    """Runs trials until none is left, or a signal; returns the exit status.

    It waits for the trials of other workers, in case one has to be retried; on
    a shared database only until they are known to be alive, because machines
    that wait cost money.

    Raises:
      UserError: Something that only the user can fix.
    """
    idle_since = math.inf
    while not self.signals:
      optuna.storages.fail_stale_trials(self._study)  # queues them again
      left = [trial.state for trial in sweep_study.unfinished(self._study)]
      if _State.WAITING in left:
        self._run_trial()
        idle_since = math.inf
        continue
      if left and math.isinf(idle_since):
        idle_since = time.monotonic()
        print(f"waiting for {len(left)} trial(s) of other workers", flush=True)
      limit = self._place.grace_seconds + sweep_study.HEARTBEAT_SECONDS
      idle = time.monotonic() - idle_since
      if not left or (self._place.is_shared and idle > limit):
        return 0
      time.sleep(POLL_SECONDS)
    return 128 + self.signals[0]

  def _run_trial(self) -> None:
    try:
      self._study.optimize(self._objective, n_trials=1, catch=(_Failed,))
    except InterruptedError:
      sweep_spec.RETRY(self._study, self._study.trials[self._number])
    except ValueError as error:
      if "Cannot tell" not in str(error):  # Optuna cannot end a trial twice
        raise
      print("a trial was taken over: no heartbeat for too long", flush=True)

  def _objective(self, trial: optuna.Trial) -> float:
    """Trains a trial; returns the metric of its result."""
    self._number = trial.number
    if self._is_surplus(sweep_study.frozen(trial)):
      raise _Failed  # without a reason: not in the results
    point = sweep_study.suggest(trial, self._plan)
    earlier = self._study.get_trials(deepcopy=False)[: trial.number]
    same = [t for t in earlier if sweep_spec.point_of(t) == point]
    if any(t.state != _State.FAIL for t in same):
      raise _Failed  # the same training
    try:
      how = self._plan.trial(point)
      lock_path = self._place.scratch / f"{how.folder}.lock"
      with sweep_study.locked(lock_path, self.signals) as lock:
        training = _Training(trial, how, self._plan.sweep, self._place)
        return training.run(self.signals, lock)
    except (_Failed, errors.UserError) as error:
      trial.set_user_attr("reason", str(error))
      raise

  def _is_surplus(self, trial: optuna.trial.FrozenTrial) -> bool:
    """Returns whether nobody asked for the trial.

    Optuna makes a new one if another worker just took the last that waited,
    and machines that begin at once may all queue what the sampler shall draw.
    """
    if "fixed_params" not in trial.system_attrs:
      return True
    if self._plan.sweep.points is not None or not sweep_study.was_queued(trial):
      return False
    earlier = self._study.get_trials(deepcopy=False)[: trial.number]
    return (
      sum(map(sweep_study.was_queued, earlier)) >= self._plan.sweep.num_trials
    )


class _Training:
  """The training of a trial, its evaluations reported to Optuna."""

  def __init__(
    self,
    trial: optuna.Trial,
    how: sweep_spec.Trial,
    sweep: sweep_spec.Sweep,
    place: sweep_study.Place,
  ):
    frozen = sweep_study.frozen(trial)
    first = sweep_spec.RETRY.retried_trial_number(frozen)
    number = trial.number if first is None else first
    self._title = f"trial {number} ({how.folder})"
    self._workdir = place.folder / how.folder
    self._log = self._workdir / "log.txt"
    self._command = [*how.flags, f"--workdir={self._workdir}"]
    self._metric = sweep.metric
    self._last_step = how.num_steps
    self._trial = trial
    self._known = set(frozen.intermediate_values)
    self._is_pruned = frozen.user_attrs.get("pruned", False)
    self._noted = time.monotonic()
    self._began = self._noted - 60 * frozen.user_attrs.get("minutes", 0)

  def run(self, signals: list[int], lock: int) -> float:
    """Trains to the end, and again where the trainer is killed.

    Args:
      signals: Received by the worker; grows meanwhile.
      lock: File descriptor for the trainer to hold.

    Returns:
      The metric of the result.
    """
    self._report()
    starts, status = 0, 0
    while (value := self._result()) is None:
      if self._is_pruned:
        self._say(f"pruned at step {max(self._known)}")
        raise optuna.TrialPruned
      if signals:
        self._say("stopped")
        raise InterruptedError
      if status > 0 or starts == _MAX_STARTS:
        raise _Failed(self._reason(status))
      known = len(self._known)
      status = self._train(signals, lock)
      starts = 0 if len(self._known) > known else starts + 1
    self._say(f"complete: {self._metric}={value:.4f}")
    return value

  def _train(self, signals: list[int], lock: int) -> int:
    """Runs the trainer once; returns its exit status."""
    resumes = (self._workdir / metric_writer.METRICS_FILE).exists()
    self._say(
      f"{'resumes' if resumes else 'starts'}: {' '.join(self._command)}"
    )
    self._workdir.mkdir(parents=True, exist_ok=True)
    shim = (sys.executable, "-I", str(_SHIM), str(os.getpid()))
    with self._log.open("ab") as log:
      self._log_start = log.tell()
      process = subprocess.Popen(
        [*shim, *TRAINER, *self._command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
        start_new_session=True,  # Ctrl-C is for the worker, which stops it
      )
    kill_at = math.inf
    try:
      while process.poll() is None:
        time.sleep(POLL_SECONDS)
        self._report()
        if (signals or self._is_pruned) and math.isinf(kill_at):
          process.terminate()
          kill_at = time.monotonic() + STOP_SECONDS
        if len(signals) > 1 or time.monotonic() > kill_at:
          process.kill()
      self._report(at_once=True)
    finally:
      process.kill()  # if something was raised
    return process.wait()

  def _report(self, *, at_once: bool = False) -> None:
    """Reports new evaluations, and asks the pruner.

    Raises:
      UpdateFinishedTrialError: Another worker has taken the trial over.
    """
    rows = metric_writer.read_metrics(str(self._workdir))
    for row in sorted(rows, key=lambda row: row["step"]):
      step = row["step"]
      if row.get("group") != "eval" or step in self._known:
        continue
      self._known.add(step)
      value = self._value(row)
      self._trial.report(value, step)
      self._say(f"step {step}: {self._metric}={value:.4f}")
      # At the last step pruning would save nothing and cost the result.
      if step < self._last_step and not self._is_pruned:
        self._is_pruned = bool(self._trial.should_prune())
        self._trial.set_user_attr("pruned", self._is_pruned)
    now = time.monotonic()
    if at_once or now > self._noted + sweep_study.HEARTBEAT_SECONDS:
      self._noted = now
      self._trial.set_user_attr("minutes", (now - self._began) / 60)

  def _result(self) -> float | None:
    """Returns the metric of a training that has ended."""
    path = self._workdir / metric_writer.RESULT_FILE
    if not path.exists():
      return None
    try:
      value = self._value(dict(json.loads(path.read_text())["metrics"]))
    except (ValueError, TypeError, KeyError) as error:
      raise errors.UserError(
        f"{path} is damaged ({errors.first_line(error)}); delete it to repeat"
        " the last steps of this trial"
      ) from error
    if math.isnan(value):
      raise _Failed(f"the {self._metric} of its result is not a number")
    return value

  def _value(self, metrics: Mapping[str, Any]) -> float:
    """Returns the metric; NaN if it is null."""
    if self._metric not in metrics:
      names = sorted(set(metrics) - {"step", "group"})
      close = difflib.get_close_matches(self._metric, names, n=1)
      raise errors.UserError(
        f"the evaluations have no metric {self._metric!r}"
        + (f"; did you mean {close[0]!r}?" if close else "")
        + f"; they have {', '.join(names)} (then with another --workdir)"
      )
    value = metrics[self._metric]
    return math.nan if value is None else float(value)

  def _reason(self, status: int) -> str:
    """Returns the trainer's last error line, or how it ended."""
    with self._log.open("rb") as log:
      log.seek(self._log_start)
      lines = log.read().decode(errors="replace").splitlines()
    for line in reversed(lines):
      if line.startswith("error: "):
        return line.removeprefix("error: ")
    end = f"exit status {status}"
    if status < 0:
      end = f"killed by {signal.Signals(-status).name}"
    return f"{end}: {lines[-1][:200] if lines else ''}; see {self._log}"

  def _say(self, text: str) -> None:
    print(f"{self._title} {text}", flush=True)
