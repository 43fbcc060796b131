"""Submits the workers of a sweep as managed jobs of SkyPilot."""

import os
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from trm_jax import errors

TEMPLATE = pathlib.Path(__file__).with_name("sky_sweep.yaml")
# The database's URL holds a password: it travels in the environment, and is
# written to no file and no command line of this machine.
SECRET = "SWEEP_STORAGE"


def tasks(
  arguments: Sequence[str],
  *,
  template: pathlib.Path,
  name: str,
  num_workers: int,
) -> dict[str, dict[str, Any]]:
  """Returns job name -> SkyPilot task, one machine each.

  Args:
    arguments: Flags of launch.sweep on each machine, without the database.
    template: YAML file; the arguments are appended to its `run`.
    name: Name of the sweep.
    num_workers: Number of jobs.

  Raises:
    UserError: The template cannot be used.
  """
  try:
    task = yaml.safe_load(template.read_text())
  except (OSError, yaml.YAMLError) as error:
    raise errors.UserError(
      f"cannot read {template}: {errors.first_line(error)}"
    ) from error
  if not isinstance(task, Mapping) or not isinstance(task.get("run"), str):
    raise errors.UserError(
      f"{template} has no `run`, the command of a worker without its arguments"
    )
  run = f'{task["run"].strip()} {shlex.join(arguments)} --storage="${SECRET}"\n'
  return {
    job: {**task, "name": job, "run": run, "secrets": {SECRET: None}}
    for job in (f"{name}-{worker}" for worker in range(num_workers))
  }


def as_yaml(task: Mapping[str, Any]) -> str:
  """Returns the text of a task's file."""
  return yaml.safe_dump(dict(task), sort_keys=False, width=1000)


def submit(
  named: Mapping[str, Mapping[str, Any]], *, folder: pathlib.Path, storage: str
) -> None:
  """Submits the tasks.

  Args:
    named: Job name -> task.
    folder: Folder for the tasks' files.
    storage: URL of the database.

  Raises:
    UserError: SkyPilot is missing or refuses a task.
  """
  if shutil.which("sky") is None:
    raise errors.UserError(
      "SkyPilot is not installed: pip install 'skypilot[gcp]' (or [aws], ...)"
      " and sky check; --dry_run shows the tasks without it"
    )
  for job, task in named.items():
    asked = [k for k, v in (task.get("envs") or {}).items() if v is None]
    for name in asked:
      if name not in os.environ:
        raise errors.UserError(
          f"the template asks for {name}: {name}=... before the command"
        )
    path = folder / f"{job}.yaml"
    path.write_text(as_yaml(task))
    command = ["sky", "jobs", "launch", "--yes", "--detach-run"]
    command += ["--name", job, *(w for name in asked for w in ("--env", name))]
    command += ["--secret", SECRET, str(path)]
    print(shlex.join(command), flush=True)
    environment = {**os.environ, SECRET: storage}
    status = subprocess.run(command, env=environment, check=False).returncode
    if status:
      raise errors.UserError(
        f"sky jobs launch failed for {job} with exit status {status}; see its"
        " output above"
      )
