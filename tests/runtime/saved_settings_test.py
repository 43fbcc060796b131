"""The settings beside a checkpoint, and what is typed over them."""

import dataclasses
import json
import sys

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


@pytest.fixture(autouse=True)
def _command_line(monkeypatch):
  monkeypatch.setattr(sys, "argv", sys.argv)
  monkeypatch.setattr(command_line, "_overrides", [])


def _changed(*arguments):
  assert command_line._parse(["main", *arguments]) == ["main"]
  return command_line.changed(tiny.config())


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
  changed = _changed(
    "--config.eval.solver=adaptive",
    "--config.eval.halt_threshold=0.9",
    "--config.eval.batch_size",
    "3",
    "--config.train.freeze_network=False",
    "--config.name=two words = one name",
  )
  assert changed.name == "two words = one name"
  assert changed.train.freeze_network is False
  assert changed.eval == dataclasses.replace(
    tiny.config().eval, solver="adaptive", halt_threshold=0.9, batch_size=3
  )


def test_settings_change_an_experiment_that_is_named_after_them(monkeypatch):
  given = ["--config.seed=7", "--config", "experiments/quickstart.py"]
  words = command_line._parse(["main", *given])
  assert words == ["main"]
  assert command_line.config().seed == 7
  assert not command_line._overrides


@pytest.mark.parametrize(
  ("argument", "text"),
  [
    ("config.eval.solvr=x", "did you mean config.eval.solver?"),
    ("config.evil=x", "there is no setting config.evil"),
    ("config.eval.rollouts=x", "config.eval.rollouts is 'x'; it must be an"),
    (
      "config.eval.rollouts=2.5",
      "config.eval.rollouts is '2.5'; it must be an",
    ),
    ("config.eval.rollouts=", "config.eval.rollouts is ''; it must be an"),
    ("config.eval.rollouts=print(1)", "must be an integer"),
    ("config.eval.rollouts", "config.eval.rollouts has no value"),
    ("config.eval.solver=slow", "choose one of fixed, adaptive, rollouts"),
    (
      "config.train.freeze_network=2",
      "config.train.freeze_network is '2'; it must be True or False",
    ),
  ],
)
def test_a_mistake_is_one_line(argument, text):
  with pytest.raises(errors.UserError) as error:
    _changed(f"--{argument}")
  assert text in str(error.value)
  assert "\n" not in str(error.value)


def test_other_settings_than_this_version_knows_are_named(tmp_path):
  run = program.load(tiny.config())
  saved = checkpoint_metadata.make_metadata(run.program.config, run.task, "", 0)
  strange = dataclasses.replace(saved, settings={**saved.settings, "eval.x": 1})
  with pytest.raises(errors.UserError, match=r"config\.eval\.x.*--config"):
    restore.settings_of(strange, "RUN")


def test_a_number_below_zero_is_no_flag():
  words = ["--config.model.x", "-3", "--config.train.y", "-.5e2", "-z=3"]
  with pytest.raises(errors.UserError):  # there is no flag z
    command_line._parse(["main", "--config=experiments/base.py", *words])
  assert sys.argv[-2:] == ["--config.model.x=-3", "--config.train.y=-.5e2"]
