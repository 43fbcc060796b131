"""Names of variants that `core` knows are checked before any work."""

import pytest
import tiny

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import train_step
from trm_jax.core.kernels import swiglu
from trm_jax.data import tasks
from trm_jax.runtime import flops, mesh, program, setting_checks

SIZES = program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=1)


@pytest.mark.parametrize(
  ("name", "known"),
  [
    ("model.token_mixing", "attention, mlp"),
    ("model.mlp_gate", "silu, normed"),
    ("model.recursion_type", "two_latents, single_latent"),
    ("optimizer.name", "adam_atan2, adamw, muon"),
    ("train.answer_loss", "stablemax, softmax"),
  ],
)
def test_an_unknown_variant_is_named_with_the_known_ones(
  name, known, monkeypatch
):
  config = config_lib.changed(tiny.config(), {name: "other"})
  text = f"^config.{name} is 'other'; choose one of {known}"
  with pytest.raises(errors.UserError, match=text):
    program.build(config, SIZES, mesh.make_mesh(1))
  # Before the data are read.
  monkeypatch.setattr(tasks, "load", lambda _: pytest.fail("data were read"))
  with pytest.raises(errors.UserError, match=text):
    program.load(config)


def test_flops_of_an_unknown_variant_are_not_guessed():
  built = program.build(tiny.config(), SIZES, mesh.make_mesh(1))
  model = built.model.with_network(token_mixing="other")
  with pytest.raises(ValueError, match="unknown token_mixing 'other'; choose"):
    flops.network_flops(model)
  config = config_lib.changed(tiny.config(), {"model.recursion_type": "other"})
  with pytest.raises(ValueError, match="unknown recurrence 'other'; choose"):
    flops.network_calls(config.model)


def test_a_new_gate_needs_one_entry(monkeypatch):
  gates = dict(swiglu.GATES) | {"product": lambda gate, up, **_: gate * up}
  monkeypatch.setattr(swiglu, "GATES", gates)
  monkeypatch.setitem(setting_checks._NAMED, "model.mlp_gate", gates)
  config = config_lib.changed(tiny.config(), {"model.mlp_gate": "product"})
  built = program.build(config, SIZES, mesh.make_mesh(1))
  assert built.model.network_config.mlp_gate == "product"
  assert built.abstract_state().params["network"]


def test_the_settings_reach_the_step(monkeypatch):
  config = config_lib.changed(
    tiny.config(),
    {
      "train.exploration_prob": 0.3,
      "train.freeze_network": True,
      "optimizer.ema_decay": 0.25,
      "optimizer.warmup_steps": 2,
      "optimizer.puzzle_learning_rate": 0.5,
      "optimizer.puzzle_weight_decay": 0.125,
    },
  )
  seen = []
  make = train_step.make_train_step

  def spy(model, optimizer, step_config, **arguments):
    seen.append(step_config)
    return make(model, optimizer, step_config, **arguments)

  monkeypatch.setattr(train_step, "make_train_step", spy)
  program.build(config, SIZES, mesh.make_mesh(1)).train_step()
  (step_config,) = seen
  assert step_config.exploration_prob == 0.3
  assert step_config.freeze_network
  assert step_config.ema_decay == 0.25
  assert step_config.puzzle_weight_decay == 0.125
  # After the warm-up.
  assert float(step_config.puzzle_learning_rate(3)) == 0.5
