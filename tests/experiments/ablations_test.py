"""The rows of the paper's tables: their sizes, and that each one trains.

Trained on generated 9x9 puzzles or, if TRM_SUDOKU_DIR names a folder with
Sudoku-Extreme's train.csv and test.csv, on those.
"""

import functools
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from experiments import ablations, arc, hrm, maze, sudoku
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import tasks
from trm_jax.runtime import flops, program, setting_checks
from trm_jax.runtime import mesh as mesh_lib

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
  sizes = program.DataSpec(
    vocab_size=vocab_size, seq_len=seq_len, num_puzzle_ids=num_puzzle_ids
  )
  mesh = mesh_lib.make_mesh(1)
  return jax.eval_shape(program.build(config, sizes, mesh).init)


def _depth(config):
  return sum(flops.network_calls(config.model)) * config.model.num_layers


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


# What each row sets, of all settings; no more may differ from sudoku.py's.
HRM_MODEL = {
  "model.separate_networks": True,
  "model.gradient_updates": 1,
  "model.num_layers": 4,
  "model.latent_updates": 2,
  "model.recursion_cycles": 2,
  "model.token_mixing": "attention",
  "model.position_encoding": "rope",
  "model.num_prefix_tokens": 1,
  "optimizer.ema_decay": 0.0,
  "train.halt_rule": "halt_over_continue",
}
HRM_SUDOKU = HRM_MODEL | {"train.num_steps": 26041}
CHANGES = {
  "trm": {},
  "hrm": HRM_SUDOKU,
  "continue_loss": {"train.halt_rule": "halt_over_continue"},
  "separate_networks": {"model.separate_networks": True},
  "no_ema": {"optimizer.ema_decay": 0.0},
  "four_layers": {"model.num_layers": 4, "model.latent_updates": 3},
  "attention": {
    "model.token_mixing": "attention",
    "model.position_encoding": "rope",
  },
  "t2_n2": {"model.latent_updates": 2, "model.recursion_cycles": 2},
  "one_step_gradient": {"model.gradient_updates": 1},
  "multi_scale": {"model.recursion_type": "latent_per_update"},
  "single_latent": {"model.recursion_type": "single_latent"},
  "direct": {
    "model.recursion_type": "direct",
    "model.num_layers": 8,
    "model.latent_updates": 1,
    "model.recursion_cycles": 1,
    "model.token_mixing": "attention",
    "model.position_encoding": "rope",
    "model.num_prefix_tokens": 1,
    "optimizer.ema_decay": 0.0,
    "train.num_steps": 26041,
    "train.max_supervision_steps": 1,
    "eval.supervision_steps": 1,
  },
}
# The paper's, in %; None: out of memory. Table 3 by (k, T).
ACCURACIES = {
  "trm": 87.4,
  "hrm": 55.0,
  "continue_loss": 86.1,
  "separate_networks": 82.4,
  "no_ema": 79.9,
  "four_layers": 79.5,
  "attention": 74.7,
  "t2_n2": 73.7,
  "one_step_gradient": 56.5,
  "multi_scale": 77.6,
  "single_latent": 71.9,
  "direct": 0.0,
}
TABLE_3 = {
  (1, 1): (63.2, 46.4),
  (2, 2): (81.9, 55.0),
  (3, 3): (87.4, 61.6),
  (4, 4): (84.2, 59.5),
  (6, 3): (None, 62.3),
  (3, 6): (85.8, 58.8),
  (6, 6): (None, 57.5),
}


def _changes(config, base):
  """The settings that differ, but for the name."""
  before = config_lib.flatten(config_lib.from_config_dict(base))
  after = config_lib.flatten(config)
  return {
    name: value
    for name, value in after.items()
    if value != before[name] and name != "name"
  }


@pytest.mark.parametrize("row", CHANGES)
def test_a_row_changes_its_mechanism_only(row):
  assert _changes(_config(row), sudoku.get_config()) == CHANGES[row]
  assert ablations.ROWS[row].accuracy == ACCURACIES[row]


@pytest.mark.parametrize(("k", "cycles"), TABLE_3)
def test_a_row_of_table_3_has_its_recursions(k, cycles):
  ours = {"model.recursion_cycles": cycles}
  for kind, base, updates, accuracy in (
    ("trm", {}, 2 * k, TABLE_3[k, cycles][0]),
    ("hrm", HRM_SUDOKU, k, TABLE_3[k, cycles][1]),
  ):
    row = f"{kind}_k{k}_t{cycles}"
    expected = {**base, **ours, "model.latent_updates": updates}
    trm = {"model.latent_updates": 6, "model.recursion_cycles": 3}
    assert _changes(_config(row), sudoku.get_config()) == {
      name: value for name, value in expected.items() if trm.get(name) != value
    }
    assert ablations.ROWS[row].accuracy == accuracy


@pytest.mark.parametrize(
  ("text", "base", "changes"),
  [
    ("", sudoku.get_config(), HRM_SUDOKU),
    ("maze", maze.get_config(), HRM_SUDOKU),
    ("arc", arc.get_config(), HRM_MODEL),
    ("arc,2", arc.get_config("2"), HRM_MODEL),
  ],
)
def test_hrm_is_the_task_with_another_network(text, base, changes):
  config = config_lib.from_config_dict(hrm.get_config(text))
  already = {"model.token_mixing", "model.position_encoding"} if text else set()
  assert _changes(config, base) == {
    name: value for name, value in changes.items() if name not in already
  }


def test_one_row_at_a_time():
  for text in ("trm,hrm", "trm,smoke,quickstart"):
    with pytest.raises(ValueError, match="name one row"):
      ablations.get_config(text)
  with pytest.raises(ValueError, match="choose one of maze, arc"):
    hrm.get_config("maze,arc")
  with pytest.raises(ValueError, match=r"hrm\.py:arc,2"):
    hrm.get_config("2")


def test_an_unknown_recurrence_is_named_with_the_known_ones():
  config = config_lib.changed(
    _config("trm"), {"model.recursion_type": "three_latents"}
  )
  with pytest.raises(errors.UserError, match="choose one of two_latents, "):
    setting_checks.check_names(config)


def test_a_second_network_without_work_is_refused():
  config = config_lib.changed(
    _config("direct"), {"model.separate_networks": True}
  )
  with pytest.raises(errors.UserError, match="no use for a second network"):
    setting_checks.check_names(config)


# --- training ---------------------------------------------------------------


@functools.cache
def _task():
  config = ablations.get_config("trm,smoke")
  if source := os.environ.get("TRM_SUDOKU_DIR"):
    config.data.task, config.data.source = "sudoku", source
  return tasks.load(config_lib.from_config_dict(config).data)


@pytest.mark.slow
@pytest.mark.parametrize("row", ablations.ROWS)
def test_a_row_trains_twenty_steps_without_a_warning(row, capfd):
  config = ablations.get_config(f"{row},smoke")
  config.model.hidden_size = config.model.puzzle_embed_dim = 16
  config.model.mlp_multiple = 16
  config.model.num_heads = 2
  config.optimizer.learning_rate = 3e-3
  config.train.batch_size, config.train.num_steps = 4, 20
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    run = tiny.load_task(
      config_lib.from_config_dict(config), _task(), mesh_lib.make_mesh(1)
    )
    state = mesh_lib.create_state(run.program.init, run.program.mesh)
    step, losses = run.program.train_step(), []
    batches = run.program.train_batches(run.task, 0)
    for _ in range(20):
      batch = mesh_lib.put_batch(next(batches), run.program.mesh)
      state, sums = step(state, batch)
      losses.append(sums["answer_loss"])
    losses = np.asarray(jax.device_get(losses))
  assert int(state.step) == 20
  assert jnp.isfinite(losses).all()
  assert np.mean(losses[-5:]) < np.mean(losses[:5])
  assert "arning" not in capfd.readouterr().err
