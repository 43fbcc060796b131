"""The HTML report: whole in itself, nothing hidden, nothing made up."""

import base64
import dataclasses
import html.parser
import io
import itertools
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import saved_run
import tiny
from PIL import Image

from experiments import arc as arc_experiment
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import task as task_lib
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import evaluate, voting
from trm_jax.evaluation import report as report_lib
from trm_jax.runtime import preemption, program
from trm_jax.visualization import (
  animation,
  exhibition,
  gallery,
  html_facts,
  html_parts,
  html_puzzles,
  html_report,
)

HOSTILE = '<script>alert("x")</script><img src=http://example.org/x>&amp;'


class _Page(html.parser.HTMLParser):
  """What a browser would find in a page."""

  def __init__(self, text):
    super().__init__()
    self.tags: list[tuple[str, dict]] = []
    self.ids: set[str] = set()
    self.open: list[str] = []
    self.words: list[str] = []
    self.titles: list[str] = []
    self.feed(text)
    assert not self.open  # all that was opened is closed
    self.text = " ".join(" ".join(self.words).split())

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in ("meta", "img", "source"):
      self.open.append(tag)
    if "id" in dict(attrs):
      assert dict(attrs)["id"] not in self.ids
      self.ids.add(dict(attrs)["id"])

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open[-1:] == ["h2"]:
      self.titles.append(data)
    if self.open[-1:] != ["style"]:
      self.words.append(data)

  def all(self, tag):
    return [attributes for name, attributes in self.tags if name == tag]

  def headings(self):
    return [tag for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]


SUDOKU = task_lib.Look(
  rows=4, cols=4, symbols=tuple(" .1234"), box_rows=2, box_cols=2
)


def _config(**changes):
  config = tiny.config_dict()
  config.update(changes)
  return config_lib.from_config_dict(config)


def _report(*, entries=4, axis="steps", verdict=None, **values):
  numbers = tuple(range(1, entries + 1)) if axis != "adaptive" else (16,)
  means = {
    name: np.linspace(0.25, 0.75, len(numbers))
    for name in ("exact_accuracy", "cell_accuracy", "halt_accuracy", "steps")
  } | {"answer_loss": np.linspace(2, 1, len(numbers))}
  return report_lib.Report(
    num_puzzles=8,
    means=means | values,
    seconds=12.3,
    first_batch={},
    first_answers=None,
    axis=axis,
    numbers=numbers,
    verdict=verdict or report_lib.Verdict({}, "exact_accuracy"),
  )


def _shown(name="puzzle 1", *, has_steps=True, verdict="right", known=True):
  question = np.array([2, 1, 1, 1] * 4, np.uint8)
  answers = np.array([[2, 3, 4, 4] * 4, [2, 3, 4, 5] * 4], np.uint8)
  thinking = animation.Thinking(
    look=SUDOKU,
    question=question,
    answers=answers if has_steps else answers[-1:],
    confidence=np.array([0.25, 0.75] if has_steps else [0.75]),
    solution=answers[-1] if known else None,
  )
  exhibit = gallery.Exhibit(
    number=0,
    question=question,
    answer=answers[-1],
    solution=thinking.solution,
    confidence=0.75,
    steps=2,
  )
  return exhibition.Shown(
    name=name,
    exhibit=exhibit,
    thinking=thinking,
    has_steps=has_steps,
    verdict=verdict,
  )


FACTS = html_facts.Facts(
  workdir="runs/a",
  step=1234,
  checkpoint="runs/a/checkpoints/ckpt_1234",
  num_parameters=5678,
  table_shape=(9, 16),
  device="1 x cpu",
  versions={"jax": "1.2.3"},
)
ROWS = [
  {"step": 1, "group": "train", "answer_loss": 2.0, "exact_accuracy": None},
  {"step": 2, "group": "train", "answer_loss": 1.0, "exact_accuracy": 0.5},
]


def _seen(count=8, *, known=True, steps=16):
  return gallery.Seen(
    confidence=np.linspace(0, 1, count),
    steps=np.full(count, steps, np.int32),
    known=np.full(count, known),
    exact=np.arange(count) % 2 == 0 if known else np.full(count, False),
  )


@pytest.fixture(name="real_charts")
def _real_charts():
  """Leaves the charts as they are."""


@pytest.fixture(autouse=True)
def _told_charts(request, monkeypatch):
  """Tells what a chart is of, which is faster than to draw it."""
  if "real_charts" not in request.fixturenames:
    monkeypatch.setattr(
      html_parts,
      "chart",
      lambda draw, alt, caption: html_parts.element("p", "chart of ", caption),
    )


def _assemble(config=None, report=None, facts=FACTS, *, kinds=None, **changes):
  kinds = kinds or {"Most confident, and right": [_shown()]}
  puzzles = [shown for some in kinds.values() for shown in some]
  text = html_report.assemble(
    config or _config(),
    report or _report(),
    facts,
    **{
      "seen": _seen(),
      "shown": exhibition.Exhibition(
        kinds=kinds, film=exhibition.most_telling(puzzles)
      ),
      "voted": [],
      "rows": ROWS,
    }
    | changes,
  )
  return _Page(text)


# --- whole in itself ---------------------------------------------------------


def _check_self_contained(page):
  """Checks that a page needs nothing else, and is readable by all."""
  names = {tag for tag, _ in page.tags}
  assert not names & {"script", "link", "iframe", "object", "form", "base"}
  for tag, attributes in page.tags:
    for name, value in attributes.items():
      assert not name.startswith("on"), (tag, name)
      if name in ("src", "srcset"):
        assert value.startswith("data:image/")
      if name == "href":
        assert value.startswith("#")
        assert value[1:] in page.ids
      if name == "aria-labelledby":
        assert value in page.ids
  for image in page.all("img"):
    assert "alt" in image
    _check_image(image["src"])
  for source in page.all("source"):
    _check_image(source["srcset"])
  levels = [int(tag[1]) for tag in page.headings()]
  assert levels[0] == 1
  assert levels.count(1) == 1
  for above, below in itertools.pairwise(levels):
    assert below <= above + 1


def _check_image(address):
  kind_, _, content = address.partition(";base64,")
  data = base64.b64decode(content, validate=True)
  if kind_ == "data:image/svg+xml":
    assert ElementTree.fromstring(data).tag.endswith("svg")
    return
  with Image.open(io.BytesIO(data)) as image:
    image.load()
    assert kind_ == f"data:image/{image.format.lower()}"


@pytest.mark.usefixtures("real_charts")
def test_the_page_needs_nothing_else():
  seen = _seen()
  seen.steps[0] = 2
  page = _assemble(seen=seen)
  _check_self_contained(page)
  assert {"img", "svg"} & {tag for tag, _ in page.tags} == {"img"}
  policy = page.all("meta")[2]["content"]
  assert policy.startswith("default-src 'none'; img-src data:;")
  assert "script-src" not in policy


def test_the_page_has_its_sections_in_order():
  page = _assemble()
  assert page.titles == [
    "Accuracy",
    "Does it know when it is right?",
    "See it think",
    "Best and worst puzzles",
    "Training",
    "What was evaluated",
  ]
  for fact in ("1,234", "5,678", "9 x 16", "1 x cpu", "jax 1.2.3", "12.3"):
    assert fact in page.text
  assert "config.model.hidden_size 16" in page.text
  assert "4 supervision steps for each puzzle" in page.text


def test_nothing_from_data_or_settings_is_read_as_html():
  hostile = dataclasses.replace(
    FACTS, workdir=HOSTILE, checkpoint=HOSTILE, versions={HOSTILE: HOSTILE}
  )
  verdict = report_lib.Verdict({HOSTILE: 0.5}, "exact_accuracy", (HOSTILE,))
  page = _assemble(
    _config(name=HOSTILE),
    _report(verdict=verdict).warned([HOSTILE]),
    hostile,
    kinds={HOSTILE: [_shown(HOSTILE, verdict=HOSTILE)]},
    voted=[_voted(name=HOSTILE)],
  )
  _check_self_contained(page)
  assert page.text.count("<script>alert") >= 10


def test_text_is_escaped_unless_it_is_html():
  inner = html_parts.element("b", "a<b")
  outer = html_parts.element("p", inner, "c>d", class_='"', aria_label="<")
  assert outer == (
    '<p class="&quot;" aria-label="&lt;"><b>a&lt;b</b>\nc&gt;d</p>'
  )


# --- nothing made up ---------------------------------------------------------


def test_what_is_not_known_is_no_zero():
  nothing = {
    name: np.full(4, math.nan)
    for name in ("exact_accuracy", "cell_accuracy", "halt_accuracy", "steps")
  }
  page = _assemble(
    report=_report(**nothing),
    seen=_seen(known=False),
    rows=[],
    kinds={"Solution not known": [_shown(has_steps=False, known=False)]},
  )
  assert "not known puzzles right" in page.text
  assert "not known steps on average" in page.text
  assert "no solution of the puzzles is known" in page.text
  assert not re.search(r"\b0(\.0+)?%", page.text)
  assert "nan" not in page.text.lower()
  assert "Training" not in page.titles
  assert "chart of" not in page.text


def test_belief_is_counted_against_truth():
  text = _assemble().text
  assert "believed right 2 25.0% 2 25.0% 4 50.0%" in text
  assert "believed wrong 2 25.0% 2 25.0% 4 50.0%" in text
  assert "10% to 20% 1 14.3% 0.0%" in text
  # A part without answers has no accuracy.
  assert "30% to 40% 0 no answer no answer" in text


@pytest.mark.parametrize("diverged", [2, 8])
def test_a_confidence_that_is_no_number_is_not_counted(diverged):
  seen = _seen()
  seen.confidence[-diverged:] = math.nan
  shown = _shown()
  shown.thinking.confidence[:] = math.nan
  shown = dataclasses.replace(
    shown, exhibit=dataclasses.replace(shown.exhibit, confidence=math.nan)
  )
  page = _assemble(seen=seen, kinds={"Right": [shown]})
  told = f"The confidence of {diverged} puzzles is not a number"
  assert told in page.text
  assert "right, confidence not known, 2 steps" in page.text
  assert "nan" not in page.text.lower()
  assert not page.all("progress")
  belief = "Belief against truth, of 6 puzzles"
  assert (belief in page.text) == (diverged == 2)
  if diverged == 2:
    assert "believed wrong 2 33.3% 2 33.3% 4 66.7%" in page.text
    assert "90% to 100% 0 no answer no answer" in page.text


def test_it_is_told_when_only_a_part_of_the_puzzles_was_solved_now():
  told = "covers only the 5 of 8 puzzles that were solved now"
  assert _assemble(seen=_seen(5)).text.count(told) == 2
  assert "covers only" not in _assemble(seen=_seen(8)).text


def test_warnings_stand_at_the_top():
  text = _assemble(report=_report().warned(["it has seen the answers"])).text
  assert text.index("it has seen the answers") < text.index("Accuracy after")


@pytest.mark.parametrize(
  ("solver", "axis", "words"),
  [
    ("fixed", "steps", "4 supervision steps for each puzzle"),
    ("adaptive", "adaptive", "until its confidence reaches 0.5, at most 4"),
    ("rollouts", "rollouts", "8 attempts of 4 supervision steps"),
  ],
)
def test_the_page_says_how_puzzles_were_solved(solver, axis, words):
  config = tiny.config_dict()
  config.eval.solver = solver
  page = _assemble(
    config_lib.from_config_dict(config), _report(axis=axis, entries=8)
  )
  assert words in page.text
  chart = {
    "steps": ["Accuracy against steps"],
    "rollouts": ["Accuracy against rollouts"],
    "adaptive": [],
  }
  assert re.findall(r"Accuracy against \w+", page.text) == chart[axis]
  assert "Steps used" not in page.titles  # all the same


def test_steps_are_shown_where_they_differ():
  seen = _seen()
  seen.steps[:6] = 2
  text = _assemble(seen=seen).text
  assert "5.50 steps on average" in text
  assert "2 6 75.0%" in text
  assert "16 2 25.0%" in text


def test_a_puzzle_without_steps_has_its_answer_only():
  page = _assemble(kinds={"Wrong": [_shown(has_steps=False)]})
  assert "The steps before this answer are not known" in page.text
  assert "question answer 75% solution" in page.text
  assert "See it think" not in page.titles


def test_pictures_are_described():
  alts = [image["alt"] for image in _assemble().all("img")]
  assert "step 1: 4 cells not as in the solution, confidence 25%" in alts
  assert "step 2: 0 cells not as in the solution, confidence 75%" in alts


def test_the_film_is_of_the_solved_puzzle_that_changed_most():
  dull = _shown("dull")
  dull.thinking.answers[0] = dull.thinking.answers[1]
  wrong = _shown("wrong one", verdict="wrong")
  chosen = exhibition.most_telling([dull, wrong, _shown("best")])
  assert chosen.name == "best"
  assert exhibition.most_telling([dull, wrong]).name == "dull"
  assert exhibition.most_telling([_shown(has_steps=False)]) is None


# --- votes -------------------------------------------------------------------


def _voted(name="task1", *, known=True, rank=1, candidates=3):
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
  return html_puzzles.Voted(task, voting.TaskResult(name, (result,)))


def test_the_votes_tell_which_attempt_is_right():
  page = _assemble(voted=[_voted()])
  _check_self_contained(page)
  text = page.text
  assert "solved in two attempts 1" in text
  assert "attempt 1, 10 votes 75%" in text
  assert "attempt 2, 10 votes 50%" in text
  assert "30 votes for 3 different answers; the right one is in place 2" in text
  assert "1 10 33.3% 75.0% wrong 2 10 33.3% 50.0% right" in text
  alts = [image["alt"] for image in page.all("img")]
  right = "attempt 2, 10 votes: 0 cells not as in the solution, confidence 50%"
  assert right in alts


def test_votes_for_an_unknown_solution_are_neither_right_nor_wrong():
  text = _assemble(voted=[_voted(known=False)]).text
  assert "solution not known 1" in text
  assert "the right one is not known" in text
  assert "33.3% 75.0% not known" in text


@pytest.mark.parametrize(
  ("outcome", "changes"),
  [
    ("right answer has too few votes", {"rank": 2}),
    ("no vote for the right answer", {"rank": None}),
    ("no vote for the right answer", {"rank": None, "candidates": 0}),
    ("solved in two attempts", {"rank": 0, "candidates": 1}),
  ],
)
def test_tasks_are_sorted_by_their_outcome(outcome, changes):
  page = _assemble(voted=[_voted(**changes)])
  assert f"{outcome} 1" in page.text
  shown = min(changes.get("candidates", 3), 2)
  assert len(re.findall(r"attempt \d, 10 votes", page.text)) == shown


def test_of_each_outcome_a_few_tasks_are_shown():
  tasks = [_voted(f"solved{i}") for i in range(5)]
  tasks += [_voted(f"missed{i}", rank=None) for i in range(5)]
  text = _assemble(voted=tasks).text
  shown = re.findall(r"Task (\w+)", text)
  assert shown == ["solved0", "solved1", "missed0", "missed1"]


# --- from a checkpoint -------------------------------------------------------


@pytest.mark.usefixtures("real_charts")
def test_a_report_is_written_of_what_an_evaluation_finds(tmp_path, capsys):
  config = _config()
  saved_run.save(program.load(config), tmp_path, {4: 0.5})
  report = html_report.write(config, str(tmp_path))
  found = evaluate.evaluate_workdir(config, str(tmp_path))
  assert report.final == found.final
  path = tmp_path / html_report.REPORT_FILE
  assert f"report: {path}" in capsys.readouterr().out
  page = _Page(path.read_text())
  _check_self_contained(page)
  assert "12 puzzles" in page.text
  assert f"{found.final['cell_accuracy']:.2%}" in page.text
  # 12 puzzles in batches of 8: none is of the padding.
  places = {int(place) for place in re.findall(r"Puzzle (\d+):", page.text)}
  assert places
  assert places <= set(range(1, 13))
  # The steps on the way led to the evaluation's own answer.
  assert "See it think" in page.titles
  assert "are not known" not in page.text


@pytest.mark.parametrize("solver", ["adaptive", "rollouts"])
def test_other_solvers_have_a_report_too(tmp_path, solver):
  config = tiny.config_dict()
  config.eval.solver = solver
  config.eval.rollouts = 3
  config = config_lib.from_config_dict(config)
  saved_run.save(program.load(config), tmp_path, {4: 0.5})
  html_report.write(config, str(tmp_path), str(tmp_path / "page.html"))
  page = _Page((tmp_path / "page.html").read_text())
  _check_self_contained(page)
  assert not (tmp_path / html_report.REPORT_FILE).exists()


def test_a_report_of_arc_has_votes_and_says_what_it_covers(tmp_path):
  config = config_lib.from_config_dict(arc_experiment.get_config("smoke"))
  saved_run.save(program.load(config), tmp_path, {6: 0.5})
  html_report.write(config, str(tmp_path))
  page = _Page((tmp_path / html_report.REPORT_FILE).read_text())
  _check_self_contained(page)
  assert "covers only" not in page.text
  tasks = set(re.findall(r"Task (\w+)", page.text))
  path = tmp_path / "evaluations/step_6/submission.json"
  assert tasks <= set(json.loads(path.read_text()))
  assert 1 <= len(tasks) <= 2
  # It goes on from its votes: the last batch alone is solved again.
  html_report.write(config, str(tmp_path))
  text = _Page((tmp_path / html_report.REPORT_FILE).read_text()).text
  assert "covers only the 8 of 24 puzzles" in text
  last = re.search(r"Puzzle (\d+) \((\w+)", text)
  assert 17 <= int(last[1]) <= 24
  names = [task.name for task in program.load(config).task.ballot.tasks]
  assert last[2] == names[(int(last[1]) - 1) // 8]


@pytest.mark.parametrize(
  ("output", "text"),
  [
    ("-", "--output is '-', but a report is not printed: name a file"),
    ("{}", "which is no file; name a file"),
    ("{}/nowhere/page.html", "but there is no folder {}/nowhere"),
    ("{}/file/page.html", "but there is no folder {}/file"),
  ],
)
def test_a_page_that_has_no_place_is_refused_before_the_work(
  tmp_path, monkeypatch, output, text
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "file").touch()
  monkeypatch.setattr(evaluate, "restore_and_evaluate", None)
  with pytest.raises(errors.UserError) as caught:
    html_report.write(
      _config(), str(tmp_path), output.replace("{}", str(tmp_path))
    )
  assert text.replace("{}", str(tmp_path)) in str(caught.value)
  assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_name_with_half_a_character_keeps_no_page_from_being_written(
  tmp_path,
):
  config = _config(name="a\udcffb")  # a byte of the command line
  saved_run.save(program.load(config), tmp_path, {4: 0.5})
  html_report.write(config, str(tmp_path))
  page = _Page((tmp_path / html_report.REPORT_FILE).read_text())
  assert "Evaluation of a?b" in page.text


def test_a_stopped_report_says_what_the_same_command_does(tmp_path):
  config = _config()
  saved_run.save(program.load(config), tmp_path, {4: 0.5})
  stop = preemption.Stop(0.0)
  stop.request()
  with pytest.raises(
    preemption.Stopped, match="the same command begins it anew"
  ):
    html_report.write(config, str(tmp_path), stop=stop)
  assert not (tmp_path / html_report.REPORT_FILE).exists()


def test_an_empty_workdir_is_one_line(tmp_path):
  with pytest.raises(errors.UserError):
    html_report.write(_config(), str(tmp_path / "none"))
  assert not (tmp_path / "none").exists()
