"""How several attempts at a puzzle differ; see `rollouts`.

Attempt 0 is always the undisturbed one. To add a way in which attempts differ,
add an entry to `VARIATIONS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from . import halting, types


class Draws(NamedTuple):
  """Random streams of s slots.

  They depend on the seed, the puzzle and the attempt, not on the batch that a
  puzzle is in.

  Attributes:
    keys: [s] typed PRNG keys.
    attempts: [s] int32, index of each slot's attempt.
  """

  keys: jax.Array
  attempts: jax.Array


@flax.struct.dataclass
class Symmetries:
  """The symmetry of each attempt: a move of the cells, then new tokens.

  The grid of attempt k is `tokens[k, old[cells[k]]]`.

  Attributes:
    cells: [K, L] int32, where each cell comes from.
    tokens: [K, V] int32, the new token of every token.
  """

  cells: jax.Array
  tokens: jax.Array

  def apply(self, attempts: jax.Array, grids: jax.Array) -> jax.Array:
    """Transforms grids [s, L] of tokens; ignored labels stay ignored."""
    cells = self._of(self.cells, attempts)
    moved = jnp.take_along_axis(grids, cells, axis=1)
    return self._renamed(self._of(self.tokens, attempts), moved)

  def invert(self, attempts: jax.Array, grids: jax.Array) -> jax.Array:
    """Undoes `apply`."""
    cells = jnp.argsort(self._of(self.cells, attempts), axis=1)
    names = jnp.argsort(self._of(self.tokens, attempts), axis=1)
    return self._renamed(names, jnp.take_along_axis(grids, cells, axis=1))

  def _of(self, table: jax.Array, attempts: jax.Array) -> jax.Array:
    return jnp.asarray(table).at[attempts].get(mode="clip")

  def _renamed(self, names: jax.Array, grids: jax.Array) -> jax.Array:
    known = grids >= 0
    renamed = jnp.take_along_axis(names, jnp.where(known, grids, 0), axis=1)
    return jnp.where(known, renamed, grids).astype(grids.dtype)


@dataclasses.dataclass(frozen=True)
class Variation:
  """How attempts differ; by default not at all.

  Attributes:
    start: (draws, initial latents) -> those to start with.
    perturb: (draws, [s] number of the step from 1, latents) -> the latents to
      use in this step.
    symmetries: of the puzzles; None for the puzzles as they are.
  """

  start: Callable[[Draws, types.Latents], types.Latents] = lambda _, latents: (
    latents
  )
  perturb: Callable[[Draws, jax.Array, types.Latents], types.Latents] = (
    lambda _, __, latents: latents
  )
  symmetries: Symmetries | None = None


def noise_on_z(scale: float) -> Variation:
  """Adds Gaussian noise to z before every step; y is not disturbed.

  Source: PTRM (arXiv 2605.19943). A recurrence without z has it on y, its only
  state.

  Args:
    scale: standard deviation; with 0 all attempts are the same.
  """

  def perturb(draws, numbers, latents):
    def noisy(key, number, attempt, row):
      key = jax.random.fold_in(key, number)
      draw = scale * jax.random.normal(key, row.shape, jnp.float32)
      return jnp.where(attempt > 0, row + draw.astype(row.dtype), row)

    state = latents.y if latents.z is None else latents.z
    state = jax.vmap(noisy)(draws.keys, numbers, draws.attempts, state)
    if latents.z is None:
      return types.Latents(y=state)
    return types.Latents(y=latents.y, z=state)

  return Variation(perturb=perturb) if scale else Variation()


def random_starts() -> Variation:
  """Starts from random latents, drawn for each position and feature.

  Source: EqR (arXiv 2605.21488); the law is that of the initial latents.
  """

  def start(draws, latents):
    leaves, structure = jax.tree.flatten(latents)

    def drawn(number, leaf):
      def row(key, attempt, fixed):
        key = jax.random.fold_in(key, number)
        draw = halting.draw_start(key, fixed.shape).astype(fixed.dtype)
        return jnp.where(attempt > 0, draw, fixed)

      return jax.vmap(row)(draws.keys, draws.attempts, leaf)

    return jax.tree.unflatten(
      structure, [drawn(number, leaf) for number, leaf in enumerate(leaves)]
    )

  return Variation(start=start)


def of_symmetries(symmetries: Symmetries | None) -> Variation:
  """Solves a transformed puzzle; the answer is transformed back.

  Args:
    symmetries: of each attempt, the identity first.
  """
  if symmetries is None:
    raise ValueError("the puzzles have no known symmetries")
  return Variation(symmetries=symmetries)


# How attempts differ: (noise, symmetries) -> the variation.
VARIATIONS: Mapping[str, Callable[[float, Symmetries | None], Variation]] = {
  "noise": lambda noise, _: noise_on_z(noise),
  "symmetries": lambda _, symmetries: of_symmetries(symmetries),
  "starts": lambda *_: random_starts(),
}
