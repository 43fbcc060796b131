"""The puzzle table: one learned vector per (task, augmentation).

It may have a million rows, of which a step sees a batch: no dense gradient,
no optimizer state, no average. It is trained by the sign of each row's
summed gradient (official sparse_embedding.py).

On a mesh every device keeps an equal share of the rows and touches no others.
What travels between devices are the batch's ids, rows and gradients, as many
bytes on 256 devices as on 8, and never the table.
"""

import chex
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trm_jax.core import parallel


def lookup(
  table: jax.Array, puzzle_ids: jax.Array, *, mesh: Mesh | None = None
) -> jax.Array:
  """Returns the rows [B, E] of table [N, E] for ids [B] in 0..N-1.

  An id outside the table gives a row of NaN: it is a mistake, never a puzzle.

  Args:
    table: [N, E]; on a mesh split by rows, so N is a multiple of its size.
    puzzle_ids: [B] int32; on a mesh split like the batch.
    mesh: of `sharding.make_mesh`; None if all arrays are on one device.
  """
  num_rows = table.shape[0]
  if mesh is None or mesh.size == 1:
    ids = _no_wrap(puzzle_ids, num_rows)
    return table.at[ids].get(mode="fill", fill_value=jnp.nan)

  def lookup_share(share, ids):
    ids = jax.lax.all_gather(ids, parallel.DATA, tiled=True)
    rows = share.at[_places(ids, share)].get(mode="fill", fill_value=0.0)
    # One device at most has something to add, so that the sum is exact.
    return jax.lax.psum_scatter(rows, parallel.DATA, tiled=True)

  split = parallel.ROWS
  rows = parallel.on_each_device(
    lookup_share, mesh, in_specs=(split, split), out_specs=split
  )(table, puzzle_ids)
  inside = (puzzle_ids >= 0) & (puzzle_ids < num_rows)
  return jnp.where(inside[:, None], rows, jnp.nan)


def sign_update(
  table: jax.Array,
  puzzle_ids: jax.Array,
  gradients: jax.Array,
  *,
  learning_rate: jax.Array | float,
  weight_decay: float,
  mesh: Mesh | None = None,
) -> jax.Array:
  """Updates the rows in the batch: w (1 - lr wd) - lr sign(sum of gradients).

  Rows that the batch names more than once are summed first and decay once;
  all others stay bitwise as they are. Donate the table to update in place.

  Args:
    table: [N, E] float32, as for `lookup`.
    puzzle_ids: [B] int32 in 0..N-1, of the puzzles now in the slots; others
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
  """Sends negative ids past the table; they would count from its end."""
  return jnp.where(puzzle_ids < 0, num_rows, puzzle_ids)


def _places(ids: jax.Array, share: jax.Array) -> jax.Array:
  """Returns where rows are in this device's share, and past it if not."""
  size = share.shape[0]
  places = ids - jax.lax.axis_index(parallel.DATA) * size
  return jnp.where((places >= 0) & (places < size), places, size)


def _sum_by_row(
  ids: jax.Array, gradients: jax.Array, num_rows: int
) -> tuple[jax.Array, jax.Array]:
  """Sums gradients [B, E] of the same row; each row comes once.

  Returns:
    Rows [B] and their sums [B, E]; fewer distinct ids than slots leave a tail
    that points past the table.
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


# Rows of the puzzle table for puzzles that a trained network has not seen.


def begin(
  table: jax.Array, *, first: int, num_rows: int, how: str
) -> jax.Array:
  """Gives the new rows of a trained table their first values.

  The mean is a vector that the network knows how to read, though it belongs to
  no puzzle. Rows that were never trained are still zero and do not count in it.

  Args:
    table: [N, E] float32, on any number of devices; its buffer is taken over.
      From row `first` on it is zero.
    first: the first new row.
    num_rows: rows that mean something; those after them stay zero.
    how: 'mean' of the trained rows, or 'zeros'.

  Returns:
    The table, [N, E], which lies as before.
  """
  if how == "zeros":
    return table

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
