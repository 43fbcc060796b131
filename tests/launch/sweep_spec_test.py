"""Sweeps without training: dry runs, mistakes, SkyPilot's tasks."""

import re
import shlex
import subprocess
import sys

import pytest
import sqlalchemy as sa
import sweep_command

from experiments import quickstart
from launch import sky, sweep_spec, sweep_study
from trm_jax import errors

RATES = (1e-3, 1e-4, 3e-3)
CHOICES = f'space={{"optimizer.learning_rate": Choice{RATES}}}'


def test_dry_runs_write_nothing(tmp_path):
  """Flags of every type mean what the sweep file says."""
  fixed = {
    "data.relabel": "a'b c",
    "data.dihedral": True,
    "optimizer.beta2": 0.97,
    "data.num_clues": 12,
  }
  grid = sweep_command.Command.of_search(tmp_path, f"{CHOICES}, fixed={fixed}")
  (tmp_path / "plain").mkdir()
  plain = sweep_command.Command.of_search(tmp_path / "plain", CHOICES)
  (tmp_path / "tpe").mkdir()
  drawn = sweep_command.Command.of_search(
    tmp_path / "tpe",
    'space={"optimizer.learning_rate": FloatDistribution(1e-4, 1e-2),'
    ' "train.batch_size": IntDistribution(8, 64, step=8)},'
    ' sampler="tpe", num_trials=9',
  )
  first, second = (
    sweep_command.run([*command.flags, "--dry_run"])
    for command in (grid, drawn)
  )
  assert (first[0], first[2]) == (second[0], second[2]) == (0, "")
  lines = first[1].splitlines()
  assert len(lines) == 3
  assert all("trm_jax.main --config=experiments/" in line for line in lines)
  assert "--config.optimizer.learning_rate=0.003" in lines[2]
  assert not grid.workdir.exists()
  one, rest = second[1].splitlines()
  batch = int(re.search(r"--config.train.batch_size=(\d+)", one).group(1))
  assert batch % 8 == 0
  assert rest == "and 8 more, drawn by results"

  shown = [
    flag
    for flag in shlex.split(lines[0])
    if flag.startswith("--config.") and "learning_rate" not in flag
  ]
  assert len(shown) == 7
  flags = [*plain.flags, f"--workdir={grid.workdir}", *shown, "--dry_run"]
  status, again, _ = sweep_command.run(flags)
  assert status == 0
  assert set(shlex.split(again.splitlines()[0])) == set(shlex.split(lines[0]))


MISTAKES = {
  "empty": ("", "name either a `space` or `rows`"),
  "empty choice": ('space={"seed": Choice()}', "must contain one or more"),
  "range": (
    'space={"optimizer.learning_rate": FloatDistribution(2, 1)}',
    "low <= high",
  ),
  "no distribution": (
    'space={"optimizer.learning_rate": (1, 2)}',
    "optimizer.learning_rate is (1, 2); it must be one of optuna.distributions",
  ),
  "grid of all numbers": (
    'space={"optimizer.learning_rate": FloatDistribution(0, 1)}',
    "which a grid cannot enumerate",
  ),
  "twice": (
    'space={"optimizer.learning_rate": Choice(1, 1.0)}',
    "has a choice twice",
  ),
  "knob": (
    'space={"optimizer.learnin_rate": Choice(1)}',
    "did you mean config.optimizer.learning_rate?",
  ),
  "group": (
    'space={"optimiser.learning_rate": Choice(1)}',
    "did you mean config.optimizer?",
  ),
  "impossible": (
    'space={"optimizer.beta1": Choice(0.9, 1.5)}',
    "config.optimizer.beta1 is 1.5",
  ),
  "type": (
    'space={"train.batch_size": Choice(8.5)}',
    "config.train.batch_size is 8.5",
  ),
  "value": ('rows=({"seed": None},)', "is no finite number"),
  "both": (CHOICES + ", rows=({},)", "name either"),
  "fixed": (
    CHOICES + ', fixed={"optimizer.learning_rate": 1}',
    "optimizer.learning_rate is both varied and fixed",
  ),
  "sampler": (CHOICES + ', sampler="tp"', "choose one of grid, random, tpe"),
  "direction": (CHOICES + ', direction="up"', "maximize, minimize"),
  "pruner": (CHOICES + ', pruner="median"', "it must be one of optuna.pruners"),
  "count": (CHOICES + ', sampler="random"', "needs num_trials of at least 1"),
  "count of a grid": (CHOICES + ", num_trials=2", "leave it out"),
  "not Python": ("1 +", "SyntaxError"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_sweep_file_is_one_line(tmp_path, mistake):
  arguments, said = MISTAKES[mistake]
  sweep_command.Command.of_search(tmp_path, arguments)
  with pytest.raises(errors.UserError) as caught:
    sweep_spec.plan(
      sweep_spec.load(str(tmp_path / "search_file.py")),
      experiment="experiments/quickstart.py",
      config=quickstart.get_config(),
      overrides={},
    )
  assert said in str(caught.value)
  assert len(str(caught.value).splitlines()) == 1


FLAGS = (
  ("--sweep=nowhere.py", "there is no file nowhere.py"),
  ("--sweep=experiments/base.py", "no function get_sweep"),
  ("--sweep=", "there is no file"),
  ("--config=experiments/nowhere.py", "'experiments/nowhere.py'"),
  ("--config=experiments/sudoku.py:atention", "no variant 'atention'"),
  ("--config.train.num_step=7", "did you mean config.train.num_steps?"),
  ("--config.optimizer.learning_rate=1", "the sweep varies it"),
  ("--storage=sqlite:////no/folder/sweep.db", "unable to open database"),
  ("--storage=user:secret@host", "not the URL of a database"),
  ("--storage=nosuch://user:secret@host/name", "Can't load plugin"),
  ("--report", "there is no sweep in"),
  ("--workers=0", "workers"),
  ("--workdir=gs://bucket/sweep", "mount the bucket"),
  ("--launcher=skypilot", "--storage=postgresql+psycopg://"),
  ("extra", "extra"),
)


def test_a_mistake_on_the_command_line_is_one_line(tmp_path):
  command = sweep_command.Command.of_search(tmp_path, CHOICES)
  for flag, said in FLAGS:
    status, output, message = sweep_command.run([*command.flags, flag])
    assert (status, output) == (1, ""), flag
    assert message.startswith("error: "), flag
    assert said in message
    assert "secret" not in message
    assert len(message.splitlines()) == 1, message
  assert not list(tmp_path.glob("sweep/*/"))


def test_passwords_are_not_shown(tmp_path):
  url = "postgresql://user:s%40cret@host/name"
  with (
    pytest.raises(errors.UserError) as caught,
    sweep_study.database_errors(sweep_study.Place(tmp_path, url)),
  ):
    raise sa.exc.SQLAlchemyError("refused s@cret and s%40cret")
  assert "postgresql://user:***@host/name" in str(caught.value)
  assert "cret" not in str(caught.value)


def test_the_sweep_does_not_open_the_accelerator():
  """JAX in a worker would take the devices from its trials."""
  subprocess.run(
    [
      *(sys.executable, "-c"),
      "import sys; from launch import sweep, sweep_table, sweep_worker;"
      " assert 'optuna' in sys.modules; assert 'jax' not in sys.modules",
    ],
    cwd=sweep_command.ROOT,
    check=True,
  )


def test_without_optuna_the_error_says_what_to_install():
  """As where only the package itself is installed."""
  ended = subprocess.run(
    [
      *(sys.executable, "-c"),
      "import sys; sys.modules['optuna'] = None\n"
      "from launch import sweep; from trm_jax.runtime import command_line;"
      " command_line.run(sweep.main)",
      "--config=experiments/quickstart.py",
      "--sweep=experiments/sweeps/quickstart.py",
    ],
    cwd=sweep_command.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 1
  message = "error: a sweep needs Optuna: pip install '.[sweep]'\n"
  assert ended.stderr == message


# --- SkyPilot ----------------------------------------------------------------


def test_skypilot_gets_a_task_for_each_worker(tmp_path):
  command = sweep_command.Command.of_search(tmp_path, CHOICES)
  output = command.run(
    *("--launcher=skypilot", "--workers=2", "--dry_run"),
    "--workdir=/bucket/sweeps/mine",
    "--storage=postgresql://user:secret@host/name",
  )
  assert "secret@" not in output
  assert re.findall("(?m)^name: (.*)$", output) == ["mine-0", "mine-1"]
  assert "--config.train.num_steps=6" in output
  assert '--storage="$SWEEP_STORAGE"' in output


def test_skypilot_accepts_the_tasks():
  import sky as skypilot

  named = sky.tasks(
    ["--config=experiments/sudoku.py", "--workdir=/bucket/it's"],
    template=sky.TEMPLATE,
    name="mine",
    num_workers=1,
  )
  task = skypilot.Task.from_yaml_config(
    named["mine-0"],
    env_overrides=[("BUCKET", "bucket")],
    secrets_overrides=[("SWEEP_STORAGE", "postgresql://host/name")],
  )
  assert task.name == "mine-0"
  assert task.workdir == "."
