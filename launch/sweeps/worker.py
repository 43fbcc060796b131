"""Runs trials: starts them, watches them, and ends those that are pruned."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Iterable, Mapping

import optuna
from etils import epath

from launch.sweeps import claims as claims_lib
from launch.sweeps import progress as progress_lib
from launch.sweeps import study as study_lib
from launch.sweeps import trial_process

GRACE_SECONDS = 120.0  # for a trial to save when it is stopped
_BEAT_SECONDS = claims_lib.LEASE_SECONDS / 10
_MOST_STARTS = 3  # of a trial that gets no further
_SCHEDULE = "schedule"  # claimed by the worker that picks a trial


@dataclasses.dataclass
class Attempt:
  """A trial that runs here."""

  trial: optuna.trial.Trial
  claim: claims_lib.Claim
  progress: progress_lib.Progress
  process: trial_process.TrialProcess
  slot: int  # which environment it has
  minutes_before: float  # of earlier attempts
  started: float  # time.monotonic()
  starts: int = 1  # since the last new evaluation
  kill_at: float = math.inf  # time.monotonic(); finite: was asked to stop

  @property
  def minutes(self) -> float:
    """That the trial has run."""
    return self.minutes_before + (time.monotonic() - self.started) / 60


class Worker:
  """Runs trials until none is left, several at once."""

  def __init__(
    self,
    study: study_lib.Study,
    claims: claims_lib.Claims,
    *,
    workdir: epath.Path,
    log_folder: pathlib.Path,
    environments: Iterable[Mapping[str, str]],
    poll_seconds: float,
  ):
    """Prepares, but starts nothing.

    Args:
      study: with the trials.
      claims: of this worker.
      workdir: of the sweep, with a folder for each trial.
      log_folder: on this machine, for the same.
      environments: of the processes; as many run at once.
      poll_seconds: how often the trials are looked after.
    """
    self._study = study
    self._claims = claims
    self._workdir = workdir
    self._log_folder = log_folder
    self._environments = list(environments)
    self._poll_seconds = poll_seconds
    self._attempts: dict[int, Attempt] = {}  # by the trial's number
    self._told_waiting: set[int] = set()
    self._stop_requests = 0
    self._next_beat = 0.0

  def request_stop(self) -> None:
    """Stops the trials politely; the second time at once."""
    self._stop_requests += 1

  @property
  def was_stopped(self) -> bool:
    """Whether trials were left for another time."""
    return self._stop_requests > 0

  def run(self) -> None:
    """Runs trials until all have ended, or a stop was requested.

    Raises:
      UserError: something only the user can put right; the trials that run
        are stopped before.
    """
    try:
      while (not self.was_stopped and self._fill_slots()) or self._attempts:
        time.sleep(self._poll_seconds)
        self._beat()
        for attempt in tuple(self._attempts.values()):
          self._look_after(attempt)
    finally:
      self._stop_all()

  # --- picking -------------------------------------------------------------

  def _fill_slots(self) -> bool:
    """Starts what can be; returns whether there is more to wait for."""
    while len(self._attempts) < len(self._environments):
      with self._claims.taking(_SCHEDULE) as is_mine:
        if not is_mine:
          return True
        taken = self._pick()
      if taken is None:
        break
      self._start(*taken)
    if not self._study.is_full():
      return True
    # What another has now may yet be left to this worker.
    left = [
      n for n in self._others() if not self._claims.seen_alive(_claim_name(n))
    ]
    if not self._attempts:
      self._tell_waiting(left)
    return bool(left)

  def _pick(self) -> tuple[optuna.trial.Trial, claims_lib.Claim] | None:
    """Claims a trial that nobody runs: one that was left, or a new one."""
    for number in self._others():
      claim = self._claims.take(_claim_name(number))
      if claim is None:
        continue
      if number in self._study.unfinished():
        return self._study.resume(number), claim
      self._claims.release(claim)  # it has ended since it was listed
    if self._study.is_full():
      return None
    trial = self._study.begin()
    claim = self._claims.take(_claim_name(trial.number))
    assert claim is not None  # it did not exist before
    return trial, claim

  def _others(self) -> list[int]:
    """Trials that began and are not run here."""
    return [n for n in self._study.unfinished() if n not in self._attempts]

  def _tell_waiting(self, numbers: Iterable[int]) -> None:
    for number in set(numbers) - self._told_waiting:
      self._told_waiting.add(number)
      holder = self._claims.holder(_claim_name(number))
      drawn = self._study.trials()[number].params
      print(
        f"waiting for {self._study.plan.title(number, drawn)}: another worker"
        " has it, or it still saves"
        f" after one was killed{f' (process {holder})' if holder else ''}",
        flush=True,
      )

  # --- starting ------------------------------------------------------------

  def _start(self, trial: optuna.trial.Trial, claim: claims_lib.Claim) -> None:
    workdir = self._workdir / self._folder_name(trial)
    goes_on = workdir.exists()
    progress = progress_lib.Progress(self._study, trial, workdir)
    progress.read()
    if progress.conclude():  # it had ended when its worker was killed
      self._claims.release(claim)
      return
    what = self._study.plan.describe(trial.params)
    progress.say(f"{'goes on' if goes_on else 'starts'}: {what}")
    used = {attempt.slot for attempt in self._attempts.values()}
    slot = min(set(range(len(self._environments))) - used)
    self._attempts[trial.number] = Attempt(
      trial=trial,
      claim=claim,
      progress=progress,
      process=self._launch(trial, claim, slot),
      slot=slot,
      minutes_before=float(trial.user_attrs.get(study_lib.MINUTES, 0.0)),
      started=time.monotonic(),
    )

  def _launch(
    self, trial: optuna.trial.Trial, claim: claims_lib.Claim, slot: int
  ) -> trial_process.TrialProcess:
    name = self._folder_name(trial)
    process = trial_process.TrialProcess(
      self._study.plan.arguments(trial.params, self._workdir / name),
      log=self._log_folder / name / trial_process.LOG_FILE,
      lock=claim.lock,
      environment=self._environments[slot],
    )
    self._claims.note_process(claim, process.process_id)
    return process

  def _folder_name(self, trial: optuna.trial.Trial) -> str:
    return self._study.plan.folder_name(trial.number, trial.params)

  # --- watching ------------------------------------------------------------

  def _look_after(self, attempt: Attempt) -> None:
    status = attempt.process.poll()  # before reading what it has left
    if attempt.progress.read():
      attempt.starts = 0
      attempt.progress.note_minutes(attempt.minutes)
    if status is not None:
      self._settle(attempt, status)
    elif self._stop_requests > 1 or time.monotonic() > attempt.kill_at:
      attempt.process.kill()
    elif attempt.progress.is_pruned or self.was_stopped:
      self._ask_to_stop(attempt)

  def _ask_to_stop(self, attempt: Attempt) -> None:
    if math.isinf(attempt.kill_at):
      attempt.kill_at = time.monotonic() + GRACE_SECONDS
      attempt.process.ask_to_stop()

  def _settle(self, attempt: Attempt, status: int) -> None:
    """Decides what becomes of a trial whose process has ended."""
    progress = attempt.progress
    progress.note_minutes(attempt.minutes)
    is_cut_off = status <= 0  # stopped or killed, before its result
    if progress.conclude():
      pass
    elif self.was_stopped and is_cut_off:
      progress.say("is stopped")
    elif is_cut_off and attempt.starts < _MOST_STARTS:
      progress.say(f"goes on: {trial_process.ended(status)} before its result")
      attempt.starts += 1
      attempt.process = self._launch(attempt.trial, attempt.claim, attempt.slot)
      return
    else:
      progress.fail(attempt.process.last_words())
    self._drop(attempt)

  def _beat(self) -> None:
    """Keeps the claims; what was taken over is ended at once."""
    if time.monotonic() < self._next_beat:
      return
    self._next_beat = time.monotonic() + _BEAT_SECONDS
    for attempt in tuple(self._attempts.values()):
      if not self._claims.keep(attempt.claim):
        attempt.process.kill()
        attempt.progress.say("was taken over by another worker")
        self._drop(attempt)

  def _drop(self, attempt: Attempt) -> None:
    del self._attempts[attempt.trial.number]
    self._claims.release(attempt.claim)

  def _stop_all(self) -> None:
    """Stops what still runs because of an error; it goes on another time."""
    for attempt in self._attempts.values():
      self._ask_to_stop(attempt)
    while any(a.process.poll() is None for a in self._attempts.values()):
      for attempt in self._attempts.values():
        if time.monotonic() > attempt.kill_at or self._stop_requests > 1:
          attempt.process.kill()
      time.sleep(self._poll_seconds)
    for attempt in tuple(self._attempts.values()):
      self._drop(attempt)


def _claim_name(number: int) -> str:
  """Returns the name of a trial's claim, before it is known what it draws."""
  return f"trial_{number:04d}"
