"""The puzzle table at full size: a step touches its rows in place."""

import functools
import re

import jax
import jax.numpy as jnp

from benchmarks import puzzle_table
from trm_jax import types

ROWS, WIDTH = puzzle_table.ARC_1_ROWS, puzzle_table.WIDTH
TABLE_BYTES = ROWS * WIDTH * 4


@functools.cache
def _compiled(rows):
  """The training step of a narrow network, compiled; nothing is allocated."""
  run = puzzle_table.build(rows)
  size, length = run.config.train.batch_size, run.task.seq_len
  tokens = jax.ShapeDtypeStruct((size, length), jnp.int32)
  batch = types.Batch(
    inputs=tokens,
    labels=tokens,
    puzzle_ids=jax.ShapeDtypeStruct((size,), jnp.int32),
  )
  return run.train_step().lower(run.abstract_state(), batch).compile()


def test_the_table_is_updated_in_place():
  memory = _compiled(ROWS).memory_analysis()
  assert memory.alias_size_in_bytes >= TABLE_BYTES


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
