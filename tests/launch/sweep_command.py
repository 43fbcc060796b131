"""Runs launch.sweep in tests, with a trainer that only writes files."""

import csv
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback

import sweep_trainer

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = f"""
import sys
from launch import sweep, sweep_worker
from trm_jax import command_line
sweep_worker.TRAINER = (sys.executable, {sweep_trainer.__file__!r})
sweep_worker.POLL_SECONDS = 0.05
sweep_worker.HEARTBEAT_SECONDS = 1
sweep_worker.GRACE_SECONDS = 2
command_line.run(sweep.main)
"""
HEADER = """
from launch import sweep_spec
from optuna.distributions import *
from optuna.pruners import *

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
      f"--workdir={self.workdir}",
      "--config.train.num_steps=6",
      "--config.eval.every_steps=2",
      *flags,
    ]

  @classmethod
  def of_search(cls, folder, sweep, *flags):
    """Returns the command of a sweep file with these arguments of Sweep."""
    file = folder / "search_file.py"
    file.write_text(f"{HEADER}{sweep})\n")
    config = "--config=experiments/quickstart.py"
    return cls(folder, config, f"--sweep={file}", *flags)

  def start(self, *flags):
    return subprocess.Popen(
      [sys.executable, "-c", PROGRAM, *self.flags, *flags],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

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

  def saved(self):
    """{folder of the trial: step that it has saved}."""
    return {
      path.parent.name: int(path.read_text() or 0)
      for path in self.workdir.glob("*/saved")
    }


def wait_for(condition):
  while not condition():
    time.sleep(0.02)


def run_each(folder, commands):
  """Runs command lines that only print, each in a fork of one process.

  What they import takes longer than what they do.

  Args:
    folder: Folder for their outputs.
    commands: Flags of each.

  Returns:
    Exit status, standard output and standard error of each.
  """
  (folder / "commands.json").write_text(json.dumps(commands))
  subprocess.run(
    [sys.executable, __file__, str(folder)], cwd=ROOT, check=True, env=_env()
  )
  return [
    (
      int((folder / f"{i}.status").read_text()),
      (folder / f"{i}.out").read_text(),
      (folder / f"{i}.err").read_text(),
    )
    for i in range(len(commands))
  ]


def _env():
  return {**os.environ, "PYTHONPATH": str(ROOT)}


def _fork_each(folder):
  from launch import sweep, sweep_table, sweep_worker  # noqa: F401
  from trm_jax import command_line, program  # noqa: F401

  commands = json.loads((folder / "commands.json").read_text())
  for number, flags in enumerate(commands):
    if os.fork():
      _, status = os.wait()
      code = os.waitstatus_to_exitcode(status)
      (folder / f"{number}.status").write_text(str(code))
      continue
    for descriptor, name in ((1, "out"), (2, "err")):
      file = os.open(folder / f"{number}.{name}", os.O_CREAT | os.O_WRONLY)
      os.dup2(file, descriptor)
    sys.argv[1:] = flags
    code = 0
    try:
      command_line.run(sweep.main)
    except SystemExit as end:
      code = end.code or 0
    except BaseException:
      traceback.print_exc()
      code = 99
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
  _fork_each(pathlib.Path(sys.argv[1]))
