"""Submits the workers of a sweep as managed jobs of SkyPilot."""

import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

import yaml

from trm_jax import errors

_TEMPLATE = pathlib.Path(__file__).with_name("sky_sweep.yaml")
# The database's URL holds a password: it travels in the environment, and is
# written to no file and no command line of this machine.
_SECRET = "SWEEP_STORAGE"


def tasks(
  arguments: Sequence[str], *, name: str, num_workers: int
) -> dict[str, str]:
  """Returns job name -> SkyPilot task in YAML, one machine each.

  Args:
    arguments: Flags of launch.sweep on each machine, without the database.
    name: Name of the sweep.
    num_workers: Number of jobs.
  """
  task = yaml.safe_load(_TEMPLATE.read_text())
  command = f"{task['run'].strip()} {shlex.join(arguments)}"
  task["run"] = f'{command} --storage="${_SECRET}"\n'
  task["secrets"] = {_SECRET: None}
  return {
    job: yaml.safe_dump({**task, "name": job}, sort_keys=False, width=1000)
    for job in (f"{name}-{worker}" for worker in range(num_workers))
  }


def submit(tasks: Mapping[str, str], *, storage: str) -> None:
  """Submits the tasks; the database's URL is passed as a secret."""
  if shutil.which("sky") is None:
    raise errors.UserError(
      "SkyPilot is not installed: pip install 'skypilot[gcp]' (or [aws], ...)"
      " and sky check; --dry_run shows the tasks without it"
    )
  for job, task in tasks.items():
    envs = yaml.safe_load(task)["envs"]
    names = [name for name, value in envs.items() if value is None]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
      file.write(task)
      file.flush()
      command = ["sky", "jobs", "launch", "--yes", "--detach-run"]
      command += ["--name", job, *(f"--env={name}" for name in names)]
      command += ["--secret", _SECRET, file.name]
      environment = {**os.environ, _SECRET: storage}
      status = subprocess.run(command, env=environment, check=False).returncode
    if status:
      raise errors.UserError(
        f"{shlex.join(command)} failed with exit status {status}; see above"
      )
