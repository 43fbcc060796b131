"""Trains an experiment many times, to find its best settings.

python -m launch.sweep --config=experiments/quickstart.py \
  --sweep=experiments/sweeps/quickstart.py --workers=2

Or trains rows of a paper's table, and writes paper against ours:

python -m launch.sweep --sweep=experiments/sweeps/tables.py:1 --rows=trm,hrm

The same command resumes after any kill. See docs/howto/sweeps.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import math
import multiprocessing
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from launch import dies_with_parent, sky
from trm_jax import errors
from trm_jax.runtime import command_line, metric_writer

if importlib.util.find_spec("optuna") is not None:
  import optuna
  import sqlalchemy as sa
  from optuna.exceptions import StorageInternalError as _StorageError

  from launch import sweep_spec, sweep_table

  optuna.logging.set_verbosity(optuna.logging.ERROR)
  warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

_SWEEP = flags.DEFINE_string(
  "sweep", "", "Sweep file, e.g. experiments/sweeps/sudoku.py."
)
_ROWS = flags.DEFINE_list("rows", None, "Rows of a table, e.g. trm,hrm.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds for each row of a table.")
_WORKDIR = flags.DEFINE_string(
  "workdir", "", "Folder of the sweep; default: runs/sweeps/NAME."
)
_STORAGE = flags.DEFINE_string(
  "storage", "", "URL of the database; default: a SQLite file in the workdir."
)
_WORKERS = flags.DEFINE_integer(
  "workers", 1, "Number of trials, or machines, at a time.", lower_bound=1
)
_DEVICES_PER_WORKER = flags.DEFINE_integer(
  "devices_per_worker", 0, "GPUs of each worker; 0: all.", lower_bound=0
)
_LAUNCHER = flags.DEFINE_enum(
  "launcher", "local", ["local", "skypilot"], "Where the workers run."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only print what would run.")
_REPORT = flags.DEFINE_bool("report", False, "Only report the results so far.")

HEARTBEAT_SECONDS = 10
# A trial without a heartbeat for this time is queued again; the trainer of a
# killed worker must have saved by then.
GRACE_SECONDS = 60
POLL_SECONDS = 0.5
# What trains; tests put a small stand-in here.
TRAINER: tuple[str, ...] = (sys.executable, "-m", "trm_jax.main")

_STOP_SECONDS = 50  # for a trainer to save
_DEVICES = "CUDA_VISIBLE_DEVICES"


class _Failed(Exception):  # noqa: N818
  """This trial has no result; the worker takes the next one."""


def main(argv: Sequence[str]) -> None:
  """Runs the sweep; its last line names the best trial, or a table's rows."""
  command_line.expect_no_words(argv)
  if importlib.util.find_spec("optuna") is None:
    raise errors.UserError("a sweep needs Optuna: pip install '.[sweep]'")
  plan = _plan()
  path, _, variant = _SWEEP.value.partition(":")
  name = "_".join([pathlib.Path(path).stem, *filter(None, variant.split(","))])
  folder = pathlib.Path(_WORKDIR.value or f"runs/sweeps/{name}").expanduser()
  if _LAUNCHER.value == "skypilot":
    _launch(plan, folder)
  elif _DRY_RUN.value:
    for point in plan.points.values():
      drawn = [] if point else [f"--config.{k}=..." for k in plan.sweep.space]
      print("python -m trm_jax.main", shlex.join([*plan.flags(point), *drawn]))
  else:
    sys.exit(_run(plan, folder))


def _plan() -> sweep_spec.Plan:
  """Returns the plan of a search or of a table, every setting checked."""
  sweep = sweep_spec.load(_SWEEP.value)
  is_table = isinstance(sweep, sweep_spec.Table)
  if is_table == command_line.has_config():
    raise errors.UserError(
      "--config: a search needs an experiment, e.g."
      " --config=experiments/quickstart.py; a table has its own"
    )
  if isinstance(sweep, sweep_spec.Table):
    overrides = command_line.override_flags()
    is_seeded = any("config.seed=" in word for word in overrides)
    if is_seeded or not all(seed.isdecimal() for seed in _SEEDS.value):
      raise errors.UserError("name the seeds of a table as --seeds=0,1,2")
    return sweep_spec.plan_table(
      sweep,
      names=list(sweep.rows) if _ROWS.value is None else _ROWS.value,
      seeds=[int(seed) for seed in _SEEDS.value],
      overrides=overrides,
      changed=command_line.changed,
    )
  if _ROWS.present or _SEEDS.present:
    raise errors.UserError(f"--rows, --seeds: {_SWEEP.value} is no table")
  command_line.config()  # raises if it is wrong
  flag = flags.FLAGS["config"]
  return sweep_spec.plan_search(
    sweep,
    experiment=config_flags.get_config_filename(flag),
    config=command_line.CONFIG.value,
    overrides=config_flags.get_override_values(flag),
  )


def _launch(plan: sweep_spec.Plan, folder: pathlib.Path) -> None:
  """Submits workers to SkyPilot, or prints their tasks."""
  if not _is_shared() or not _WORKDIR.present:
    raise errors.UserError(
      "many machines need --storage=postgresql+psycopg://USER:PASSWORD@HOST/NAME"
      " and a --workdir in the bucket, e.g. /bucket/sweeps/sudoku"
    )
  shared = (_SWEEP, _ROWS, _SEEDS, _WORKDIR, _DEVICES_PER_WORKER)
  words = [flags.FLAGS[f.name].serialize() for f in shared if f.present]
  if command_line.has_config():
    experiment = config_flags.get_config_filename(flags.FLAGS["config"])
    words.append(f"--config={experiment}")
  words += command_line.override_flags()
  tasks = sky.tasks(words, name=folder.name, num_workers=_WORKERS.value)
  if _DRY_RUN.value:
    print("---\n".join(tasks.values()))
    return
  with _database_errors():
    _enqueue(_open_study(plan, folder), plan)  # before many machines do it
  sky.submit(tasks, storage=_STORAGE.value)


def _run(plan: sweep_spec.Plan, folder: pathlib.Path) -> int:
  """Runs trials, unless --report, and reports; returns the exit status."""
  if _REPORT.value and not folder.is_dir():
    raise errors.UserError(f"there is no sweep in {folder} yet")
  with errors.user_error_context(f"cannot create the folder {folder}"):
    folder.mkdir(parents=True, exist_ok=True)
  status = 0
  with _database_errors():
    if not _REPORT.value:
      status = _run_workers(plan, folder)
    study = _open_study(plan, folder)
    text, best = sweep_table.write(plan, study, folder)
    left = len(_unfinished(study))
  print(f"{text}\n{folder}/results.md, results.csv and results.png")
  if left:
    print(f"{left} trials are unfinished; the same command resumes")
  elif not best and not status:
    raise errors.UserError("no trial has a result yet; see the table above")
  print(best, flush=True)
  return status


def _run_workers(plan: sweep_spec.Plan, folder: pathlib.Path) -> int:
  """Queues trials and runs a process per worker; returns the exit status."""
  workers, each = _WORKERS.value, _DEVICES_PER_WORKER.value
  numbers = ",".join(map(str, range(workers * each)))
  devices = (os.environ.get(_DEVICES) or numbers).split(",")
  if len(devices) < workers * each:
    raise errors.UserError(
      f"{workers * each} devices needed; {_DEVICES} has {len(devices)}"
    )
  with _locked(folder):
    _enqueue(_open_study(plan, folder), plan)
  fork = multiprocessing.get_context("fork")
  processes = []
  for i in range(workers):
    visible = ",".join(devices[i * each : (i + 1) * each])
    arguments = (plan, folder, visible, os.getpid())
    processes.append(fork.Process(target=_work, args=arguments))
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, _interrupt)
  try:
    for process in processes:
      process.start()
    for process in processes:
      process.join()
  except SystemExit as stop:
    children = multiprocessing.active_children()
    for child in children:
      child.terminate()
    for child in children:
      child.join()
    return int(stop.code or 0)
  codes = [process.exitcode or 0 for process in processes]
  if killed := sum(code < 0 for code in codes):
    print(f"{killed} of {workers} workers were killed", flush=True)
  return max(codes) if killed < workers else 1


def _interrupt(number: int, _: Any) -> None:
  """Ends this process once, with time for its trainer to save."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  sys.exit(128 + number)


def _is_shared() -> bool:
  """Returns whether workers on other machines may use the database."""
  return bool(_STORAGE.value) and not _STORAGE.value.startswith("sqlite")


def _open_study(plan: sweep_spec.Plan, folder: pathlib.Path) -> optuna.Study:
  """Opens or creates the study; raises UserError if it is another sweep."""
  # Without a pool no connection is open when the workers are forked.
  options: dict[str, Any] = {"poolclass": sa.pool.NullPool}
  if not _is_shared():
    options["connect_args"] = {"timeout": 60}
  storage = optuna.storages.RDBStorage(
    _STORAGE.value or f"sqlite:///{folder}/sweep.db",
    engine_kwargs=options,
    heartbeat_interval=HEARTBEAT_SECONDS,
    grace_period=GRACE_SECONDS,
    heartbeat_stale_trial_callback=(
      optuna.storages.RetryHeartbeatStaleTrialCallback()
    ),
  )
  if not _is_shared():
    # SQLite's transactions begin as SELECT FOR UPDATE does elsewhere: otherwise
    # two workers may take the same trial. SQLAlchemy's recipe for sqlite3.
    for name, action in (
      ("connect", lambda raw, _: setattr(raw, "isolation_level", None)),
      ("begin", lambda c: c.exec_driver_sql("BEGIN IMMEDIATE")),
    ):
      sa.event.listen(storage.engine, name, action)
  study = optuna.create_study(
    storage=storage,
    study_name=str(folder) if _is_shared() else "sweep",
    direction=plan.sweep.direction,
    sampler=plan.sweep.sampler,
    pruner=plan.sweep.pruner or optuna.pruners.NopPruner(),
    load_if_exists=True,
  )
  for name, digest in plan.digests.items():
    if study.user_attrs.get(name, digest) != digest:
      raise errors.UserError(
        f"{folder}: the sweep file or the settings changed ({name}); use"
        " another --workdir"
      )
    study.set_user_attr(name, digest)
  return study


@contextlib.contextmanager
def _database_errors() -> Iterator[None]:
  """Turns an error of the database into one line without its password."""
  try:
    yield
  except (ImportError, sa.exc.SQLAlchemyError, _StorageError) as error:
    reason = errors.first_line(error.__cause__ or error)
    password = _STORAGE.value.rpartition("@")[0].rpartition(":")[2]
    reason = reason.replace(password or " " * 9, "***")
    raise errors.UserError(
      f"--storage failed: {reason}; once it works, the same command resumes"
    ) from None


def _enqueue(study: optuna.Study, plan: sweep_spec.Plan) -> None:
  """Queues the trials that are new, and those that failed once more."""
  trials = [t for t in study.trials if "key" in t.user_attrs]
  known = {t.user_attrs["key"] for t in trials if t.state.name != "FAIL"}
  drawn = {t.user_attrs["key"]: t.params for t in trials}
  for key, point in plan.points.items():
    if key not in known:
      study.enqueue_trial(drawn.get(key) or dict(point), {"key": key})


def _unfinished(study: optuna.Study) -> list[str]:
  """Returns the states of the trials that run or wait."""
  names = [trial.state.name for trial in study.get_trials(deepcopy=False)]
  return [name for name in names if name in ("RUNNING", "WAITING")]


def _work(
  plan: sweep_spec.Plan, folder: pathlib.Path, devices: str, parent: int
) -> None:
  """Runs trials in a process of its own, until none is left.

  It waits for the trials of other workers, in case one has to be retried; on
  a shared database only until they are known to be alive, because machines
  that wait cost money.
  """
  os.setsid()  # Ctrl-C is for the parent, which stops its workers
  dies_with_parent.die_with(parent)
  if devices:
    os.environ[_DEVICES] = devices
  try:
    with _database_errors():
      study = _open_study(plan, folder)
      study.sampler.reseed_rng()  # or all workers would draw the same
      idle_since = time.monotonic()
      while states := _unfinished(study):
        if "WAITING" in states:
          try:
            study.optimize(
              lambda trial: _objective(trial, plan, folder),
              n_trials=1,
              catch=(_Failed,),
            )
          except ValueError as error:
            if "Cannot tell" not in str(error):  # a trial that has ended
              raise
            print("a trial was taken over: it had no heartbeat", flush=True)
          idle_since = time.monotonic()
          continue
        time.sleep(POLL_SECONDS)
        optuna.storages.fail_stale_trials(study)  # queues them again
        idle = time.monotonic() - idle_since
        if _is_shared() and idle > HEARTBEAT_SECONDS + GRACE_SECONDS:
          return
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr, flush=True)
    sys.exit(1)


def _objective(
  trial: optuna.Trial, plan: sweep_spec.Plan, folder: pathlib.Path
) -> float:
  """Trains a trial; returns the metric of its result."""
  trials = trial.study.trials
  key = trials[trial.number].user_attrs.get("key")
  if key is None:  # another worker just took the last one that waited
    raise _Failed
  point = {}
  for knob, distribution in plan.sweep.space.items():
    kind = type(distribution).__name__.removesuffix("Distribution").lower()
    point[knob] = getattr(trial, f"suggest_{kind}")(knob, **vars(distribution))
  for other in trials[: trial.number]:
    is_same = other.user_attrs.get("key") == key or other.params == point
    if is_same and other.state.name != "FAIL":
      raise _Failed  # drawn before, or queued by two machines at once
  try:
    return _Training(trial, plan, point, folder).run()
  except (_Failed, errors.UserError) as error:
    trial.set_user_attr("reason", str(error))
    raise


class _Training:
  """The training of a trial, its evaluations reported to Optuna."""

  def __init__(
    self,
    trial: optuna.Trial,
    plan: sweep_spec.Plan,
    point: sweep_spec.Point,
    folder: pathlib.Path,
  ):
    self._trial = trial
    self._metric = plan.sweep.metric
    self._shown = plan.sweep.shown
    self._last_step = int(point.get("train.num_steps", plan.num_steps))
    self._workdir = folder / plan.folder(point)
    self._command = [*plan.flags(point), f"--workdir={self._workdir}"]
    self._name = f"trial {trial.number} ({self._workdir.name})"
    self._step = 0
    self._reported: set[int] = set()
    self._is_pruned = False

  def run(self) -> float:
    """Trains until the end, unless it has ended; returns the metric."""
    self._workdir.mkdir(parents=True, exist_ok=True)
    status = 0
    with _locked(self._workdir) as lock:
      self._report()
      if self._result() is None and not self._is_pruned:
        status = self._train(lock)
        self._report()
    value = self._result()
    if value is not None:
      self._say(f"complete: {self._metric}={value:.4f}")
      return value
    if self._is_pruned:
      self._say(f"pruned at step {self._step}")
      raise optuna.TrialPruned
    log = self._workdir / "log.txt"
    *_, last = ["", *log.read_text(errors="replace").splitlines()]
    raise _Failed(f"exit status {status}: {last[:200]}; see {log}")

  def _train(self, lock: int) -> int:
    """Runs the trainer, which holds the lock; returns its exit status."""
    verb = "resumes" if self._step else "starts"
    self._say(f"{verb}: {shlex.join(self._command)}")
    shim = (sys.executable, "-I", dies_with_parent.__file__, str(os.getpid()))
    with (self._workdir / "log.txt").open("ab") as log:
      trainer = subprocess.Popen(
        [*shim, *TRAINER, *self._command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
      )
    try:
      while trainer.poll() is None and not self._is_pruned:
        time.sleep(POLL_SECONDS)
        self._report()
    finally:
      trainer.terminate()
      try:
        trainer.wait(_STOP_SECONDS)
      except subprocess.TimeoutExpired:
        trainer.kill()
    return trainer.wait()

  def _report(self) -> None:
    """Reports new evaluations, and asks the pruner."""
    rows = metric_writer.read_metrics(str(self._workdir))
    step = max((row["step"] for row in rows), default=0)
    if step > self._step:
      self._step = step
      self._trial.set_user_attr("step", step)  # raises if it was taken over
    evaluations = {r["step"]: r for r in rows if r.get("group") == "eval"}
    new = sorted(evaluations.keys() - self._reported)
    for step in new:
      value = self._value(evaluations[step])
      self._trial.report(value, step)
      self._say(f"step {step}: {self._metric}={value:.4f}")
    if new and self._shown:
      last = evaluations[new[-1]]
      self._trial.set_user_attr(
        "shown", {name: last.get(name) for name in self._shown}
      )
    self._reported.update(new)
    # At the last step pruning would save nothing and cost the result.
    if new and new[-1] < self._last_step and not self._is_pruned:
      self._is_pruned = self._trial.should_prune()

  def _result(self) -> float | None:
    """Returns the metric of a training that has ended."""
    path = self._workdir / metric_writer.RESULT_FILE
    if not path.exists():
      return None
    value = self._value(json.loads(path.read_text())["metrics"])
    if math.isnan(value):
      raise _Failed(f"the {self._metric} of its result is not a number")
    return value

  def _value(self, metrics: Mapping[str, Any]) -> float:
    """Returns the metric; NaN if it is null."""
    if self._metric not in metrics:
      names = sorted(set(metrics) - {"step", "group"})
      raise errors.UserError(
        f"the evaluations have no metric {self._metric!r}; they have"
        f" {', '.join(names)} (change the sweep file, with another --workdir)"
      )
    value = metrics[self._metric]
    return math.nan if value is None else float(value)

  def _say(self, text: str) -> None:
    print(f"{self._name} {text}", flush=True)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[int]:
  """Holds a folder's lock on this machine; yields its file descriptor.

  A trainer inherits it: that of a killed worker keeps it until it has saved.
  The file is temporary because network folders may have no locks.
  """
  name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
  path = pathlib.Path(tempfile.gettempdir(), f"sweep_{os.getuid()}_{name}.lock")
  with path.open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield file.fileno()


if __name__ == "__main__":
  command_line.run(main)
