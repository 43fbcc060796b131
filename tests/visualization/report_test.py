"""The HTML report: self-contained, escaped, and nothing unknown shown as 0."""

import configparser
import dataclasses
import json
import math
import pathlib
import re

import html_page
import numpy as np
import pytest
import saved_run
import tiny

from experiments import arc as arc_experiment
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import task as task_lib
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import attempts, evaluate, voting
from trm_jax.evaluation import report as report_lib
from trm_jax.runtime import preemption, program
from trm_jax.visualization import (
  animation,
  calibration,
  plots,
  report,
  report_puzzles,
)

HOSTILE = '"\'><script>alert("x")</script><img src=http://example.org/x>&amp;'
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
SUDOKU = task_lib.Look(
  rows=4, cols=4, symbols=tuple(" .1234"), box_rows=2, box_cols=2
)
ROWS = [
  {
    "step": 1,
    "group": "train",
    "answer_loss": 2.0,
    "in_slot_exact_accuracy": None,
  },
  {
    "step": 2,
    "group": "train",
    "answer_loss": 1.0,
    "in_slot_exact_accuracy": 0.5,
  },
]


def _config(**changes):
  config = tiny.config_dict()
  config.update(changes)
  return config_lib.from_config_dict(config)


def _evaluation(*, entries=4, axis="steps", summary=None, **values):
  numbers = tuple(range(1, entries + 1)) if axis != "adaptive" else (16,)
  means = {
    name: np.linspace(0.25, 0.75, len(numbers))
    for name in ("exact_accuracy", "cell_accuracy", "halt_accuracy", "steps")
  } | {"answer_loss": np.linspace(2, 1, len(numbers))}
  return report_lib.EvalResult(
    num_puzzles=8,
    means=means | values,
    seconds=12.3,
    first_batch={},
    first_answers=None,
    axis=axis,
    numbers=numbers,
    summary=summary or report_lib.ScoreSummary({}, "exact_accuracy"),
  )


def _shown(name="puzzle 1", *, has_steps=True, verdict="correct", known=True):
  question = np.array([2, 1, 1, 1] * 4, np.uint8)
  answers = np.array([[2, 3, 4, 4] * 4, [2, 3, 4, 5] * 4], np.uint8)
  trace = animation.AnswerTrace(
    look=SUDOKU,
    question=question,
    answers=answers if has_steps else answers[-1:],
    confidence=np.array([0.25, 0.75] if has_steps else [0.75]),
    solution=answers[-1] if known else None,
  )
  puzzle = report_puzzles.Puzzle(
    index=0,
    question=question,
    answer=answers[-1],
    solution=trace.solution,
    confidence=0.75,
    steps=2,
  )
  return report_puzzles.ShownPuzzle(name, puzzle, trace, has_steps, verdict)


def _stats(count=8, *, known=True, steps=16):
  return calibration.AnswerStats(
    confidence=np.linspace(0, 1, count),
    steps=np.full(count, steps, np.int32),
    known=np.full(count, known),
    exact=np.arange(count) % 2 == 0 if known else np.full(count, False),
  )


def _render(config=None, evaluation=None, *, categories=None, **changes):
  categories = categories or {"Correct": [_shown()]}
  puzzles = [shown for some in categories.values() for shown in some]
  values = {
    "workdir": "runs/a",
    "step": 1234,
    "setup": {"parameters": "5,678", "versions": "jax 1.2.3"},
    "stats": _stats(),
    "puzzles": report_puzzles.Selection(
      categories, report_puzzles.most_interesting(puzzles)
    ),
    "votes": [],
    "rows": ROWS,
  } | changes
  return html_page.Page(
    report.render(config or _config(), evaluation or _evaluation(), **values)
  )


@pytest.fixture(name="no_charts")
def _no_charts(monkeypatch):
  """Replaces the charts: drawing them is what takes longest."""
  for name in ("accuracy", "reliability", "steps_used", "training"):
    monkeypatch.setattr(plots, name, lambda *_: SVG)


# --- rendered ----------------------------------------------------------------


def test_the_page_has_its_sections_charts_and_pictures():
  stats = _stats()
  stats.steps[:6] = 2
  page = _render(stats=stats)
  assert page.titles == [
    "Accuracy",
    "Confidence",
    "Steps used",
    "Step by step",
    "Best and worst puzzles",
    "Training",
    "Setup",
  ]
  for fact in ("1,234", "5,678", "jax 1.2.3", "12.3 seconds", "runs/a"):
    assert fact in page.text
  assert "config.model.hidden_size 16" in page.text
  assert "5.50 supervision steps on average" in page.text
  assert "2 6 75.0%" in page.text
  assert "16 2 25.0%" in page.text
  charts = [a for a in page.alts() if "chart" in a or "Curves" in a]
  assert len(charts) == 5
  assert "step 1: 4 incorrect cells, confidence 25%" in page.alts()
  assert "step 2: 0 incorrect cells, confidence 75%" in page.alts()


@pytest.mark.usefixtures("no_charts")
def test_text_from_data_and_settings_is_escaped():
  summary = report_lib.ScoreSummary(
    {HOSTILE: 0.5, "pass@2": 0.5}, "exact_accuracy", (HOSTILE,)
  )
  page = _render(
    _config(name=HOSTILE),
    _evaluation(summary=summary).warned([HOSTILE]),
    workdir=HOSTILE,
    setup={HOSTILE: HOSTILE},
    categories={HOSTILE: [_shown(HOSTILE, verdict=HOSTILE)]},
    votes=[_votes(name=HOSTILE)],
  )
  assert page.text.count("<script>alert") == 16
  assert sum(HOSTILE in alt for alt in page.alts()) == 1


@pytest.mark.usefixtures("no_charts")
def test_what_is_unknown_is_not_zero():
  unknown = {
    name: np.full(4, math.nan)
    for name in ("exact_accuracy", "cell_accuracy", "halt_accuracy", "steps")
  }
  page = _render(
    evaluation=_evaluation(**unknown),
    stats=_stats(known=False),
    rows=[],
    categories={"No known solution": [_shown(has_steps=False, known=False)]},
  )
  assert "unknown exact accuracy" in page.text
  assert "unknown mean steps" in page.text
  assert "4 unknown unknown unknown unknown" in page.text
  assert "the puzzles have no known solution" in page.text
  assert "The steps before this answer are unavailable" in page.text
  assert "question answer 75%" in page.text
  assert "Step by step" not in page.titles
  assert not re.search(r"\b0(\.0+)?%", page.text)
  assert "nan" not in page.text.lower()
  assert "Training" not in page.titles
  assert not page.all("source")  # neither a chart nor an animation


@pytest.mark.usefixtures("no_charts")
def test_confidence_is_counted_against_correctness():
  text = _render().text
  assert "confidence ≥ 50% 2 25.0% 2 25.0% 4 50.0%" in text
  assert "confidence < 50% 2 25.0% 2 25.0% 4 50.0%" in text
  assert "all 4 50.0% 4 50.0% 8 100.0%" in text
  assert "10% to 20% 1 14.3% 0.0%" in text
  assert "30% to 40% 0 no answer no answer" in text


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize("num_nan", [2, 8])
def test_a_confidence_of_nan_is_excluded(num_nan):
  stats = _stats()
  stats.confidence[-num_nan:] = math.nan
  shown = _shown()
  shown.trace.confidence[:] = math.nan
  puzzle = dataclasses.replace(shown.puzzle, confidence=math.nan)
  shown = dataclasses.replace(shown, puzzle=puzzle)
  page = _render(stats=stats, categories={"Correct": [shown]})
  assert f"The confidence of {num_nan} puzzles is not a number" in page.text
  assert "correct, confidence unknown, 2 steps" in page.text
  assert "nan" not in page.text.lower()
  assert not page.all("progress")
  table = "correctness of 6 puzzles"
  assert (table in page.text) == (num_nan == 2)
  if num_nan == 2:
    assert "confidence < 50% 2 33.3% 2 33.3% 4 66.7%" in page.text
    assert "90% to 100% 0 no answer no answer" in page.text


@pytest.mark.usefixtures("no_charts")
def test_it_says_when_only_some_of_the_puzzles_were_solved_in_this_run():
  words = "Covers only the 5 of 8 puzzles solved in this run"
  assert _render(stats=_stats(5)).text.count(words) == 2
  assert "Covers only" not in _render(stats=_stats(8)).text


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize(
  ("solver", "axis", "words", "chart"),
  [
    ("fixed", "steps", "4 supervision steps per puzzle", "supervision steps"),
    ("adaptive", "adaptive", "halting at confidence 0.5, at most 4", None),
    ("rollouts", "rollouts", "8 rollouts of 4 supervision steps", "rollouts"),
  ],
)
def test_the_page_names_the_solver(solver, axis, words, chart):
  config = tiny.config_dict()
  config.eval.solver = solver
  page = _render(
    config_lib.from_config_dict(config),
    _evaluation(axis=axis, entries=8).warned(["trained on the test set"]),
  )
  assert page.text.count(words) == 2  # at the top and in the setup
  charts = re.findall(
    r"Curves of accuracy by number of ([a-z ]+):", str(page.alts())
  )
  assert charts == ([chart] if chart else [])
  assert "Steps used" not in page.titles  # the same for all
  assert ("attempt without noise" in page.text) == (solver == "rollouts")
  warning = page.text.index("WARNING: trained on the test set")
  assert warning < page.text.index("Halt accuracy")


def test_rollouts_have_a_table_and_a_chart_of_attempts():
  table = attempts.AttemptTable(
    steps=(2, 4),
    attempts=(1, 2, 3),
    num_puzzles=8,
    chosen=np.array([[1, 2, 3], [2, 4, 6]]),
    any_=np.array([[1, 3, 5], [2, 5, 8]]),
    calls=np.array([[20, 40, 60], [40, 80, 1234]]),
    choice="residual",
  )
  evaluation = _evaluation(axis="rollouts", entries=3)
  page = _render(_config(), dataclasses.replace(evaluation, attempts=table))
  assert "Attempts" in page.titles
  assert "8 puzzles by supervision steps and attempts, chosen by residual" in (
    page.text
  )
  low, high = attempts.wilson_interval(6, 8)
  for text in ("75.00%", f"{low:.2%} to {high:.2%}", "1,234", "100.00%"):
    assert text in page.text
  charts = [alt for alt in page.alts() if "number of attempts" in alt]
  assert len(charts) == 1
  assert "Attempts" not in _render(_config(), evaluation).titles


# --- votes -------------------------------------------------------------------


def _votes(name="task1", *, known=True, rank=1, candidates=3):
  grids = [[[1, 2]], [[3, 4]], [[5, 6]]][:candidates]
  solution = grids[rank] if rank is not None else [[7, 8], [7, 8]]
  attempts = tuple(grids[:2]) or (voting.PLACEHOLDER,) * 2
  result = voting.InputResult(
    attempts=attempts if len(attempts) == 2 else attempts * 2,
    known=known,
    rank=rank if known else None,
    num_votes=10 * candidates,
    num_candidates=candidates,
    leaders=tuple((10, 0.75 - i / 4) for i in range(candidates)),
  )
  pair = arc_tasks.Pair(
    input=np.array([[1]], np.uint8),
    output=np.array(solution, np.uint8) if known else None,
  )
  task = arc_tasks.ArcTask(name, train=(), test=(pair,), test_first=False)
  return task, voting.TaskResult(name, (result,))


@pytest.mark.usefixtures("no_charts")
def test_the_votes_say_which_attempt_is_correct():
  page = _render(votes=[_votes()])
  text = page.text
  assert "solved within two attempts 1" in text
  assert "attempt 1, 10 votes 75%" in text
  assert "attempt 2, 10 votes 50%" in text
  assert "3 different answers; the correct one is at rank 2." in text
  assert "1 10 33.3% 75.0% incorrect 2 10 33.3% 50.0% correct" in text
  alt = "attempt 2, 10 votes: 0 incorrect cells, confidence 50%"
  assert alt in page.alts()


@pytest.mark.usefixtures("no_charts")
def test_tasks_are_grouped_by_outcome_and_two_of_each_are_shown():
  cases = {
    "solved within two attempts": {"rank": 0, "candidates": 1},
    "correct answer outvoted": {"rank": 2},
    "no vote for the correct answer": {"rank": None},
    "no known solution": {"known": False},
  }
  votes = [
    _votes(f"{number}_{copy}", **changes)
    for copy in "abc"
    for number, changes in enumerate(cases.values())
  ]
  text = _render(votes=votes).text
  for outcome in cases:
    assert f"{outcome} 3" in text
  shown = re.findall(r"Task (\w+)", text)
  assert shown == [f"{number}_{copy}" for number in range(4) for copy in "ab"]
  assert "the correct one is not among them" in text
  assert "the correct one is unknown" in text
  assert "33.3% 75.0% unknown" in text


@pytest.mark.usefixtures("no_charts")
def test_a_task_without_votes_has_no_attempts():
  text = _render(votes=[_votes(rank=None, candidates=0)]).text
  assert "0 votes for 0 different answers" in text
  assert "attempt 1" not in text


# --- from a checkpoint -------------------------------------------------------


@pytest.fixture(scope="module", name="workdir")
def _workdir(tmp_path_factory):
  run = program.load(_config())
  return saved_run.save(run, tmp_path_factory.mktemp("run"), {4: 0.5})


@pytest.mark.usefixtures("no_charts")
def test_a_report_shows_what_an_evaluation_finds(workdir, capsys):
  # A byte of the command line that is not UTF-8 is no obstacle.
  config = _config(name="a\udcffb")
  written = report.write(config, str(workdir))
  found = evaluate.evaluate_workdir(config, str(workdir))
  assert written.final == found.final
  path = workdir / report.REPORT_FILE
  assert f"report: {path}" in capsys.readouterr().out
  page = html_page.Page(path.read_text())
  assert "Evaluation of a?b" in page.text
  assert "12 puzzles" in page.text
  assert f"{found.final['cell_accuracy']:.2%}" in page.text
  # 12 puzzles in batches of 8: none is padding.
  places = {int(place) for place in re.findall(r"Puzzle (\d+):", page.text)}
  assert places
  assert places <= set(range(1, 13))
  # The steps on the way led to the evaluation's own answer.
  assert "Step by step" in page.titles
  assert "are unavailable" not in page.text


@pytest.mark.usefixtures("no_charts")
@pytest.mark.parametrize(
  "solver", ["adaptive", pytest.param("rollouts", marks=pytest.mark.slow)]
)
def test_other_solvers_have_a_report_too(workdir, tmp_path, solver):
  config = tiny.config_dict()
  config.eval.solver = solver
  config.eval.rollouts = 3
  config = config_lib.from_config_dict(config)
  report.write(config, str(workdir), str(tmp_path / "page.html"))
  page = html_page.Page((tmp_path / "page.html").read_text())
  assert "Accuracy" in page.titles


@pytest.mark.slow
@pytest.mark.usefixtures("no_charts")
def test_a_report_of_arc_has_votes_and_says_what_it_covers(tmp_path):
  config = config_lib.from_config_dict(arc_experiment.get_config("smoke"))
  run = program.load(config)
  saved_run.save(run, tmp_path, {6: 0.5})
  report.write(config, str(tmp_path))
  page = html_page.Page((tmp_path / report.REPORT_FILE).read_text())
  assert "Covers only" not in page.text
  tasks = set(re.findall(r"Task (\w+)", page.text))
  path = tmp_path / "evaluations/step_6/submission.json"
  assert tasks <= set(json.loads(path.read_text()))
  assert 1 <= len(tasks) <= 2
  # It resumes from its votes: only the last batch is solved again.
  report.write(config, str(tmp_path))
  text = html_page.Page((tmp_path / report.REPORT_FILE).read_text()).text
  assert "Covers only the 8 of 24 puzzles" in text
  last = re.search(r"Puzzle (\d+) \((\w+)", text)
  assert 17 <= int(last[1]) <= 24
  names = [task.name for task in run.task.augmentation_table.tasks]
  assert last[2] == names[(int(last[1]) - 1) // 8]


@pytest.mark.parametrize(
  ("output", "text"),
  [
    ("-", "a report cannot be printed: name a file"),
    (".", "which is not a file; name a file"),
    ("nowhere/page.html", "but there is no folder nowhere"),
  ],
)
def test_an_impossible_output_is_refused_before_the_work(
  tmp_path, monkeypatch, output, text
):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(evaluate, "restore_and_evaluate", None)
  with pytest.raises(errors.UserError, match=re.escape(text)):
    report.write(_config(), str(tmp_path), output)
  assert not list(tmp_path.iterdir())


def test_a_stopped_report_writes_no_page(workdir, tmp_path):
  stop = preemption.PreemptionSignal(0.0)
  stop.request()
  page = tmp_path / "page.html"
  with pytest.raises(
    preemption.Preempted, match="the same command begins it anew"
  ):
    report.write(_config(), str(workdir), str(page), stop=stop)
  assert not page.exists()


def test_an_empty_workdir_is_an_error(tmp_path):
  with pytest.raises(errors.UserError):
    report.write(_config(), str(tmp_path / "none"))
  assert not (tmp_path / "none").exists()


def test_the_template_is_installed_with_the_package():
  root = pathlib.Path(report.__file__).parents[2]
  setup = configparser.ConfigParser()
  setup.read(root / "setup.cfg")
  patterns = setup["options.package_data"]["trm_jax.visualization"].split()
  folder = root / "trm_jax/visualization"
  installed = {path for pattern in patterns for path in folder.glob(pattern)}
  assert folder / f"{report.REPORT_FILE}.jinja" in installed
