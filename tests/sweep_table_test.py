"""The rows of a paper's table, through the command line."""

import csv
import json
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import sweep_table_trainer

from experiments import ablations

ROOT = pathlib.Path(__file__).parent.parent
TRAINER = pathlib.Path(sweep_table_trainer.__file__)
PROGRAM = f"""
import sys
from launch import sweep
from launch.sweeps import session, trial_process
from trm_jax.runtime import command_line
trial_process.TRAINER = (sys.executable, {str(TRAINER)!r})
session._POLL_SECONDS = 0.05
command_line.run(sweep.main)
"""


class Command:
  """The command line of table 1 in a folder of its own."""

  def __init__(self, folder):
    self.workdir = folder / "sweep"
    self.settings = (
      "--config.train.num_steps=6",
      "--config.eval.every_steps=2",
    )

  def start(self, *flags):
    return subprocess.Popen(
      [
        *(sys.executable, "-c", PROGRAM),
        *("--sweep=experiments/sweeps/table1.py", f"--workdir={self.workdir}"),
        *self.settings,
        *flags,
      ],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, *flags, status=0):
    process = self.start(*flags)
    output, mistakes = process.communicate()
    assert process.returncode == status, output + mistakes
    assert "Traceback" not in mistakes
    return output if status != 1 else mistakes

  def starts(self):
    """(folder of the trial, step, flags) of each start, by folder."""
    found = []
    for path in sorted(self.workdir.glob("*/events.jsonl")):
      for line in path.read_text().splitlines():
        event = json.loads(line)
        found.append((path.parent.name, event["step"], event["flags"]))
    return found

  def folders(self):
    return [folder for folder, _, _ in self.starts()]

  def cells(self):
    """{row: {column: cell}} of the table."""
    text = (self.workdir / "results.md").read_text()
    header, _, *lines = [
      [cell.strip() for cell in line.strip("|").split("|")]
      for line in text.splitlines()
      if line.startswith("|")
    ]
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}

  def states(self):
    return {
      row: cells["state"]
      for row, cells in self.cells().items()
      if cells["state"] != "not run"
    }


def test_rows_and_seeds_become_a_table_that_grows(tmp_path):
  command = Command(tmp_path)
  output = command.run("--rows=trm,no_ema")
  assert command.folders() == ["no_ema_seed0", "trm_seed0"]
  flags = command.starts()[1][2]
  assert flags == [
    "--config=experiments/ablations.py:trm",
    f"--workdir={command.workdir}/trm_seed0",
    "--config.train.num_steps=6",
    "--config.eval.every_steps=2",
    "--config.seed=0",
  ]
  assert output.splitlines()[-1] == (
    "2 of 9 rows are complete: trm exact_accuracy=0.8750,"
    " no_ema exact_accuracy=0.7500"
  )
  cells = command.cells()
  assert list(cells) == list(ablations.TABLES["table1"])
  assert cells["trm"] == {
    "row": "trm",
    "in the paper": "TRM (T = 3, n = 6)",
    "paper's %": "87.4",
    "ours %": "87.5",
    "depth": "42",
    "passes": "1",
    "paper's parameters": "5M",
    "our parameters": "5,028,866",
    "steps": "6 of 6",
    "hours": cells["trm"]["hours"],
    "state": "complete",
  }
  assert re.fullmatch(r"0\.\d\d", cells["trm"]["hours"])
  assert cells["hrm"]["state"] == "not run"
  assert cells["hrm"]["ours %"] == cells["hrm"]["hours"] == ""
  text = (command.workdir / "results.md").read_text()
  assert text in output
  assert "\nPuzzles: sudoku from the public download; tested on all.\n" in text
  assert "Not the paper's recipe: train.num_steps=6 instead of 65104.\n" in text

  # Another row and a second seed; what is there stays and is not repeated.
  output = command.run("--rows=hrm,trm", "--seeds=0,1", "--workers=2")
  assert sorted(command.folders()) == [
    *("hrm_seed0", "hrm_seed1", "no_ema_seed0", "trm_seed0", "trm_seed1")
  ]
  cells = command.cells()
  assert cells["trm"]["ours %"] == "90.6 ± 4.4 (2 seeds)"
  assert cells["hrm"]["ours %"] == "53.1 ± 4.4 (2 seeds)"
  assert cells["no_ema"]["ours %"] == "75.0"
  assert "sweep sweep: 1 of 4 trials have ended" in output
  last = output.splitlines()[-1]
  assert last.startswith("3 of 9 rows are complete: hrm exact_accuracy=0.5312")
  text = (command.workdir / "results.md").read_text()
  assert (
    "train.num_steps=6 instead of 26041 (hrm);"
    " train.num_steps=6 instead of 65104 (trm, no_ema).\n" in text
  )
  with (command.workdir / "results.csv").open() as file:
    lines = list(csv.DictReader(file))
  assert [
    (line["row"], line["seed"], line["exact_accuracy"]) for line in lines[:5]
  ] == [
    ("hrm", "0", "50.0"),
    ("hrm", "1", "56.25"),
    ("trm", "0", "87.5"),
    ("trm", "1", "93.75"),
    ("continue_loss", "", ""),
  ]
  assert (command.workdir / "results.png").read_bytes()[:4] == b"\x89PNG"

  # Other settings would not be of this table, whatever row is asked for.
  message = command.run(
    "--rows=attention", "--config.train.num_steps=8", status=1
  )
  assert "config.train.num_steps was 6, is 8" in message
  assert len(message.splitlines()) == 1
  (command.workdir / "results.md").unlink()
  assert command.run("--report").splitlines()[-1] == last
  assert (command.workdir / "results.md").read_text() == text
  assert len(command.starts()) == 5


def test_a_killed_table_goes_on_by_the_names_of_its_rows(tmp_path):
  command = Command(tmp_path)
  longer = "--config.train.num_steps=40"
  process = command.start("--rows=trm,no_ema,hrm", "--workers=2", longer)
  saved = command.workdir / "no_ema_seed0" / "saved"
  while not (saved.exists() and int(saved.read_text() or 0) >= 5):
    time.sleep(0.02)
  process.send_signal(signal.SIGKILL)
  process.communicate()
  # What is not asked for waits, and says how far it came.
  command.run("--rows=trm,hrm", longer)
  assert command.states() == {
    "hrm": "complete",
    "trm": "complete",
    "no_ema": "unfinished",
  }
  cells = command.cells()["no_ema"]
  assert re.fullmatch(r"\[\d+\.\d\]|", cells["ours %"])
  done = re.fullmatch(r"(\d+) of 40", cells["steps"])
  assert 5 <= int(done.group(1)) < 40
  # In another order.
  command.run("--rows=hrm,no_ema,trm", longer)
  assert set(command.states().values()) == {"complete"}
  starts = {folder: [] for folder in command.folders()}
  for folder, step, _ in command.starts():
    starts[folder].append(step)
  assert starts["hrm_seed0"] == [0]
  for folder in ("trm_seed0", "no_ema_seed0"):
    first, second = starts[folder]
    assert first == 0 < second


def test_a_row_that_failed_is_told_and_tried_again_when_asked(tmp_path):
  command = Command(tmp_path)
  command.workdir.mkdir()
  (command.workdir / "fails_hrm").touch()
  message = command.run("--rows=hrm", status=1)
  assert message == "error: no row has a result yet; see the table above\n"
  # The others are trained although it fails, first, again.
  output = command.run("--rows=hrm,trm")
  assert command.states() == {"hrm": "failed", "trm": "complete"}
  assert "sweep sweep: 0 of 2 trials have ended" in output
  reason = "\nhrm with seed 0 failed: the loss is nan at step 3\n"
  assert reason in output
  assert (command.workdir / "results.md").read_text().endswith(reason)
  (command.workdir / "fails_hrm").unlink()
  command.run("--rows=hrm,trm")
  assert command.states() == {"hrm": "complete", "trm": "complete"}
  assert command.folders() == [*["hrm_seed0"] * 3, "trm_seed0"]
  assert "failed" not in (command.workdir / "results.md").read_text()


def test_skypilot_and_a_dry_run_are_told_rows_seeds_and_settings(tmp_path):
  asked = ("--rows=hrm,trm", "--seeds=1,0", "--config.data.dihedral=True")
  command = Command(tmp_path)
  output = command.run(
    *asked,
    *("--launcher=skypilot", "--workdir=/bucket/mine", "--dry_run"),
    "--storage=postgresql://user:secret@host/name",
  )
  (task,) = re.findall(r"launch\.sweep (--.*) --storage=", output)
  told = shlex.split(task.replace("\\\n", " "))
  assert set(told) > {
    *("--sweep=experiments/sweeps/table1.py", *asked),
    *("--config.train.num_steps=6", "--config.eval.every_steps=2"),
  }
  # What the machine is told means what was typed.
  lines = command.run("--dry_run", *asked).splitlines()
  again = Command(tmp_path).run(
    "--dry_run", *told[1:], f"--workdir={command.workdir}"
  )
  assert again.splitlines() == lines
  assert [re.search(r"/(\w+) ", line).group(1) for line in lines] == [
    *("hrm_seed1", "trm_seed1", "hrm_seed0", "trm_seed0")
  ]
  assert not command.workdir.exists()


# --- mistakes --------------------------------------------------------------


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--rows=hmr", "no row 'hmr', did you mean 'hrm'?; it has hrm, trm, "),
    ("--seeds=0,-1", "--seeds: '-1' is no whole number from 0"),
    ("--config.seed=3", "e.g. --seeds=3"),
    ("--config.train.num_step=7", "did you mean config.train.num_steps?"),
    ("--sweep=experiments/sweeps/sudoku.py --rows=trm", "is no table"),
    ("--report", "there is no sweep in"),
  ],
)
def test_a_mistake_on_the_command_line_is_one_line(tmp_path, flag, said):
  command = Command(tmp_path)
  message = command.run(*flag.split(), status=1)
  assert message.startswith("error: ")
  assert said in message
  assert len(message.splitlines()) == 1
  assert not command.workdir.exists()


def test_rows_are_experiments_already(tmp_path):
  command = Command(tmp_path)
  command.settings = ()
  message = command.run("--config=experiments/sudoku.py", status=1)
  assert message.startswith("error: --config: the rows of experiments/sweeps/")
  assert len(message.splitlines()) == 1


# --- for real --------------------------------------------------------------


def test_two_rows_are_trained(tmp_path, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
  ended = subprocess.run(
    [
      *(sys.executable, "-m", "launch.sweep", f"--workdir={tmp_path}"),
      *("--sweep=experiments/sweeps/table1.py:smoke", "--rows=trm,no_ema"),
      *("--config.train.num_steps=2", "--config.train.batch_size=8"),
      *("--config.data.num_train=8", "--config.data.num_test=4"),
      *("--config.model.recursion_cycles=1", "--config.eval.every_steps=0"),
      *("--config.eval.supervision_steps=1"),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert "2 of 9 rows are complete: trm exact_accuracy=0." in ended.stdout
  assert "| 2 of 2 |" in (tmp_path / "results.md").read_text()
  for row in ("trm", "no_ema"):
    assert (tmp_path / f"{row}_seed0" / "result.json").exists()
