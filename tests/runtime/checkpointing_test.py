"""Stop and go on, what is kept, and what does not fit."""

import dataclasses
import functools
import json
import shutil

import chex
import jax
import numpy as np
import pytest
import saved_run
import tiny
from etils import epath

from trm_jax import errors, train
from trm_jax.evaluation import evaluate
from trm_jax.runtime import (
  array_digest,
  checkpoint_metadata,
  checkpoint_scores,
  mesh,
  program,
)
from trm_jax.runtime import checkpoints as checkpoints_lib

pytestmark = pytest.mark.usefixtures("one_device")

NUM_STEPS = 20


def _final_state(config, workdir):
  """The state in the newest checkpoint, with the data position."""
  run = program.load(config)
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    step = checkpoints.latest_step
    state = checkpoints.restore(step, run.program.abstract_state())
    return state, checkpoints.metadata(step)


def _set(config, **groups):
  """Returns the config with groups' fields replaced."""
  return dataclasses.replace(
    config,
    **{
      name: dataclasses.replace(getattr(config, name), **fields)
      for name, fields in groups.items()
    },
  )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stopped_and_continued_equals_never_stopped(
  tmp_path, dtype, make_mesh, monkeypatch
):
  monkeypatch.setattr(mesh, "make_mesh", make_mesh)  # on all eight devices
  config = _set(tiny.config(), model=dict(compute_dtype=dtype))
  whole = _set(config, train=dict(num_steps=NUM_STEPS))
  half = _set(config, train=dict(num_steps=NUM_STEPS // 2))
  train.train(whole, str(tmp_path / "whole"))
  train.train(half, str(tmp_path / "parts"))
  train.train(whole, str(tmp_path / "parts"))

  straight, straight_about = _final_state(whole, tmp_path / "whole")
  continued, continued_about = _final_state(whole, tmp_path / "parts")
  assert int(straight.step) == NUM_STEPS
  chex.assert_trees_all_equal(straight, continued)
  assert straight_about.next_batch == continued_about.next_batch == NUM_STEPS
  # The comparison means something: training has moved every leaf's group.
  fresh = jax.jit(program.load(whole).program.init)()
  assert not np.array_equal(fresh.puzzle_table, straight.puzzle_table)
  assert not np.array_equal(fresh.carry.latents.z, straight.carry.latents.z)


@pytest.mark.slow
def test_metrics_file_has_each_step_once_after_a_restart(tmp_path):
  config = _set(tiny.config(), train=dict(num_steps=4))
  train.train(config, str(tmp_path))
  # A run that was killed after step 5 but saved last at step 4.
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write(json.dumps({"step": 5, "group": "train"}) + '\n{"step": 6, "gr')
  train.train(_set(config, train=dict(num_steps=6)), str(tmp_path))
  rows = [
    json.loads(line)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  steps = [row["step"] for row in rows if row["group"] == "train"]
  assert steps == [1, 2, 3, 4, 5, 6]


def test_keeps_the_last_and_the_best(tmp_path):
  config = tiny.config()
  run = program.load(config)
  state = jax.jit(run.program.init)()
  settings = dataclasses.replace(config.checkpoint, keep_last=2, keep_best=1)
  accuracies = {1: 0.1, 2: 0.9, 3: None, 4: 0.3, 5: None, 6: 0.2}
  with checkpoints_lib.Checkpoints(str(tmp_path), settings) as checkpoints:
    for step, accuracy in accuracies.items():
      checkpoints.save(
        state,
        checkpoint_metadata.make_metadata(config, run.task, "data", step),
        step=step,
      )
      if accuracy is not None:
        checkpoints.note_score(step, accuracy)
    checkpoints.wait()
    assert checkpoints.latest_step == 6
    assert checkpoints.best_step == 2
  kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
  assert {n for n in kept if n.startswith("ckpt")} == {
    "ckpt_2",
    "ckpt_5",
    "ckpt_6",
  }


@pytest.fixture(scope="module")
def trained(one_device, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("trained")
  config = _set(tiny.config(), train=dict(num_steps=2))
  train.train(config, str(workdir))
  return config, workdir


def test_every_difference_of_another_experiment_is_named(trained):
  config, workdir = trained
  other = _set(
    config,
    model=dict(hidden_size=24, puzzle_embed_dim=24),
    optimizer=dict(learning_rate=0.5),
    data=dict(seed=7),
    train=dict(batch_size=16),
  )
  with pytest.raises(errors.UserError) as caught:
    train.train(other, str(workdir))
  text = str(caught.value)
  for difference in (
    "config.model.hidden_size is 16 in the checkpoint, 24 here",
    "config.model.puzzle_embed_dim is 16 in the checkpoint, 24 here",
    "config.optimizer.learning_rate is 0.002 in the checkpoint, 0.5 here",
    "config.data.seed is 0 in the checkpoint, 7 here",
    "config.train.batch_size is 8 in the checkpoint, 16 here",
  ):
    assert difference in text
  assert "\n" not in text


def test_what_only_changes_how_long_or_how_fast_may_differ(trained):
  config, workdir = trained
  copy = workdir.parent / "copy"
  shutil.copytree(workdir, copy)
  other = _set(
    config,
    train=dict(num_steps=3),
    model=dict(remat="full"),
    log=dict(every_steps=2),
    eval=dict(every_steps=1),
    checkpoint=dict(keep_last=1),
  )
  train.train(other, str(copy))
  state, _ = _final_state(other, copy)
  assert int(state.step) == 3


def test_settings_of_speed_may_be_unknown_to_an_older_checkpoint(trained):
  config, workdir = trained
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    saved = checkpoints.metadata(2)
  newer = {
    "model.remat",
    "model.gate_kernel",
    "train.gradient_accumulation_steps",
  }
  assert newer < saved.settings.keys()
  older = dataclasses.replace(
    saved,
    settings={k: v for k, v in saved.settings.items() if k not in newer},
  )
  task = program.load(config).task
  fingerprint = saved.data_fingerprint
  checkpoint_metadata.check_training_fits(older, config, task, fingerprint)
  checkpoint_metadata.check_evaluation_fits(older, config, task)
  smaller = _set(config, train=dict(gradient_accumulation_steps=2))
  checkpoint_metadata.check_training_fits(saved, smaller, task, fingerprint)


def test_other_training_puzzles_under_the_same_settings_are_refused(trained):
  config, workdir = trained
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    saved = checkpoints.metadata(2)
  task = program.load(config).task
  with pytest.raises(errors.UserError, match="training puzzles are not"):
    checkpoint_metadata.check_training_fits(
      saved, config, task, "other puzzles"
    )


def test_a_cosine_schedule_ties_the_number_of_steps():
  config = _set(tiny.config(), optimizer=dict(min_learning_rate_ratio=0.1))
  task = program.load(config).task
  saved = checkpoint_metadata.make_metadata(config, task, "data", 1)
  longer = _set(config, train=dict(num_steps=99))
  with pytest.raises(errors.UserError, match=r"config\.train\.num_steps"):
    checkpoint_metadata.check_training_fits(saved, longer, task, "data")


def test_shapes_that_do_not_fit_are_all_named(trained):
  config, workdir = trained
  run = program.load(_set(config, model=dict(mlp_multiple=64)))
  with (
    checkpoints_lib.Checkpoints(str(workdir)) as checkpoints,
    pytest.raises(errors.UserError) as caught,
  ):
    checkpoints.restore(2, run.program.abstract_state())
  text = str(caught.value)
  assert "params/network/layers_0/channel_mlp/down/kernel has shape" in text
  assert "params/network/layers_0/channel_mlp/gate_up/kernel" in text


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(
  tmp_path,
):
  config = _set(
    tiny.config(),
    train=dict(num_steps=8),
    checkpoint=dict(every_steps=1, keep_last=100),
    # Decay multiplies the weights by -1e9 each step: some steps go well.
    optimizer=dict(learning_rate=1.0, weight_decay=1e9, warmup_steps=0),
  )
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path))
  text = str(caught.value)
  assert "at step" in text
  assert "last good checkpoint is" in text
  with checkpoints_lib.Checkpoints(str(tmp_path)) as checkpoints:
    run = program.load(config)
    state = checkpoints.restore(
      checkpoints.latest_step, run.program.abstract_state()
    )
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_an_update_that_spoils_the_state_is_seen_before_it_is_saved(tmp_path):
  """The loss of a step tells nothing of the parameters that it leaves."""
  config = _set(
    tiny.config(),
    train=dict(num_steps=2),
    checkpoint=dict(every_steps=1),
    optimizer=dict(learning_rate=1e39, warmup_steps=0),
  )
  with pytest.raises(errors.UserError, match=r"param_norm is .* at step 1"):
    train.train(config, str(tmp_path))
  with checkpoints_lib.Checkpoints(str(tmp_path)) as checkpoints:
    assert checkpoints.latest_step is None


def test_a_setting_that_the_checkpoint_does_not_know_is_named(trained):
  config, _ = trained
  task = program.load(config).task
  saved = checkpoint_metadata.make_metadata(config, task, "data", 1)
  older = dict(saved.settings)
  del older["train.exploration_prob"]
  older["train.gone"] = 1
  saved = dataclasses.replace(saved, settings=older)
  with pytest.raises(errors.UserError) as caught:
    checkpoint_metadata.check_training_fits(saved, config, task, "data")
  text = str(caught.value)
  assert "config.train.exploration_prob is 0.1 here, and unknown" in text
  assert "config.train.gone is only in the checkpoint" in text
  checkpoint_metadata.check_evaluation_fits(
    saved, config, task
  )  # the network is the same


def test_what_is_left_of_a_logging_interval_is_written(tmp_path):
  config = _set(tiny.config(), train=dict(num_steps=5), log=dict(every_steps=3))
  train.train(config, str(tmp_path))
  train.train(config, str(tmp_path))  # evaluates only, and writes nothing
  rows = [
    json.loads(line)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  steps = [(row["group"], row["step"]) for row in rows]
  assert steps == [("train", 3), ("train", 5), ("eval", 5)]


def test_best_is_refused_where_nothing_was_evaluated(tmp_path):
  config = _set(tiny.config(), eval=dict(checkpoint="best"))
  run = program.load(config)
  state = jax.jit(run.program.init)()
  with checkpoints_lib.Checkpoints(str(tmp_path), config.checkpoint) as saved:
    saved.save(
      state,
      checkpoint_metadata.make_metadata(config, run.task, "data", 1),
      step=1,
    )
  with pytest.raises(errors.UserError, match=r"eval\.checkpoint=latest"):
    evaluate.evaluate_workdir(config, str(tmp_path))
  latest = _set(config, eval=dict(checkpoint="latest"))
  report = evaluate.evaluate_workdir(latest, str(tmp_path))
  assert report.num_puzzles == config.data.num_test


def test_restores_on_another_number_of_devices(trained):
  """The table's rows are padded with zeros until they divide."""
  config, workdir = trained
  run = program.load(config)
  num_rows = run.task.num_puzzle_ids
  assert num_rows < 8
  states = []
  for count in (1, 2, 4, 8):
    here = dataclasses.replace(run.program, mesh=mesh.make_mesh(count))
    with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
      state = checkpoints.restore(2, here.abstract_state())
    assert len(state.carry.steps.sharding.device_set) == count
    table = jax.device_get(state.puzzle_table)
    assert len(table) == max(count, num_rows)
    assert not table[num_rows:].any()
    states.append(jax.device_get(state).replace(puzzle_table=table[:num_rows]))
  assert states[0].puzzle_table.any()
  chex.assert_trees_all_equal(*states)


@pytest.mark.parametrize(
  ("there", "here"),
  [(1, 8), (8, 1), pytest.param(4, 8, marks=pytest.mark.slow)],
)
def test_a_table_of_more_or_fewer_zeros_at_its_end(tmp_path, there, here):
  """Saved and read, whole and weights alone, with padding and without it."""
  config = tiny.config()
  loaded = program.load(config)
  old, new = (
    loaded._replace(
      program=dataclasses.replace(loaded.program, mesh=mesh.make_mesh(count))
    )
    for count in (there, here)
  )
  saved_run.save(old, tmp_path, {1: 0.5})
  read = saved_run.weights(new, tmp_path, 1)
  expected = saved_run.weights(old, tmp_path, 1)
  num_rows = old.task.num_puzzle_ids
  assert len(read.puzzle_table) == here
  np.testing.assert_array_equal(
    read.puzzle_table[:num_rows], expected.puzzle_table[:num_rows]
  )
  with checkpoints_lib.Checkpoints(str(tmp_path)) as checkpoints:
    weights = checkpoints.restore_weights(
      1, new.program.abstract_state().ema_weights
    )
    chex.assert_trees_all_equal(weights, read)
    state = new.program.abstract_state()
    wider = jax.ShapeDtypeStruct(
      (here, 99), np.float32, sharding=state.puzzle_table.sharding
    )
    with pytest.raises(errors.UserError, match="puzzle_table has shape"):
      checkpoints.restore(1, state.replace(puzzle_table=wider))


def test_rows_of_puzzles_are_never_cut_off():
  saved = checkpoint_metadata.Metadata(
    **dict.fromkeys(
      f.name for f in dataclasses.fields(checkpoint_metadata.Metadata)
    )
    | {
      "num_puzzle_ids": 5,
      "arrays": {"puzzle_table": array_digest.ArrayInfo("float32", (8, 4), 0)},
    }
  )
  for num_rows, fits in (
    (4, False),
    (5, True),
    (6, True),
    (8, True),
    (16, True),
  ):
    table = {"puzzle_table": jax.ShapeDtypeStruct((num_rows, 4), np.float32)}
    check = functools.partial(
      checkpoint_metadata.check_arrays_fit,
      saved,
      table,
      where="it",
      partly=True,
    )
    if fits:
      check()
    else:
      with pytest.raises(errors.UserError, match="it does not fit"):
        check()


def test_an_unwritable_workdir_is_one_line(tmp_path):
  blocked = tmp_path / "file"
  blocked.write_text("not a folder")
  with pytest.raises(errors.UserError, match="cannot use the workdir"):
    train.train(tiny.config(), str(blocked))


def test_weights_alone_are_the_averaged_ones(trained):
  config, workdir = trained
  run = program.load(config)
  state, _ = _final_state(config, workdir)
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    weights = checkpoints.restore_weights(
      2, run.program.abstract_state().ema_weights
    )
  chex.assert_trees_all_equal(weights, state.ema_weights)


def test_an_evaluation_that_was_killed_is_done_by_the_next_run(
  tmp_path, monkeypatch
):
  config = _set(
    tiny.config(), train=dict(num_steps=3), eval=dict(every_steps=2)
  )

  class KilledError(Exception):
    pass

  def killed(self, weights, step):
    raise KilledError

  with monkeypatch.context() as patch:
    patch.setattr(evaluate.Evaluator, "__call__", killed)
    with pytest.raises(KilledError):
      train.train(config, str(tmp_path))
  with checkpoints_lib.Checkpoints(str(tmp_path)) as checkpoints:
    assert checkpoints.latest_step == 2  # saved before it was evaluated
    assert checkpoints.best_step is None
  train.train(config, str(tmp_path))
  rows = [
    json.loads(line)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
  ]
  assert [r["step"] for r in rows if r["group"] == "eval"] == [2, 3]
  with checkpoints_lib.Checkpoints(str(tmp_path)) as checkpoints:
    assert checkpoints.best_step in (2, 3)


def test_of_equal_scores_the_newest_is_the_best(tmp_path):
  folder = epath.Path(tmp_path)
  noted = checkpoint_scores.Scores(folder)
  for step, score in ((1, 0.5), (2, 0.9), (3, 0.9), (4, float("nan"))):
    noted.note(step, score)
  read = checkpoint_scores.Scores(folder)
  assert read.best([1, 2, 3, 4], 2) == [3, 2]
  assert read.best([1, 4], 2) == [1]
