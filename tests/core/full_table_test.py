"""The puzzle table at full size: a step touches its rows in place."""

import functools
import math
import re

import command_line
import jax
import jax.numpy as jnp
import pytest

from experiments import arc
from tests import collectives
from trm_jax import config as config_lib
from trm_jax.runtime import mesh, program

ROWS, WIDTH = 876_406, 512  # ARC-AGI-1's
TABLE_BYTES = ROWS * WIDTH * 4
NUM_DEVICES = 8


@functools.cache
def _program(rows, num_devices=1):
  """A narrow network with a table of `rows` rows of full width."""
  config = arc.get_config("smoke")
  config.model.recursion_cycles = 1
  config.model.puzzle_embed_dim = WIDTH
  config.model.num_prefix_tokens = WIDTH // config.model.hidden_size
  return program.build(
    config_lib.from_config_dict(config),
    program.DataSpec(vocab_size=12, seq_len=900, num_puzzle_ids=rows),
    mesh.make_mesh(num_devices),
  )


@functools.cache
def _compiled(rows, num_devices=1):
  """The training step of a narrow network, compiled; nothing is allocated."""
  run = _program(rows, num_devices)
  batch = run.abstract_batch(run.config.train.batch_size)
  lowered = run.train_step().lower(run.abstract_state(), batch)
  return lowered.compile(command_line.AS_USERS_COMPILE)


@functools.cache
def _compiled_evaluation():
  run = _program(ROWS, NUM_DEVICES)
  size = run.config.eval.batch_size
  by_row = mesh.split(run.mesh)
  return (
    run.evaluate_batch()
    .lower(
      run.abstract_state().ema_weights,
      run.abstract_batch(size),
      jax.ShapeDtypeStruct((size,), jnp.bool_, sharding=by_row),
    )
    .compile(command_line.AS_USERS_COMPILE)
  )


@pytest.mark.slow
def test_the_table_is_updated_in_place():
  memory = _compiled(ROWS).memory_analysis()
  assert memory.alias_size_in_bytes >= TABLE_BYTES


@pytest.mark.slow
def test_the_step_needs_no_more_memory_for_a_big_table():
  big, small = (_compiled(rows).memory_analysis() for rows in (ROWS, 1))
  added = big.temp_size_in_bytes - small.temp_size_in_bytes
  assert added < TABLE_BYTES / 1000


def test_nothing_but_the_update_makes_an_array_of_its_size():
  shape = re.escape(f"f32[{ROWS},{WIDTH}]")
  made = re.findall(rf"= {shape}\S* (\w[\w-]*)\(", _compiled(ROWS).as_text())
  # The compiler may wrap the one scatter into a fusion.
  assert 1 <= made.count("scatter") + made.count("fusion") <= 2
  assert set(made) <= {"parameter", "scatter", "fusion", "get-tuple-element"}


# --- on eight devices ------------------------------------------------------


@pytest.mark.slow
def test_each_device_holds_its_share_of_the_table_alone():
  alone = _compiled(ROWS).memory_analysis()
  shared = _compiled(ROWS, NUM_DEVICES).memory_analysis()
  share = math.ceil(ROWS / NUM_DEVICES) * WIDTH * 4
  others = alone.argument_size_in_bytes - TABLE_BYTES
  assert share <= shared.argument_size_in_bytes <= share + others
  assert shared.alias_size_in_bytes >= share
  without = _compiled(1, NUM_DEVICES).memory_analysis()
  added = shared.temp_size_in_bytes - without.temp_size_in_bytes
  assert added < share / 1000


@pytest.mark.slow
def test_the_network_s_gradients_are_what_travels_and_never_the_table():
  run = _program(1, NUM_DEVICES)
  params = jax.tree.leaves(run.abstract_state().params)
  network = sum(leaf.size for leaf in params) * 4
  vectors = run.config.train.batch_size * WIDTH * 4
  text = _compiled(ROWS, NUM_DEVICES).as_text()
  sent = collectives.sizes(text)
  assert len(sent) >= 4  # ids, rows read, rows' gradients, the network's
  assert max(sent) <= network + vectors
  assert network + vectors < TABLE_BYTES / 1000
  # The gradients once, in float32, and a few sums of metrics.
  assert network <= collectives.all_reduced_floats(text) < 1.01 * network


def test_an_evaluation_sends_no_table_either():
  sent = collectives.sizes(_compiled_evaluation().as_text())
  assert sent
  assert max(sent) < TABLE_BYTES / 1000


@pytest.mark.slow
def test_eight_devices_make_nothing_else_of_the_share_s_size():
  share = math.ceil(ROWS / NUM_DEVICES)
  text = _compiled(ROWS, NUM_DEVICES).as_text()
  made = re.findall(rf"= f32\[{share},{WIDTH}\]\S* (\w[\w-]*)\(", text)
  assert 1 <= made.count("scatter") + made.count("fusion") <= 2
  assert set(made) <= {"parameter", "scatter", "fusion", "get-tuple-element"}
  assert f"f32[{ROWS}" not in text
