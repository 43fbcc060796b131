"""Products counted by hand, against the published sizes."""

import pytest

from experiments import ablations, arc, hrm, maze, sudoku
from trm_jax import config as config_lib
from trm_jax.runtime import flops


@pytest.mark.parametrize(
  ("config", "seq_len", "call_gflop", "step_tflop"),
  [(sudoku.get_config(), 81, 1.22, 32.8), (arc.get_config(), 900, 15.9, 305)],
  ids=["mlp", "attention"],
)
def test_products_of_a_call_and_of_a_step(
  config, seq_len, call_gflop, step_tflop
):
  built = config_lib.from_config_dict(config)
  counted = flops.network_flops(built.model, seq_len + 16) / 1e9
  assert counted == pytest.approx(call_gflop, rel=0.005)
  counted = flops.train_flops(built, seq_len) / 1e12
  assert counted == pytest.approx(step_tflop, rel=0.005)


def test_a_frozen_network_has_half_a_backward_pass():
  config = sudoku.get_config()
  whole = flops.train_flops(config_lib.from_config_dict(config), 81)
  config.train.frozen_network = True
  frozen = flops.train_flops(config_lib.from_config_dict(config), 81)
  # T n+1 calls forward; of the last n+1 also two products back, or one.
  assert frozen / whole == pytest.approx((3 + 1) / (3 + 2))


def test_attention_of_a_frozen_network_has_its_whole_backward_pass():
  config = maze.get_config()
  whole = flops.train_flops(config_lib.from_config_dict(config), 900)
  config.train.frozen_network = True
  frozen = flops.train_flops(config_lib.from_config_dict(config), 900)
  assert (3 + 1) / (3 + 2) < frozen / whole < 1


def test_looking_ahead_doubles_the_calls_without_gradient():
  config = sudoku.get_config()
  whole = flops.train_flops(config_lib.from_config_dict(config), 81)
  config.train.halt_rule = "halt_over_continue"
  ahead = flops.train_flops(config_lib.from_config_dict(config), 81)
  assert ahead / whole == pytest.approx((3 + 2 + 3) / (3 + 2))


def test_an_evaluation_has_all_steps_and_no_backward_pass():
  config = sudoku.get_config()
  built = config_lib.from_config_dict(config)
  per_call = flops.network_flops(built.model, 97) * config.eval.batch_size
  calls = flops.evaluate_flops(built, 81) / per_call
  assert calls == pytest.approx(16 * 3 * (6 + 1))


@pytest.mark.parametrize(
  ("config", "free", "with_gradient"),
  [
    (sudoku.get_config(), 14, 7),
    (hrm.get_config(), 4, 2),
    (ablations.get_config("one_step_gradient"), 19, 2),
    (ablations.get_config("single_latent"), 14, 7),
    (ablations.get_config("direct"), 0, 1),
  ],
)
def test_network_calls_without_and_with_gradient(config, free, with_gradient):
  model = config_lib.from_config_dict(config).model
  assert flops.network_calls(model) == (free, with_gradient)
