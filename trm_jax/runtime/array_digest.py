"""Digests of arrays: whether what is read is what was written.

Integers only, so alike on any number of devices and hosts, and however many
rows of zeros an array was padded with at its end.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_BLOCK_SIZE = 2**20  # numbers summed at once; what a block needs is freed


@dataclasses.dataclass(frozen=True)
class ArrayInfo:
  """An array's dtype and shape, and a digest of its numbers.

  Attributes:
    dtype: E.g. 'float32'.
    shape: Of the whole array, over all devices.
    digest: 32 bits, as an unsigned integer.
  """

  dtype: str
  shape: tuple[int, ...]
  digest: int


def named_leaves(tree: Any) -> dict[str, Any]:
  """Returns the leaves of a tree by their paths, e.g. 'params/head/kernel'.

  The path is alike for dataclasses, tuples and the dicts that Orbax has for
  them.
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {_name(path): leaf for path, leaf in leaves}


def array_infos(tree: Any) -> dict[str, ArrayInfo]:
  """Digests every array of a tree; all hosts have to call it.

  A number counts with its bits and its place, which is counted along the rows
  from the first; 0 counts for nothing. A change of one number is always seen,
  unless (1 in 4 billion) it was or is 0; two changes may cancel, as seldom.

  Args:
    tree: of arrays of 1, 2 or 4 bytes a number, replicated or split along
      their leading axis.

  Returns:
    The info of each array, by its path.
  """
  leaves = {name: jnp.asarray(v) for name, v in named_leaves(tree).items()}
  places = [leaf.sharding for leaf in leaves.values()]
  split = [place for place in places if isinstance(place, NamedSharding)]
  # Arrays of no mesh are of one device, which then is a mesh of its own.
  mesh = split[0].mesh if split else Mesh(jax.devices()[:1], ("data",))
  specs = tuple(
    place.spec if isinstance(place, NamedSharding) else PartitionSpec()
    for place in places
  )
  sums = jax.device_get(_sums(list(leaves.values()), mesh=mesh, specs=specs))
  return {
    name: ArrayInfo(dtype=str(leaf.dtype), shape=leaf.shape, digest=int(number))
    for (name, leaf), number in zip(leaves.items(), sums, strict=True)
  }


@functools.partial(jax.jit, static_argnames=("mesh", "specs"))
def _sums(
  leaves: list[jax.Array], *, mesh: Mesh, specs: tuple[PartitionSpec, ...]
) -> jax.Array:
  """Returns the digest of each leaf, [len(leaves)] uint32."""

  def of_this_device(*blocks):
    sums = []
    for block, spec in zip(blocks, specs, strict=True):
      block = jnp.atleast_1d(block)
      if not any(spec):
        sums.append(_sum(block, first_row=0))
        continue
      assert not any(spec[1:]), "split along another axis than the first"
      first_row = jax.lax.axis_index(spec[0]) * block.shape[0]
      sums.append(jax.lax.psum(_sum(block, first_row=first_row), spec[0]))
    return jnp.stack(sums)

  return jax.shard_map(
    of_this_device, mesh=mesh, in_specs=specs, out_specs=PartitionSpec()
  )(*leaves)


def _sum(rows: jax.Array, *, first_row: jax.Array | int) -> jax.Array:
  """Sums the scrambled numbers of rows; [n, ...] -> [] uint32.

  Block by block: a CPU would make a copy of all of them.
  """
  per_block = max(1, _BLOCK_SIZE // max(math.prod(rows.shape[1:]), 1))
  num_blocks = rows.shape[0] // per_block
  done = num_blocks * per_block
  rest = _block_sum(rows[done:], first_row + done)
  if not num_blocks:
    return rest

  def add(number, total):
    start = number * per_block
    block = jax.lax.dynamic_slice_in_dim(rows, start, per_block)
    return total + _block_sum(block, first_row + start)

  return jax.lax.fori_loop(0, num_blocks, add, rest)


def _block_sum(block: jax.Array, first_row: jax.Array | int) -> jax.Array:
  """The finaliser of MurmurHash3 (Appleby 2011) on bits and places, summed."""
  if block.dtype == jnp.bool_:
    block = block.astype(jnp.uint8)
  unsigned = jnp.dtype(f"uint{8 * block.dtype.itemsize}")
  bits = jax.lax.bitcast_convert_type(block, unsigned).astype(jnp.uint32)
  places = jnp.uint32(first_row)
  for axis, size in enumerate(block.shape):
    index = jax.lax.broadcasted_iota(jnp.uint32, block.shape, axis)
    places = index + (places * jnp.uint32(size) if axis else places)
  mixed = bits + places * jnp.uint32(0x9E3779B1)
  mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
  mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(0xC2B2AE35)
  mixed = mixed ^ (mixed >> 16)
  return jnp.sum(jnp.where(bits == 0, jnp.uint32(0), mixed), dtype=jnp.uint32)


def _name(path) -> str:
  parts = []
  for entry in path:
    for attribute in ("name", "key", "idx"):
      if hasattr(entry, attribute):
        parts.append(str(getattr(entry, attribute)))
        break
  return "/".join(parts)
