"""XLA's options for the steps: whose they are, and what they keep it from."""

import re

import jax
import numpy as np
import pytest
import tiny

from trm_jax import compiler_options, program, sharding
from trm_jax import config as config_lib

LIBRARY = "xla_cpu_experimental_ynn_fusion_type"


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_have_none(platform):
  assert not compiler_options.of(platform)


def test_what_the_user_sets_is_left_to_the_user(monkeypatch):
  assert LIBRARY in compiler_options.of("cpu")
  monkeypatch.setenv("XLA_FLAGS", f"--xla_a=b --{LIBRARY}= --xla_c=d")
  assert not compiler_options.of("cpu")


@pytest.fixture(scope="module")
def mlp() -> program.Program:
  """A program that mixes tokens by an MLP, with norms over the sequence."""
  config = tiny.config_dict()
  config.model.hidden_size = config.model.puzzle_vector_size = 64
  return program.build(
    config_lib.from_config_dict(config),
    program.Sizes(vocab_size=5, seq_len=16, num_puzzle_ids=1),
    sharding.make_mesh(1),
  )


def _sums_in_library(compiled: jax.stages.Compiled) -> int:
  """Counts the calls of the library of products that sum up other things."""
  text = compiled.as_text()
  names = re.findall(r"calls=(%[\w.-]+)[^\n]*__ynn_fusion", text)
  bodies = [
    re.search(rf"^{re.escape(name)} .*?^}}", text, re.MULTILINE | re.DOTALL)
    for name in names
  ]
  return sum(" reduce(" in body.group() for body in bodies if body)


def test_training_has_the_library_multiply_and_nothing_else(mlp):
  step = mlp.train_step().lower(mlp.abstract_state(), mlp.abstract_batch(8))
  assert not _sums_in_library(step.compile())
  # XLA's own choice.
  both = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
  assert _sums_in_library(step.compile({LIBRARY: both}))


def test_so_has_evaluation(mlp):
  state, batch = mlp.abstract_state(), mlp.abstract_batch(8)
  rows = sharding.put_rows(np.ones(8, bool), mlp.mesh)
  lowered = mlp.evaluate_batch().lower(state.averaged_weights, batch, rows)
  assert not _sums_in_library(lowered.compile())
