"""The settings beside a checkpoint, and what is typed over them."""

import dataclasses
import json
import types

import pytest
import saved_run
import tiny

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.runtime import (
  checkpoint_metadata,
  command_line,
  program,
  restore,
)


def _changed(*arguments):
  command_line._CHANGES.clear()
  left = command_line._without_changes(list(arguments))
  try:
    return command_line.changed(tiny.config()), left
  finally:
    command_line._CHANGES.clear()


def test_settings_come_back_out_of_a_checkpoint(tmp_path):
  run = program.load(tiny.config())
  saved_run.save(run, tmp_path, {3: 0.5})
  assert restore.saved_config(str(tmp_path)) == tiny.config()
  assert restore.saved_config(str(tmp_path), "best") == tiny.config()


def test_settings_survive_json():
  for one in (tiny.config(), tiny.config()):
    flat = json.loads(json.dumps(config_lib.flatten(one)))
    assert config_lib.unflatten(flat) == one


def test_what_is_typed_has_the_type_of_what_was_there():
  changed, left = _changed(
    "--workdir=RUN",
    "--config.eval.solver=adaptive",
    "--config.eval.halt_threshold=0.9",
    "--config.eval.batch_size=3",
    "--config.train.frozen_network=False",
    "--config.name=two words = one name",
  )
  assert left == ["--workdir=RUN"]
  assert changed.name == "two words = one name"
  assert changed.train.frozen_network is False
  assert changed.eval == dataclasses.replace(
    tiny.config().eval,
    solver="adaptive",
    halt_threshold=0.9,
    batch_size=3,
  )


@pytest.mark.parametrize(
  ("argument", "text"),
  [
    ("config.eval.solvr=x", "did you mean config.eval.solver?"),
    ("config.evil=x", "there is no setting config.evil"),
    ("config.eval.rollouts=x", "config.eval.rollouts is 'x'; it must be of"),
    ("config.eval.rollouts=2.5", "config.eval.rollouts is 2.5; it must be of"),
    ("config.eval.rollouts=", "config.eval.rollouts is ''; it must be of type"),
    ("config.eval.rollouts=print(1)", "must be of type int"),
    ("config.eval.rollouts", "config.eval.rollouts has no value"),
    ("config.eval.solver=slow", "choose one of fixed, adaptive, rollouts"),
    (
      "config.train.frozen_network=2",
      "config.train.frozen_network is 2; it must be of type bool",
    ),
  ],
)
def test_a_mistake_is_one_line(argument, text):
  with pytest.raises(errors.UserError) as error:
    _changed(f"--{argument}")
  assert text in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(("steps", "shown"), [(3, (1, 2, 3)), (4, (1, 2, 4))])
def test_other_steps_are_reported_as_far_as_they_go(steps, shown):
  changed, _ = _changed(f"--config.eval.supervision_steps={steps}")
  assert changed.eval.report_steps == shown


def _of_before(**settings):
  """The description of a checkpoint of before some settings existed."""
  run = program.load(config_lib.changed(tiny.config(), settings))
  saved = checkpoint_metadata.describe(
    run.program.config, run.task, "", 0
  ).to_json()
  for name in checkpoint_metadata._ADDED_LATER:
    del saved["settings"][name]
  saved["checksum"] = checkpoint_metadata._checksum(
    {name: value for name, value in saved.items() if name != "checksum"}
  )
  return checkpoint_metadata.Description.from_json(saved)


# What checkpoints named before `description._ADDED_LATER` was begun.
_FIRST = {
  "": "name seed",
  "checkpoint.": "every_steps keep_best keep_last start_from",
  "data.": """augmentation box_cols box_rows cache_dir charset dihedral
    grid_cols grid_rows identifiers num_clues num_test num_train num_variants
    relabel seed source subsets task
    test_subset""",
  "eval.": """batch_size checkpoint every_steps supervision_steps
    tasks variants""",
  "log.": "every_steps",
  "model.": """attention_kernel compute_dtype hidden_size latent_updates
    mlp_expansion mlp_multiple norm_epsilon num_heads num_layers
    num_prefix_tokens positions puzzle_vector_size recursion_cycles remat
    rope_base token_mixing""",
  "optimizer.": """beta1 beta2 ema_decay learning_rate min_learning_rate_ratio
    muon_learning_rate muon_momentum name puzzle_learning_rate
    puzzle_weight_decay warmup_steps weight_decay""",
  "train.": """answer_loss batch_size exploration_prob frozen_network
    halt_loss_weight halt_rule max_minutes max_supervision_steps microbatches
    num_steps""",
}


def test_every_setting_since_then_is_known_to_have_been_added():
  """Or no older checkpoint could be opened without naming its experiment."""
  first = {
    group + name for group, names in _FIRST.items() for name in names.split()
  }
  now = config_lib.flatten(tiny.config()).keys()
  assert now - first == checkpoint_metadata._ADDED_LATER.keys()


def test_older_checkpoints_have_what_was_added_later():
  """They are of TRM as it was: all that came later is off."""
  found = config_lib.unflatten(_of_before().settings)
  assert found == dataclasses.replace(
    tiny.config(), optimizer=found.optimizer, eval=found.eval
  )
  assert found.eval.solver == "fixed"
  assert found.optimizer.max_gradient_norm == 0


def test_the_decay_of_older_runs_with_muon_was_that_of_all_parameters():
  found = config_lib.unflatten(
    _of_before(**{"optimizer.name": "muon"}).settings
  )
  decay = tiny.config().optimizer.weight_decay
  assert found.optimizer.muon_weight_decay == decay


def test_other_settings_than_this_version_knows_are_named(tmp_path):
  run = program.load(tiny.config())
  saved = checkpoint_metadata.describe(run.program.config, run.task, "", 0)
  strange = dataclasses.replace(saved, settings={**saved.settings, "eval.x": 1})
  with pytest.raises(errors.UserError, match=r"config\.eval\.x.*--config"):
    restore.settings_of(strange, "RUN")


def test_ctrl_c_promises_only_what_holds(monkeypatch):
  for mode, text in (
    ("predict", "what was not announced as written is not there"),
    ("train", "goes on from the last checkpoint"),
  ):
    fake = types.SimpleNamespace(FLAGS=types.SimpleNamespace(mode=mode))
    monkeypatch.setattr(command_line, "flags", fake)
    assert text in command_line._interrupted()
