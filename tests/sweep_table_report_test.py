"""The rows of a paper's table: planned, told apart, reported."""

import pathlib
import re

import optuna
import pytest

from experiments import ablations
from experiments.sweeps import table1
from launch.sweeps import plan as plan_lib
from launch.sweeps import (
  row_facts,
  table_picture,
  table_plan,
  table_report,
  table_results,
  table_study,
)
from trm_jax import config as config_lib
from trm_jax import errors

ROOT = pathlib.Path(__file__).parent.parent


def _plan(*, names=None, seeds=(0,), words="", changes=None):
  return table_plan.make(
    table1.get_sweep(words),
    names=names,
    seeds=seeds,
    changed=lambda config: config_lib.changed(config, changes or {}),
  )


@pytest.mark.parametrize(
  ("asked", "said"),
  [
    ({"names": []}, "--rows is empty"),
    ({"names": ["trm", "trm"]}, "--rows: one stands there twice"),
    ({"seeds": []}, "--seeds is empty"),
    ({"seeds": [1, 1]}, "--seeds: one stands there twice"),
    ({"words": "smok"}, "there is no variant 'smok'"),
    ({"changes": {"model.num_heads": 7}}, "row hrm: config.model.hidden_size"),
  ],
)
def test_what_cannot_be_planned_is_told(asked, said):
  with pytest.raises(errors.UserError) as caught:
    _plan(**asked)
  assert said in str(caught.value)
  assert len(str(caught.value).splitlines()) == 1


# --- plan ------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_table_is_planned_with_every_variant(number):
  for words in ("", "smoke", "quickstart"):
    file = f"experiments/sweeps/table{number}.py"
    table = plan_lib.load_sweep(
      str(ROOT / file) + (f":{words}" if words else "")
    )
    plan = table_plan.make(
      table, names=None, seeds=(0,), changed=lambda config: config
    )
    names = ablations.TABLES[f"table{number}"]
    assert tuple(plan.rows) == names
    assert plan.sweep.rows == tuple({name: 0} for name in names)
    for name in names:
      arguments = plan.arguments({name: 0}, "runs/there")
      variant = f"{name},{words}" if words else name
      assert arguments == [
        f"--config=experiments/ablations.py:{variant}",
        "--workdir=runs/there",
        "--config.seed=0",
      ]


def test_a_sweep_is_named_by_its_file_and_variant():
  assert plan_lib.default_name("a/table1.py") == "table1"
  assert plan_lib.default_name("a/table1.py:quickstart") == "table1_quickstart"


def test_a_trial_that_was_not_yet_a_row_becomes_the_next_one():
  """As when a worker is killed between the two."""
  storage = optuna.storages.InMemoryStorage()

  def study(*names):
    return table_study.TableStudy(
      _plan(names=names), storage=storage, name="table"
    )

  assert study("trm").begin().params == {"trm": 0}
  storage.create_new_trial(storage.get_study_id_from_name("table"))
  assert study("trm").is_full()  # it is nobody's
  assert study("trm").unfinished() == [0]
  both = study("trm", "hrm")
  assert both.is_full()
  assert both.unfinished() == [0, 1]
  assert both.resume(1).params == {"hrm": 0}
  assert both.resume(0).params == {"trm": 0}
  assert study("hrm").unfinished() == [1]


# --- report ----------------------------------------------------------------


def _run(seed, state, curve=None, **more):
  values = {
    "accuracy": None,
    "curve": curve or {},
    "step": max(curve or {0: 0}),
    "hours": 0.0,
    "reason": "",
  }
  return table_results.Run(seed, state, **{**values, **more})


def test_the_markdown_says_what_is_a_result_and_what_is_not():
  plan = _plan(
    words="smoke", changes={"train.num_steps": 2000, "data.num_test": 500}
  )
  complete = table_results.COMPLETE
  unfinished = table_results.UNFINISHED
  runs = {
    "trm": [
      _run(s, complete, accuracy=a, step=2000, hours=1.5)
      for s, a in ((0, 86.0), (1, 88.0), (2, 84.0))
    ],
    "hrm": [_run(0, unfinished, {1000: 41.04}, step=1500)],
    "no_ema": [
      _run(0, complete, accuracy=70.0, step=2000),
      _run(1, unfinished, {500: 60.0}),
      _run(2, table_results.NOT_RUN),
    ],
    "attention": [_run(0, table_results.FAILED, reason="the loss is nan")],
    "t2_n2": [_run(0, unfinished, {1: 3.0}), _run(1, unfinished, {2: 4.0})],
    "four_layers": [_run(0, table_results.NOT_RUN)],
  }
  results = [
    table_results.RowResult(name, row, runs.get(name, []))
    for name, row in plan.rows.items()
  ]
  text = table_report.markdown(plan.table, results)
  title, _, header, rule, *lines = text.splitlines()
  assert title == ("# Table 1 of arXiv 2510.04871: ablations on Sudoku-Extreme")
  assert set(rule) == set("|- ")
  assert len({len(line) for line in (header, rule, *lines[:9])}) == 1

  def cells(line):
    shown = [cell.strip() for cell in line.strip("|").split("|")]
    return [shown[0], *shown[2:4], *shown[8:]]

  parts = ["2,000; 500; 0 of 2,000", "0.00"]
  parts += ["1 complete, 1 unfinished, 1 not run"]
  assert [cells(line) for line in lines[:9]] == [
    ["hrm", "55.0", "[41.0]", "1,500 of 2,000", "0.00", "unfinished"],
    [
      "trm",
      "87.4",
      "86.0 ± 2.0 (3 seeds)",
      "2,000 of 2,000",
      "4.50",
      "complete",
    ],
    ["continue_loss", "86.1", "", "0 of 2,000", "", "not run"],
    ["separate_networks", "82.4", "", "0 of 2,000", "", "not run"],
    ["no_ema", "79.9", "70.0 (1 of 3 seeds)", *parts],
    ["four_layers", "79.5", "", "0 of 2,000", "", "not run"],
    ["attention", "74.7", "", "0 of 2,000", "0.00", "failed"],
    ["t2_n2", "73.7", "[3.0, 4.0]", "1; 2 of 2,000", "0.00", "unfinished"],
    ["one_step_gradient", "56.5", "", "0 of 2,000", "", "not run"],
  ]
  assert "\nPuzzles: generated sudoku; tested on 500.\n" in text
  (recipe,) = re.findall("(?m)^Not the paper's recipe: (.*)\\.$", text)
  assert "; train.num_steps=2000 instead of 65104 (" in recipe
  assert "data.task=generated_sudoku instead of sudoku;" in recipe
  assert "eval.batch_size" not in recipe
  assert text.endswith("\nattention with seed 0 failed: the loss is nan\n")
  assert table_picture.draw(results)[:4] == b"\x89PNG"


def test_what_ran_out_of_memory_in_the_paper_is_said():
  table = plan_lib.load_sweep(str(ROOT / "experiments/sweeps/table3.py"))
  plan = table_plan.make(table, names=None, seeds=(0,), changed=lambda c: c)
  results = [
    table_results.RowResult(name, plan.rows[name], [])
    for name in ("trm_k6_t3", "hrm_k6_t3")
  ]
  text = table_report.markdown(table, results)
  assert re.search(r"(?m)^\| trm_k6_t3 \|.*\| OOM ", text)
  assert re.search(r"(?m)^\| hrm_k6_t3 \|.*\| 62\.3 ", text)
  assert (
    "\nThe paper's recipe, as experiments/ablations.py:trm_k6_t3 has it.\n"
    in text
  )


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
  facts = row_facts.of(config_lib.from_config_dict(ablations.get_config(row)))
  millions = round(facts.parameters / 1e6)
  assert (facts.depth, facts.forward_passes, millions) == PAPER[row]
  assert ablations.ROWS[row].parameters in ("", f"{millions}M")
