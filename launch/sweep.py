"""Trains an experiment many times, to find its best settings.

python -m launch.sweep --config=experiments/quickstart.py \
  --sweep=experiments/sweeps/quickstart.py --workers=2

Or trains the rows of a paper's table, and writes paper against ours:

python -m launch.sweep --sweep=experiments/sweeps/table1.py --rows=trm,hrm

The same command goes on after any kill. See launch/README.md.
"""

import importlib.util
import os
import pathlib
import re
import sys
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from launch.sweeps import cloud, table_plan
from launch.sweeps import place as place_lib
from launch.sweeps import plan as plan_lib
from launch.sweeps import table as table_lib
from trm_jax import errors
from trm_jax.runtime import command_line

_SWEEP = flags.DEFINE_string(
  "sweep", "", "What is varied, e.g. experiments/sweeps/sudoku.py."
)
_ROWS = flags.DEFINE_list(
  "rows", None, "Of a table: which to train, e.g. trm,hrm; by default all."
)
_SEEDS = flags.DEFINE_list(
  "seeds", ["0"], "Of a table: with which each row is trained, e.g. 0,1,2."
)
_WORKDIR = flags.DEFINE_string(
  "workdir", "", "Folder of the sweep; by default runs/sweeps/NAME."
)
_STORAGE = flags.DEFINE_string(
  "storage", "", "URL of the database; by default a file in the workdir."
)
_WORKERS = flags.DEFINE_integer(
  "workers", 1, "How many trials, or machines, run at once.", lower_bound=1
)
_DEVICES_PER_WORKER = flags.DEFINE_integer(
  "devices_per_worker",
  0,
  "GPUs that each trial has for itself; 0: every trial sees all devices.",
  lower_bound=0,
)
_LAUNCHER = flags.DEFINE_enum(
  "launcher", "local", ["local", "skypilot"], "Where the workers run."
)
_SKY_TEMPLATE = flags.DEFINE_string(
  "sky_template", str(cloud.TEMPLATE), "A worker's task for SkyPilot."
)
_DRY_RUN = flags.DEFINE_bool(
  "dry_run", False, "Only show the commands, or SkyPilot's tasks."
)
_REPORT = flags.DEFINE_bool("report", False, "Only tell what was found so far.")


def main(argv: Sequence[str]) -> None:
  """Runs the sweep; its last line names the best trial, or a table's rows."""
  command_line.expect_no_words(argv)
  plan = _plan()
  if importlib.util.find_spec("optuna") is None:
    raise errors.UserError("a sweep needs Optuna: pip install '.[sweep]'")
  place = place_lib.Place(
    workdir=_WORKDIR.value
    or os.path.join("runs", "sweeps", plan_lib.default_name(_SWEEP.value)),
    storage=_STORAGE.value,
  )
  if _LAUNCHER.value == "skypilot":
    _launch(plan, place)
  else:
    _run(plan, place)


def _plan() -> plan_lib.Plan:
  if not _SWEEP.present:
    raise errors.UserError(
      "--sweep is missing, e.g. --config=experiments/quickstart.py"
      " --sweep=experiments/sweeps/quickstart.py"
    )
  sweep = plan_lib.load_sweep(_SWEEP.value)
  if isinstance(sweep, table_lib.Table):
    return _table(sweep)
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
  command_line.config()  # tells what is wrong with it
  flag = flags.FLAGS["config"]
  return plan_lib.make(
    sweep,
    experiment=config_flags.get_config_filename(flag),
    config=ml_collections.ConfigDict(command_line.CONFIG.value),
    overrides=config_flags.get_override_values(flag),
  )


def _table(table: table_lib.Table) -> table_plan.TablePlan:
  """Plans the rows that are asked for."""
  if command_line.has_config():
    raise errors.UserError(
      f"--config: the rows of {_SWEEP.value} are experiments already; leave it"
      " out, and change all rows with --config.group.knob=value"
    )
  for seed in _SEEDS.value:
    if not re.fullmatch("[0-9]{1,9}", seed):
      raise errors.UserError(
        f"--seeds: {seed!r} is no whole number from 0; e.g. --seeds=0,1,2"
      )
  return table_plan.make(
    table,
    names=_ROWS.value,
    seeds=[int(seed) for seed in _SEEDS.value],
    changed=command_line.changed,
  )


def _run(plan: plan_lib.Plan, place: place_lib.Place) -> None:
  # Imported late: it needs Optuna.
  from launch.sweeps import session

  environments = session.environments(
    os.environ,
    workers=_WORKERS.value,
    devices_per_worker=_DEVICES_PER_WORKER.value,
  )
  if _DRY_RUN.value:
    session.print_commands(plan, place)
  elif _REPORT.value:
    session.report(plan, place)
  else:
    sys.exit(session.run(plan, place, environments=environments))


def _launch(plan: plan_lib.Plan, place: place_lib.Place) -> None:
  """Submits workers to SkyPilot, or shows them."""
  if not place.is_shared or not _WORKDIR.present:
    raise errors.UserError(
      "workers on many machines share a database and a folder: name a"
      " --storage=postgresql+psycopg://USER:PASSWORD@HOST/DATABASE and a"
      " --workdir in the bucket, e.g. /bucket/sweeps/sudoku"
    )
  named = cloud.tasks(
    [
      *plan.sweep_arguments(_SWEEP.value),
      f"--workdir={_WORKDIR.value}",
      f"--devices_per_worker={_DEVICES_PER_WORKER.value}",
    ],
    template=pathlib.Path(_SKY_TEMPLATE.value),
    name=place.folder.name,
    num_workers=_WORKERS.value,
  )
  if _DRY_RUN.value:
    for job, task in named.items():
      print(f"# {job}.yaml\n{cloud.as_yaml(task)}", flush=True)
    return
  from launch.sweeps import session

  session.create(plan, place)  # before many workers come at once
  cloud.submit(named, folder=place.scratch, storage=place.url)


if __name__ == "__main__":
  command_line.run(main)
