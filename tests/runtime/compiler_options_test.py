"""XLA's options for the steps: whose they are, and what they keep it from."""

import re

import jax
import pytest
import tiny

from benchmarks import solve, train_step
from trm_jax import config as config_lib
from trm_jax.runtime import devices, mesh, program

LIBRARY = "xla_cpu_experimental_ynn_fusion_type"
VECTORS = "xla_cpu_prefer_vector_width"
NEW_CPU = devices.Chip("cpu", cpu_has_bfloat16=True)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_have_none(platform):
  assert not devices.compiler_options(devices.Chip(platform), "bfloat16")


@pytest.mark.parametrize(
  ("on", "dtype", "expected"),
  [
    (NEW_CPU, "bfloat16", {LIBRARY, VECTORS}),
    (NEW_CPU, "float32", {LIBRARY}),
    (devices.Chip("cpu"), "bfloat16", {LIBRARY}),
  ],
)
def test_cpus_that_multiply_bfloat16_have_wider_vectors_for_it(
  on, dtype, expected
):
  assert set(devices.compiler_options(on, dtype)) == expected


@pytest.mark.parametrize(
  ("mine", "theirs"), [(LIBRARY, VECTORS), (VECTORS, LIBRARY)]
)
def test_what_the_user_sets_is_left_to_the_user(monkeypatch, mine, theirs):
  monkeypatch.setenv("XLA_FLAGS", f"--xla_a=b --{mine}=256 --xla_c=d")
  assert set(devices.compiler_options(NEW_CPU, "bfloat16")) == {theirs}


def test_xla_takes_all_of_them():
  options = devices.compiler_options(NEW_CPU, "bfloat16")
  double = jax.jit(lambda x: 2 * x, compiler_options=options)
  assert double(3.0) == 6.0


@pytest.fixture(scope="module")
def mlp() -> program.Program:
  """A program that mixes tokens by an MLP, with norms over the sequence."""
  config = tiny.config_dict()
  config.model.hidden_size = config.model.puzzle_embed_dim = 64
  return program.build(
    config_lib.from_config_dict(config),
    program.DataSpec(vocab_size=5, seq_len=16, num_puzzle_ids=1),
    mesh.make_mesh(1),
  )


def _compiled(step, **options) -> jax.stages.Compiled:
  return step.function.lower(*step.arguments).compile(options)


def _sums_in_library(compiled: jax.stages.Compiled) -> int:
  """Counts the calls of the library of products that sum up other things."""
  text = compiled.as_text()
  called = re.findall(r"calls=%([\w.-]+).*__ynn_fusion", text)
  assert called
  bodies = (text.partition(f"\n%{name} (")[2] for name in called)
  return sum(" reduce(" in body.partition("\n}")[0] for body in bodies)


def test_training_has_the_library_multiply_and_nothing_else(mlp):
  step = train_step.step_of(mlp)
  assert not _sums_in_library(_compiled(step))
  # XLA's own choice.
  both = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
  assert _sums_in_library(_compiled(step, **{LIBRARY: both}))


def test_so_has_evaluation(mlp):
  assert not _sums_in_library(_compiled(solve.step_of(mlp)))
