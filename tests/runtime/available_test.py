"""Devices, memory and variables of JAX: what is not there is one line."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest
import tiny

from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.runtime import (
  checkpoint_metadata,
  command_line,
  processes,
  program,
)

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def _error_of_devices(**variables) -> str:
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  ended = subprocess.run(
    [
      sys.executable,
      "-c",
      "from trm_jax import errors\nfrom trm_jax.runtime import devices\n"
      "try:\n  devices.check_available()\n"
      "except errors.UserError as error:\n  print(error)",
    ],
    cwd=ROOT,
    env={**environment, **variables},
    capture_output=True,
    text=True,
    check=True,
  )
  return ended.stdout


@pytest.mark.parametrize("name", ["cuda", "nonsense"])
def test_a_device_that_is_not_there(name):
  text = _error_of_devices(JAX_PLATFORMS=name)
  assert text.startswith(f"JAX cannot use JAX_PLATFORMS={name} here (")
  assert "it has " in text
  assert "cpu" in text
  assert text.count("\n") == 1


def test_no_device_at_all():
  text = _error_of_devices(JAX_PLATFORMS="cpu", JAX_NUM_CPU_DEVICES="0")
  assert "XLA_FLAGS and JAX_NUM_CPU_DEVICES must leave at least one" in text
  assert text.count("\n") == 1


def test_a_variable_that_is_no_number(monkeypatch):
  monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "many")
  with pytest.raises(errors.UserError, match="SLURM_STEP_NUM_TASKS is 'many'"):
    processes.check_alone("predict")


@pytest.mark.parametrize(
  ("name", "value", "text"),
  [
    ("JAX_NUM_CPU_DEVICES", "many", "JAX does not start: "),
    ("JAX_NUMPY_DTYPE_PROMOTION", "strict", "JAX_NUMPY_DTYPE_PROMOTION=strict"),
    ("JAX_TRANSFER_GUARD", "disallow", "JAX_TRANSFER_GUARD"),
  ],
)
def test_what_jax_or_trm_jax_cannot_run_under(name, value, text):
  """Before anything else of it is used, so a process of its own."""
  ended = subprocess.run(
    [
      *(sys.executable, "-m", "trm_jax.main", "--mode=evaluate"),
      *("--config=experiments/quickstart.py", "--workdir=nowhere"),
    ],
    cwd=ROOT,
    env={**os.environ, name: value},
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 1
  (line,) = ended.stderr.splitlines()
  assert line.startswith(f"error: {text}")


# --- memory ------------------------------------------------------------------


@pytest.mark.parametrize(
  ("changes", "named"),
  [
    (
      {"train.batch_size": 2**24, "model.hidden_size": 1024},
      "config.train.batch_size",
    ),
    pytest.param(
      {"model.hidden_size": 2**16, "model.num_layers": 64},
      "config.model.hidden_size",
      marks=pytest.mark.slow,
    ),
    ({"eval.batch_size": 2**24, "model.hidden_size": 8192}, "config.eval."),
  ],
)
def test_what_exceeds_the_memory_is_said_before_anything_is_made(
  tmp_path, changes, named
):
  config = config_lib.changed(tiny.config(), changes)
  with pytest.raises(errors.UserError, match=r"out of memory: ") as caught:
    train.train(config, str(tmp_path / "run"))
  assert f"lower {named}" in str(caught.value)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "error",
  [
    MemoryError("unable to allocate"),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory: 1 GiB"),
  ],
)
def test_memory_that_ends_on_the_way_is_one_line(error, monkeypatch, capfd):
  def fails(command, **_):
    raise error

  monkeypatch.setattr(command_line.app, "run", fails)
  monkeypatch.setattr(command_line.streams, "install", lambda: None)
  monkeypatch.setattr(command_line.interrupts, "install", lambda: None)
  with pytest.raises(SystemExit) as ended:
    command_line.run(lambda argv: None)
  assert ended.value.code == 1
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith("error: out of memory (")
  assert "lower config.train.batch_size" in line


def test_another_error_of_jax_is_not_about_memory():
  assert not errors.is_out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: x"))
  assert not errors.is_out_of_memory(ValueError("Out of memory"))


# --- random numbers ----------------------------------------------------------


def test_other_random_numbers_are_said():
  built = program.load(tiny.config())
  saved = checkpoint_metadata.make_metadata(
    built.program.config, built.task, "", 0
  )
  saved = checkpoint_metadata.Metadata.from_json(
    json.loads(json.dumps(saved.to_json()))
  )
  assert saved.random["JAX_DEFAULT_PRNG_IMPL"] == "threefry2x32"
  assert not checkpoint_metadata.other_random_settings(saved)
  before = jax.config.values["jax_threefry_partitionable"]
  jax.config.update("jax_threefry_partitionable", not before)
  try:
    text = checkpoint_metadata.other_random_settings(saved)
  finally:
    jax.config.update("jax_threefry_partitionable", before)
  assert f"JAX_THREEFRY_PARTITIONABLE was {before} and is {not before}" in text


def test_a_checkpoint_that_does_not_say_is_read():
  built = program.load(tiny.config())
  values = checkpoint_metadata.make_metadata(
    built.program.config, built.task, "", 0
  ).to_json()
  del values["random"], values["checksum"]
  values["checksum"] = checkpoint_metadata._checksum(values)
  saved = checkpoint_metadata.Metadata.from_json(values)
  assert not checkpoint_metadata.other_random_settings(saved)
