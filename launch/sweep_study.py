"""The Optuna study of a sweep: its database, its queue and its draws."""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shlex
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import optuna
import sqlalchemy as sa
from optuna import distributions

from launch import sweep_spec
from trm_jax import errors

HEARTBEAT_SECONDS = 10
# A trial without a heartbeat for this time is queued again. Its trainer, which
# got SIGTERM when the worker died, must have saved by then; on one machine a
# lock guards the folder as well.
GRACE_SECONDS = 60
SHARED_GRACE_SECONDS = 300
LOCK_SECONDS = 0.2  # between two attempts

_DATABASE = "sweep.db"
_State = optuna.trial.TrialState
optuna.logging.set_verbosity(optuna.logging.ERROR)


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
  def grace_seconds(self) -> int:
    """How long a trial may be without a heartbeat."""
    return SHARED_GRACE_SECONDS if self.is_shared else GRACE_SECONDS

  @property
  def scratch(self) -> pathlib.Path:
    """Folder on this machine; network folders may have no locks."""
    name = str(self.folder.absolute()).strip("/").replace("/", "_")
    return pathlib.Path(tempfile.gettempdir(), f"sweeps_{os.getuid()}", name)


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
  missing = errors.UserError(f"there is no sweep in {place.folder} yet")
  if must_exist and not place.storage and not place.folder.exists():
    raise missing
  storage = _open_storage(place)
  if must_exist and name not in optuna.get_all_study_names(storage):
    raise missing
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
  for attempt in range(3):
    try:
      storage = optuna.storages.RDBStorage(
        place.url,
        engine_kwargs=options,
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=place.grace_seconds,
        heartbeat_stale_trial_callback=sweep_spec.RETRY,
      )
      break
    except (sa.exc.IntegrityError, sa.exc.ProgrammingError):
      if attempt == 2:
        raise
      time.sleep(1 + attempt)  # another machine creates the tables just now
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
  with locked(place.scratch / "study.lock"):
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
  """Queues the trials that are requested and new.

  A trial of a grid or table that failed is queued again, and resumes from its
  checkpoint.
  """
  trials = study.get_trials(deepcopy=False)
  if plan.sweep.points is None:
    for _ in range(plan.sweep.num_trials - sum(map(was_queued, trials))):
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
    point = suggest(study.ask(), plan)
    how = plan.trial(point)
    workdir = f"--workdir={place.folder / how.folder}"
    command = ("python", "-m", "trm_jax.main", *how.flags, workdir)
    yield shlex.join(command)
  if left := len(unfinished(study)) - known:
    yield f"and {left} more, drawn by results"


def frozen(trial: optuna.Trial) -> optuna.trial.FrozenTrial:
  """Returns all that the database has of a trial."""
  return trial.study.get_trials(deepcopy=False)[trial.number]


def was_queued(trial: optuna.trial.FrozenTrial) -> bool:
  """Returns whether `_enqueue` made the trial."""
  is_retry = sweep_spec.RETRY.retried_trial_number(trial) is not None
  return "fixed_params" in trial.system_attrs and not is_retry


def suggest(trial: optuna.Trial, plan: sweep_spec.Plan) -> sweep_spec.Point:
  """Draws a trial's settings, or returns those it was queued with."""
  # Seeded by the trial's number: all workers and restarts draw the same.
  seeds = np.random.SeedSequence([plan.sweep.seed, trial.number])
  is_tpe = plan.sweep.sampler == "tpe"
  sampler = (
    optuna.samplers.TPESampler if is_tpe else optuna.samplers.RandomSampler
  )
  trial.study.sampler = sampler(seed=int(seeds.generate_state(1)[0]))
  point: dict[str, Any] = {}
  queued = frozen(trial).system_attrs["fixed_params"]
  for knob in plan.space if plan.sweep.points is None else queued:
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


@contextlib.contextmanager
def locked(path: pathlib.Path, signals: Sequence[int] = ()) -> Iterator[int]:
  """Holds a lock of this machine; yields its file descriptor.

  A trainer inherits it: that of a killed worker keeps it until it has saved.

  Args:
    path: File to lock.
    signals: Received by the process; any of them ends the wait.

  Raises:
    InterruptedError: A signal came first.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w") as file:
    while True:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
      except BlockingIOError:
        time.sleep(LOCK_SECONDS)
      if signals:
        raise InterruptedError
    yield file.fileno()
