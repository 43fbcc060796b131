"""The sparse sign update against a loop, and what it must leave alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import puzzle_embedding
from trm_jax.runtime import mesh as mesh_lib

N, E = 7, 4


def _table(seed=0):
  return np.random.default_rng(seed).standard_normal((N, E), np.float32)


@functools.partial(jax.jit, static_argnames=("weight_decay",))
def _jitted(table, ids, gradients, learning_rate, *, weight_decay):
  return puzzle_embedding.sign_sgd(
    table,
    ids,
    gradients,
    learning_rate=learning_rate,
    weight_decay=weight_decay,
  )


def _update(table, ids, gradients, *, learning_rate=0.01, weight_decay=0.1):
  return np.asarray(
    _jitted(
      table,
      np.asarray(ids, np.int32),
      np.asarray(gradients, np.float32),
      learning_rate,
      weight_decay=weight_decay,
    )
  )


def _oracle(table, ids, gradients, *, learning_rate, weight_decay):
  new = table.astype(np.float64)
  for row in set(ids.tolist()):
    total = gradients[ids == row].astype(np.float64).sum(0)
    new[row] *= 1 - learning_rate * weight_decay
    new[row] -= learning_rate * np.sign(total)
  return new


def test_lookup_returns_the_rows():
  table, ids = _table(), np.array([3, 0, 3, 6])
  np.testing.assert_array_equal(
    puzzle_embedding.lookup(jnp.asarray(table), ids), table[ids]
  )


def test_rows_not_in_the_batch_stay_bitwise_as_they_are():
  table = _table()
  table[0, 0] = -0.0
  table[5, 1] = np.nan  # the bits of a NaN, too
  ids = [2, 4, 2, 2]
  new = _update(table, ids, np.ones((4, E)))
  kept = ~np.isin(np.arange(N), ids)
  np.testing.assert_array_equal(
    new[kept].view(np.uint32), table[kept].view(np.uint32)
  )
  assert np.all(new[~kept] != table[~kept])


def test_the_size_of_a_gradient_does_not_matter():
  table = _table()
  signs = np.array([[1, -1, 1, -1], [-1, -1, 1, 1]])
  tiny = _update(table, [1, 5], signs * 1e-20)
  np.testing.assert_array_equal(tiny, _update(table, [1, 5], signs * 1e3))
  np.testing.assert_allclose(
    tiny[[1, 5]], table[[1, 5]] * 0.999 - 0.01 * signs, rtol=1e-5, atol=1e-7
  )


def test_duplicates_are_summed_before_the_sign():
  table = _table()
  gradients = np.array(
    [[3, 1, -1, 0], [-1, -1, -1, 0], [-1, -3, 1, 0]], np.float32
  )
  new = _update(table, [4, 4, 4], gradients)
  np.testing.assert_allclose(  # sums 1, -3, -1, 0
    new[4], table[4] * 0.999 - 0.01 * np.array([1, -1, -1, 0]), rtol=1e-5
  )


def test_opposite_gradients_leave_the_decay_alone():
  table = _table()
  gradient = np.full((1, E), 0.3, np.float32)
  new = _update(table, [2, 2], np.concatenate([gradient, -gradient]))
  np.testing.assert_allclose(new[2], table[2] * 0.999, rtol=1e-6)


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_a_row_decays_once_however_often_it_is_named(copies):
  table = _table()
  new = _update(table, [3] * copies, np.zeros((copies, E)), weight_decay=20.0)
  np.testing.assert_allclose(new[3], table[3] * 0.8, rtol=1e-6)


def test_the_order_of_the_slots_does_not_matter():
  rng = np.random.default_rng(1)
  ids = rng.integers(0, 4, 12)
  # Multiples of 1/8: their sums are exact in any order.
  gradients = rng.integers(-8, 9, (12, E)) / 8
  expected = _update(_table(), ids, gradients)
  for seed in range(3):
    order = np.random.default_rng(seed).permutation(12)
    np.testing.assert_array_equal(
      _update(_table(), ids[order], gradients[order]), expected
    )


@pytest.mark.parametrize("num_ids", [1, 3, N])
def test_several_steps_match_a_loop_over_rows(num_ids):
  rng = np.random.default_rng(num_ids)
  table = _table()
  expected = table.astype(np.float64)
  for step in range(5):
    ids = rng.integers(0, num_ids, 12).astype(np.int32)
    gradients = rng.standard_normal((12, E), np.float32)
    rate = 0.01 * (step + 1)
    table = _update(table, ids, gradients, learning_rate=rate, weight_decay=0.5)
    expected = _oracle(
      expected, ids, gradients, learning_rate=rate, weight_decay=0.5
    )
  np.testing.assert_allclose(table, expected, rtol=1e-5, atol=1e-6)


def test_all_slots_with_different_puzzles():
  table = _table()
  ids = np.array([6, 5, 4, 3, 2, 1, 0])
  gradients = np.random.default_rng(2).standard_normal((N, E), np.float32)
  np.testing.assert_allclose(
    _update(table, ids, gradients),
    _oracle(table, ids, gradients, learning_rate=0.01, weight_decay=0.1),
    rtol=1e-5,
  )


def test_an_id_past_the_table_reads_nan_and_writes_nothing():
  table = _table()
  rows = np.asarray(
    puzzle_embedding.lookup(jnp.asarray(table), np.array([N, 1, N + 100]))
  )
  assert np.isnan(rows[[0, 2]]).all()
  np.testing.assert_array_equal(rows[1], table[1])
  new = _update(table, [N, 1, N + 100, N], np.ones((4, E)))
  expected = _update(table, [1], np.ones((1, E)))
  np.testing.assert_array_equal(new, expected)


def test_the_update_of_a_large_table_makes_no_copy_of_it():
  shape, batch = (200_000, 64), 8
  update = jax.jit(
    functools.partial(
      puzzle_embedding.sign_sgd, learning_rate=0.1, weight_decay=0.1
    ),
    donate_argnums=0,
  )
  memory = (
    update.lower(
      jax.ShapeDtypeStruct(shape, jnp.float32),
      jax.ShapeDtypeStruct((batch,), jnp.int32),
      jax.ShapeDtypeStruct((batch, shape[1]), jnp.float32),
    )
    .compile()
    .memory_analysis()
  )
  table_bytes = 4 * shape[0] * shape[1]
  assert memory.alias_size_in_bytes >= table_bytes
  assert memory.temp_size_in_bytes < table_bytes / 100


# --- on several devices ----------------------------------------------------


@functools.partial(jax.jit, static_argnames=("mesh",))
def _update_and_read(table, ids, gradients, *, mesh):
  table = puzzle_embedding.sign_sgd(
    table, ids, gradients, learning_rate=0.01, weight_decay=0.1, mesh=mesh
  )
  return table, puzzle_embedding.lookup(table, ids, mesh=mesh)


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_split_tables_are_read_and_trained_as_whole_ones_bit_by_bit(
  num_devices,
):
  mesh = mesh_lib.make_mesh(num_devices)
  rng = np.random.default_rng(num_devices)
  whole = split = rng.standard_normal((32, E), np.float32)
  split = jax.device_put(split, mesh_lib.split(mesh))
  for _ in range(5):
    ids = rng.integers(0, 32, 16).astype(np.int32)
    ids[:7] = ids[0]  # the same row on several devices
    ids[7:9] = 31, 0
    gradients = rng.standard_normal((16, E), np.float32)
    gradients[rng.random((16, E)) < 0.2] = 0.0
    whole, rows = _update_and_read(whole, ids, gradients, mesh=None)
    split, split_rows = _update_and_read(
      split,
      *jax.device_put((ids, gradients), mesh_lib.split(mesh)),
      mesh=mesh,
    )
    np.testing.assert_array_equal(whole, split)
    np.testing.assert_array_equal(rows, split_rows)
  assert split.addressable_shards[0].data.shape == (32 // num_devices, E)


def test_ids_outside_a_split_table_read_nan_and_train_nothing():
  mesh = mesh_lib.make_mesh(4)
  table = np.ones((8, E), np.float32)
  ids = np.array([-1, 8, 3, 1000], np.int32)
  new, rows = _update_and_read(
    *jax.device_put(
      (table, ids, np.ones((4, E), np.float32)), mesh_lib.split(mesh)
    ),
    mesh=mesh,
  )
  assert np.isnan(rows).all(1).tolist() == [True, True, False, True]
  changed = (np.asarray(new) != table).any(1)
  assert np.flatnonzero(changed).tolist() == [3]
