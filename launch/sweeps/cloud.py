"""Workers of a sweep on rented machines: SkyPilot's managed jobs."""

import os
import pathlib
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from trm_jax import errors

TEMPLATE = pathlib.Path(__file__).parent.parent / "sky_sweep.yaml"
# The database's URL holds a password: it travels in the environment, and
# stands in no file and on no command line of this machine.
SECRET = "SWEEP_STORAGE"


def tasks(
  arguments: Sequence[str],
  *,
  template: pathlib.Path,
  name: str,
  num_workers: int,
) -> dict[str, dict[str, Any]]:
  """Returns job name -> what stands in its YAML file.

  Args:
    arguments: of launch.sweep on each machine, without the database.
    template: YAML; its `run` is the command that the arguments are put to.
    name: of the sweep.
    num_workers: one machine each.

  Raises:
    UserError: the template cannot be used.
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


def command(
  job: str, task: Mapping[str, Any], path: os.PathLike | str
) -> list[str]:
  """Returns the command that submits a task's file.

  What the task wants to know and does not say is taken from the environment.
  """
  return [
    *("sky", "jobs", "launch", "--yes", "--detach-run", "--name", job),
    *(part for name in _asked(task) for part in ("--env", name)),
    *("--secret", SECRET, str(path)),
  ]


def _asked(task: Mapping[str, Any]) -> list[str]:
  return [k for k, v in (task.get("envs") or {}).items() if v is None]


def submit(
  named: Mapping[str, Mapping[str, Any]], *, folder: pathlib.Path, storage: str
) -> None:
  """Submits the tasks.

  Args:
    named: of `tasks`.
    folder: that their files are written to.
    storage: URL of the database.

  Raises:
    UserError: SkyPilot is missing or refuses a task.
  """
  if shutil.which("sky") is None:
    raise errors.UserError(
      "SkyPilot is not installed: pip install 'skypilot[gcp]' (or [aws], ...)"
      " and sky check; --dry_run shows the tasks without it"
    )
  for name in {name for task in named.values() for name in _asked(task)}:
    if name not in os.environ:
      raise errors.UserError(
        f"the template asks for {name}: {name}=... before the command"
      )
  folder.mkdir(parents=True, exist_ok=True)
  for job, task in named.items():
    path = folder / f"{job}.yaml"
    path.write_text(as_yaml(task))
    submits = command(job, task, path)
    print(shlex.join(submits), flush=True)
    ended = subprocess.run(
      submits, env={**os.environ, SECRET: storage}, check=False
    )
    if ended.returncode:
      raise errors.UserError(
        f"sky jobs launch ended with exit status {ended.returncode} for {job};"
        " what it printed stands above"
      )
