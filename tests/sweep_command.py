"""Runs launch.sweep in tests, with a trainer that only writes files."""

import csv
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import traceback

import optuna
import sweep_trainer

ROOT = pathlib.Path(__file__).resolve().parents[1]
# launch.sweep, quick and with the stand-in.
PROGRAM = f"""
import sys
from launch import sweep
from trm_jax.runtime import command_line
sweep.TRAINER = (sys.executable, {sweep_trainer.__file__!r})
sweep.POLL_SECONDS = 0.05
sweep.HEARTBEAT_SECONDS = 1
sweep.GRACE_SECONDS = 2
command_line.run(sweep.main)
"""
HEADER = """
from launch import sweep_spec
from optuna.distributions import *
from optuna.pruners import *
from optuna.samplers import *

def Choice(*values):
  return CategoricalDistribution(values)

def get_sweep():
  return sweep_spec.Sweep(
"""


class Command:
  """A sweep's command line in a folder of its own."""

  def __init__(self, folder, *flags):
    self.workdir = folder / "sweep"
    self.flags = [
      *flags[:2],  # --sweep, and --config of a search
      f"--workdir={self.workdir}",
      "--config.train.num_steps=6",
      "--config.eval.every_steps=2",
      *flags[2:],
    ]

  @classmethod
  def of_search(cls, folder, sweep, *flags):
    """Returns the command of a sweep file with these arguments of Sweep."""
    file = folder / "search_file.py"
    file.write_text(f"{HEADER}{sweep})\n")
    config = "--config=experiments/quickstart.py"
    return cls(folder, config, f"--sweep={file}", *flags)

  def start(self, *flags):
    return Process([*self.flags, *flags])

  def run(self, *flags, status=0):
    """Returns what it prints, or its error."""
    process = self.start(*flags)
    output, mistakes = process.communicate()
    assert process.returncode == status, output + mistakes
    assert "Traceback" not in mistakes
    assert self.events("TWO AT ONCE") == []
    return output if status != 1 else mistakes

  def events(self, kind):
    """[(folder of the trial, event)] of a kind, by folder."""
    found = []
    for path in sorted(self.workdir.glob("*/events.jsonl")):
      for line in path.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == kind:
          found.append((path.parent.name, event))
    return found

  def rows(self):
    """{trial: row} of results.csv."""
    with (self.workdir / "results.csv").open() as file:
      return {int(row["trial"]): row for row in csv.DictReader(file)}

  def states(self):
    return {number: row["state"] for number, row in self.rows().items()}

  def cells(self):
    """{row: {column: cell}} of results.md."""
    text = (self.workdir / "results.md").read_text()
    header, _, *lines = [
      [cell.strip() for cell in line.strip("|").split("|")]
      for line in text.splitlines()
      if line.startswith("|")
    ]
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}

  def has_reported(self):
    """Whether the study has heard of an evaluation."""
    storage = f"sqlite:///{self.workdir}/sweep.db"
    study = optuna.load_study(study_name="sweep", storage=storage)
    return any(trial.intermediate_values for trial in study.trials)

  def saved(self):
    """{folder of the trial: step that it has saved}."""
    return {
      path.parent.name: int(path.read_text() or 0)
      for path in self.workdir.glob("*/saved")
    }


def wait_for(condition):
  while not condition():
    time.sleep(0.02)


def run(flags):
  """Returns exit status, standard output and standard error."""
  process = Process(flags)
  output, mistakes = process.communicate()
  return process.returncode, output, mistakes


class Process:
  """launch.sweep in a fork of one process that has all imported."""

  _server = None

  def __init__(self, flags):
    if Process._server is None:
      Process._server = subprocess.Popen(
        [sys.executable, __file__],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        text=True,
      )
    self._folder = pathlib.Path(tempfile.mkdtemp())
    self.returncode = None
    request = [str(self._folder), dict(os.environ), flags]
    print(json.dumps(request), file=Process._server.stdin, flush=True)

  def send_signal(self, number):
    os.kill(int(self._read("pid")), number)

  def communicate(self):
    self.returncode = int(self._read("status"))
    found = self._read("out"), self._read("err")
    shutil.rmtree(self._folder)
    return found

  def _read(self, name):
    wait_for((self._folder / name).exists)
    return (self._folder / name).read_text()


def _serve():
  from launch import sweep  # noqa: F401

  for line in sys.stdin:
    if not os.fork():
      _watch(*json.loads(line))
      os._exit(0)
    while os.waitpid(-1, os.WNOHANG)[0]:
      pass


def _watch(folder, environment, flags):
  """Forks the command, and writes down its number and its exit status."""
  pid = os.fork()
  if not pid:
    _run(folder, environment, flags)
  _write(folder, "pid", pid)
  _, status = os.waitpid(pid, 0)
  _write(folder, "status", os.waitstatus_to_exitcode(status))


def _write(folder, name, value):
  path = pathlib.Path(folder, f"new_{name}")
  path.write_text(str(value))
  path.rename(path.with_name(name))


def _run(folder, environment, flags):
  for descriptor, name in ((1, "out"), (2, "err")):
    file = os.open(f"{folder}/{name}", os.O_CREAT | os.O_WRONLY)
    os.dup2(file, descriptor)
  os.environ.update(environment)
  sys.argv[1:] = flags
  status = 0
  try:
    exec(PROGRAM, {})
  except SystemExit as end:
    status = end.code or 0
  except BaseException:
    traceback.print_exc()
    status = 99
  sys.stdout.flush()
  os._exit(status)


if __name__ == "__main__":
  _serve()
