"""The puzzle table: one learned vector per (task, augmentation).

It may have a million rows, of which a step sees a batch: no dense gradient,
no optimizer state, no average. It is trained by the sign of each row's
summed gradient (official sparse_embedding.py).
"""

import chex
import jax
import jax.numpy as jnp


def lookup(table: jax.Array, puzzle_ids: jax.Array) -> jax.Array:
  """Returns the rows [B, E] of table [N, E] for ids [B] in 0..N-1.

  An id outside the table gives a row of NaN: it is a mistake, never a puzzle.
  """
  ids = _no_wrap(puzzle_ids, table.shape[0])
  return table.at[ids].get(mode="fill", fill_value=jnp.nan)


def _no_wrap(puzzle_ids: jax.Array, num_rows: int) -> jax.Array:
  """Sends negative ids past the table; they would count from its end."""
  return jnp.where(puzzle_ids < 0, num_rows, puzzle_ids)


def sign_update(
  table: jax.Array,
  puzzle_ids: jax.Array,
  gradients: jax.Array,
  *,
  learning_rate: jax.Array | float,
  weight_decay: float,
) -> jax.Array:
  """Updates the rows in the batch: w (1 - lr wd) - lr sign(sum of gradients).

  Rows that the batch names more than once are summed first and decay once;
  all others stay bitwise as they are. Donate the table to update in place.

  Args:
    table: [N, E] float32.
    puzzle_ids: [B] int32 in 0..N-1, of the puzzles now in the slots; others
      are dropped.
    gradients: [B, E] float32, one row per slot.
    learning_rate: scalar.
    weight_decay: decoupled, times the learning rate.

  Returns:
    The new table, [N, E].
  """
  chex.assert_rank([table, puzzle_ids, gradients], [2, 1, 2])
  num_rows, batch_size = table.shape[0], puzzle_ids.shape[0]
  puzzle_ids = _no_wrap(puzzle_ids, num_rows)
  order = jnp.argsort(puzzle_ids)
  ids = puzzle_ids[order]
  starts = jnp.concatenate([jnp.ones((1,), bool), ids[1:] != ids[:-1]])
  segments = jnp.cumsum(starts) - 1
  sums = jax.ops.segment_sum(
    gradients[order],
    segments,
    num_segments=batch_size,
    indices_are_sorted=True,
  )
  # Fewer distinct ids than slots leave a tail that points past the table
  # and is dropped.
  rows = jnp.full((batch_size,), num_rows, ids.dtype).at[segments].set(ids)
  old = table.at[rows].get(mode="fill", fill_value=0.0)
  new = old * (1.0 - learning_rate * weight_decay)
  new = new - learning_rate * jnp.sign(sums)
  return table.at[rows].set(new, mode="drop")
