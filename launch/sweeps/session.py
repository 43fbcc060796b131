"""One call of launch/sweep.py: run trials, report, or show what would run."""

import shlex
import signal
import types
from collections.abc import Mapping

import optuna

from launch.sweeps import claims as claims_lib
from launch.sweeps import place as place_lib
from launch.sweeps import plan as plan_lib
from launch.sweeps import report as report_lib
from launch.sweeps import study as study_lib
from launch.sweeps import table_plan, table_report, table_study
from launch.sweeps import worker as worker_lib
from trm_jax import errors

_POLL_SECONDS = 0.5
_REMOTE_POLL_SECONDS = 15.0
_DEVICES = "CUDA_VISIBLE_DEVICES"


def run(
  plan: plan_lib.Plan,
  place: place_lib.Place,
  *,
  environments: list[dict[str, str]],
) -> int:
  """Runs trials until all have ended, or the sweep is stopped.

  Args:
    plan: of the sweep.
    place: of the sweep; made if it is not there.
    environments: of the trials that run at once.

  Returns:
    The exit status: 0, or 128 and the signal that stopped the sweep.

  Raises:
    UserError: something only the user can put right.
  """
  with study_lib.telling_of_database(place.url):
    study, claims = create(plan, place)
    worker = worker_lib.Worker(
      study,
      claims,
      workdir=place.folder,
      log_folder=place.log_folder,
      environments=environments,
      poll_seconds=_REMOTE_POLL_SECONDS if place.is_remote else _POLL_SECONDS,
    )
    signals: list[int] = []

    def stop(number: int, _) -> None:
      signals.append(number)
      worker.request_stop()

    for number in (signal.SIGINT, signal.SIGTERM):
      signal.signal(number, stop)
    ended = sum(t.state.is_finished() for t in study.asked_for())
    print(
      f"sweep {place.name}: {ended} of {plan.sweep.size} trials have ended;"
      f" {len(environments)} at once; {study_lib.shown(place.url)}",
      flush=True,
    )
    worker.run()
    reporter = _reporter(study)
    if study.trials():
      print(reporter.write(study, place.folder))
    if signals:
      print("stopped; the same command goes on", flush=True)
      return 128 + signals[0]
    if study.unfinished():
      print("other workers still run trials; --report tells later", flush=True)
      return 0
    print(reporter.last_line(study, place.folder), flush=True)
  return 0


def create(
  plan: plan_lib.Plan, place: place_lib.Place
) -> tuple[study_lib.Study, claims_lib.Claims]:
  """Opens the sweep's study, or makes it, and prepares this worker's claims.

  Raises:
    UserError: nobody answers, or the study is another sweep.
  """
  try:
    place.lock_folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.UserError(
      f"cannot make the folder {place.lock_folder}: {error.strerror}"
    ) from error
  # Two that make the tables at once would be in each other's way.
  with (
    study_lib.telling_of_database(place.url),
    claims_lib.waiting(place.lock_folder, "create"),
  ):
    storage = study_lib.open_storage(place.url)
    study = _study(plan, storage=storage, name=place.name)
    claims = claims_lib.Claims(
      place.lock_folder,
      engine=storage.engine if place.is_shared else None,
      scope=f"{place.name}/",
    )
  return study, claims


def report(plan: plan_lib.Plan, place: place_lib.Place) -> None:
  """Prints and writes what was found so far.

  Raises:
    UserError: there is nothing yet.
  """
  if not place.storage and not place.folder.exists():
    raise errors.UserError(f"there is no sweep in {place.folder} yet")
  with study_lib.telling_of_database(place.url):
    study = _study(
      plan,
      storage=study_lib.open_storage(place.url),
      name=place.name,
      must_exist=True,
    )
    reporter = _reporter(study)
    print(reporter.write(study, place.folder))
    print(reporter.last_line(study, place.folder))


def _study(
  plan: plan_lib.Plan,
  *,
  storage: optuna.storages.BaseStorage,
  name: str,
  must_exist: bool = False,
) -> study_lib.Study:
  """Opens a study, or makes it; that of a table knows rows by name."""
  if isinstance(plan, table_plan.TablePlan):
    return table_study.TableStudy(
      plan, storage=storage, name=name, must_exist=must_exist
    )
  return study_lib.Study(
    plan, storage=storage, name=name, must_exist=must_exist
  )


def _reporter(study: study_lib.Study) -> types.ModuleType:
  """Returns the module that writes and tells what was found."""
  is_table = isinstance(study, table_study.TableStudy)
  return table_report if is_table else report_lib


def print_commands(plan: plan_lib.Plan, place: place_lib.Place) -> None:
  """Prints the commands of the trials, as far as they are known."""
  study = _study(
    plan, storage=optuna.storages.InMemoryStorage(), name=place.name
  )
  # What TPE draws depends on results.
  known = 1 if plan.sweep.sampler == "tpe" else plan.sweep.size
  for _ in range(known):
    trial = study.begin()
    workdir = place.folder / plan.folder_name(trial.number, trial.params)
    command = ["python", "-m", "trm_jax.main"]
    print(shlex.join([*command, *plan.arguments(trial.params, workdir)]))
  if known < plan.sweep.size:
    print(f"and {plan.sweep.size - known} more, drawn by results")


def environments(
  base: Mapping[str, str], *, workers: int, devices_per_worker: int
) -> list[dict[str, str]]:
  """Returns the environment of each trial that runs at once.

  Args:
    base: of this process.
    workers: how many run at once.
    devices_per_worker: GPUs that each has for itself; 0: all see all.

  Raises:
    UserError: there are fewer GPUs.
  """
  if not devices_per_worker:
    return [dict(base)] * workers
  needed = workers * devices_per_worker
  devices = [d for d in base.get(_DEVICES, "").split(",") if d]
  if not devices:
    devices = [str(i) for i in range(needed)]
  if len(devices) < needed:
    raise errors.UserError(
      f"{workers} workers with {devices_per_worker} device(s) need {needed};"
      f" {_DEVICES} has {len(devices)}"
    )
  return [
    {**base, _DEVICES: ",".join(devices[i : i + devices_per_worker])}
    for i in range(0, needed, devices_per_worker)
  ]
