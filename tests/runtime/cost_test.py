"""Products counted by hand, against the published sizes."""

import math

import jax
import pytest

from experiments import ablations, arc, hrm, maze, sudoku
from tests import tiny
from trm_jax import config as config_lib
from trm_jax.runtime import flops, mesh, model_factory, program


def _model(config, seq_len):
  return model_factory.build_model(config.model, vocab_size=11, seq_len=seq_len)


def _train_flops(config, seq_len):
  built = config_lib.from_config_dict(config)
  return flops.train_flops(built, _model(built, seq_len))


@pytest.mark.parametrize(
  ("config", "seq_len", "call_gflop", "step_tflop"),
  [(sudoku.get_config(), 81, 1.22, 32.8), (arc.get_config(), 900, 15.9, 305)],
  ids=["mlp", "attention"],
)
def test_products_of_a_call_and_of_a_step(
  config, seq_len, call_gflop, step_tflop
):
  built = config_lib.from_config_dict(config)
  counted = flops.network_flops(_model(built, seq_len)) / 1e9
  assert counted == pytest.approx(call_gflop, rel=0.005)
  counted = flops.train_flops(built, _model(built, seq_len)) / 1e12
  assert counted == pytest.approx(step_tflop, rel=0.005)


def test_a_frozen_network_has_half_a_backward_pass():
  config = sudoku.get_config()
  whole = _train_flops(config, 81)
  config.train.freeze_network = True
  frozen = _train_flops(config, 81)
  # T n+1 calls forward; of the last n+1 also two products back, or one.
  assert frozen / whole == pytest.approx((3 + 1) / (3 + 2))


def test_attention_of_a_frozen_network_has_its_whole_backward_pass():
  config = maze.get_config()
  whole = _train_flops(config, 900)
  config.train.freeze_network = True
  frozen = _train_flops(config, 900)
  assert (3 + 1) / (3 + 2) < frozen / whole < 1


def test_looking_ahead_doubles_the_calls_without_gradient():
  config = sudoku.get_config()
  whole = _train_flops(config, 81)
  config.train.halt_rule = "halt_over_continue"
  ahead = _train_flops(config, 81)
  assert ahead / whole == pytest.approx((3 + 2 + 3) / (3 + 2))


def test_an_evaluation_has_all_steps_and_no_backward_pass():
  config = sudoku.get_config()
  built = config_lib.from_config_dict(config)
  model = _model(built, 81)
  per_call = flops.network_flops(model) * config.eval.batch_size
  calls = flops.evaluate_flops(built, model) / per_call
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


# --- against the network -----------------------------------------------------


def _traced_flops(jaxpr) -> int:
  """Counts the matrix products of a traced function, loops included."""
  total = 0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    assert name != "while", "a loop of unknown length"
    if name == "dot_general":
      (contracted, _), _ = params["dimension_numbers"]
      left = equation.invars[0].aval.shape
      (out,) = equation.outvars
      depth = math.prod(left[axis] for axis in contracted)
      total += 2 * math.prod(out.aval.shape) * depth
    for inner in jax.tree.leaves(
      params, is_leaf=lambda each: hasattr(each, "eqns")
    ):
      if hasattr(inner, "eqns"):
        total += _traced_flops(inner) * params.get("length", 1)
  return total


@pytest.mark.parametrize(
  "settings",
  [
    {"model.token_mixing": "mlp"},
    {"model.token_mixing": "attention"},
    {"model.token_mixing": "mlp", "train.freeze_network": True},
    {"model.token_mixing": "attention", "train.freeze_network": True},
    {"model.num_layers": 3, "train.halt_rule": "halt_over_continue"},
    {"model.gradient_updates": 1},
  ],
)
def test_products_are_those_of_the_traced_steps(settings):
  """But for the heads, which are under 1 %."""
  config = tiny.config_dict()
  config.update_from_flattened_dict(
    {
      "model.hidden_size": 64,
      "model.num_layers": 2,
      "model.recursion_cycles": 2,
      "model.latent_updates": 3,
      "model.remat": "none",
    }
    | settings
  )
  built = program.build(
    config_lib.from_config_dict(config),
    program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=1),
    mesh.make_mesh(1),
  )
  state, batch = built.abstract_state(), built.abstract_batch(8)
  traced = built.train_step().trace(state, batch)
  counted = flops.train_flops(built.config, built.model)
  assert 1 <= _traced_flops(traced.jaxpr) / counted < 1.01
  rows = jax.ShapeDtypeStruct((8,), bool, sharding=batch.puzzle_ids.sharding)
  traced = built.evaluate_batch().trace(state.ema_weights, batch, rows)
  counted = flops.evaluate_flops(built.config, built.model)
  assert 1 <= _traced_flops(traced.jaxpr) / counted < 1.01
