"""New ARC tasks on old weights: what grows, what is learned, what stays."""

import dataclasses
import json
import pathlib
import shutil

import chex
import command_line
import folders
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import arc, arc_adapt
from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.core import puzzle_embedding
from trm_jax.data import identifiers
from trm_jax.data.arc import load as arc_load
from trm_jax.evaluation import evaluate
from trm_jax.evaluation import report as report_lib
from trm_jax.runtime import (
  checkpoint_metadata,
  metric_writer,
  program,
  restore,
)
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh as mesh_lib

SEED = 42
NUM_NEW = 2  # tasks, after one that the old run knows
VARIANTS = 3  # of each new task, beside the original
NUM_NEW_ROWS = NUM_NEW * (1 + VARIANTS)
NUM_STEPS = 12
NEVER_TRAINED = 5  # a row of the old table


def _shrink(config):
  config.data.num_augmentations = VARIANTS
  tiny.narrow(config)
  config.train.update(batch_size=8, num_steps=2, max_supervision_steps=2)
  config.eval.update(batch_size=8, every_steps=0, supervision_steps=1)


def _old_config():
  config = arc.get_config("smoke")
  _shrink(config)
  config.data.update(num_train=2, num_test=1, num_augmentations=2)
  return config_lib.from_config_dict(config)


def _generated(count):
  """The old run's task to solve and, by the same draws, others after it."""
  return arc_load.generate(2, count, seed=SEED)["evaluation"]


@pytest.fixture(name="old", scope="module")
def _old(tmp_path_factory):
  """A run whose rows are trained, all but one; the network is as it began."""
  workdir = tmp_path_factory.mktemp("old")
  run = program.load(_old_config())
  state = mesh_lib.create_state(run.program.init, run.program.mesh)
  rng = np.random.default_rng(0)
  table = np.zeros(state.puzzle_table.shape, np.float32)
  trained = slice(1, run.task.num_puzzle_ids)
  table[trained] = rng.standard_normal(table[trained].shape, np.float32)
  table[NEVER_TRAINED] = 0
  table = jax.device_put(table, state.puzzle_table.sharding)
  with checkpoints_lib.Checkpoints(
    str(workdir), run.program.config.checkpoint
  ) as saved:
    saved.save(
      state.replace(puzzle_table=table),
      checkpoint_metadata.make_metadata(
        run.program.config, run.task, "old data", 1
      ),
      step=1,
    )
  path = restore.identifiers_path(str(workdir))
  identifiers.write(path, run.task.identifiers)
  return workdir


@pytest.fixture(name="files", scope="module")
def _files(tmp_path_factory):
  """The new tasks, whose test answers nobody knows."""

  def asked(task):
    pairs = (dataclasses.replace(pair, output=None) for pair in task.test)
    return dataclasses.replace(task, test=tuple(pairs))

  folder = tmp_path_factory.mktemp("files")
  new = [asked(task) for task in _generated(1 + NUM_NEW)[1:]]
  folders.repository(folder / "new", {"test": new})
  folders.repository(folder / "none", {"test": _generated(1)})
  return folder


def _config(files, old, text="", **groups):
  config = arc_adapt.get_config(",".join(["smoke", *text.split()]))
  _shrink(config)
  config.data.update(
    task="arc",
    source=str(files / "new"),
    cache_dir=str(files / "cache"),
    num_train=0,
    num_test=0,
    subsets=("test",),
    test_subset="test",
  )
  config.checkpoint.init_from = str(old)
  for group, values in groups.items():
    config[group].update(values)
  return config_lib.from_config_dict(config)


def _state(config, workdir, step):
  run = program.load(config)
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    return jax.device_get(
      checkpoints.restore(step, run.program.abstract_state())
    )


def _old_state(old):
  return _state(_old_config(), old, 1)


def _names(workdir):
  return identifiers.read(restore.identifiers_path(str(workdir)))


def _submission(workdir):
  path = workdir / f"evaluations/step_{NUM_STEPS}/submission.json"
  return json.loads(path.read_text())


# --- the first values of new rows --------------------------------------------


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.parametrize("how", ["mean", "zeros"])
def test_how_new_rows_begin(how, num_devices):
  """On several devices the first new row is in the middle of a share."""
  first, num_rows, shape = 10, 14, (16, 3)
  table = np.zeros(shape, np.float32)
  table[:first] = np.random.default_rng(0).standard_normal((first, 3))
  table[4] = 0  # never trained; row 0 is blank, whatever is in it
  mesh = mesh_lib.make_mesh(num_devices)
  begun = puzzle_embedding.begin(
    jax.device_put(table, mesh_lib.split(mesh)),
    first=first,
    num_rows=num_rows,
    how=how,
  )
  assert begun.sharding == mesh_lib.split(mesh)
  np.testing.assert_array_equal(begun[:first], table[:first])
  np.testing.assert_array_equal(begun[num_rows:], 0)
  trained = [1, 2, 3, 5, 6, 7, 8, 9]
  mean = table[trained].mean(axis=0) if how == "mean" else np.zeros(3)
  expected = np.broadcast_to(mean, (num_rows - first, 3))
  np.testing.assert_allclose(begun[first:num_rows], expected, rtol=1e-6)


def test_the_mean_of_a_table_that_was_never_trained():
  begun = puzzle_embedding.begin(
    jnp.zeros((8, 2)), first=4, num_rows=8, how="mean"
  )
  np.testing.assert_array_equal(begun, 0)


# --- adapting ----------------------------------------------------------------


def _start(config, workdir):
  """The weights that training begins with."""
  return jax.device_get(
    train._start(*program.load(config), str(workdir)).weights
  )


@pytest.mark.parametrize("how", ["mean", "zeros"])
def test_the_table_grows_and_nothing_else_is_new(
  tmp_path, files, old, how, capsys
):
  config = _config(files, old, data={"new_rows": how})
  weights = _start(config, tmp_path)
  before, there = _old_state(old), len(_names(old))
  assert there % jax.device_count()  # its last rows are no rows of puzzles
  chex.assert_trees_all_equal(weights.params, before.ema_params)
  chex.assert_trees_all_equal(weights.initial_latents, before.initial_latents)
  table = weights.puzzle_table
  np.testing.assert_array_equal(
    table[:there], before.puzzle_table[:there], strict=True
  )
  trained = np.delete(before.puzzle_table[1:there], NEVER_TRAINED - 1, axis=0)
  first = trained.mean(axis=0) if how == "mean" else np.zeros(table.shape[1])
  for row in range(there, there + NUM_NEW_ROWS):
    np.testing.assert_allclose(table[row], first, rtol=1e-5, atol=1e-7)
  assert not table[there + NUM_NEW_ROWS :].any()
  assert f"{NUM_NEW_ROWS} new rows after the puzzle table's {there} begin" in (
    capsys.readouterr().out
  )


def test_another_number_of_devices_reads_the_same_rows(tmp_path, files, old):
  """A table is filled up so that it can be split, here and there."""
  config = _config(files, old)
  many = _start(config, tmp_path)
  run = tiny.load_task(config, program.load(config).task, mesh_lib.make_mesh(1))
  one = jax.device_get(train._start(*run, str(tmp_path)).weights)
  num_rows = run.task.num_puzzle_ids
  assert one.puzzle_table.shape[0] == num_rows < many.puzzle_table.shape[0]
  np.testing.assert_allclose(
    one.puzzle_table, many.puzzle_table[:num_rows], rtol=1e-6, atol=1e-8
  )


@dataclasses.dataclass(frozen=True)
class Adapted:
  """What rows of new tasks were trained in."""

  config: config_lib.Config
  workdir: pathlib.Path
  report: report_lib.EvalResult


@pytest.fixture(name="adapted", scope="module")
def _adapted(tmp_path_factory, files, old):
  config = _config(
    files,
    old,
    "rows",
    optimizer={"warmup_steps": 0, "puzzle_learning_rate": 0.1},
    train={"num_steps": NUM_STEPS, "max_supervision_steps": 1},
  )
  workdir = tmp_path_factory.mktemp("adapted")
  report = train.train(config, str(workdir))
  return Adapted(config, workdir, report)


@pytest.mark.slow
def test_only_new_rows_are_learned(adapted, old, tmp_path):
  before = _old_state(old)
  after = _state(adapted.config, adapted.workdir, NUM_STEPS)
  for params in (after.params, after.ema_params):
    chex.assert_trees_all_equal(params, before.ema_params)
  chex.assert_trees_all_equal(after.initial_latents, before.initial_latents)
  names, there = _names(adapted.workdir), len(_names(old))
  assert names[:there] == _names(old)
  assert len(names) == there + NUM_NEW_ROWS
  begun = _start(adapted.config, tmp_path).puzzle_table
  changed = (after.puzzle_table != begun).any(axis=1)
  assert changed[there : len(names)].all()
  assert not changed[:there].any()
  assert not changed[len(names) :].any()


@pytest.mark.slow
def test_the_loss_on_demonstrations_falls(adapted):
  """Though the network stays as it is."""
  rows = metric_writer.read_metrics(str(adapted.workdir))
  losses = [row["answer_loss"] for row in rows if row["group"] == "train"]
  assert len(losses) == NUM_STEPS
  assert np.mean(losses[-4:]) < np.mean(losses[:4])


@pytest.mark.slow
def test_what_was_learned_before_is_kept(adapted, old):
  learned = []
  for workdir, step in ((adapted.workdir, NUM_STEPS), (old, 1)):
    with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
      learned.append(checkpoints.metadata(step).learned)
  assert learned[0] == learned[1]  # the new tasks' answers are not known
  assert "training0" in learned[1]


@pytest.mark.slow
def test_new_tasks_alone_are_answered_and_so_they_are_again(adapted, tmp_path):
  """Also when the old run is gone."""
  submission = _submission(adapted.workdir)
  assert submission.keys() == {t.name for t in _generated(1 + NUM_NEW)[1:]}
  copy = tmp_path / "copy"
  shutil.copytree(adapted.workdir, copy)
  shutil.rmtree(copy / "evaluations")
  missing = tmp_path / "missing"
  data = dataclasses.replace(adapted.config.data, identifiers=str(missing))
  gone = dataclasses.replace(adapted.config, data=data)
  with pytest.raises(errors.UserError, match=f"{missing} does not exist; ex"):
    evaluate.evaluate_workdir(gone, str(copy))
  # The line's own advice.
  data = dataclasses.replace(data, identifiers=str(copy))
  again = dataclasses.replace(adapted.config, data=data)
  report = evaluate.evaluate_workdir(again, str(copy))
  np.testing.assert_equal(report.final, adapted.report.final)
  assert _submission(copy) == submission


@pytest.mark.slow
def test_going_on_needs_no_old_run(adapted, tmp_path, capsys):
  shutil.copytree(adapted.workdir, tmp_path, dirs_exist_ok=True)
  config = dataclasses.replace(
    adapted.config,
    data=dataclasses.replace(adapted.config.data, identifiers=str(tmp_path)),
    checkpoint=dataclasses.replace(
      adapted.config.checkpoint, init_from=str(tmp_path / "gone")
    ),
  )
  report = train.train(config, str(tmp_path))
  output = capsys.readouterr().out
  assert f"{tmp_path} has a checkpoint to go on from" in output
  assert "Training is already complete" in output
  np.testing.assert_equal(report.final, adapted.report.final)


@pytest.mark.slow
def test_everything_is_learned(tmp_path, files, old):
  config = _config(files, old, train={"num_steps": 1})
  train.train(config, str(tmp_path))
  before, after = _old_state(old), _state(config, tmp_path, 1)
  changed = jax.tree.map(
    lambda a, b: bool((a != b).any()), after.params, before.ema_params
  )
  assert any(jax.tree.leaves(changed))
  there = len(_names(old))
  np.testing.assert_array_equal(
    after.puzzle_table[:there], before.puzzle_table[:there]
  )


# --- mistakes ----------------------------------------------------------------


def _error(tmp_path, config) -> str:
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path / "new"))
  assert not (tmp_path / "new").exists()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_no_run_to_start_from(tmp_path, files, old):
  message = _error(tmp_path, _config(files, ""))
  assert "config.data.new_rows 'mean' adds rows to a trained table" in message
  config = _config(files, "", data={"identifiers": str(old)})
  message = _error(tmp_path, config)
  assert message.endswith("of its run by config.checkpoint.init_from")


def test_a_list_alone_is_no_run(tmp_path, files, old):
  shutil.copy(old / "identifiers.json", tmp_path)
  message = _error(tmp_path, _config(files, tmp_path))
  assert message.startswith(f"config.checkpoint.init_from: {tmp_path} holds")


def test_another_network(tmp_path, files, old):
  message = _error(tmp_path, _config(files, old, model={"num_layers": 2}))
  assert message.startswith("config.checkpoint.init_from: ")
  assert "config.model.num_layers is 1 in the checkpoint, 2 here" in message


def _other_variants(names):
  """The same tasks, one of them with another variant."""
  names[-1] = f"{names[-1].split('|||')[0]}|||t7|||0987654321"
  return names


@pytest.mark.parametrize("change", [_other_variants, lambda names: names[:-1]])
def test_a_list_that_is_not_the_checkpoints(tmp_path, files, old, change):
  names = _names(old)
  path = tmp_path / "mine.json"
  identifiers.write(path, change(list(names)))
  config = _config(files, old, data={"identifiers": str(path)})
  message = _error(tmp_path, config)
  row = len(names) - 1
  assert f"has rows for other puzzles: row {row} is {names[row]!r} there," in (
    message
  )
  there = restore.identifiers_path(str(old))
  assert message.endswith(
    f"--config.data.identifiers={there} lines the rows up"
  )


def test_nothing_to_add(tmp_path, files, old):
  config = _config(files, old, data={"source": str(files / "none")})
  message = _error(tmp_path, config)
  assert "there is nothing to add, all tasks of the data have rows" in message
  # The line's own advice.
  plain = dataclasses.replace(config.data, new_rows="")
  config = dataclasses.replace(config, data=plain)
  table = _start(config, tmp_path / "new").puzzle_table
  np.testing.assert_array_equal(table, _old_state(old).puzzle_table)


# --- as a user types it ------------------------------------------------------


def test_one_setting_names_the_old_run(old):
  config = arc_adapt.get_config()
  config.checkpoint.init_from = str(old)
  assert config.data.identifiers == str(old)
  config.data.identifiers = "another"
  assert config.checkpoint.init_from == str(old)


def test_the_network_is_that_of_arc():
  old, new = (
    config_lib.from_config_dict(module.get_config())
    for module in (arc, arc_adapt)
  )
  assert new.model == old.model
  assert not new.train.freeze_network
  rows = config_lib.from_config_dict(arc_adapt.get_config("rows,deep"))
  assert rows.train.freeze_network
  assert rows.model.latent_updates == 6
  deep = config_lib.from_config_dict(arc.get_config("deep"))
  assert rows.model == deep.model


def test_a_misspelt_run_is_one_line(tmp_path):
  missing = tmp_path / "missing"
  message = command_line.error_of(
    f"--config.checkpoint.init_from={missing}",
    f"--workdir={tmp_path / 'new'}",
    config="experiments/arc_adapt.py:smoke",
  )
  assert f"{missing} does not exist; expected the workdir of a run" in message
  assert not (tmp_path / "new").exists()
