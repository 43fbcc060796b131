"""The way to the first step: nothing twice, and nothing that can wait."""

import collections
import subprocess
import sys

import command_line
import jax
import pytest
import tiny

from trm_jax import config as config_lib
from trm_jax import train
from trm_jax.runtime import mesh

make_mesh = mesh.make_mesh


@pytest.fixture
def compiled():
  """Counts what is compiled, by the function's name."""
  counts = collections.Counter()

  def listen(event, _, **details):
    if event == "/jax/core/compile/backend_compile_duration":
      counts[details["fun_name"]] += 1

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield counts
  jax.monitoring.unregister_event_duration_listener(listen)


def tiny_config(num_steps: int) -> config_lib.Config:
  config = tiny.config_dict()
  config.train.num_steps = num_steps
  config.eval.every_steps = 1
  config.checkpoint.every_steps = 1
  return config_lib.from_config_dict(config)


@pytest.mark.slow
def test_nothing_is_compiled_twice(tmp_path, monkeypatch, compiled):
  """Not even with several evaluations, and in a run that goes on."""
  # Of arrays that several devices have, Orbax has each save a slice.
  monkeypatch.setattr(mesh, "make_mesh", lambda: make_mesh(1))
  train.train(tiny_config(num_steps=2), str(tmp_path))
  assert set(compiled.values()) == {1}, compiled
  assert set(compiled) >= {
    "jit(init)",
    "jit(train_step)",
    "jit(evaluate_batch)",
  }

  compiled.clear()
  train.train(tiny_config(num_steps=4), str(tmp_path))
  assert set(compiled.values()) == {1}, compiled
  assert "jit(init)" not in compiled  # the checkpoint has it all
  assert "jit(train_step)" in compiled


@pytest.mark.slow
def test_a_second_start_is_silent_and_equal(tmp_path, monkeypatch):
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  metrics = []
  for name in ("cold", "warm"):
    result = command_line.run(
      "--config.data.num_train=8",
      "--config.data.num_test=4",
      "--config.model.hidden_size=32",
      "--config.model.puzzle_embed_dim=32",
      "--config.model.latent_updates=1",
      "--config.train.batch_size=4",
      "--config.train.num_steps=2",
      "--config.eval.batch_size=4",
      "--config.log.every_steps=1",
      f"--workdir={tmp_path / name}",
      compiles_fast=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    metrics.append(
      [
        line.partition("slot_steps_per_second")[0]
        for line in (tmp_path / name / "metrics.jsonl").read_text().split("\n")
      ]
    )
  assert metrics[0] == metrics[1]
  kept = (tmp_path / "cache/trm_jax/programs").glob("jit_train_step-*-cache")
  assert len(list(kept)) == 1


def test_what_no_step_needs_is_imported_when_it_is_needed():
  loaded = subprocess.run(
    [
      sys.executable,
      "-c",
      "import sys\nfrom trm_jax import train\n"
      "from trm_jax.evaluation import evaluate\nprint(*sys.modules)",
    ],
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert "jax" in loaded
  assert not {"matplotlib", "tensorboardX", "torch"} & set(loaded)
