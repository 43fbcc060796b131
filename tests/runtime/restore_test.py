"""Weights of another run: to start from, to evaluate, row by row."""

import dataclasses
import hashlib
import json
import shutil

import chex
import jax
import numpy as np
import pytest
import saved_run
import tiny

from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.data import identifiers, tasks
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import preemption, program, restore

# What the rows of the puzzle table are: blank, of training puzzles, of others.
NUM_TRAINED, NUM_UNUSED = 24, 7
NAMES = ["<blank>"] + [f"p{i}" for i in range(NUM_TRAINED + NUM_UNUSED)]
TRAINED = slice(1, 1 + NUM_TRAINED)

# Steps of the old run's checkpoints and their scores.
BEST, LATEST = 5, 7
SCORES = {BEST: 0.9, LATEST: 0.1}


def _with_rows(task, names=NAMES, **changes):
  """The same puzzles with a row of the puzzle table each, as ARC's have."""

  def numbered(puzzles):
    ids = np.arange(1, puzzles.num_puzzles + 1, dtype=np.int32)
    return dataclasses.replace(puzzles, puzzle_ids=ids)

  return dataclasses.replace(
    task,
    train=numbered(task.train),
    test=numbered(task.test),
    identifiers=list(names),
    **changes,
  )


@pytest.fixture(name="plain", scope="module")
def _plain():
  """Sudokus whose rows of the table are all used by training."""
  return _with_rows(tasks.load(tiny.config().data))


@pytest.fixture(autouse=True)
def _small_task(plain, monkeypatch):
  load = tasks.load

  def with_rows(data):
    return plain if data.task == "generated_sudoku" else load(data)

  monkeypatch.setattr(tasks, "load", with_rows)


def _config(**groups):
  config = tiny.config_dict()
  for group, values in groups.items():
    config[group].update(values)
  return config_lib.from_config_dict(config)


@pytest.fixture(name="old", scope="module")
def _old(plain, tmp_path_factory):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tasks, "load", lambda data: plain)
    run = program.load(_config())
  return saved_run.save(run, tmp_path_factory.mktemp("old"), SCORES)


def _first_state(config, workdir):
  """The state before the first step of a run."""
  run = program.load(config)
  start = train._start(*run, str(workdir))
  with checkpoints_lib.Checkpoints(str(workdir), config.checkpoint) as saved:
    loop = train._Loop(
      *run, str(workdir), saved, start, preemption.PreemptionSignal()
    )
    return loop._state


def _content(folder):
  """A digest of every file."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


# --- starting from another run -----------------------------------------------


def test_a_new_run_starts_with_the_averaged_weights(tmp_path, old, capsys):
  before = _content(old)
  config = _config(checkpoint={"init_from": str(old)})
  state = _first_state(config, tmp_path)
  run = program.load(config)
  expected = saved_run.weights(run, old, LATEST)
  chex.assert_trees_all_equal(state.ema_weights, expected)
  chex.assert_trees_all_equal(state.params, expected.params)
  assert f"starting from {old}/checkpoints/ckpt_{LATEST}" in (
    capsys.readouterr().out
  )
  # All else is as in any new run, and the old one stays as it is.
  fresh = jax.jit(run.program.init)()
  assert int(state.step) == 0
  chex.assert_trees_all_equal(state.opt_state, fresh.opt_state)
  chex.assert_trees_all_equal(state.carry, fresh.carry)
  assert _content(old) == before
  assert json.loads((tmp_path / "identifiers.json").read_text()) == NAMES


@pytest.mark.parametrize("which", ["latest", "best"])
def test_the_newest_or_the_best_checkpoint(old, which):
  run = program.load(_config(eval={"checkpoint": which}))
  trained = restore.ema_weights(*run, str(old))
  weights, step, path = trained.weights, trained.step, trained.path
  assert step == {"latest": LATEST, "best": BEST}[which]
  assert path.name == f"ckpt_{step}"
  chex.assert_trees_all_equal(weights, saved_run.weights(run, old, step))


@pytest.mark.slow
def test_a_frozen_network_only_learns_rows_of_its_puzzles(
  tmp_path, old, capsys
):
  """Also when it goes on, for which it does not need the old run."""
  copy = tmp_path / "old"
  shutil.copytree(old, copy)
  config = _config(
    checkpoint={"init_from": str(copy)},
    train={"num_steps": 2, "freeze_network": True},
  )
  train.train(config, str(tmp_path / "new"))
  shutil.rmtree(copy)
  longer = dataclasses.replace(config.train, num_steps=4)
  config = dataclasses.replace(config, train=longer)
  train.train(config, str(tmp_path / "new"))
  assert "resuming from step 2" in capsys.readouterr().out

  run = program.load(config)
  first = saved_run.weights(run, old, LATEST)
  with checkpoints_lib.Checkpoints(str(tmp_path / "new")) as checkpoints:
    last = jax.device_get(checkpoints.restore(4, run.program.abstract_state()))
  for params in (last.params, last.ema_params):
    chex.assert_trees_all_equal(params, first.params)
  chex.assert_trees_all_equal(last.initial_latents, first.initial_latents)
  fresh = jax.jit(run.program.init)()
  chex.assert_trees_all_equal(last.opt_state, fresh.opt_state)
  changed = (last.puzzle_table != first.puzzle_table).any(axis=1)
  assert changed[TRAINED].sum() >= config.train.batch_size
  assert not changed[: TRAINED.start].any()
  assert not changed[TRAINED.stop :].any()


def _start_error(tmp_path, source, **groups) -> str:
  config = _config(checkpoint={"init_from": str(source)}, **groups)
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path / "new"))
  assert not list((tmp_path / "new").glob("checkpoints/*"))
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_starting_from_what_is_no_run(tmp_path):
  missing = tmp_path / "missing"
  assert f"{missing} holds no checkpoint" in _start_error(tmp_path, missing)
  assert not missing.exists()
  empty = tmp_path / "empty"
  (empty / "checkpoints").mkdir(parents=True)
  assert f"{empty} holds no checkpoint" in _start_error(tmp_path, empty)


def test_starting_from_another_network(tmp_path, old):
  message = _start_error(tmp_path, old, model={"num_layers": 2})
  assert "config.model.num_layers is 1 in the checkpoint, 2 here" in message


def test_starting_from_other_tokens(tmp_path, old, plain, monkeypatch):
  other = dataclasses.replace(plain.look, symbols=tuple(" .abcd"))
  monkeypatch.setattr(
    tasks, "load", lambda data: dataclasses.replace(plain, look=other)
  )
  message = _start_error(tmp_path, old)
  assert "its tokens are ' .1234', here they are ' .abcd'" in message


@pytest.mark.parametrize(
  ("names", "text"),
  [
    ([*NAMES[:3], "other", *NAMES[4:]], "row 3 is 'p2' there, 'other' here"),
    (NAMES[:-1], "it has 32 rows, here there are 31"),
  ],
)
def test_starting_from_other_puzzles(
  tmp_path, old, plain, monkeypatch, names, text
):
  other = dataclasses.replace(plain, identifiers=names)
  monkeypatch.setattr(tasks, "load", lambda data: other)
  message = _start_error(tmp_path, old)
  assert message.endswith(
    f"the puzzle table of {old} has rows for other puzzles: {text}"
  )


def test_a_list_of_rows_that_is_not_the_checkpoints(
  tmp_path, old, plain, monkeypatch
):
  copy = tmp_path / "old"
  shutil.copytree(old, copy)
  path = copy / "identifiers.json"
  other = dataclasses.replace(plain, identifiers=["<blank>", *NAMES[:0:-1]])
  monkeypatch.setattr(tasks, "load", lambda data: other)
  identifiers.write(path, other.identifiers)
  assert f"{path} is not the list of them" in _start_error(tmp_path, copy)
  path.unlink()
  assert f"{path} is missing" in _start_error(tmp_path, copy)
