"""The rows of the paper's tables: their sizes, and that each one trains.

Trained on generated 9x9 puzzles or, if TRM_SUDOKU_DIR names a folder with
Sudoku-Extreme's train.csv and test.csv, on those.
"""

import dataclasses
import functools
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import ablations, hrm, sudoku
from trm_jax import config as config_lib
from trm_jax import cost, errors, experiment, program, sharding
from trm_jax.data import tasks

TRM, ATTENTION, HRM = 5_028_866, 6_828_034, 27_275_266
# Parameters of each row of tables 1, 2 and 4, and its depth T(n + 1)layers.
SIZES = {
  "trm": (TRM, 42),
  "hrm": (HRM, 24),
  "continue_loss": (TRM, 42),
  "separate_networks": (10_045_442, 42),
  "no_ema": (TRM, 42),
  "four_layers": (10_045_442, 48),
  "attention": (ATTENTION, 42),
  "t2_n2": (TRM, 12),
  "one_step_gradient": (TRM, 42),
  "multi_scale": (TRM, 42),
  "single_latent": (TRM, 42),
  "direct": (HRM, 8),
}
# Table 3's depths, but for those of k = T = 1, where it says 7 and 9.
DEPTHS = {
  "trm": (6, 20, 42, 72, 78, 84, 156),
  "hrm": (8, 24, 48, 80, 84, 96, 168),
}


def _config(row, *words):
  return config_lib.from_config_dict(
    ablations.get_config(",".join((row, *words)))
  )


def _size(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _state(config, *, vocab_size=11, seq_len=81, num_puzzle_ids=1):
  sizes = program.Sizes(
    vocab_size=vocab_size, seq_len=seq_len, num_puzzle_ids=num_puzzle_ids
  )
  mesh = sharding.make_mesh(1)
  return jax.eval_shape(program.build(config, sizes, mesh).init)


def _depth(config):
  return sum(cost.network_calls(config.model)) * config.model.num_layers


def _millions(parameters):
  return f"{parameters / 1e6:.0f}M"


@pytest.mark.parametrize("row", SIZES)
def test_parameters_and_depth_are_the_papers(row):
  config = _config(row)
  parameters, depth = SIZES[row]
  assert _size(_state(config).params) == parameters
  assert _depth(config) == depth
  assert ablations.ROWS[row].parameters in ("", _millions(parameters))


@pytest.mark.parametrize("kind", DEPTHS)
def test_table_3_has_the_papers_depths(kind):
  rows = [row for row in ablations.ROWS if row.startswith(f"{kind}_k")]
  assert tuple(_depth(_config(row)) for row in rows) == DEPTHS[kind]


def test_every_row_is_in_a_table_and_only_the_rows_are():
  listed = {row for rows in ablations.TABLES.values() for row in rows}
  assert listed == set(ablations.ROWS)


@pytest.mark.parametrize(
  ("text", "vocab_size", "seq_len", "parameters"),
  [
    ("", 11, 81, HRM),
    ("maze", 6, 900, 27_270_146),
    ("arc", 12, 900, 27_276_290),
    ("arc,2", 12, 900, 27_276_290),
  ],
)
def test_hrm_has_the_published_size(text, vocab_size, seq_len, parameters):
  config = config_lib.from_config_dict(hrm.get_config(text))
  state = _state(config, vocab_size=vocab_size, seq_len=seq_len)
  assert _size(state.params) == parameters
  if not text:  # what its checkpoint holds: initial latents, one puzzle, too
    whole = (state.params, state.initial_latents, state.puzzle_table)
    assert _size(whole) == 27_276_802


def _knobs(config):
  return config_lib.flatten(config)


def test_a_row_changes_its_mechanism_only():
  base = _knobs(config_lib.from_config_dict(sudoku.get_config()))
  for row, changed in {
    "trm": set(),
    "continue_loss": {"train.halt_rule"},
    "separate_networks": {"model.separate_networks"},
    "no_ema": {"optimizer.ema_decay"},
    "four_layers": {"model.num_layers", "model.latent_updates"},
    "attention": {"model.token_mixing", "model.positions"},
    "t2_n2": {"model.latent_updates", "model.recursion_cycles"},
    "one_step_gradient": {"model.gradient_updates"},
    "multi_scale": {"model.recurrence"},
    "single_latent": {"model.recurrence"},
  }.items():
    knobs = _knobs(_config(row))
    different = {name for name in base if knobs[name] != base[name]}
    assert different == changed | {"name"}, row


def test_one_row_at_a_time():
  for text in ("trm,hrm", "trm,smoke,quickstart"):
    with pytest.raises(ValueError, match="name one row"):
      ablations.get_config(text)
  with pytest.raises(ValueError, match="choose one of maze, arc"):
    hrm.get_config("maze,arc")
  with pytest.raises(ValueError, match=r"hrm\.py:arc,2"):
    hrm.get_config("2")


def test_an_unknown_recurrence_is_named_with_the_known_ones():
  model = dataclasses.replace(_config("trm").model, recurrence="three_latents")
  with pytest.raises(errors.UserError, match="choose one of two_latents, "):
    program.check_recurrence(model)


def test_a_second_network_without_work_is_refused():
  model = dataclasses.replace(_config("direct").model, separate_networks=True)
  with pytest.raises(errors.UserError, match="no use for a second network"):
    program.check_recurrence(model)


# --- training ---------------------------------------------------------------


@functools.cache
def _task():
  config = ablations.get_config("trm,smoke")
  if source := os.environ.get("TRM_SUDOKU_DIR"):
    config.data.task, config.data.source = "sudoku", source
  return tasks.load(config_lib.from_config_dict(config).data)


@pytest.mark.parametrize("row", ablations.ROWS)
def test_a_row_trains_twenty_steps_without_a_warning(row, capfd):
  config = ablations.get_config(f"{row},smoke")
  config.model.hidden_size = config.model.puzzle_vector_size = 16
  config.model.mlp_multiple = 16
  config.optimizer.learning_rate = 3e-3
  config.train.batch_size, config.train.num_steps = 4, 20
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    run = experiment.of_task(
      config_lib.from_config_dict(config), _task(), sharding.make_mesh(1)
    )
    state = sharding.create_state(run.init, run.mesh)
    step, losses = run.train_step(), []
    batches = run.train_batches(0)
    for _ in range(20):
      batch = sharding.put_batch(next(batches), run.mesh)
      state, sums = step(state, batch)
      losses.append(sums["answer_loss"])
    losses = np.asarray(jax.device_get(losses))
  assert int(state.step) == 20
  assert jnp.isfinite(losses).all()
  assert np.mean(losses[-5:]) < np.mean(losses[:5])
  assert "arning" not in capfd.readouterr().err
