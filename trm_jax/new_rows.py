"""Rows of the puzzle table for puzzles that a trained network has not seen."""

import jax
import jax.numpy as jnp


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
