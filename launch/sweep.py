"""Trains an experiment many times, to find its best settings.

python -m launch.sweep --config=experiments/quickstart.py \
  --sweep=experiments/sweeps/quickstart.py --workers=2

Or trains rows of a paper's table, and writes paper against ours:

python -m launch.sweep --sweep=experiments/sweeps/tables.py:1 --rows=trm,hrm

The same command resumes after any kill. See launch/README.md.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from launch import sky
from trm_jax import errors
from trm_jax.runtime import command_line

if importlib.util.find_spec("optuna") is not None:
  import optuna

  from launch import (
    sweep_report,
    sweep_spec,
    sweep_study,
    sweep_table,
    sweep_worker,
  )

_SWEEP = flags.DEFINE_string(
  "sweep", "", "Sweep file, e.g. experiments/sweeps/sudoku.py."
)
_ROWS = flags.DEFINE_list(
  "rows", None, "Rows of a table to train, e.g. trm,hrm; default: all."
)
_SEEDS = flags.DEFINE_list(
  "seeds", ["0"], "Seeds to train each row of a table with, e.g. 0,1,2."
)
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
  "devices_per_worker",
  0,
  "GPUs of each worker; 0: every worker sees all devices.",
  lower_bound=0,
)
_LAUNCHER = flags.DEFINE_enum(
  "launcher", "local", ["local", "skypilot"], "Where the workers run."
)
_SKY_TEMPLATE = flags.DEFINE_string(
  "sky_template", str(sky.TEMPLATE), "A worker's task for SkyPilot."
)
_DRY_RUN = flags.DEFINE_bool(
  "dry_run", False, "Only print the commands, or SkyPilot's tasks."
)
_REPORT = flags.DEFINE_bool("report", False, "Only report the results so far.")
_IS_CHILD = flags.DEFINE_bool(
  "is_child", False, "Only run trials; for the processes of --workers."
)

_DEVICES = "CUDA_VISIBLE_DEVICES"
_SHIM = pathlib.Path(__file__).with_name("dies_with_parent.py")


def main(argv: Sequence[str]) -> None:
  """Runs the sweep; its last line names the best trial, or a table's rows."""
  command_line.expect_no_words(argv)
  if not _SWEEP.present:
    raise errors.UserError(
      "--sweep is missing, e.g. --config=experiments/quickstart.py"
      " --sweep=experiments/sweeps/quickstart.py"
    )
  if importlib.util.find_spec("optuna") is None:
    raise errors.UserError("a sweep needs Optuna: pip install '.[sweep]'")
  plan = _plan()
  path, _, variant = _SWEEP.value.partition(":")
  name = "_".join([pathlib.Path(path).stem, *filter(None, variant.split(","))])
  folder = _WORKDIR.value or os.path.join("runs", "sweeps", name)
  if "://" in folder:
    raise errors.UserError("--workdir must be a folder: mount the bucket")
  place = sweep_study.Place(
    pathlib.Path(folder).expanduser(), storage=_STORAGE.value
  )
  if _LAUNCHER.value == "skypilot":
    _launch(plan, place)
  elif _DRY_RUN.value:
    for command in sweep_study.commands(plan, place):
      print(command)
  else:
    with sweep_study.database_errors(place):
      sys.exit(_run(plan, place))


def _plan() -> sweep_spec.Plan:
  """Returns the plan of a search or of a table, every setting checked."""
  sweep = sweep_spec.load(_SWEEP.value)
  if isinstance(sweep, sweep_table.Table):
    if command_line.has_config():
      raise errors.UserError(
        f"--config: the rows of {_SWEEP.value} are experiments already; leave"
        " it out, and change all rows with --config.group.knob=value"
      )
    for seed in _SEEDS.value:
      if not re.fullmatch("[0-9]{1,9}", seed):
        raise errors.UserError(
          f"--seeds: {seed!r} is no whole number from 0; e.g. --seeds=0,1,2"
        )
    return sweep_table.plan(
      sweep,
      names=_ROWS.value,
      seeds=[int(seed) for seed in _SEEDS.value],
      changed=command_line.changed,
    )
  if not isinstance(sweep, sweep_spec.Sweep):
    raise errors.UserError(
      f"--sweep: get_sweep() of {_SWEEP.value} returned"
      f" {type(sweep).__name__}, neither a launch.sweep_spec.Sweep nor a"
      " launch.sweep_table.Table"
    )
  for table_flag in (_ROWS, _SEEDS):
    if table_flag.present:
      raise errors.UserError(
        f"--{table_flag.name}: {_SWEEP.value} is no table; its file says what"
        " is varied"
      )
  if not command_line.has_config():
    raise errors.UserError(
      "--config is missing, e.g. --config=experiments/quickstart.py"
    )
  command_line.config()  # raises if it is wrong
  flag = flags.FLAGS["config"]
  return sweep_spec.plan(
    sweep,
    experiment=config_flags.get_config_filename(flag),
    config=ml_collections.ConfigDict(command_line.CONFIG.value),
    overrides=config_flags.get_override_values(flag),
  )


def _launch(plan: sweep_spec.Plan, place: sweep_study.Place) -> None:
  """Submits workers to SkyPilot, or prints their tasks."""
  if not place.is_shared or not _WORKDIR.present:
    raise errors.UserError(
      "workers on many machines share a database and a folder: name a"
      " --storage=postgresql+psycopg://USER:PASSWORD@HOST/DATABASE and a"
      " --workdir in the bucket, e.g. /bucket/sweeps/sudoku"
    )
  named = sky.tasks(
    [
      f"--sweep={_SWEEP.value}",
      *plan.flags,
      f"--workdir={_WORKDIR.value}",
      f"--devices_per_worker={_DEVICES_PER_WORKER.value}",
    ],
    template=pathlib.Path(_SKY_TEMPLATE.value),
    name=place.folder.name,
    num_workers=_WORKERS.value,
  )
  if _DRY_RUN.value:
    for job, task in named.items():
      print(f"# {job}.yaml\n{sky.as_yaml(task)}", flush=True)
    return
  with sweep_study.database_errors(place):
    sweep_study.prepare(plan, place)  # before many workers come at once
  sky.submit(named, folder=place.scratch, storage=place.url)


def _run(plan: sweep_spec.Plan, place: sweep_study.Place) -> int:
  """Runs trials, unless --report, and reports; returns the exit status."""
  if _REPORT.value:
    study = sweep_study.open_study(plan, place, must_exist=True)
    return _report(plan, place, study, is_last=True)
  if _IS_CHILD.value:
    study = sweep_study.open_study(plan, place)
    return sweep_worker.Worker(study, plan, place).run()
  environments = _environments()
  study = sweep_study.prepare(plan, place)
  if len(environments) > 1:
    status = _run_children(environments)
  else:
    os.environ.update(environments[0])
    status = sweep_worker.Worker(study, plan, place).run()
  left = len(sweep_study.unfinished(study))
  _report(plan, place, study, is_last=not left)
  if status > 128:
    print("stopped; the same command resumes", flush=True)
  elif left and place.is_shared:
    print(f"other workers still run {left} trials; see --report", flush=True)
  elif left and not status:
    raise errors.UserError(
      f"{left} trials are unfinished because all workers were killed; the same"
      " command resumes"
    )
  return status


def _report(
  plan: sweep_spec.Plan,
  place: sweep_study.Place,
  study: optuna.Study,
  *,
  is_last: bool,
) -> int:
  """Writes and prints the results; returns the exit status."""
  folder = place.folder
  runs = sweep_report.runs(study, plan, folder)
  if isinstance(plan, sweep_table.TablePlan):
    text = sweep_table.comparison(plan, runs)
    known = {n: row.paper.accuracy for n, row in plan.rows.items()}
    paper = {n: v / 100 for n, v in known.items() if v is not None}
  else:
    text, paper = sweep_report.ranking(plan, runs), {}
  sweep_report.write(plan, runs, text, folder, paper=paper)
  print(f"{text}\n{folder}/results.md, results.csv and results.png")
  if is_last:
    print(
      sweep_table.summary(plan, runs)
      if isinstance(plan, sweep_table.TablePlan)
      else sweep_report.best(plan, runs, folder),
      flush=True,
    )
  return 0


def _run_children(environments: Sequence[dict[str, str]]) -> int:
  """Runs this command in a process for each worker; returns the exit status.

  A worker that is killed is not replaced: the others retry its trial.
  """
  shim = [sys.executable, "-I", str(_SHIM), str(os.getpid())]
  command = [*shim, sys.executable, *sys.orig_argv[1:], "--is_child"]
  signals: list[int] = []
  children = []
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda received, _: signals.append(received))
  for environment in environments:
    children.append(
      subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C comes from this process
      )
    )
  passed_on = 0
  reported: set[int] = set()
  while any(child.poll() is None for child in children):
    time.sleep(0.1)
    if len(signals) > passed_on:
      passed_on += 1
      for child in children:
        child.send_signal(signal.SIGTERM)
    for index, child in enumerate(children):
      if (child.poll() or 0) < 0 and index not in reported:
        reported.add(index)
        name = signal.Signals(-child.returncode).name
        print(
          f"worker {index} was killed by {name}; the others retry its trial",
          flush=True,
        )
  if signals:
    return 128 + signals[0]
  return max(0, *(child.returncode for child in children))


def _environments() -> list[dict[str, str]]:
  """Returns the variables of each worker's environment that differ.

  Raises:
    UserError: There are fewer GPUs than the workers need.
  """
  workers, each = _WORKERS.value, _DEVICES_PER_WORKER.value
  if not each:
    return [{}] * workers
  devices = [d for d in os.environ.get(_DEVICES, "").split(",") if d]
  devices = devices or [str(i) for i in range(workers * each)]
  if len(devices) < workers * each:
    raise errors.UserError(
      f"{workers} workers with {each} device(s) need {workers * each};"
      f" {_DEVICES} has {len(devices)}"
    )
  return [
    {_DEVICES: ",".join(devices[i : i + each])}
    for i in range(0, workers * each, each)
  ]


if __name__ == "__main__":
  command_line.run(main)
