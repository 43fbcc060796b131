"""The rows of a paper's table, planned, trained and reported."""

import re
import shlex
import signal
import subprocess
import sys

import pytest
import sweep_command

from experiments import ablations
from experiments.sweeps import tables
from launch import sweep_report, sweep_table
from trm_jax import config as config_lib
from trm_jax import errors


def _command(folder):
  return sweep_command.Command(folder, "--sweep=experiments/sweeps/tables.py:1")


def _plan(text="1", *, names=None, seeds=(0,), changes=None):
  return sweep_table.plan(
    tables.get_sweep(text),
    names=names,
    seeds=seeds,
    changed=lambda config: config_lib.changed(config, changes or {}),
  )


# --- training ----------------------------------------------------------------


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
    "hours": "0.00",
    "state": "complete",
  }
  assert cells["hrm"]["state"] == "not run"
  assert cells["hrm"]["ours %"] == cells["hrm"]["hours"] == ""
  text = (command.workdir / "results.md").read_text()
  assert text in output
  assert "\nPuzzles: sudoku from the public download; tested on all.\n" in text
  assert "Not the paper's recipe: train.num_steps=6 instead of 65104.\n" in text

  # Another row fails, with a second seed of one that is there.
  (command.workdir / "fails_hrm").touch()
  command.run("--rows=hrm,trm", "--seeds=0,1")
  text = (command.workdir / "results.md").read_text()
  assert "\nhrm_seed0 failed: the loss is nan at step 3\n" in text
  cells = command.cells()
  assert cells["hrm"]["state"] == "failed"
  assert cells["trm"]["ours %"] == "90.6 ± 4.4 (2 seeds)"
  assert cells["no_ema"]["ours %"] == "75.0"

  # Asked for again, what failed is trained; what is there is not repeated.
  (command.workdir / "fails_hrm").unlink()
  output = command.run("--rows=hrm", "--seeds=0,1")
  folders = [folder for folder, _ in command.events("start")]
  assert folders == [
    *("hrm_seed0", "hrm_seed0", "hrm_seed1", "hrm_seed1"),
    *("no_ema_seed0", "trm_seed0", "trm_seed1"),
  ]
  assert command.cells()["hrm"]["ours %"] == "53.1 ± 4.4 (2 seeds)"
  last = output.splitlines()[-1]
  assert last.startswith("3 of 9 rows are complete: hrm exact_accuracy=0.5312")
  text = (command.workdir / "results.md").read_text()
  assert "failed" not in text
  assert (
    "train.num_steps=6 instead of 26041 (hrm);"
    " train.num_steps=6 instead of 65104 (trm, no_ema).\n" in text
  )
  results = [
    (row["row"], row["seed"], row["exact_accuracy"])
    for row in command.rows().values()
  ]
  assert sorted(results) == [
    *(("hrm", "0", "0.5"), ("hrm", "1", "0.5625"), ("no_ema", "0", "0.75")),
    *(("trm", "0", "0.875"), ("trm", "1", "0.9375")),
  ]
  assert (command.workdir / "results.png").read_bytes()[:4] == b"\x89PNG"

  # Other settings would not be of this table, whatever row is asked for.
  message = command.run(
    "--rows=attention", "--config.train.num_steps=8", status=1
  )
  assert "config.train.num_steps was 6, is 8" in message
  assert len(message.splitlines()) == 1
  # What changes no result may change.
  (command.workdir / "results.md").unlink()
  flags = ("--report", "--config.log.every_steps=7")
  assert command.run(*flags).splitlines()[-1] == last
  assert (command.workdir / "results.md").read_text() == text
  assert len(command.events("start")) == 7


def test_a_stopped_table_marks_what_is_unfinished_and_resumes(tmp_path):
  command = _command(tmp_path)
  longer = "--config.train.num_steps=40"
  process = command.start("--rows=trm,hrm", longer)
  sweep_command.wait_for(lambda: command.saved().get("trm_seed0", 0) >= 5)
  process.send_signal(signal.SIGINT)
  output, _ = process.communicate()
  assert process.returncode == 130
  assert "stopped; the same command resumes" in output
  cells = command.cells()
  assert cells["hrm"]["state"] == "not run"
  assert cells["trm"]["state"] == "unfinished"
  assert re.fullmatch(r"\[\d+\.\d\]", cells["trm"]["ours %"])
  done = re.fullmatch(r"(\d+) of 40", cells["trm"]["steps"])
  assert 5 <= int(done.group(1)) < 40
  # In another order.
  command.run("--rows=hrm,trm", longer)
  assert {cells["state"] for cells in command.cells().values()} == {
    *("complete", "not run")
  }
  steps = [event["step"] for _, event in command.events("start")]
  assert steps == [0, 0, int(done.group(1))]


@pytest.mark.slow
def test_two_rows_are_trained(tmp_path, monkeypatch):
  """With the trainer itself."""
  monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
  ended = subprocess.run(
    [
      *(sys.executable, "-m", "launch.sweep", f"--workdir={tmp_path}"),
      *("--sweep=experiments/sweeps/tables.py:1,smoke", "--rows=trm,no_ema"),
      *("--config.train.num_steps=2", "--config.train.batch_size=8"),
      *("--config.data.num_train=8", "--config.data.num_test=4"),
      *("--config.model.recursion_cycles=1", "--config.eval.every_steps=0"),
      *("--config.eval.supervision_steps=1"),
    ],
    cwd=sweep_command.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 0, ended.stdout + ended.stderr
  assert "2 of 9 rows are complete: trm exact_accuracy=0." in ended.stdout
  assert "| 2 of 2 |" in (tmp_path / "results.md").read_text()
  for row in ("trm", "no_ema"):
    assert (tmp_path / f"{row}_seed0" / "result.json").exists()


# --- plan --------------------------------------------------------------------


def test_skypilot_gets_rows_seeds_and_settings(tmp_path):
  asked = ("--rows=hrm,trm", "--seeds=1,0", "--config.data.dihedral=True")
  command = _command(tmp_path)
  output = command.run(
    *asked,
    *("--launcher=skypilot", "--workdir=/bucket/mine", "--dry_run"),
    "--storage=postgresql://user:secret@host/name",
  )
  (task,) = re.findall(r"launch\.sweep (--.*) --storage=", output)
  shown = shlex.split(task.replace("\\\n", " "))
  assert set(shown) > {
    *("--sweep=experiments/sweeps/tables.py:1", *asked),
    *("--config.train.num_steps=6", "--config.eval.every_steps=2"),
  }
  # These flags mean what was typed.
  lines = command.run("--dry_run", *asked).splitlines()
  _, again, _ = sweep_command.run(
    [*shown, "--dry_run", f"--workdir={command.workdir}"]
  )
  assert again.splitlines() == lines
  assert [line.rpartition("/")[2] for line in lines] == [
    *("hrm_seed1", "trm_seed1", "hrm_seed0", "trm_seed0")
  ]
  assert not command.workdir.exists()


@pytest.mark.parametrize("number", "1234")
def test_every_table_is_planned_with_every_variant(number):
  for words in ("", "smoke", "quickstart"):
    plan = _plan(f"{number},{words}" if words else number)
    names = ablations.TABLES[f"table{number}"]
    assert tuple(plan.rows) == names
    points = [{"row": name, "seed": 0} for name in names]
    assert plan.sweep.points == points
    for point in points:
      variant = f"{point['row']},{words}" if words else point["row"]
      trial = plan.trial(point)
      assert trial.folder == f"{point['row']}_seed0"
      assert trial.flags == [
        f"--config=experiments/ablations.py:{variant}",
        "--config.seed=0",
      ]


@pytest.mark.parametrize(
  ("asked", "said"),
  [
    ({"names": ["hmr"]}, "no row 'hmr', did you mean 'hrm'?; it has hrm, trm,"),
    ({"names": []}, "--rows is empty or names one twice"),
    ({"names": ["trm", "trm"]}, "--rows is empty or names one twice"),
    ({"seeds": []}, "--seeds is empty"),
    ({"seeds": [1, 1]}, "--seeds is empty or names one twice"),
    ({"changes": {"model.num_heads": 7}}, "row hrm: config.model.hidden_size"),
    ({"changes": {"seed": 3}}, "e.g. --seeds=3"),
  ],
)
def test_a_wrong_plan_is_one_line(asked, said):
  with pytest.raises(errors.UserError) as caught:
    _plan(**asked)
  assert said in str(caught.value)
  assert len(str(caught.value).splitlines()) == 1


def test_a_mistake_on_the_command_line_is_one_line(tmp_path):
  command = _command(tmp_path)
  sudoku = "--sweep=experiments/sweeps/sudoku.py"
  for flags, said in (
    (["--rows=hmr"], "did you mean 'hrm'?"),
    (["--seeds=0,-1"], "--seeds: '-1' is no whole number from 0"),
    (["--config.train.num_step=7"], "did you mean config.train.num_steps?"),
    ([sudoku, "--rows=trm"], "is no table"),
    (["--sweep=experiments/sweeps/tables.py:5"], "no variant '5'"),
    (["--sweep=experiments/sweeps/tables.py:1,2"], "name one table"),
    (["--report"], "there is no sweep in"),
  ):
    message = command.run(*flags, status=1)
    assert message.startswith("error: ")
    assert said in message
    assert len(message.splitlines()) == 1
  # The rows are experiments already.
  _, _, message = sweep_command.run(
    [command.flags[0], "--config=experiments/sudoku.py"]
  )
  assert message.startswith("error: --config: the rows of experiments/sweeps/")
  assert len(message.splitlines()) == 1
  assert not command.workdir.exists()


# --- report ------------------------------------------------------------------


def _run(row, seed, state, **values):
  if "curve" in values:
    values["step"] = max(values["curve"])
  point = {"row": row, "seed": seed}
  return sweep_report.Run(0, point, state, f"{row}_seed{seed}", **values)


def test_the_markdown_separates_results_from_the_rest():
  plan = _plan(
    "1,smoke", changes={"train.num_steps": 2000, "data.num_test": 500}
  )
  complete, unfinished = sweep_report.COMPLETE, sweep_report.UNFINISHED
  text = sweep_table.comparison(
    plan,
    [
      *(
        _run("trm", s, complete, result=a, step=2000, minutes=90)
        for s, a in ((0, 0.86), (1, 0.88), (2, 0.84))
      ),
      _run("hrm", 0, unfinished, curve={1000: 0.4104}),
      _run("no_ema", 2, sweep_report.NOT_RUN),
      _run("no_ema", 1, unfinished, curve={500: 0.6}),
      _run("no_ema", 0, complete, result=0.7, step=2000),
      _run("attention", 0, sweep_report.FAILED, reason="the loss is nan"),
      _run("t2_n2", 0, unfinished, curve={1: 0.03}),
      _run("t2_n2", 1, unfinished, curve={2: 0.04}),
      _run("four_layers", 0, sweep_report.NOT_RUN),
    ],
  )
  title, _, header, rule, *lines = text.splitlines()
  assert title == "# Table 1 of arXiv 2510.04871: ablations on Sudoku-Extreme"
  assert set(rule) == set("|- ")
  assert len({len(line) for line in (header, rule, *lines[:9])}) == 1

  def cells(line):
    shown = [cell.strip() for cell in line.strip("|").split("|")]
    return [shown[0], *shown[2:4], *shown[8:]]

  parts = ["2,000; 500; 0 of 2,000", ""]
  parts += ["1 complete, 1 unfinished, 1 not run"]
  spread = "86.0 ± 2.0 (3 seeds)"
  assert [cells(line) for line in lines[:9]] == [
    ["hrm", "55.0", "[41.0]", "1,000 of 2,000", "", "unfinished"],
    ["trm", "87.4", spread, "2,000 of 2,000", "4.50", "complete"],
    ["continue_loss", "86.1", "", "0 of 2,000", "", "not run"],
    ["separate_networks", "82.4", "", "0 of 2,000", "", "not run"],
    ["no_ema", "79.9", "70.0 (1 of 3 seeds)", *parts],
    ["four_layers", "79.5", "", "0 of 2,000", "", "not run"],
    ["attention", "74.7", "", "0 of 2,000", "", "failed"],
    ["t2_n2", "73.7", "[3.0, 4.0]", "1; 2 of 2,000", "", "unfinished"],
    ["one_step_gradient", "56.5", "", "0 of 2,000", "", "not run"],
  ]
  assert "\nPuzzles: generated sudoku; tested on 500.\n" in text
  (recipe,) = re.findall("(?m)^Not the paper's recipe: (.*)\\.$", text)
  assert "; train.num_steps=2000 instead of 65104 (" in recipe
  assert "data.task=generated_sudoku instead of sudoku;" in recipe
  assert "eval.batch_size" not in recipe
  assert text.endswith("\nattention_seed0 failed: the loss is nan\n")


def test_out_of_memory_in_the_paper_is_shown():
  text = sweep_table.comparison(_plan("3"), [])
  assert re.search(r"(?m)^\| trm_k6_t3 +\|.*\| OOM ", text)
  assert re.search(r"(?m)^\| hrm_k6_t3 +\|.*\| 62\.3 ", text)
  assert text.endswith("\nThe paper's recipe.\n")


# Depth, forward passes and millions of parameters in the paper's tables 1, 4.
PAPER = {
  "hrm": (24, 2, 27),
  "trm": (42, 1, 5),
  "continue_loss": (42, 2, 5),
  "separate_networks": (42, 1, 10),
  "no_ema": (42, 1, 5),
  "four_layers": (48, 1, 10),
  "attention": (42, 1, 7),
  "t2_n2": (12, 1, 5),
  "one_step_gradient": (42, 1, 5),
  "trm_k4_t4": (72, 1, 5),
  "hrm_k3_t6": (96, 2, 27),
  "direct": (8, 1, 27),
}


@pytest.mark.parametrize("row", PAPER)
def test_facts_are_the_papers(row):
  config = config_lib.from_config_dict(ablations.get_config(row))
  depth, passes, parameters = sweep_table.network_facts(config)
  millions = round(parameters / 1e6)
  assert (depth, passes, millions) == PAPER[row]
  assert ablations.ROWS[row].parameters in ("", f"{millions}M")
