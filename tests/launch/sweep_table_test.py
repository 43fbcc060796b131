"""The rows of a paper's table, trained and reported."""

import re
import signal
import subprocess
import sys

import command_line
import optuna
import pytest
import sweep_command

from experiments import ablations
from experiments.sweeps import tables
from launch import sweep_spec, sweep_table

State = optuna.trial.TrialState
PARTS = "complete, unfinished, not run"


def _command(folder):
  return sweep_command.Command(folder, "--sweep=experiments/sweeps/tables.py:1")


def test_rows_and_seeds_become_a_table_that_grows(tmp_path):
  command = _command(tmp_path)
  output = command.run("--rows=trm,no_ema")
  assert dict(command.events("start"))["trm_seed0"]["flags"] == [
    "--config=experiments/ablations.py:trm",
    "--config.train.num_steps=6",
    "--config.eval.every_steps=2",
    "--config.seed=0",
    f"--workdir={command.workdir}/trm_seed0",
  ]
  assert output.splitlines()[-1] == "2 of 9 rows have a result: trm, no_ema"
  cells = command.cells()
  assert list(cells) == list(ablations.TABLES["table1"])
  assert cells["trm"] == {
    "row": "trm",
    "in the paper": "TRM (T = 3, n = 6)",
    "paper's %": "87.4",
    "ours %": "87.5",
    "state": "complete",
  }
  assert (cells["hrm"]["state"], cells["hrm"]["ours %"]) == ("not run", "")
  assert (command.workdir / "results.md").read_text() in output

  # Another row fails, with a second seed of one that is there.
  (command.workdir / "fails_hrm").touch()
  command.run("--rows=hrm,trm", "--seeds=0,1")
  text = (command.workdir / "results.md").read_text()
  assert "failed: exit status 1: error: the loss is nan at step 3; " in text
  cells = command.cells()
  assert cells["hrm"]["state"] == "failed"
  assert cells["trm"]["ours %"] == "90.6 ± 4.4 (2 of 2 seeds)"
  assert cells["no_ema"]["ours %"] == "75.0"

  # Asked for again, what failed is trained; what is there is not repeated.
  (command.workdir / "fails_hrm").unlink()
  command.run("--rows=hrm", "--seeds=0,1")
  folders = [folder for folder, _ in command.events("start")]
  assert folders == [
    *("hrm_seed0", "hrm_seed0", "hrm_seed1", "hrm_seed1"),
    *("no_ema_seed0", "trm_seed0", "trm_seed1"),
  ]
  assert command.cells()["hrm"]["ours %"] == "53.1 ± 4.4 (2 of 2 seeds)"
  assert "failed" not in (command.workdir / "results.md").read_text()
  results = [
    (row["row"], row["seed"], row["exact_accuracy"])
    for row in command.rows().values()
  ]
  assert sorted(results) == [
    *(("hrm", "0", "0.5"), ("hrm", "1", "0.5625"), ("no_ema", "0", "0.75")),
    *(("trm", "0", "0.875"), ("trm", "1", "0.9375")),
  ]
  assert (command.workdir / "results.png").read_bytes()[:4] == b"\x89PNG"

  # A row is not mixed with one that was trained with other settings.
  changed = "--config.train.num_steps=8"
  message = command.run("--rows=trm", changed, status=1)
  assert "changed (row trm); use another --workdir" in message
  assert len(command.events("start")) == 7


@pytest.mark.slow
def test_a_stopped_table_marks_what_is_unfinished_and_resumes(tmp_path):
  command = _command(tmp_path)
  longer = "--config.train.num_steps=80"
  process = command.start("--rows=trm,hrm", longer)
  sweep_command.wait_for(lambda: command.saved().get("trm_seed0", 0) >= 5)
  sweep_command.wait_for(command.has_reported)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate()
  assert process.returncode == 130
  assert "2 trials are unfinished; the same command resumes" in output
  cells = command.cells()
  assert cells["hrm"]["state"] == "not run"
  assert cells["trm"]["state"] == "unfinished"
  assert re.fullmatch(r"\[\d+\.\d\]", cells["trm"]["ours %"])
  ((_, event),) = command.events("SIGTERM")
  # In another order.
  command.run("--rows=hrm,trm", longer)
  assert {cells["state"] for cells in command.cells().values()} == {
    *("complete", "not run")
  }
  steps = [event["step"] for _, event in command.events("start")]
  assert steps == [0, 0, event["step"]]


@pytest.mark.slow
def test_two_rows_are_trained(tmp_path, monkeypatch):
  """With the trainer itself."""
  monkeypatch.setenv("XLA_FLAGS", command_line.COMPILES_FAST)
  ended = subprocess.run(
    [
      *(sys.executable, "-m", "launch.sweep", f"--workdir={tmp_path}"),
      *("--sweep=experiments/sweeps/tables.py:1,smoke", "--rows=trm,no_ema"),
      *("--config.train.num_steps=2", "--config.train.batch_size=8"),
      *("--config.data.num_train=8", "--config.data.num_test=4"),
      *("--config.model.recursion_cycles=1", "--config.eval.every_steps=0"),
      "--config.eval.supervision_steps=1",
    ],
    cwd=sweep_command.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert "2 of 9 rows have a result: trm, no_ema" in ended.stdout
  for row in ("trm", "no_ema"):
    assert (tmp_path / f"{row}_seed0" / "result.json").exists()


def test_the_markdown_separates_results_from_the_rest(tmp_path):
  study = optuna.create_study(direction="maximize")
  plan = sweep_spec.plan_table(
    tables.get_sweep("1"),
    names=[],
    seeds=[],
    overrides=[],
    changed=lambda config: config,
  )
  for row, seed, state, value in (
    ("trm", 0, State.COMPLETE, 0.86),
    ("trm", 1, State.COMPLETE, 0.88),
    ("trm", 2, State.COMPLETE, 0.84),
    ("hrm", 0, State.RUNNING, 0.4104),
    ("no_ema", 0, State.COMPLETE, 0.7),
    ("no_ema", 1, State.RUNNING, 0.6),
    ("no_ema", 2, State.WAITING, None),
    ("attention", 0, State.FAIL, None),
    ("t2_n2", 0, State.RUNNING, 0.03),
    ("t2_n2", 1, State.RUNNING, 0.04),
  ):
    point = {"row": row, "seed": seed}
    is_drawn = state != State.WAITING
    attributes = {"reason": "the loss is nan"} if state == State.FAIL else {}
    study.add_trial(
      optuna.trial.create_trial(
        state=state,
        value=value if state == State.COMPLETE else None,
        params=point if is_drawn else {},
        distributions=plan.sweep.space if is_drawn else {},
        intermediate_values={} if value is None else {2: value},
        user_attrs={"key": f"{row} {seed}", **attributes},
        system_attrs={"fixed_params": point},
      )
    )
  text, last = sweep_table.write(plan, study, tmp_path)
  assert last == "2 of 9 rows have a result: trm, no_ema"
  title, _, header, rule, *lines = text.splitlines()
  assert title == "# Table 1 of arXiv 2510.04871: ablations on Sudoku-Extreme"
  assert set(rule) == set("|- ")
  assert len({len(line) for line in (header, rule, *lines[:9])}) == 1

  def cells(line):
    shown = [cell.strip() for cell in line.strip("|").split("|")]
    return [shown[0], *shown[2:]]

  assert [cells(line) for line in lines[:9]] == [
    ["hrm", "55.0", "[41.0]", "unfinished"],
    ["trm", "87.4", "86.0 ± 2.0 (3 of 3 seeds)", "complete"],
    ["continue_loss", "86.1", "", "not run"],
    ["separate_networks", "82.4", "", "not run"],
    ["no_ema", "79.9", "70.0 (1 of 3 seeds)", PARTS],
    ["four_layers", "79.5", "", "not run"],
    ["attention", "74.7", "", "failed"],
    ["t2_n2", "73.7", "[4.0, 3.0]", "unfinished"],
    ["one_step_gradient", "56.5", "", "not run"],
  ]
  assert text.endswith("\ntrial 7 failed: the loss is nan\n")


def test_out_of_memory_in_the_paper_is_shown(tmp_path):
  plan = sweep_spec.plan_table(
    tables.get_sweep("3"),
    names=[],
    seeds=[],
    overrides=[],
    changed=lambda config: config,
  )
  text, last = sweep_table.write(plan, optuna.create_study(), tmp_path)
  assert last == ""
  assert re.search(r"(?m)^\| trm_k6_t3 +\|.*\| OOM ", text)
  assert re.search(r"(?m)^\| hrm_k6_t3 +\|.*\| 62\.3 ", text)
