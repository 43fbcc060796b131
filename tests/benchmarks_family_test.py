"""The comparison of rows at equal numbers of network calls."""

import json
import re
import sys

import pytest

from benchmarks import family, family_report, family_runs
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.runtime import flops, restore

# Stands in for trm_jax.main: the same files, no training. It goes on after the
# last evaluation; in the folder that DIES names it is killed after the first.
STAND_IN = """
import json, os, pathlib, signal, sys
flags = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:])
folder = pathlib.Path(flags["workdir"])
folder.mkdir(parents=True, exist_ok=True)
metrics = folder / "metrics.jsonl"
first = len(metrics.read_text().splitlines()) // 2 if metrics.exists() else 0
every = int(flags["config.eval.every_steps"])
with (folder.parent / "started").open("a") as file:
  print(folder.name, first, file=file)
for number in range(first, int(flags["config.train.num_steps"]) // every):
  step = every * (number + 1)
  train = {"step": step, "group": "train", "examples_per_second": 64.0}
  exact = 0.1 * number + 0.01 * int(flags["config.seed"])
  test = {"step": step, "group": "eval", "exact_accuracy": exact}
  with metrics.open("a") as file:
    print(json.dumps(train), json.dumps(test), sep="\\n", file=file)
  if os.environ.get("DIES") == folder.name and not first:
    os.kill(os.getpid(), signal.SIGKILL)
(folder / "result.json").write_text("{}")
"""


@pytest.fixture(name="stand_in")
def _stand_in(monkeypatch):
  trainer = (sys.executable, "-c", STAND_IN)
  monkeypatch.setattr(family_runs, "TRAINER", trainer)


def _plan(
  *rows,
  network_calls=48,
  evaluations=2,
  seeds=(0,),
  num_clues=13,
  learning_rate=None,
):
  return family_runs.plan(
    rows,
    seeds,
    network_calls=network_calls,
    evaluations=evaluations,
    num_clues=num_clues,
    learning_rate=learning_rate,
  )


def test_every_row_makes_the_same_number_of_network_calls():
  # The quickstart: T (n + 1) = 2 x 4 calls. HRM: 2 x 3, and as many to look
  # one supervision step ahead. Direct prediction: one.
  steps = {"trm": 12, "single_latent": 12, "hrm": 8, "direct": 96}
  for runs in _plan(*steps, network_calls=96, seeds=(0, 3)):
    assert [run.seed for run in runs] == [0, 3]
    for run in runs:
      config = run.config
      assert config.train.num_steps == steps[run.row]
      assert config.eval.every_steps == steps[run.row] / 2
      assert flops.forward_calls(config) * steps[run.row] == 96
      assert (config.seed, config.data.num_clues) == (run.seed, 13)
      assert (config.optimizer.warmup_steps, config.train.batch_size) == (
        60,
        64,
      )


def test_learning_rates_are_those_of_the_rows_or_one_for_all():
  def rates(**settings):
    todo = _plan("trm", "hrm", "multi_scale", **settings)
    return [runs[0].config.optimizer.learning_rate for runs in todo]

  assert rates() == [4e-3, 2e-3, 4e-3]
  assert rates(learning_rate=1e-3) == [1e-3] * 3


@pytest.mark.parametrize(
  ("rows", "calls", "told"),
  [
    (["trm", "chess"], 96, "there is no 'chess', only hrm, trm, "),
    (["trm", "hrm"], 100, "calls=100 are not.*2 evaluations; try 96$"),
    (["trm", "hrm"], 0, "try 48$"),
  ],
)
def test_what_does_not_come_out_even_is_one_line(rows, calls, told):
  with pytest.raises(errors.UserError, match=told):
    _plan(*rows, network_calls=calls)


def test_the_trainer_is_told_what_the_settings_say(tmp_path):
  ((run,),) = _plan("hrm")
  flags = dict(word[2:].split("=") for word in run.command(tmp_path)[3:])
  assert flags.pop("config") == "experiments/ablations.py:hrm,quickstart"
  assert flags.pop("workdir") == str(tmp_path)
  all_settings = config_lib.flatten(run.config)
  assert flags.pop("config.train.num_steps") == "4"
  for name, text in flags.items():
    assert str(all_settings[name.removeprefix("config.")]) == text


def _typed(workdir, *arguments):
  family.main(
    [
      f"--workdir={workdir}",
      *("--rows=trm,direct", "--seeds=0,1", "--network_calls=96"),
      *("--evaluations=3", *arguments),
    ]
  )


def test_a_killed_comparison_goes_on_and_ends_with_a_table(
  tmp_path, stand_in, monkeypatch, capfd
):
  monkeypatch.setenv("DIES", "trm_seed1")
  with pytest.raises(errors.UserError, match=r"trm, seed 1: .* status -9"):
    _typed(tmp_path)
  todo = _plan(
    *("trm", "direct"),
    network_calls=96,
    evaluations=3,
    num_clues=14,
  )
  ended = {str(runs[0].folder(tmp_path)): runs[0].config for runs in todo}
  monkeypatch.setattr(restore, "saved_config", ended.__getitem__)
  _typed(tmp_path)
  started = (tmp_path / "started").read_text().split("\n")
  assert started[:5] == [
    *("trm_seed0 0", "direct_seed0 0", "trm_seed1 0", "trm_seed1 1"),
    "direct_seed1 0",
  ]
  lines = capfd.readouterr().out.splitlines()
  found = json.loads(lines[-1])["rows"]
  trm, direct = found
  assert (trm["calls_per_step"], direct["calls_per_step"]) == (8, 1)
  assert trm["curves"][1] == pytest.approx({"32": 0.01, "64": 0.11, "96": 0.21})
  assert trm["exact"] == pytest.approx([0.2, 0.21])
  assert direct["minutes"] == pytest.approx(96 / 60)  # a step in a second
  assert trm["parameters"] == 177_602
  assert any(line.startswith("| `direct` | ") for line in lines)
  picture = (tmp_path / "family.png").read_bytes()
  assert picture.startswith(b"\x89PNG")
  assert len(picture) < 60_000


def test_a_folder_of_another_comparison_is_refused(
  tmp_path, stand_in, monkeypatch
):
  ((run,),) = _plan("trm")
  ((other,),) = _plan("trm", network_calls=96)
  family_runs.train(run, tmp_path)
  monkeypatch.setattr(restore, "saved_config", lambda _: other.config)
  with pytest.raises(errors.UserError, match="other settings; name another"):
    family_runs.train(run, tmp_path)


def test_the_table_by_hand():
  row = {
    "row": "hrm",
    "paper": 55.0,
    "parameters": 1234567,
    "layers": "2 x 4",
    "calls_per_step": 12,
    "steps": 1000,
    "learning_rate": 0.002,
    "tflop": 8.56,
    "exact": [0.5, 0.6, 0.7],
    "mean": 0.6,
    "spread": 0.1,
    "minutes": 2.04,
  }
  alone = {**row, "row": "trm_k6_t3", "paper": None, "spread": None}
  lines = family_report.table([row, alone]).splitlines()
  assert lines[2] == (
    "| `hrm` | 1,234,567 | 2 x 4 | 12 | 1,000 | 0.002 | 8.6 | 60.0 ± 10.0 |"
    " 50.0, 60.0, 70.0 | 2.0 | 55.0 |"
  )
  assert " | 60.0 | 50.0, " in lines[3]
  assert lines[3].endswith(" 2.0 |  |")
  assert {line.count("|") for line in lines} == {12}


def test_minutes_are_those_of_the_steps():
  rows = [
    {"step": 10, "group": "train", "examples_per_second": 32.0},
    {"step": 10, "group": "eval", "exact_accuracy": 0.5},
    {"step": 30, "group": "train", "examples_per_second": 64.0},
  ]
  assert family_report.minutes(rows, 64) == pytest.approx((20 + 20) / 60)
  assert family_report.curve(rows, 8) == {80: 0.5}


@pytest.mark.parametrize(
  "flag", ["--seeds=0,x", "--seeds=", "--evaluations=0", "--network_calls=-96"]
)
def test_a_mistake_is_told_before_anything_is_trained(tmp_path, flag):
  with pytest.raises(errors.UserError, match=re.escape(flag)):
    family.main([f"--workdir={tmp_path}", flag])
  assert not any(tmp_path.iterdir())
