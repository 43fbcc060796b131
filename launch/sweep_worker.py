"""Runs the trials of a sweep in Optuna's loop; one process is one worker.

A trial is a training in a process and a folder of its own. The folder is named
by the trial's settings: a trial that is retried, by any worker, finds its
checkpoint there and resumes. Optuna's heartbeat shows which workers are alive;
the trial of a dead one is queued again.
"""

import contextlib
import dataclasses
import difflib
import fcntl
import json
import math
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import sqlalchemy as sa
from optuna import distributions

from launch import sweep_spec
from trm_jax import errors
from trm_jax.runtime import metric_writer

HEARTBEAT_SECONDS = 10
# A trial without a heartbeat for so long is queued again. Its trainer, which
# got SIGTERM when the worker died, must have saved by then; on one machine a
# lock guards the folder as well.
GRACE_SECONDS = 60
SHARED_GRACE_SECONDS = 300
STOP_SECONDS = 120  # for a trainer to save when it is stopped
POLL_SECONDS = 0.5
# What trains; tests put a small stand-in here.
TRAINER: tuple[str, ...] = (sys.executable, "-m", "trm_jax.main")

_SHIM = pathlib.Path(__file__).with_name("dies_with_parent.py")
_DATABASE = "sweep.db"
_MAX_STARTS = 3  # of a trainer that is killed again without an evaluation
_State = optuna.trial.TrialState
optuna.logging.set_verbosity(optuna.logging.ERROR)


class _Failed(Exception):  # noqa: N818
  """This trial has no result; the worker takes the next one."""


class _Stopped(Exception):  # noqa: N818
  """The worker was asked to stop, and its trainer has ended."""


@dataclasses.dataclass(frozen=True)
class Place:
  """Folder and database of a sweep.

  Attributes:
    folder: Holds the trials' folders and the results.
    storage: URL of the database; empty for a SQLite file in the folder.
  """

  folder: pathlib.Path
  storage: str = ""

  @property
  def url(self) -> str:
    """URL of the database."""
    return self.storage or f"sqlite:///{self.folder / _DATABASE}"

  @property
  def is_shared(self) -> bool:
    """Whether workers on other machines may use the database."""
    return not self.url.startswith("sqlite")

  @property
  def scratch(self) -> pathlib.Path:
    """Folder on this machine; network folders may have no locks."""
    name = str(self.folder.absolute()).strip("/").replace("/", "_")
    return pathlib.Path(tempfile.gettempdir(), f"sweeps_{os.getuid()}", name)


# --- the study ---------------------------------------------------------------


def open_study(
  plan: sweep_spec.Plan, place: Place, *, must_exist: bool = False
) -> optuna.Study:
  """Opens the sweep's study, or creates it.

  Args:
    plan: The sweep.
    place: Its folder and database.
    must_exist: Whether a missing study is an error.

  Raises:
    UserError: The study is another sweep, or missing.
  """
  name = str(place.folder) if place.is_shared else place.folder.name
  is_there = bool(place.storage) or (place.folder / _DATABASE).exists()
  storage = _open_storage(place) if is_there or not must_exist else None
  if must_exist and (
    storage is None or name not in optuna.get_all_study_names(storage)
  ):
    raise errors.UserError(f"there is no sweep in {place.folder} yet")
  study = optuna.create_study(
    storage=storage,
    study_name=name,
    direction=plan.sweep.direction,
    pruner=plan.sweep.pruner or optuna.pruners.NopPruner(),
    load_if_exists=True,
  )
  known = study.user_attrs
  for group, now in plan.identity.items():
    if group not in known:
      study.set_user_attr(group, json.dumps(now))
      continue
    before = json.loads(known[group])
    different = [
      f"{key} was {before.get(key, 'not set')}, is {now.get(key, 'not set')}"
      for key in sorted({*before, *now})
      if before.get(key) != now.get(key)
    ]
    if different:
      raise errors.UserError(
        f"{place.folder} holds another sweep: {'; '.join(different[:5])}"
        f"{'; ...' if different[5:] else ''}. Undo the change, or name another"
        " --workdir"
      )
  return study


def _open_storage(place: Place) -> optuna.storages.RDBStorage:
  options: dict[str, Any] = {"pool_pre_ping": True}
  if not place.is_shared:
    options = {"connect_args": {"timeout": 60}}
  storage = optuna.storages.RDBStorage(
    place.url,
    engine_kwargs=options,
    heartbeat_interval=HEARTBEAT_SECONDS,
    grace_period=SHARED_GRACE_SECONDS if place.is_shared else GRACE_SECONDS,
    heartbeat_stale_trial_callback=sweep_spec.RETRY,
  )
  if not place.is_shared:
    _lock_before_reading(storage.engine)
  return storage


def _lock_before_reading(engine: sa.Engine) -> None:
  """Begins SQLite's transactions as SELECT FOR UPDATE does elsewhere.

  Otherwise two workers may find the same trial waiting and both take it. This
  is SQLAlchemy's recipe for Python's sqlite3.
  """

  @sa.event.listens_for(engine, "connect")
  def _connect(connection, _):
    connection.isolation_level = None

  @sa.event.listens_for(engine, "begin")
  def _begin(connection):
    connection.exec_driver_sql("BEGIN IMMEDIATE")

  engine.dispose()  # drops connections that were opened before


@contextlib.contextmanager
def database_errors(place: Place) -> Iterator[None]:
  """Turns an error of the database into one line without its password."""
  try:
    url = sa.make_url(place.url)
  except (sa.exc.ArgumentError, ValueError):
    raise errors.UserError(
      "--storage is not the URL of a database; it looks like"
      " sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    ) from None
  try:
    yield
  except (
    *(ImportError, sa.exc.SQLAlchemyError),
    optuna.exceptions.StorageInternalError,
  ) as error:
    reason = errors.first_line(error.__cause__ or error)
    for secret in filter(None, [url.password]):
      reason = reason.replace(str(secret), "***")
      reason = reason.replace(urllib.parse.quote(secret, safe=""), "***")
    raise errors.UserError(
      f"the database {url.render_as_string()} failed: {reason}; once it works,"
      " the same command resumes (PostgreSQL needs: pip install"
      " 'psycopg[binary]')"
    ) from None


def prepare(plan: sweep_spec.Plan, place: Place) -> optuna.Study:
  """Opens the study and queues its trials; by one process at a time."""
  with _locked(place.scratch / "study.lock"):
    try:
      place.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise errors.UserError(
        f"cannot make the folder {place.folder}: {error.strerror}"
      ) from error
    study = open_study(plan, place)
    _enqueue(study, plan)
  return study


def _enqueue(study: optuna.Study, plan: sweep_spec.Plan) -> None:
  """Queues the trials that are asked for and not there yet.

  A trial of a grid or table that failed is queued again, and resumes from its
  checkpoint.
  """
  trials = study.get_trials(deepcopy=False)
  if plan.sweep.points is None:
    for _ in range(plan.sweep.num_trials - sum(map(_was_queued, trials))):
      study.enqueue_trial({})
  for point in plan.sweep.points or ():
    same = [t for t in trials if sweep_spec.point_of(t) == point]
    if all(trial.state == _State.FAIL for trial in same):
      minutes = max((t.user_attrs.get("minutes", 0) for t in same), default=0)
      study.enqueue_trial(dict(point), user_attrs={"minutes": minutes})


def unfinished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
  """Returns the trials that are running or waiting."""
  states = (_State.RUNNING, _State.WAITING)
  return study.get_trials(deepcopy=False, states=states)


def commands(plan: sweep_spec.Plan, place: Place) -> Iterator[str]:
  """Yields the commands of the trials, as far as they are known."""
  study = optuna.create_study()
  _enqueue(study, plan)
  # What TPE draws depends on results.
  known = 1 if plan.sweep.sampler == "tpe" else len(study.trials)
  for _ in range(known):
    point = _suggest(study.ask(), plan)
    how = plan.trial(point)
    workdir = f"--workdir={place.folder / how.folder}"
    command = ("python", "-m", "trm_jax.main", *how.flags, workdir)
    yield shlex.join(command)
  if left := len(unfinished(study)) - known:
    yield f"and {left} more, drawn by results"


def _frozen(trial: optuna.Trial) -> optuna.trial.FrozenTrial:
  return trial.study.get_trials(deepcopy=False)[trial.number]


def _was_queued(trial: optuna.trial.FrozenTrial) -> bool:
  """Returns whether `_enqueue` made the trial."""
  is_retry = sweep_spec.RETRY.retried_trial_number(trial) is not None
  return "fixed_params" in trial.system_attrs and not is_retry


def _suggest(trial: optuna.Trial, plan: sweep_spec.Plan) -> sweep_spec.Point:
  """Draws a trial's settings, or returns those it was queued with."""
  # Seeded by the trial's number: all workers and restarts draw the same.
  seeds = np.random.SeedSequence([plan.sweep.seed, trial.number])
  is_tpe = plan.sweep.sampler == "tpe"
  sampler = (
    optuna.samplers.TPESampler if is_tpe else optuna.samplers.RandomSampler
  )
  trial.study.sampler = sampler(seed=int(seeds.generate_state(1)[0]))
  point: dict[str, Any] = {}
  for knob in _frozen(trial).system_attrs["fixed_params"] or plan.space:
    match d := plan.space[knob]:
      case distributions.CategoricalDistribution():
        point[knob] = trial.suggest_categorical(knob, d.choices)
      case distributions.IntDistribution():
        point[knob] = trial.suggest_int(
          knob, d.low, d.high, step=d.step, log=d.log
        )
      case distributions.FloatDistribution():
        point[knob] = trial.suggest_float(
          knob, d.low, d.high, step=d.step, log=d.log
        )
  return point


# --- a worker ----------------------------------------------------------------


class Worker:
  """Runs queued trials, one at a time."""

  def __init__(self, study: optuna.Study, plan: sweep_spec.Plan, place: Place):
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
    grace = SHARED_GRACE_SECONDS if self._place.is_shared else GRACE_SECONDS
    idle_since = math.inf
    while not self.signals:
      optuna.storages.fail_stale_trials(self._study)  # queues them again
      left = {trial.state for trial in unfinished(self._study)}
      if _State.WAITING in left:
        self._run_trial()
        idle_since = math.inf
        continue
      if math.isinf(idle_since):
        idle_since = time.monotonic()
      idle = time.monotonic() - idle_since
      if not left or (self._place.is_shared and idle > grace):
        return 0
      time.sleep(POLL_SECONDS)
    return 128 + self.signals[0]

  def _run_trial(self) -> None:
    try:
      self._study.optimize(self._objective, n_trials=1, catch=(_Failed,))
    except _Stopped:
      sweep_spec.RETRY(self._study, self._study.trials[self._number])
    except ValueError as error:
      if "Cannot tell" not in str(error):  # Optuna cannot end a trial twice
        raise
      print("a trial was taken over: no heartbeat for too long", flush=True)

  def _objective(self, trial: optuna.Trial) -> float:
    """Trains a trial; returns the metric of its result."""
    self._number = trial.number
    if self._is_surplus(_frozen(trial)):
      raise _Failed  # without a reason: not in the results
    point = _suggest(trial, self._plan)
    earlier = self._study.get_trials(deepcopy=False)[: trial.number]
    same = [t for t in earlier if sweep_spec.point_of(t) == point]
    if any(t.state != _State.FAIL for t in same):
      raise _Failed  # the same training
    try:
      how = self._plan.trial(point)
      lock_path = self._place.scratch / f"{how.folder}.lock"
      with _locked(lock_path, self.signals) as lock:
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
    if self._plan.sweep.points is not None or not _was_queued(trial):
      return False
    earlier = self._study.get_trials(deepcopy=False)[: trial.number]
    return sum(map(_was_queued, earlier)) >= self._plan.sweep.num_trials


@contextlib.contextmanager
def _locked(path: pathlib.Path, signals: Sequence[int] = ()) -> Iterator[int]:
  """Holds a lock of this machine; yields its file descriptor.

  A trainer inherits it: that of a killed worker keeps it until it has saved.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w") as file:
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        time.sleep(POLL_SECONDS)
      if signals:
        raise _Stopped
    yield file.fileno()


# --- a trial -----------------------------------------------------------------


class _Training:
  """The training of a trial, its evaluations reported to Optuna."""

  def __init__(
    self,
    trial: optuna.Trial,
    how: sweep_spec.Trial,
    sweep: sweep_spec.Sweep,
    place: Place,
  ):
    frozen = _frozen(trial)
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
        raise _Stopped
      if status > 0 or starts == _MAX_STARTS:
        raise _Failed(self._reason(status))
      known = len(self._known)
      status = self._train(signals, lock)
      starts = 1 if len(self._known) > known else starts + 1
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
    if at_once or now > self._noted + HEARTBEAT_SECONDS:
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
