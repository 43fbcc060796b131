"""Sweeps without training: plans, dry runs, mistakes, SkyPilot's tasks."""

import re
import shlex
import subprocess
import sys

import pytest
import sweep_command

from experiments import ablations, quickstart
from experiments.sweeps import tables
from launch import sky, sweep_spec
from trm_jax import config as config_lib
from trm_jax import errors

CHOICES = 'space={"optimizer.learning_rate": Choice(1e-3, 1e-4, 3e-3)}'
SHARED = (
  "--launcher=skypilot",
  "--storage=postgresql://user:secret@host/name",
  "--workdir=/bucket/sweeps/mine",
  "--dry_run",
)


def test_dry_runs_write_nothing(tmp_path):
  """Flags of every type mean what the sweep file says."""
  fixed = {
    "data.relabel": "a'b c",
    "data.dihedral": True,
    "optimizer.beta2": 0.97,
    "data.num_clues": 12,
  }
  grid = sweep_command.Command.of_search(tmp_path, f"{CHOICES}, fixed={fixed}")
  status, output, _ = sweep_command.run([*grid.flags, "--dry_run"])
  assert status == 0
  lines = output.splitlines()
  assert len(lines) == 3
  assert "--config.optimizer.learning_rate=0.003" in lines[2]
  plain = sweep_command.Command.of_search(tmp_path, CHOICES)
  shown = [
    flag
    for flag in shlex.split(lines[0])
    if flag.startswith("--config.") and "learning_rate" not in flag
  ]
  assert len(shown) == 6
  _, again, _ = sweep_command.run([*plain.flags, *shown, "--dry_run"])
  assert set(shlex.split(again.splitlines()[0])) == set(shlex.split(lines[0]))

  drawn = sweep_command.Command.of_search(
    tmp_path,
    'space={"train.batch_size": IntDistribution(8, 64, step=8)},'
    " sampler=TPESampler(), num_trials=2",
  )
  _, output, _ = sweep_command.run([*drawn.flags, "--dry_run"])
  assert output.count("--config.train.batch_size=...") == 2
  assert not drawn.workdir.exists()


MISTAKES = {
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
  "bound": (
    'space={"optimizer.beta1": FloatDistribution(0.9, 1.5)},'
    " sampler=RandomSampler(), num_trials=1",
    "config.optimizer.beta1 is 1.5",
  ),
  "fixed": (
    CHOICES + ', fixed={"optimizer.learning_rate": 1}',
    "config.optimizer.learning_rate is both varied and fixed",
  ),
  "count": (CHOICES + ", sampler=RandomSampler()", "num_trials is needed"),
  "count of a grid": (CHOICES + ", num_trials=2", "and only then"),
  "one at a time": (
    CHOICES + ", sampler=RandomSampler(), num_trials=1, one_at_a_time=True",
    "one_at_a_time has no use for a sampler",
  ),
  "argument": (CHOICES + ", rows=2", "unexpected keyword argument 'rows'"),
  "not Python": ("1 +", "SyntaxError"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_sweep_file_is_one_line(tmp_path, mistake):
  arguments, said = MISTAKES[mistake]
  sweep_command.Command.of_search(tmp_path, arguments)
  with pytest.raises(errors.UserError) as caught:
    sweep_spec.plan_search(
      sweep_spec.load(str(tmp_path / "search_file.py")),
      experiment="experiments/quickstart.py",
      config=quickstart.get_config(),
      overrides={},
    )
  assert said in str(caught.value)
  assert len(str(caught.value).splitlines()) == 1


TABLE = "--sweep=experiments/sweeps/tables.py:"
FLAGS = (
  ("--report", "there is no sweep in"),
  ("--sweep=nowhere.py", "there is no file 'nowhere.py'"),
  ("--sweep=experiments/base.py", "no function get_sweep"),
  ("--sweep=", "there is no file"),
  (TABLE + "1", "a table has its own"),
  (TABLE + "5", "no variant '5'"),
  (TABLE + "1,2", "name one table"),
  ("--rows=trm", "is no table"),
  ("--config=experiments/nowhere.py", "'experiments/nowhere.py'"),
  ("--config=experiments/sudoku.py:atention", "no variant 'atention'"),
  ("--config.train.num_step=7", "did you mean config.train.num_steps?"),
  ("--config.optimizer.learning_rate=1", "both varied and fixed"),
  ("--storage=sqlite:////no/folder/sweep.db", "unable to open database"),
  ("--storage=user:secret@host", "URL"),
  ("--storage=nosuch://user:secret@host/name", "Can't load plugin"),
  ("--workers=0", "workers"),
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


def test_the_sweep_does_not_open_the_accelerator():
  """JAX in a worker would take the devices from its trials."""
  subprocess.run(
    [
      *(sys.executable, "-c"),
      "import sys; from launch import sweep, sweep_table;"
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


# --- tables ------------------------------------------------------------------


def _plan(text="1", *, names=("trm",), changes=None):
  return sweep_spec.plan_table(
    tables.get_sweep(text),
    names=names,
    seeds=[0],
    overrides=[],
    changed=lambda config: config_lib.changed(config, changes or {}),
  )


@pytest.mark.parametrize("number", "1234")
def test_every_table_is_planned_with_every_variant(number):
  names = ablations.TABLES[f"table{number}"]
  for words in ("", "smoke", "quickstart"):
    plan = _plan(f"{number},{words}" if words else number, names=names)
    assert tuple(plan.table.rows) == names
    assert [dict(point) for point in plan.points.values()] == [
      {"row": name, "seed": 0} for name in names
    ]
    for point in plan.points.values():
      variant = f"{point['row']},{words}" if words else point["row"]
      assert plan.folder(point) == f"{point['row']}_seed0"
      assert plan.flags(point) == [
        f"--config=experiments/ablations.py:{variant}",
        "--config.seed=0",
      ]


@pytest.mark.parametrize(
  ("asked", "said"),
  [
    ({"names": ["hmr"]}, "no row 'hmr'; it has hrm, trm,"),
    (
      {"names": ["hrm"], "changes": {"model.num_heads": 7}},
      "row hrm: config.model.hidden_size",
    ),
  ],
)
def test_a_wrong_row_is_one_line(asked, said):
  with pytest.raises(errors.UserError) as caught:
    _plan(**asked)
  assert said in str(caught.value)
  assert len(str(caught.value).splitlines()) == 1


# --- SkyPilot ----------------------------------------------------------------


def test_skypilot_gets_a_task_for_each_worker(tmp_path):
  command = sweep_command.Command.of_search(tmp_path, CHOICES)
  output = command.run("--workers=2", *SHARED)
  assert "secret@" not in output
  assert re.findall("(?m)^name: (.*)$", output) == ["mine-0", "mine-1"]
  assert "--config=experiments/quickstart.py" in output
  assert "--config.train.num_steps=6" in output
  assert '--storage="$SWEEP_STORAGE"' in output


def test_skypilot_gets_rows_seeds_and_settings(tmp_path):
  asked = ("--rows=hrm,trm", "--seeds=1,0", "--config.data.dihedral=True")
  command = sweep_command.Command(tmp_path, TABLE + "1")
  output = command.run(*asked, *SHARED)
  (task,) = re.findall(r"launch\.sweep (--.*) --storage=", output)
  shown = shlex.split(task)
  # These flags mean what was typed.
  lines = command.run("--dry_run", *asked).splitlines()
  _, again, _ = sweep_command.run([*shown, "--dry_run"])
  assert again.splitlines() == lines
  seeds = [line.rpartition("=")[2] for line in lines]
  assert seeds == ["1", "1", "0", "0"]
  assert not command.workdir.exists()
  for flag in ("--seeds=0,-1", "--config.seed=3"):
    assert "as --seeds=0,1,2" in command.run(flag, status=1)


def test_skypilot_accepts_the_tasks():
  import sky as skypilot
  import yaml

  tasks = sky.tasks(
    ["--config=experiments/sudoku.py", "--workdir=/bucket/it's"],
    name="mine",
    num_workers=1,
  )
  task = skypilot.Task.from_yaml_config(
    yaml.safe_load(tasks["mine-0"]),
    env_overrides=[("BUCKET", "bucket")],
    secrets_overrides=[("SWEEP_STORAGE", "postgresql://host/name")],
  )
  assert task.name == "mine-0"
  assert task.workdir == "."
