"""What is kept for the backward pass where the settings leave it open."""

import pytest

from experiments import sudoku
from tests import small_model, tiny
from trm_jax import config as config_lib
from trm_jax.runtime import devices, mesh, model_factory, program

CPU, GPU, TPU = (devices.Chip(name) for name in ("cpu", "gpu", "tpu"))
GIB = 2**30


def _choose(model, *, room, chip=CPU, slots=4):
  return model_factory.choose_remat(
    model, calls=3, slots=slots, room=room, chip=chip
  )


@pytest.mark.parametrize("token_mixing", ["mlp", "attention"])
def test_all_is_kept_where_it_fits(token_mixing):
  model = small_model.model(token_mixing)
  # (A small model computes in float32, as all are expected to on a CPU.)
  needed = 3 * model_factory.bytes_of_call(model, 4) / 0.8
  for chip in (CPU, GPU):
    assert _choose(model, room=needed + 1, chip=chip) == ("none", True)
    assert _choose(model, room=needed - 1, chip=chip) == ("full", False)


def test_all_is_computed_again_on_tpu_and_where_nothing_is_known():
  model = small_model.model()
  assert _choose(model, room=1 << 40, chip=TPU) == ("full", False)
  assert _choose(model, room=0) == ("full", False)
  assert _choose(model, room=-1) == ("full", False)


@pytest.mark.parametrize(
  ("token_mixing", "dtype", "least", "most"),
  [
    ("mlp", "float32", 0.7, 1.3),
    # What is computed in bfloat16 is expected to be kept in float32.
    pytest.param("attention", "bfloat16", 0.4, 1.3, marks=pytest.mark.slow),
  ],
)
def test_what_is_expected_is_what_xla_needs(token_mixing, dtype, least, most):
  """Of Sudoku's network as published, on a CPU, two calls, unrolled."""
  config = sudoku.get_config(token_mixing if token_mixing != "mlp" else "")
  with config.unlocked():
    config.model.update(
      compute_dtype=dtype,
      latent_updates=1,
      recursion_cycles=1,
      remat="none",
    )
    config.train.batch_size = config.eval.batch_size = 6
  built = program.build(
    config_lib.from_config_dict(config),
    program.DataSpec(vocab_size=11, seq_len=81, num_puzzle_ids=1),
    mesh.make_mesh(1),
  )
  step = built.train_step().lower(
    built.abstract_state(), built.abstract_batch(6)
  )
  needed = step.compile().memory_analysis().temp_size_in_bytes
  model = built.model.with_network(compute_dtype="float32")
  expected = 2 * model_factory.bytes_of_call(model, 6)
  assert least * expected < needed < most * expected
  # And so it is decided.
  for spare, decided in ((1, ("none", True)), (-1, ("full", False))):
    found = model_factory.choose_remat(
      built.model, calls=2, slots=6, room=expected / 0.8 + spare, chip=CPU
    )
    assert found == decided


def _built(memory_bytes, **knobs):
  config = tiny.config_dict()
  with config.unlocked():
    config.model.update(knobs)
  return program.build(
    config_lib.from_config_dict(config),
    program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=100_000),
    mesh.make_mesh(2),
    memory_bytes=memory_bytes,
  ).model


def test_a_program_follows_the_memory_of_its_devices():
  half_a_table = 50_000 * 16 * 4
  plenty = _built(half_a_table + GIB)
  assert (plenty.remat, plenty.unroll) == ("none", True)
  little = _built(half_a_table + 1000)
  assert (little.remat, little.unroll) == ("full", False)
  here = _built(None)  # of this machine
  assert here.remat == "none"


def test_what_the_settings_say_is_done():
  for remat in ("dots", "full", "none"):
    model = _built(GIB, remat=remat)
    assert (model.remat, model.unroll) == (remat, remat == "none")
