"""Winner-take-all over several starts of each puzzle in training.

Source: Speed is Confidence (arXiv 2601.19085; code github.com/jvdillon/sic).
K chains of a puzzle share y and have a z of their own. In each supervision step
all are run, and only the one of the lowest answer loss, the winner, is trained;
its y is that of all chains from then on. A chain that has become like another
is removed. Evaluation needs one chain.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import halting, types
from . import model as model_lib

MAX_COSINE = 0.95  # of the z of two chains, above which the worse one goes


class Race(NamedTuple):
  """The chains after a supervision step without gradient.

  Attributes:
    costs: [B, K] float32, the answer loss of every chain.
    winner: [B] int32.
    start: the latents that the winner started from, [B, S, D].
    z: of every chain, [B, K, S, D].
    alive: [B, K] bool, the chains that go on.
  """

  costs: jax.Array
  winner: jax.Array
  start: types.Latents
  z: jax.Array
  alive: jax.Array


def draw_starts(
  key: jax.Array, constants: types.Latents, shape: tuple[int, ...]
) -> jax.Array:
  """Draws z of new puzzles' chains; chain 0 has the initial z of evaluation.

  Args:
    key: typed PRNG key.
    constants: the initial latents.
    shape: [B, K, S, D].

  Returns:
    float32, of this shape.
  """
  assert constants.z is not None
  new_axes = (1,) * (len(shape) - constants.z.ndim)
  fixed = jnp.broadcast_to(
    constants.z.reshape(*new_axes, *constants.z.shape),
    (shape[0], 1, *shape[2:]),
  )
  others = (shape[0], shape[1] - 1, *shape[2:])
  return jnp.concatenate([fixed, halting.draw_start(key, others)], axis=1)


def race(
  model: model_lib.Model,
  params: Any,
  vectors: jax.Array,
  carry: types.Carry,
  answer_costs: Callable[[types.Output, jax.Array], jax.Array],
) -> Race:
  """Runs all chains without gradient and finds the winners.

  Args:
    model: the module.
    params: its parameters.
    vectors: [B, E] puzzle vectors.
    carry: z of the latents is [B, K, S, D].
    answer_costs: (output, labels) -> the minimized answer loss of each row.
  """
  assert carry.latents.z is not None
  assert carry.alive is not None
  num_slots, num_chains = carry.alive.shape

  def repeated(leaf):
    return jnp.repeat(leaf, num_chains, axis=0)

  params, vectors = jax.lax.stop_gradient((params, vectors))
  z = carry.latents.z
  output = model_lib.apply(
    model,
    params,
    repeated(carry.batch.inputs),
    repeated(vectors),
    types.Latents(y=repeated(carry.latents.y), z=z.reshape(-1, *z.shape[2:])),
    differentiated=False,
  )
  costs = answer_costs(output, repeated(carry.batch.labels))
  costs = costs.reshape(num_slots, num_chains)
  winner = jnp.argmin(jnp.where(carry.alive, costs, jnp.inf), axis=1)
  after = output.latents.z
  assert after is not None
  after = after.reshape(z.shape)
  return Race(
    costs=costs,
    winner=winner,
    start=types.Latents(y=carry.latents.y, z=z[jnp.arange(num_slots), winner]),
    z=after,
    alive=remove_similar(after, costs, carry.alive),
  )


def remove_similar(
  z: jax.Array, costs: jax.Array, alive: jax.Array
) -> jax.Array:
  """Removes at most one chain of each puzzle: the worst of those too similar.

  Args:
    z: [B, K, S, D].
    costs: [B, K] float32, answer losses.
    alive: [B, K] bool.

  Returns:
    [B, K] bool, which chains are left.
  """
  num_slots, num_chains = alive.shape
  flat = z.astype(jnp.float32).reshape(num_slots, num_chains, -1)
  flat /= jnp.linalg.norm(flat, axis=-1, keepdims=True)
  cosines = jnp.einsum("bid,bjd->bij", flat, flat)
  both = alive[:, :, None] & alive[:, None]
  both &= ~jnp.eye(num_chains, dtype=bool)[None]
  similar = jnp.any((cosines > MAX_COSINE) & both, axis=-1)
  worst = jnp.argmax(jnp.where(similar, costs, -jnp.inf), axis=1)
  removed = similar & (jnp.arange(num_chains)[None] == worst[:, None])
  return alive & ~removed
