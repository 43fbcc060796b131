"""A trained network solves puzzles that are handed in, without any data."""

import dataclasses
import functools
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import trm_jax
from trm_jax import errors
from trm_jax.core import types
from trm_jax.data import puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.sudoku import generator as sudoku_generator
from trm_jax.inference import solver
from trm_jax.runtime import restore

SETTINGS = {"adaptive": {"halt_threshold": 0.6}, "rollouts": {"noise": 0.3}}


@pytest.fixture(name="workdir")
def _workdir(tiny_run):
  return tiny_run[1]


@functools.cache
def _inputs(count=11):
  _, test = sudoku_generator.generate_split(
    2, count, box_rows=2, box_cols=2, num_clues=6, seed=3
  )
  return test.inputs


@functools.cache
def _load(workdir, **settings):
  """A solver that keeps what it has compiled for the next test."""
  return solver.load(workdir, **settings)


def _puzzles(inputs):
  return puzzle_set.PuzzleSet.single(inputs, np.zeros_like(inputs))


@pytest.mark.parametrize("name", ["fixed", "adaptive", "rollouts"])
def test_few_puzzles_are_solved_as_many_and_as_one(workdir, name):
  loaded = _load(workdir, solver=name, **SETTINGS.get(name, {}))
  whole = loaded.solve_tokens(_inputs())
  assert whole.answers.shape == (11, 16)
  assert whole.answers.dtype == np.uint8
  for part in (slice(0, 1), slice(3, 10)):
    found = loaded.solve_tokens(_inputs()[part])
    np.testing.assert_array_equal(found.answers, whole.answers[part])
    np.testing.assert_allclose(
      found.confidence, whole.confidence[part], rtol=1e-4
    )
    np.testing.assert_array_equal(found.steps, whole.steps[part])


def test_it_answers_as_an_evaluation_does(tiny_run):
  run, workdir = tiny_run
  weights = restore.ema_weights(*run, workdir).weights
  batch = types.Batch(
    inputs=_inputs(16).astype(np.int32),
    labels=np.full((16, 16), types.IGNORED_LABEL, np.int32),
    puzzle_ids=np.zeros(16, np.int32),
  )
  result = run.program.evaluate_batch()(weights, batch, np.ones(16, bool))
  trace = _load(workdir).trace_tokens(_inputs(16))
  np.testing.assert_array_equal(trace.answers, np.asarray(result.answers))
  np.testing.assert_allclose(
    trace.confidence, jax.nn.sigmoid(result.halt_logits), rtol=1e-4
  )


def test_a_trace_ends_with_the_answer_and_may_go_on(workdir):
  loaded = _load(workdir)
  trace = loaded.trace_tokens(_inputs())
  solved = loaded.solve_tokens(_inputs())
  np.testing.assert_array_equal(trace.answers[-1], solved.answers)
  assert solved.steps.tolist() == [4] * 11
  longer = loaded.trace_tokens(_inputs(), supervision_steps=9)
  assert longer.answers.shape == (9, 11, 16)
  np.testing.assert_array_equal(longer.answers[:4], trace.answers)


def test_the_solver_of_rollouts_takes_the_surest_attempt(workdir):
  loaded = _load(workdir, solver="rollouts", noise=0.3, rollouts=5)
  (result,) = loaded.batch_results(_puzzles(_inputs()[:8]))
  assert np.asarray(result.last.rows).tolist() == [True] * 8
  logits = np.asarray(result.halt_logits)
  assert (np.diff(logits, axis=0) >= 0).all()  # never a less confident one
  assert (logits[-1] > logits[0]).any()
  assert _load(workdir, solver="rollouts", noise=0.0, rollouts=2).solve_tokens(
    _inputs()
  ).confidence == pytest.approx(
    _load(workdir).solve_tokens(_inputs()).confidence
  )


def test_attempts_at_few_puzzles_are_made_at_once(workdir):
  loaded = _load(workdir, solver="rollouts", rollouts=5, batch_size=32)
  for count in (1, 11, 2):  # on eight devices
    found = loaded.solve_tokens(_inputs(30)[:count])
    assert found.steps.tolist() == [4] * count


def test_the_rules_choose_among_attempts(workdir):
  loaded = _load(
    workdir,
    solver="rollouts",
    rollouts=5,
    rollout_variation="symmetries",
    rollout_selection="rules",
  )
  (result,) = loaded.batch_results(_puzzles(_inputs()[:8]))
  answers = np.asarray(result.last.attempts["answers"])
  logits = np.asarray(result.last.attempts["halt_logits"])
  judged = dataclasses.replace(
    loaded,
    rules=task_lib.Rules(lambda x, y: np.ones(len(x), bool), "grid"),
  )
  found = judged.solve_tokens(_inputs()[:8])
  np.testing.assert_array_equal(
    found.answers, answers[logits.argmax(0), np.arange(8)]
  )
  only_attempt_3 = iter([False] * 3 + [True] + [False])
  judged = dataclasses.replace(
    loaded,
    rules=task_lib.Rules(
      lambda x, y: np.full(len(x), next(only_attempt_3)), "grid"
    ),
  )
  found = judged.solve_tokens(_inputs()[:8])
  np.testing.assert_array_equal(found.answers, answers[3])
  np.testing.assert_allclose(found.halt_logits, logits[3])


def test_settings_from_python(workdir):
  loaded = trm_jax.load(workdir, solver="adaptive", halt_threshold=0.25)
  assert loaded.config.eval.halt_threshold == 0.25
  assert loaded.config.eval.solver == "adaptive"
  longer = trm_jax.load(workdir, supervision_steps=9)
  assert longer.solve_tokens(_inputs()).steps.tolist() == [9] * 11
  with pytest.raises(errors.UserError, match=r"did you mean config\.eval\."):
    trm_jax.load(workdir, halt_treshold=0.25)


def test_no_puzzles_have_no_answers(workdir):
  found = _load(workdir).solve_tokens(_inputs()[:0])
  assert found.answers.shape == (0, 16)
  assert found.confidence.shape == found.steps.shape == (0,)
  assert _load(workdir).solve([]) == []


def test_too_little_memory_is_one_line(workdir):
  def fails(*_):
    raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

  loaded = dataclasses.replace(_load(workdir))
  loaded._compiled[loaded.config.eval] = fails
  with pytest.raises(errors.UserError) as caught:
    loaded.solve_tokens(_inputs())
  assert str(caught.value) == (
    "the puzzles cannot be solved 8 at a time; lower config.eval.batch_size"
    " (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes)"
  )
  loaded._compiled[loaded.config.eval] = None  # a mistake of the program
  with pytest.raises(TypeError):
    loaded.solve_tokens(_inputs())


def test_a_set_of_puzzles_is_solved_batch_by_batch(workdir):
  loaded = _load(workdir)
  parts = list(loaded.solve_puzzles(_puzzles(_inputs())))
  assert [len(part.steps) for part in parts] == [8, 3]
  whole = loaded.solve_tokens(_inputs())
  for name in ("questions", "answers", "halt_logits", "steps"):
    np.testing.assert_array_equal(
      np.concatenate([getattr(part, name) for part in parts]),
      getattr(whole, name),
    )
  np.testing.assert_array_equal(whole.questions, _inputs())


def test_five_lines_of_python(workdir):
  loaded = _load(workdir)
  text = "".join(loaded.look.drawn(token) for token in _inputs()[0])
  numbers = (_inputs()[0].reshape(4, 4) - 1).tolist()
  first, second = loaded.solve([text, numbers])
  assert first.text == second.text
  assert len(first.text) == 16
  assert first.grid.shape == (4, 4)
  assert "".join(first.grid.ravel()) == first.text
  assert 0 < first.confidence < 1
  assert first.steps == 4
  assert first.valid is False  # of random weights
  with pytest.raises(errors.UserError, match=r"puzzle 2: .* 15 characters"):
    loaded.solve([text, text[1:]])


def test_one_puzzle_is_one_puzzle(workdir, capsys):
  loaded = _load(workdir)
  text = "".join(loaded.look.drawn(token) for token in _inputs()[0])
  numbers = _inputs()[0].reshape(4, 4) - 1
  for one in (text, "\n".join(map(str, numbers)), numbers, jnp.array(numbers)):
    (answer,) = loaded.solve(one)
    assert answer.text == loaded.solve([text])[0].text
  many = _inputs()[:3] - 1
  for several in (many, jnp.array(many), jnp.array(many).reshape(3, 4, 4)):
    assert len(loaded.solve(several)) == 3
  assert len(loaded.solve(jnp.array(grid) for grid in many)) == 3
  assert len(loaded.solve([[list(row) for row in jnp.array(numbers)]])) == 1
  with pytest.raises(errors.UserError, match="puzzle 1: question has 5 char"):
    loaded.solve("1..4.")
  assert capsys.readouterr().err == ""
  loaded.solve(many, verbose=True)
  assert re.fullmatch(
    r"solved 3 puzzles in [\d.]+ s, [\d,.]+ puzzles/s\n",
    capsys.readouterr().err,
  )


def test_a_solver_is_printed_in_a_line(workdir):
  line = str(_load(workdir))
  assert line == repr(_load(workdir))
  assert "generated_sudoku, 4 x 4 cells, fixed solver" in line
  assert len(line) < 200


def test_what_is_valid_is_told_by_the_rules(workdir):
  rules = _load(workdir).rules
  _, test = sudoku_generator.generate_split(
    2, 3, box_rows=2, box_cols=2, num_clues=6, seed=3
  )
  answers = test.labels.copy()
  answers[1, [0, 1]] = answers[1, [1, 0]]
  other = np.roll(test.inputs, 1, axis=0)
  assert rules.is_valid(test.inputs, answers).tolist() == [True, False, True]
  assert not rules.is_valid(other, test.labels).all()


def test_settings_of_another_network_are_refused(workdir):
  config = restore.saved_config(workdir)
  model = dataclasses.replace(config.model, latent_updates=2)
  with pytest.raises(errors.UserError, match=r"config\.model\.latent_updates"):
    solver.load(workdir, dataclasses.replace(config, model=model))


def test_a_folder_without_a_checkpoint_is_one_line(tmp_path):
  with pytest.raises(errors.UserError, match="holds no checkpoint"):
    trm_jax.load(str(tmp_path))


def test_other_identifiers_are_refused(workdir, tmp_path):
  folder = shutil.copytree(workdir, tmp_path / "run")
  restore.identifiers_path(str(folder)).write_text('["<blank>", "more"]')
  with pytest.raises(errors.UserError, match="does not list the rows"):
    solver.load(str(folder))


@pytest.mark.parametrize(
  ("name", "count", "devices", "size"),
  [
    ("fixed", 1, 1, 1),
    ("fixed", 5, 1, 8),
    ("fixed", 5, 3, 9),
    ("fixed", 500, 1, 8),
    ("adaptive", 500, 1, 128),
    ("adaptive", 100, 8, 128),
    ("fixed", 0, 2, 2),
  ],
)
def test_batch_sizes(name, count, devices, size):
  settings = dataclasses.replace(tiny.config().eval, solver=name, batch_size=8)
  assert solver.batch_size(settings, count, devices) == size
