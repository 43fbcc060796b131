"""Digests: alike wherever arrays lie, and another for every change."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import train_state
from trm_jax.runtime import array_digest
from trm_jax.runtime import mesh as mesh_lib

RNG = np.random.default_rng(0)
ARRAYS = {
  "float": RNG.standard_normal((24, 6), np.float32),
  "half": RNG.standard_normal((8, 3, 4)).astype(jnp.bfloat16),
  "int": RNG.integers(-9, 9, (16,), np.int32),
  "bool": RNG.random((8, 5)) < 0.5,
  "scalar": np.int32(7),
}


def _digests(tree):
  return {name: r.digest for name, r in array_digest.array_infos(tree).items()}


def _scrambled(array):
  """The definition, with integers of Python; zeros count for nothing."""
  array = np.asarray(array)
  unsigned = np.dtype(f"uint{8 * array.dtype.itemsize}")
  total = 0
  for place, bits in enumerate(array.reshape(-1).view(unsigned).tolist()):
    mixed = (bits + place * 0x9E3779B1) % 2**32
    mixed = (mixed ^ (mixed >> 16)) * 0x85EBCA6B % 2**32
    mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35 % 2**32
    total += (mixed ^ (mixed >> 16)) if bits else 0
  return total % 2**32


@pytest.mark.parametrize("block_size", [1, 7, 2**20])
def test_is_the_sum_of_scrambled_numbers(monkeypatch, block_size):
  monkeypatch.setattr(array_digest, "_BLOCK_SIZE", block_size)
  array_digest._sums.clear_cache()
  assert _digests(ARRAYS) == {
    name: _scrambled(array) for name, array in ARRAYS.items()
  }


@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_is_alike_however_arrays_lie(num_devices):
  mesh = mesh_lib.make_mesh(num_devices)
  replicated = jax.device_put(ARRAYS, mesh_lib.replicated(mesh))
  assert _digests(replicated) == _digests(ARRAYS)
  split = {
    name: jax.device_put(
      array, mesh_lib.split(mesh) if np.ndim(array) else None
    )
    for name, array in ARRAYS.items()
    if np.ndim(array)
  }
  expected = _digests(ARRAYS)
  assert _digests(split) == {name: expected[name] for name in split}


def test_rows_of_zeros_at_the_end_count_for_nothing():
  expected = _digests(ARRAYS)
  for name in ("float", "half", "int", "bool"):
    array = ARRAYS[name]
    longer = np.concatenate(
      [array, np.zeros((5, *array.shape[1:]), array.dtype)]
    )
    assert _digests({name: longer})[name] == expected[name]


def test_every_change_of_one_number_is_seen():
  array = ARRAYS["float"]
  seen = {_digests({"a": array})["a"]}
  for place in range(array.size):
    changed = array.copy()
    changed.reshape(-1).view(np.uint32)[place] ^= 1 << (place % 32)
    seen.add(_digests({"a": changed})["a"])
  assert len(seen) == array.size + 1
  assert _digests({"a": array[::-1]})["a"] not in seen  # places count
  assert _digests({"a": -array})["a"] not in seen


def test_names_are_paths_through_dataclasses_tuples_and_dicts():
  state = train_state.TrainState(
    **{f.name: 0 for f in dataclasses.fields(train_state.TrainState)}
  ).replace(opt_state=({"mu": 1}, 2))
  names = array_digest.named_leaves(state)
  assert {"step", "opt_state/0/mu", "opt_state/1"} < set(names)


def test_a_record_tells_dtype_and_shape():
  record = array_digest.array_infos({"half": ARRAYS["half"]})["half"]
  assert (record.dtype, record.shape) == ("bfloat16", (8, 3, 4))


def test_no_copy_of_a_big_table_is_made():
  mesh = mesh_lib.make_mesh(4)
  table = jax.ShapeDtypeStruct(
    (876_408, 512), jnp.float32, sharding=mesh_lib.split(mesh)
  )
  compiled = array_digest._sums.lower(
    [table], mesh=mesh, specs=(table.sharding.spec,)
  ).compile()
  needed = compiled.memory_analysis().temp_size_in_bytes
  assert needed < table.size * 4 / 4 / 10  # a tenth of a device's rows


def test_another_axis_cannot_be_split():
  mesh = mesh_lib.make_mesh(2)
  array = jax.device_put(ARRAYS["float"], mesh_lib.split(mesh, axis=1))
  with pytest.raises(AssertionError, match="another axis"):
    array_digest.array_infos({"a": array})


def test_arrays_are_left_as_they_are():
  arrays = jax.device_put(ARRAYS)
  array_digest.array_infos(arrays)
  chex.assert_trees_all_equal(arrays, ARRAYS)
