"""The one-GPU recipe: its size, what it changes, and that it trains."""

import warnings

import jax
import numpy as np
import pytest

from experiments import base, sudoku_fast
from trm_jax import config as config_lib
from trm_jax.runtime import flops, mesh, program


def test_the_size_and_the_cost_are_those_of_the_lab_note():
  config = config_lib.from_config_dict(sudoku_fast.get_config())
  sizes = program.DataSpec(vocab_size=11, seq_len=81, num_puzzle_ids=1)
  built = program.build(config, sizes, mesh.make_mesh(1))
  params = jax.eval_shape(built.init).params
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 4_856_834
  assert sum(flops.network_calls(config.model)) == 60
  assert round(flops.train_flops(config, built.model) / 1e12, 1) == 27.7


def test_the_recipe_is_off_unless_it_is_asked_for():
  plain = config_lib.flatten(config_lib.from_config_dict(base.get_config()))
  assert plain["model.mlp_gate"] == "silu"
  assert plain["optimizer.name"] == "adam_atan2"
  for knob in ("optimizer.max_gradient_norm", "train.label_smoothing"):
    assert plain[knob] == 0.0


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_the_recipe_trains_without_a_warning(capfd):
  config = sudoku_fast.get_config("smoke")
  config.model.hidden_size = config.model.puzzle_embed_dim = 16
  config.model.mlp_multiple = 16
  config.optimizer.learning_rate = 3e-3
  config.train.batch_size, config.train.num_steps = 8, 20
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    run = program.load(config_lib.from_config_dict(config))
    state = mesh.create_state(run.program.init, run.program.mesh)
    begin = jax.device_get(state.params)
    step, batches, losses = (
      run.program.train_step(),
      run.program.train_batches(run.task, 0),
      [],
    )
    for _ in range(20):
      batch = mesh.put_batch(next(batches), run.program.mesh)
      state, sums = step(state, batch)
      losses.append(float(sums["answer_loss"]))
  assert np.mean(losses[-5:]) < np.mean(losses[:5])
  moved = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), begin, jax.device_get(state.params)
  )
  assert min(jax.tree.leaves(moved)) > 0
  assert "arning" not in capfd.readouterr().err
