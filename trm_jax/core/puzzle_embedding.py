"""The puzzle table: one learned vector per (task, augmentation).

It may have a million rows, of which a step touches one batch: no dense
gradient, no optimizer state, no average. It is trained by the sign of each
row's summed gradient (official sparse_embedding.py).

On a mesh every device holds an equal share of the rows. Devices exchange the
batch's ids, rows and gradients, as many bytes on 256 devices as on 8, and never
the table.
"""

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from . import parallel


def lookup(
  table: jax.Array, puzzle_ids: jax.Array, *, mesh: Mesh | None = None
) -> jax.Array:
  """Returns the rows [B, E] of table [N, E] for ids [B] in 0..N-1.

  An id outside the table is an error and gives a row of NaN.

  Args:
    table: [N, E]; on a mesh split by rows, so N is a multiple of its size.
    puzzle_ids: [B] int32; on a mesh split like the batch.
    mesh: with axis `parallel.DATA`; None if all arrays are on one device.
  """
  num_rows = table.shape[0]
  if mesh is None or mesh.size == 1:
    ids = _no_wrap(puzzle_ids, num_rows)
    return table.at[ids].get(mode="fill", fill_value=jnp.nan)

  def lookup_share(share, ids):
    ids = jax.lax.all_gather(ids, parallel.DATA, tiled=True)
    rows = share.at[_places(ids, share)].get(mode="fill", fill_value=0.0)
    # At most one device contributes to each row, so the sum is exact.
    return jax.lax.psum_scatter(rows, parallel.DATA, tiled=True)

  split = parallel.ROWS
  rows = parallel.on_each_device(
    lookup_share, mesh, in_specs=(split, split), out_specs=split
  )(table, puzzle_ids)
  inside = (puzzle_ids >= 0) & (puzzle_ids < num_rows)
  return jnp.where(inside[:, None], rows, jnp.nan)


def sign_sgd(
  table: jax.Array,
  puzzle_ids: jax.Array,
  gradients: jax.Array,
  *,
  learning_rate: jax.Array | float,
  weight_decay: float,
  mesh: Mesh | None = None,
) -> jax.Array:
  """Updates the rows in the batch: w (1 - lr wd) - lr sign(sum of gradients).

  Gradients of a row that occurs more than once are summed first, and it decays
  once. All other rows stay bitwise unchanged. Donate the table to update it in
  place.

  Args:
    table: [N, E] float32, as for `lookup`.
    puzzle_ids: [B] int32 in 0..N-1, of the puzzles in the slots; ids outside
      are dropped.
    gradients: [B, E] float32, one row per slot.
    learning_rate: scalar.
    weight_decay: decoupled, times the learning rate.
    mesh: as for `lookup`.

  Returns:
    The new table, [N, E].
  """
  chex.assert_rank([table, puzzle_ids, gradients], [2, 1, 2])
  num_rows = table.shape[0]

  def update(share, ids, gradients, rate, to_places):
    ids, sums = _sum_by_row(_no_wrap(ids, num_rows), gradients, num_rows)
    places = to_places(ids, share)
    old = share.at[places].get(mode="fill", fill_value=0.0)
    new = old * (1.0 - rate * weight_decay) - rate * jnp.sign(sums)
    return share.at[places].set(new, mode="drop")

  rate = jnp.asarray(learning_rate, table.dtype)
  if mesh is None or mesh.size == 1:
    return update(table, puzzle_ids, gradients, rate, lambda ids, _: ids)

  def update_share(share, ids, gradients, rate):
    ids = jax.lax.all_gather(ids, parallel.DATA, tiled=True)
    gradients = jax.lax.all_gather(gradients, parallel.DATA, tiled=True)
    return update(share, ids, gradients, rate, _places)

  split = parallel.ROWS
  return parallel.on_each_device(
    update_share,
    mesh,
    in_specs=(split, split, split, parallel.COPIES),
    out_specs=split,
  )(table, puzzle_ids, gradients, rate)


def _no_wrap(puzzle_ids: jax.Array, num_rows: int) -> jax.Array:
  """Maps negative ids past the table; they would index from its end."""
  return jnp.where(puzzle_ids < 0, num_rows, puzzle_ids)


def _places(ids: jax.Array, share: jax.Array) -> jax.Array:
  """Returns each row's index in this device's share, or its size if absent."""
  size = share.shape[0]
  places = ids - jax.lax.axis_index(parallel.DATA) * size
  return jnp.where((places >= 0) & (places < size), places, size)


def _sum_by_row(
  ids: jax.Array, gradients: jax.Array, num_rows: int
) -> tuple[jax.Array, jax.Array]:
  """Sums gradients [B, E] by row.

  Returns:
    Distinct rows [B] and their sums [B, E]; with fewer distinct ids than slots,
    the rest of the rows points past the table.
  """
  order = jnp.argsort(ids)
  ids = ids[order]
  starts = jnp.concatenate([jnp.ones((1,), bool), ids[1:] != ids[:-1]])
  segments = jnp.cumsum(starts) - 1
  sums = jax.ops.segment_sum(
    gradients[order],
    segments,
    num_segments=ids.size,
    indices_are_sorted=True,
  )
  return jnp.full(ids.shape, num_rows, ids.dtype).at[segments].set(ids), sums


# New rows of a trained table.


def begin(
  table: jax.Array, *, first: int, num_rows: int, how: str
) -> jax.Array:
  """Initializes the new rows of a trained table.

  The mean of the trained rows is a vector that the network can read, though it
  belongs to no puzzle. Rows that were never trained are still zero and are not
  counted.

  Args:
    table: [N, E] float32, on any number of devices, donated; zero from row
      `first` on.
    first: the first new row.
    num_rows: rows in use; padding rows after them stay zero.
    how: 'mean' of the trained rows, or 'zeros'.

  Returns:
    The table, [N, E], with the same sharding.

  Raises:
    ValueError: `how` is neither.
  """
  if how == "zeros":
    return table
  if how != "mean":
    raise ValueError(f"unknown initialization {how!r}; use 'mean' or 'zeros'")

  def with_mean(table):
    rows = jnp.arange(table.shape[0])[:, None]
    is_puzzle = (rows > 0) & (rows < first)  # row 0 is blank
    trained = is_puzzle & jnp.any(table != 0, axis=1, keepdims=True)
    total = jnp.sum(jnp.where(trained, table, 0.0), axis=0, keepdims=True)
    mean = total / jnp.maximum(jnp.sum(trained), 1)
    return jnp.where((rows >= first) & (rows < num_rows), mean, table)

  return jax.jit(with_mean, donate_argnums=0, out_shardings=table.sharding)(
    table
  )
