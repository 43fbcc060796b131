"""A sweep through its command line, with a trainer that only writes files."""

import csv
import json
import math
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa
import sweep_trainer
from etils import epath

from experiments import quickstart
from launch.sweeps import claims as claims_lib
from launch.sweeps import cloud, trial_process
from launch.sweeps import plan as plan_lib
from launch.sweeps import study as study_lib
from trm_jax import errors as errors_lib
from trm_jax.runtime import metric_writer

ROOT = pathlib.Path(__file__).parent.parent
TRAINER = pathlib.Path(sweep_trainer.__file__)
PROGRAM = f"""
import sys
from launch import sweep
from launch.sweeps import session, trial_process
from trm_jax.runtime import command_line
trial_process.TRAINER = (sys.executable, {str(TRAINER)!r})
session._POLL_SECONDS = 0.05
command_line.run(sweep.main)
"""
RATES = (1e-3, 1e-4, 3e-3)
CHOICES = f'space={{"optimizer.learning_rate": search.Choice({RATES})}}'


class Command:
  """A sweep's command line in a folder of its own."""

  def __init__(self, folder, sweep, *flags):
    self.workdir = folder / "sweep"
    file = folder / "search_file.py"
    file.write_text(
      "from launch.sweeps import search\n\n"
      f"def get_sweep():\n  return search.Sweep({sweep})\n"
    )
    self._flags = [
      "--config=experiments/quickstart.py",
      f"--sweep={file}",
      f"--workdir={self.workdir}",
      "--config.train.num_steps=6",
      "--config.eval.every_steps=2",
      *flags,
    ]

  def start(self, *flags, program=PROGRAM):
    return subprocess.Popen(
      [sys.executable, "-c", program, *self._flags, *flags],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )

  def run(self, *flags, status=0, **options):
    process = self.start(*flags, **options)
    output, mistakes = process.communicate()
    assert process.returncode == status, output + mistakes
    assert "Traceback" not in mistakes
    assert self.events("TWO AT ONCE") == []
    return output if status != 1 else mistakes

  def events(self, kind):
    """(number of the trial, event) of a kind."""
    found = []
    for path in sorted(self.workdir.glob("trial_*/events.jsonl")):
      for line in path.read_text().splitlines():
        event = json.loads(line)
        if event["event"] == kind:
          found.append((int(path.parent.name[-4:]), event))
    return found

  def rows(self):
    with (self.workdir / "results.csv").open() as file:
      return {int(row["trial"]): row for row in csv.DictReader(file)}

  def states(self):
    return {number: row["state"] for number, row in self.rows().items()}

  def wait_for(self, condition):
    while not condition():
      time.sleep(0.02)

  def saved(self, number):
    path = self.workdir / f"trial_{number:04d}" / "saved"
    return int(path.read_text() or 0) if path.exists() else 0


def numbers(events):
  return [number for number, _ in events]


def test_a_grid_is_trained_once_and_reported(tmp_path):
  command = Command(tmp_path, CHOICES)
  output = command.run()
  assert numbers(command.events("start")) == [0, 1, 2]
  rates = {n: float(r["optimizer.learning_rate"]) for n, r in _rows(command)}
  assert rates == dict(enumerate(RATES))
  values = {n: float(r["exact_accuracy"]) for n, r in _rows(command)}
  assert values[0] == 1.0
  assert values[1] == 0.0
  assert set(command.states().values()) == {"complete"}

  # The table is sorted by the result.
  table = (command.workdir / "results.md").read_text()
  assert table in output
  assert re.findall(r"(?m)^\| (\d)", table) == ["0", "2", "1"]
  assert "| 0     | 0.001 " in table
  assert (command.workdir / "results.png").read_bytes()[:4] == b"\x89PNG"

  # The command that repeats the best one is the one that it was run with.
  last = output.splitlines()[-1]
  assert last.startswith("best: trial 0 with exact_accuracy=1.0000")
  flags = command.events("start")[0][1]["flags"]
  for flag in flags:
    assert flag in last or flag.startswith("--workdir=")
  assert "--config.optimizer.learning_rate=0.001" in flags
  assert "--config.train.num_steps=6" in flags

  # Typed again there is nothing to do, and --report says the same.
  again = command.run()
  assert len(command.events("start")) == 3
  assert again.splitlines()[-1] == last
  (command.workdir / "results.md").unlink()
  assert command.run("--report").splitlines()[-1] == last
  assert (command.workdir / "results.md").read_text() == table


def _rows(command):
  return command.rows().items()


def test_rows_are_trained_as_they_are(tmp_path):
  command = Command(
    tmp_path,
    'rows=({"optimizer.name": "muon"},'
    ' {"optimizer.learning_rate": 3e-3, "seed": 5})',
  )
  command.run()
  flags = [set(event["flags"]) for _, event in command.events("start")]
  assert "--config.optimizer.name=muon" in flags[0]
  assert "--config.optimizer.learning_rate=0.003" in flags[1]
  assert not any("learning_rate" in flag for flag in flags[0])
  assert "--config.seed=5" in flags[1]


def test_what_fails_is_told_and_the_sweep_goes_on(tmp_path):
  kinds = (sweep_trainer.FAILS, sweep_trainer.RESULT_IS_NAN, 0.1)
  command = Command(
    tmp_path,
    f'space={{"optimizer.weight_decay": search.Choice({kinds})}}',
  )
  output = command.run()
  assert command.states() == {0: "failed", 1: "failed", 2: "complete"}
  assert "trial 0 failed: the loss is nan at step 3\n" in output
  assert "older" not in output
  assert "trial 1 failed: its result's exact_accuracy is not a number" in output
  assert (
    "trial 0: the loss is nan" in (command.workdir / "results.md").read_text()
  )
  assert "best: trial 2" in output


def test_without_any_result_the_end_is_an_error(tmp_path):
  kinds = (sweep_trainer.FAILS,)
  command = Command(
    tmp_path,
    f'space={{"optimizer.weight_decay": search.Choice({kinds})}}',
  )
  message = command.run(status=1)
  assert message.startswith("error: none of the 1 trials has a result")


def test_a_pruned_trial_is_stopped_and_saves(tmp_path):
  command = Command(
    tmp_path,
    CHOICES + ", pruner=search.Median(first_trials=1)",
    "--config.train.num_steps=60",
    "--config.eval.every_steps=20",
  )
  command.run()
  assert command.states() == {0: "complete", 1: "pruned", 2: "pruned"}
  stopped = dict(command.events("SIGTERM"))
  assert sorted(stopped) == [1, 2]
  assert numbers(command.events("result")) == [0]
  assert command.rows()[1]["step"] == "20"


def test_the_last_evaluation_prunes_nothing(tmp_path):
  command = Command(
    tmp_path,
    CHOICES + ", pruner=search.Median(first_trials=1)",
    "--config.eval.every_steps=6",
  )
  command.run()
  assert set(command.states().values()) == {"complete"}


def test_a_killed_trial_goes_on_from_what_it_saved(tmp_path):
  kinds = (sweep_trainer.DIES_ONCE,)
  command = Command(
    tmp_path,
    f'space={{"optimizer.weight_decay": search.Choice({kinds})}}',
  )
  command.run()
  assert [e["step"] for _, e in command.events("start")] == [0, 2]
  assert command.states() == {0: "complete"}


def test_workers_run_at_once(tmp_path):
  # Each trial waits for the other to have started.
  command = Command(
    tmp_path,
    'space={"optimizer.learning_rate": search.Choice((1e-3, 2e-3))},'
    f' fixed={{"optimizer.weight_decay": {sweep_trainer.WAITS_FOR_ANOTHER}}}',
  )
  command.run("--workers=2")
  assert command.states() == {0: "complete", 1: "complete"}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_sweep_goes_on_with_nothing_lost_or_doubled(tmp_path, how):
  rates = (1e-3, 5e-4, 2e-3, 3e-3, 2e-4)
  command = Command(
    tmp_path,
    f'space={{"optimizer.learning_rate": search.Choice({rates})}}',
    "--config.train.num_steps=40",
    "--workers=2",
  )
  process = command.start()
  command.wait_for(lambda: command.saved(2) >= 3)
  process.send_signal(how)
  output, _ = process.communicate()
  assert (
    process.returncode
    == {
      signal.SIGKILL: -9,
      signal.SIGTERM: 143,
      signal.SIGINT: 130,
    }[how]
  )
  if how != signal.SIGKILL:
    assert "the same command goes on" in output
  finished = set(numbers(command.events("result")))
  assert len(finished) < 5

  command.run()
  starts = command.events("start")
  assert sorted(set(numbers(starts))) == [0, 1, 2, 3, 4]
  assert sorted(numbers(command.events("result"))) == [0, 1, 2, 3, 4]
  assert command.states() == dict.fromkeys(range(5), "complete")
  resumed = [event for number, event in starts if event["step"] > 0]
  assert resumed
  for number in range(5):
    mine = [event["flags"] for n, event in starts if n == number]
    assert all(flags == mine[0] for flags in mine)
    assert number not in finished or len(mine) == 1
  # Whom a killed sweep leaves behind is told by the kernel to save.
  assert {n for n, e in starts if e["step"] > 0} <= set(
    numbers(command.events("SIGTERM"))
  )


def test_two_sweeps_of_one_folder_share_the_trials(tmp_path):
  command = Command(
    tmp_path,
    'space={"optimizer.learning_rate": search.Uniform(1e-4, 1e-2)},'
    ' sampler="random", num_trials=8',
  )
  both = [command.start(), command.start()]
  outputs = [process.communicate() for process in both]
  errors = [errors for _, errors in outputs]
  assert [process.returncode for process in both] == [0, 0], "".join(errors)
  assert sorted(numbers(command.events("start"))) == list(range(8))
  assert all("best: trial" in output for output, _ in outputs)


def test_another_sweep_is_refused_by_its_differences(tmp_path):
  command = Command(tmp_path, CHOICES)
  command.run()
  message = command.run("--config.train.num_steps=8", status=1)
  assert "config.train.num_steps was 6, is 8" in message
  assert len(message.splitlines()) == 1
  other = Command(tmp_path, CHOICES + ', metric="loss", direction="minimize"')
  message = other.run(status=1)
  assert "metric was 'exact_accuracy', is 'loss'" in message
  assert "direction was" in message
  # What changes no result may change.
  Command(tmp_path, CHOICES).run("--config.log.every_steps=7")


def test_more_trials_may_follow(tmp_path):
  drawn = 'space={"optimizer.learning_rate": search.LogUniform(1e-4, 1e-2)},'
  drawn += ' sampler="random", num_trials='
  Command(tmp_path, drawn + "1").run()
  command = Command(tmp_path, drawn + "3")
  command.run()
  assert numbers(command.events("start")) == [0, 1, 2]
  # As if there had been three from the beginning.
  rates = [r["optimizer.learning_rate"] for r in command.rows().values()]
  fresh = tmp_path / "fresh"
  fresh.mkdir()
  other = Command(fresh, drawn + "3")
  other.run()
  assert len(set(rates)) == 3
  assert rates == [r["optimizer.learning_rate"] for r in other.rows().values()]


def test_a_metric_that_is_not_there_is_named(tmp_path):
  command = Command(tmp_path, CHOICES + ', metric="exact_acuracy"')
  message = command.run(status=1)
  assert "did you mean 'exact_accuracy'?" in message
  assert len(message.splitlines()) == 1


def test_a_dry_run_writes_nothing(tmp_path):
  command = Command(tmp_path, CHOICES)
  lines = command.run("--dry_run").splitlines()
  assert len(lines) == 3
  assert all("trm_jax.main --config=experiments/" in line for line in lines)
  assert "trial_0002 " in lines[2]
  assert "--config.optimizer.learning_rate=0.003" in lines[2]
  assert not command.workdir.exists()
  drawn = Command(
    tmp_path,
    'space={"optimizer.learning_rate": search.LogUniform(1e-4, 1e-2)},'
    ' sampler="tpe", num_trials=9',
  )
  lines = drawn.run("--dry_run").splitlines()
  assert len(lines) == 2
  assert "and 8 more" in lines[1]


def test_settings_of_every_type_are_understood(tmp_path):
  """What a trial is told on its command line is what was meant."""
  fixed = {
    "data.relabel": "a'b c",
    "data.dihedral": True,
    "optimizer.beta2": 0.97,
    "data.num_clues": 12,
  }
  command = Command(tmp_path, f"{CHOICES}, fixed={fixed}")
  first = command.run("--dry_run").splitlines()[0]
  told = [
    flag
    for flag in shlex.split(first)
    if flag.startswith("--config.") and "learning_rate" not in flag
  ]
  assert len(told) == 7
  again = Command(tmp_path, CHOICES).run(*told, "--dry_run").splitlines()[0]
  assert set(shlex.split(again)) == set(shlex.split(first))


def test_what_a_run_writes_is_read(tmp_path):
  run = metric_writer.Writer(
    str(tmp_path),
    first_step=0,
    is_finished=False,
    active=True,
  )
  run.scalars(1, "train", {"exact_accuracy": 0.1})
  run.scalars(2, "eval", {"exact_accuracy": 0.5, "loss": math.nan})
  folder = epath.Path(tmp_path)
  assert trial_process.result(folder) is None
  run.result(2, {"exact_accuracy": 0.5})
  (row,) = trial_process.evaluations(folder)
  assert (row["step"], row["exact_accuracy"]) == (2, 0.5)
  assert math.isnan(trial_process.number(row["loss"]))
  result = trial_process.result(folder)
  assert result == {"step": 2, "metrics": {"exact_accuracy": 0.5}}


def test_each_worker_has_its_own_devices(tmp_path, monkeypatch):
  monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
  command = Command(
    tmp_path,
    'space={"optimizer.learning_rate": search.Choice((1e-3, 2e-3))},'
    f' fixed={{"optimizer.weight_decay": {sweep_trainer.WAITS_FOR_ANOTHER}}}',
  )
  command.run("--workers=2", "--devices_per_worker=2")
  seen = {event["devices"] for _, event in command.events("start")}
  assert seen == {"4,5", "6,7"}
  message = command.run("--workers=3", "--devices_per_worker=2", status=1)
  assert "need 6; CUDA_VISIBLE_DEVICES has 4" in message


def test_a_lease_of_a_dead_worker_is_taken_over(tmp_path):
  """Two machines, which share a database and no locks."""
  first, second = (
    claims_lib.Claims(
      tmp_path / machine,
      engine=sa.create_engine(f"sqlite:///{tmp_path / 'shared.db'}"),
      scope="sweep/",
      lease_seconds=0,  # one look at a beat that was seen before is enough
    )
    for machine in ("first", "second")
  )
  mine = first.take("trial")
  assert mine
  assert second.take("trial") is None
  assert not second.seen_alive("trial")
  assert first.keep(mine)
  assert second.take("trial") is None  # another beat
  assert second.seen_alive("trial")
  taken = second.take("trial")  # the same beat
  assert taken
  assert not first.keep(mine)
  first.release(mine)  # which gives nothing back
  assert second.keep(taken)
  assert first.take("trial") is None
  second.release(taken)
  assert first.take("trial")


def test_a_lock_is_held_as_long_as_what_was_started_lives(tmp_path):
  first = claims_lib.Claims(tmp_path)
  second = claims_lib.Claims(tmp_path)
  claim = first.take("trial")
  assert second.take("trial") is None
  with subprocess.Popen(
    ["cat"], stdin=subprocess.PIPE, pass_fds=(claim.lock,)
  ) as child:
    first.note_process(claim, child.pid)
    first.release(claim)  # as when the worker is killed
    assert second.take("trial") is None
    assert second.holder("trial") == str(child.pid)
    child.stdin.close()
    child.wait()
    assert second.take("trial") is not None


MISTAKES = {
  "empty": ("", "the search is empty"),
  "empty choice": (
    'space={"optimizer.learning_rate": search.Choice(())}',
    "at least one value",
  ),
  "range": (
    'space={"optimizer.learning_rate": search.Uniform(2, 1)}',
    "`low` must be below `high`",
  ),
  "logarithm": (
    'space={"optimizer.learning_rate": search.LogUniform(0, 1)}',
    "`low` must be above 0",
  ),
  "no range": (
    'space={"optimizer.learning_rate": (1, 2)}',
    "optimizer.learning_rate is (1, 2); it must be a Uniform",
  ),
  "grid of all numbers": (
    'space={"optimizer.learning_rate": search.Uniform(0, 1)}',
    "a grid cannot have all values",
  ),
  "twice": (
    'space={"optimizer.learning_rate": search.Choice((1, 1.0))}',
    "stands there twice",
  ),
  "knob": (
    'space={"optimizer.learnin_rate": search.Choice((1,))}',
    "did you mean config.optimizer.learning_rate?",
  ),
  "group": (
    'space={"optimiser.learning_rate": search.Choice((1,))}',
    "did you mean config.optimizer?",
  ),
  "impossible": (
    'space={"optimizer.beta1": search.Choice((0.9, 1.5))}',
    "config.optimizer.beta1 is 1.5",
  ),
  "type": (
    'space={"train.batch_size": search.Choice((8.5,))}',
    "config.train.batch_size is 8.5",
  ),
  "both": (CHOICES + ", rows=({},)", "not both"),
  "fixed": (
    CHOICES + ', fixed={"optimizer.learning_rate": 1}',
    "optimizer.learning_rate is both varied and fixed",
  ),
  "sampler": (CHOICES + ', sampler="tp"', "choose one of grid, random, tpe"),
  "direction": (CHOICES + ', direction="up"', "maximize, minimize"),
  "pruner": (CHOICES + ', pruner="median"', "it must be search.Median"),
  "count": (CHOICES + ', sampler="random"', "needs at least 1"),
  "count of a grid": (CHOICES + ", num_trials=2", "as they have"),
  "not Python": ("1 +", "SyntaxError"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_sweep_file_is_one_line(tmp_path, mistake):
  sweep, said = MISTAKES[mistake]
  Command(tmp_path, sweep)
  with pytest.raises(errors_lib.UserError) as caught:
    plan_lib.make(
      plan_lib.load_sweep(str(tmp_path / "search_file.py")),
      experiment="experiments/quickstart.py",
      config=quickstart.get_config(),
      overrides={},
    )
  assert said in str(caught.value)
  assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--sweep=nowhere.py", "there is no file nowhere.py"),
    ("--sweep=experiments/base.py", "no function get_sweep"),
    ("--sweep=", "there is no file"),
    ("--config=experiments/nowhere.py", "'experiments/nowhere.py'"),
    ("--config=experiments/sudoku.py:atention", "no variant 'atention'"),
    ("--config.train.num_step=7", "did you mean config.train.num_steps?"),
    ("--config.optimizer.learning_rate=1", "the sweep varies it"),
    ("--storage=sqlite:////no/folder/sweep.db", "unable to open database"),
    ("--storage=user:secret@host", "not the URL of a database"),
    ("--storage=nosuch://user:secret@host/name", "no package for the database"),
    ("--report", "there is no sweep in"),
    ("--workers=0", "workers"),
    ("--launcher=skypilot", "--storage=postgresql+psycopg://"),
    ("extra", "what is 'extra'?"),
  ],
)
def test_a_mistake_on_the_command_line_is_one_line(tmp_path, flag, said):
  command = Command(tmp_path, CHOICES)
  message = command.run(flag, status=1)
  assert message.startswith("error: ")
  assert said in message
  assert "secret" not in message
  assert len(message.splitlines()) == 1
  assert not list(tmp_path.glob("sweep/trial_*"))


def test_passwords_are_not_shown():
  url = "postgresql://user:s%40cret@host/name"
  assert study_lib.shown(url) == "postgresql://user:***@host/name"
  with (
    pytest.raises(errors_lib.UserError) as caught,
    study_lib.telling_of_database(url),
  ):
    raise sa.exc.SQLAlchemyError("refused s@cret and s%40cret")
  assert "cret" not in str(caught.value)


def test_without_optuna_it_says_what_to_install(tmp_path):
  """As where only the package itself is installed."""
  command = Command(tmp_path, CHOICES)
  message = command.run(
    status=1,
    program="import sys; sys.modules['optuna'] = None\n"
    "from launch import sweep; from trm_jax.runtime import command_line;"
    " command_line.run(sweep.main)",
  )
  assert message == "error: a sweep needs Optuna: pip install '.[sweep]'\n"


def test_the_sweep_does_not_open_the_accelerator():
  """JAX in a worker would take the devices from its trials."""
  subprocess.run(
    [
      sys.executable,
      "-c",
      "import sys; from launch import sweep; from launch.sweeps import session;"
      " assert 'optuna' in sys.modules; assert 'jax' not in sys.modules",
    ],
    cwd=ROOT,
    check=True,
  )


def test_skypilot_gets_a_task_for_each_worker(tmp_path):
  command = Command(tmp_path, CHOICES)
  output = command.run(
    "--launcher=skypilot",
    "--workers=2",
    "--workdir=/bucket/sweeps/mine",
    "--storage=postgresql://user:secret@host/name",
    "--dry_run",
  )
  assert "secret@" not in output
  assert re.findall("(?m)^name: (.*)$", output) == ["mine-0", "mine-1"]
  assert "--config.train.num_steps=6" in output
  assert '--storage="$SWEEP_STORAGE"' in output


def test_skypilot_takes_the_tasks():
  import sky

  named = cloud.tasks(
    ["--config=experiments/sudoku.py", "--workdir=/bucket/it's"],
    template=cloud.TEMPLATE,
    name="mine",
    num_workers=1,
  )
  task = sky.Task.from_yaml_config(
    named["mine-0"],
    env_overrides=[("BUCKET", "bucket")],
    secrets_overrides=[("SWEEP_STORAGE", "postgresql://host/name")],
  )
  assert task.name == "mine-0"
  assert task.workdir == "."
