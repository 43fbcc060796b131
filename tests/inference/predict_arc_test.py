"""Prediction of ARC tasks: what is read, who votes, and what is written."""

import dataclasses
import io
import json
import sys

import folders
import numpy as np
import pytest
import scorer
import solver_stand_in
import tiny

from trm_jax import errors
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.inference import inputs, predict

CONFIG = solver_stand_in.changed(tiny.config(), "data", task="arc")


def _tasks():
  """Three tasks, of which the second asks twice."""
  first, second, third = arc_load.generate(3, 0, seed=1)["training"]
  second = dataclasses.replace(second, test=(*second.test, second.train[0]))
  return [first, second, third]


TASKS = _tasks()
NAMES = [task.name for task in TASKS]
# Rows of the first two tasks only.
IDENTIFIERS = arc_plan.build(
  {"training": TASKS[:2]}, num_augmentations=4, rng=np.random.RandomState(0)
).identifiers()


class Knowing(solver_stand_in.StandIn):
  """Knows the answers to each variant, from the row alone, by heart.

  It errs on the rows in `errs`, very sure of itself.
  """

  errs = ()

  def answer(self, tokens, puzzle_id):
    name = self.identifiers[puzzle_id]
    self.rows = [*getattr(self, "rows", []), int(puzzle_id)]
    if puzzle_id == 0:
      return tokens, 0.125
    task, transform, digits = arc_grids.parse_name(name, where="")
    (grid,) = arc_grids.crop(tokens[None])
    variant = {
      "transform": transform,
      "colours": np.array([int(digit) for digit in digits], np.uint8),
    }
    if puzzle_id in self.errs:
      return arc_grids.encode(np.zeros((1, 1), np.uint8)), 0.75
    question = arc_grids.invert(grid, **variant)
    (solution,) = {
      pair.output.tobytes(): pair.output
      for pair in TASKS[NAMES.index(task)].test
      if np.array_equal(pair.input, question)
    }.values()
    return arc_grids.encode(arc_grids.apply(solution, **variant)), 0.25


def _solver(cls=Knowing, **settings):
  config = solver_stand_in.changed(CONFIG, "eval", **settings)
  return solver_stand_in.of(cls, config, identifiers=IDENTIFIERS)


def _challenges(tasks, *, with_answers=False):
  value = {task.name: folders.as_json(task) for task in tasks}
  if not with_answers:
    for task in value.values():
      for pair in task["test"]:
        del pair["output"]
  return value


def _solutions(tasks):
  return {
    task.name: [pair.output.tolist() for pair in task.test] for task in tasks
  }


def _write(tmp_path, value, name="tasks.json"):
  folders.write_json(tmp_path / name, value)
  return str(tmp_path / name)


def _predict(solver, source, tmp_path):
  output = tmp_path / "answers.json"
  predict.predict_file(solver, source, str(output))
  return (
    json.loads(output.read_text()),
    json.loads((tmp_path / "answers_details.json").read_text()),
  )


def _error(solver, source, output) -> str:
  with pytest.raises(errors.UserError) as caught:
    predict.predict_file(solver, str(source), str(output))
  assert "\n" not in str(caught.value)
  return str(caught.value)


# --- votes -------------------------------------------------------------------


@pytest.mark.parametrize(
  ("batch_size", "with_answers"), [(1, True), (4, False), (100, True)]
)
def test_variants_are_inverted_and_vote(
  tmp_path, capfd, batch_size, with_answers
):
  """The right answers come out, as scorers read them, known or not."""
  challenges = _challenges(TASKS[:2][::-1], with_answers=with_answers)
  solver = _solver(batch_size=batch_size)
  submission, details = _predict(solver, _write(tmp_path, challenges), tmp_path)
  assert list(submission) == [NAMES[1], NAMES[0]]
  assert scorer.score(submission, challenges, _solutions(TASKS[:2])) == 1
  # Every variant's own row was asked, once for each test input.
  twice = IDENTIFIERS.index(NAMES[1])
  assert np.bincount(solver.rows).tolist() == [0] + [
    1 + (twice <= row < twice + 5) for row in range(1, 11)
  ]
  entry = {
    "attempts": [{"votes": 5, "confidence": 0.25}] * 2,
    "votes": 5,
    "candidates": 1,
    "steps": solver_stand_in.STEPS,
  }
  assert details == {
    NAMES[1]: {"in_table": True, "test": [entry, entry]},
    NAMES[0]: {"in_table": True, "test": [entry]},
  }
  told = capfd.readouterr()
  assert told.out == ""
  assert (
    f"{NAMES[1]} test 2: 5 of 5 votes (confidence 25.0%), mean ACT steps 3.0"
    in told.err
  )
  assert "2 tasks answered by runs/stand_in" in told.err
  assert "WARNING" not in told.err


def test_the_majority_wins_and_others_come_second(tmp_path):
  first = IDENTIFIERS.index(NAMES[0])
  solver = _solver()
  solver.errs = (first, first + 3)
  submission, details = _predict(
    solver, _write(tmp_path, _challenges(TASKS[:1])), tmp_path
  )
  assert submission[NAMES[0]] == [
    {"attempt_1": TASKS[0].test[0].output.tolist(), "attempt_2": [[0]]}
  ]
  (entry,) = details[NAMES[0]]["test"]
  assert entry == {
    "attempts": [
      {"votes": 3, "confidence": 0.25},
      {"votes": 2, "confidence": 0.75},
    ],
    "votes": 5,
    "candidates": 2,
    "steps": solver_stand_in.STEPS,
  }


def test_the_first_so_many_variants(tmp_path):
  solver = _solver(max_augmentations=2)
  _predict(solver, _write(tmp_path, _challenges(TASKS[:1])), tmp_path)
  first = IDENTIFIERS.index(NAMES[0])
  assert solver.rows == [first, first + 1]


def test_a_task_that_the_table_does_not_know(tmp_path, capfd):
  challenges = _challenges(TASKS)
  solver = _solver()
  submission, details = _predict(solver, _write(tmp_path, challenges), tmp_path)
  asked = TASKS[2].test[0].input.tolist()
  assert submission[NAMES[2]] == [{"attempt_1": asked, "attempt_2": asked}]
  assert solver.rows.count(0) == 1
  assert [details[name]["in_table"] for name in NAMES] == [True, True, False]
  score = scorer.score(submission, challenges, _solutions(TASKS))
  assert score == pytest.approx(2 / 3)
  (warning,) = [
    line for line in capfd.readouterr().err.splitlines() if "WARNING" in line
  ]
  assert f"no rows for 1 of the tasks ({NAMES[2]})" in warning
  assert "experiments/arc_adapt.py" in warning


# --- what is handed in -------------------------------------------------------


def _names(source):
  given = inputs.read_tasks(str(source))
  return [task.name for task in given.tasks], given.faults


@pytest.mark.parametrize("name", ["007bbfb7.json", "007bbfb7.json.gz"])
def test_one_task_is_called_as_its_file(tmp_path, name):
  path = _write(tmp_path, folders.as_json(TASKS[0]), name)
  assert _names(path) == (["007bbfb7"], {})


def test_a_folder_of_tasks(tmp_path):
  folders.repository(tmp_path, {"mine": TASKS})
  _write(tmp_path / "mine", b"{", "zzz.json")
  _write(tmp_path / "mine", b"{", ".hidden.json")
  names, faults = _names(tmp_path / "mine")
  assert names == NAMES
  assert list(faults) == ["zzz"]
  assert faults["zzz"].startswith("zzz.json line 1, column 2: is not JSON")


def _pipe(monkeypatch, value):
  content = value if isinstance(value, bytes) else json.dumps(value).encode()
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_pipe_that_breaks(monkeypatch):
  monkeypatch.setattr(sys, "stdin", solver_stand_in.broken_pipe())
  assert "standard input cannot be read: Input/output error" in _error(
    _solver(), "-", "-"
  )


def test_from_pipe_to_pipe(monkeypatch, capfdbinary, tmp_path):
  monkeypatch.chdir(tmp_path)
  _pipe(monkeypatch, folders.as_json(TASKS[0]) | {"name": NAMES[0]})
  predict.predict_file(_solver(), "-", "-")
  submission = json.loads(capfdbinary.readouterr().out)
  assert submission[NAMES[0]][0]["attempt_1"] == (
    TASKS[0].test[0].output.tolist()
  )
  assert not list(tmp_path.iterdir())
  _pipe(monkeypatch, folders.as_json(TASKS[0]))
  assert _names("-") == (["task"], {})
  _pipe(monkeypatch, {"test": folders.as_json(TASKS[0])})
  assert _names("-") == (["test"], {})


def test_bad_tasks_are_named_and_the_others_solved(tmp_path):
  value = _challenges(TASKS[:1], with_answers=True)
  value["bad"] = {"train": [], "test": []}
  value["<blank>"] = value["a|||b"] = folders.as_json(TASKS[0])
  output = tmp_path / "answers.json"
  message = _error(_solver(), _write(tmp_path, value), output)
  assert message == (
    "3 of 4 tasks were invalid: bad, <blank>, a|||b (first tasks.json task"
    " 'bad': has no train pairs); the answers to the others are in"
    f" {output}"
  )
  assert list(json.loads(output.read_text())) == NAMES[:1]
  details = json.loads((tmp_path / "answers_details.json").read_text())
  assert list(details) == [NAMES[0], "bad", "<blank>", "a|||b"]
  assert "has no train pairs" in details["bad"]["error"]


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (b"", "tasks.json line 1, column 1: is not JSON"),
    (b"\xff", "tasks.json: not UTF-8 text"),
    ([], "tasks.json: the top level is not an object"),
    ({}, "tasks.json has no tasks"),
    ({"a": []}, "tasks.json task 'a': is a list, expected an object"),
    ({"train": []}, "tasks.json task 'tasks': has no train pairs"),
    (
      {"a": 1, "b": {}},
      "2 of 2 tasks were invalid: a, b (first tasks.json task 'a': is 1",
    ),
    (
      {"train": [{"input": [[0]], "output": [[10]]}], "test": []},
      "train pair 1: output row 1, column 1 is 10, expected a colour",
    ),
  ],
)
def test_nothing_is_written_if_no_task_can_be_read(tmp_path, value, text):
  source = _write(tmp_path, value)
  assert text in _error(_solver(), source, tmp_path / "answers.json")
  assert [path.name for path in tmp_path.iterdir()] == ["tasks.json"]


def test_inputs_that_are_not_there(tmp_path):
  output = tmp_path / "answers.json"
  assert "there is no such file or folder" in _error(
    _solver(), tmp_path / "nowhere.json", output
  )
  folder = tmp_path / "empty"
  folder.mkdir()
  assert "has no .json files" in _error(_solver(), folder, output)
  path = tmp_path / "tasks.json.gz"
  path.write_bytes(b"no gzip")
  assert "tasks.json.gz cannot be read: " in _error(_solver(), path, output)


def test_pictures_of_test_inputs(tmp_path):
  task = dataclasses.replace(TASKS[1], name="../away")
  source = _write(tmp_path, {task.name: json.loads(arc_tasks.to_json(task))})
  drawn = []
  output = str(tmp_path / "answers.json")
  predict.predict_file(_solver(), source, output, drawn.extend)
  assert [puzzle.name for puzzle in drawn] == [
    "../away_test_1",
    "../away_test_2",
  ]
  for puzzle, pair in zip(drawn, task.test, strict=True):
    np.testing.assert_array_equal(puzzle.tokens, arc_grids.encode(pair.input))


# --- what stands beside the answers -------------------------------------------


def test_details_replace_only_details(tmp_path, capfd):
  source = _write(tmp_path, _challenges(TASKS[:1]))
  _predict(_solver(), source, tmp_path)
  details = tmp_path / "answers_details.json"
  told = f"answers.json; details: {details}"
  assert capfd.readouterr().err.rstrip().endswith(told)
  _predict(_solver(), source, tmp_path)
  assert capfd.readouterr().err.rstrip().endswith(told)
  solver = _solver()
  solver.answer = None  # is not asked
  for content in ("mine", json.dumps(_challenges(TASKS)), "[]"):
    details.write_text(content)
    message = _error(solver, source, tmp_path / "answers.json")
    assert "answers_details.json, which would hold the details, exists" in (
      message
    )
    assert details.read_text() == content


def test_details_never_replace_the_input(tmp_path):
  solver = _solver()
  solver.answer = None  # is not asked
  # Even where the input looks like details.
  source = _write(tmp_path, {"a": {"error": ""}}, "x_details.json")
  message = _error(solver, source, tmp_path / "x.json")
  assert "x_details.json, which would hold the details, is the --in" in message
  folders.repository(tmp_path, {"mine": TASKS})
  folder = tmp_path / "mine"
  message = _error(solver, folder, folder / f"{NAMES[0]}.json")
  assert "which is in the folder --input" in message
  assert len(list(folder.iterdir())) == 3
  assert not (tmp_path / "x.json").exists()


def test_a_terminal_obeys_no_name(tmp_path, capfd):
  evil = "a\x1b[2J\nb\u202e"
  value = _challenges(TASKS[:1])
  value[evil] = value[NAMES[0]]  # no row: a warning, too
  value[f"{evil}2"] = {}
  message = _error(
    _solver(), _write(tmp_path, value), tmp_path / "answers.json"
  )
  told = capfd.readouterr().err
  assert r"a\x1b[2J\nb\u202e test 1: 1 of 1 votes" in told
  assert r"for 1 of the tasks (a\x1b[2J\nb\u202e)" in told
  assert r"were invalid: a\x1b[2J\nb\u202e2 (first" in message
  for line in (*told.splitlines(), message):
    assert line.isprintable()
  # Files have the name itself.
  assert evil in json.loads((tmp_path / "answers.json").read_text())


@pytest.mark.parametrize("surer", [0, 1])
def test_votes_count_by_the_networks_own_logits(tmp_path, surer):
  """A sigmoid in float32 cannot tell the surest ones from each other."""

  class Sure(solver_stand_in.StandIn):
    """Answers variants by their rows; of two answers one is surer."""

    def solve_tokens(self, inputs, puzzle_ids=None):
      solved = super().solve_tokens(inputs, puzzle_ids)
      logits = np.where(puzzle_ids % 2 == surer, 30, 20).astype(np.float32)
      return dataclasses.replace(solved, halt_logits=logits)

    def answer(self, tokens, puzzle_id):
      size = 1 + puzzle_id % 2
      return arc_grids.encode(np.zeros((size, size), np.uint8)), 0.5

  solver = _solver(Sure, max_augmentations=2)
  submission, _ = _predict(
    solver, _write(tmp_path, _challenges(TASKS[:1])), tmp_path
  )
  attempts = submission[NAMES[0]][0]
  assert [len(attempts[f"attempt_{n}"]) for n in (1, 2)] == [
    1 + surer,
    2 - surer,
  ]
