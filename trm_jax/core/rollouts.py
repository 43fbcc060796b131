"""Rollouts (PTRM, arXiv 2605.19943): noisy attempts, of which one is chosen."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from . import model as model_lib
from . import registry, solve, types

_ODD = np.uint32(2654435761)  # of Knuth's multiplicative hashing


def solve_rollouts(
  model: model_lib.TinyRecursiveModel,
  weights: types.Weights,
  inputs: jax.Array,
  puzzle_ids: jax.Array,
  *,
  rollouts: int,
  noise: float,
  seed: int,
  supervision_steps: int,
  at_a_time: int = 1,
  mesh: Mesh | None = None,
  observe: Callable[[types.Output], Any],
) -> Any:
  """Attempts each puzzle several times from noisy latents.

  Args:
    model: the module.
    weights: of the module.
    inputs: [B, L] int32 questions.
    puzzle_ids: [B] int32, rows of the puzzle table.
    rollouts: attempts at each puzzle, K.
    noise: standard deviation; with 0 all attempts are the same.
    seed: of the noise.
    supervision_steps: of each attempt.
    at_a_time: attempts at all puzzles made in parallel, for few puzzles.
    mesh: as for `puzzle_embedding.lookup`.
    observe: called with the model's last output of an attempt, [B, ...].

  Returns:
    What `observe` returned, stacked on a new leading axis of size K.
  """
  at_a_time = min(at_a_time, rollouts)
  questions, ids = (
    jnp.repeat(rows, at_a_time, axis=0) for rows in (inputs, puzzle_ids)
  )

  def attempt(numbers):
    def observe_attempts(output, _):
      by_attempt = jax.tree.map(
        lambda leaf: leaf.reshape(-1, at_a_time, *leaf.shape[1:]), output
      )
      return jax.vmap(observe, in_axes=1)(by_attempt)

    seen = solve.solve_fixed(
      model,
      weights,
      questions,
      ids,
      supervision_steps=supervision_steps,
      mesh=mesh,
      perturb=latent_noise(
        Noise(
          scale=noise,
          seed=seed,
          attempts=jnp.tile(numbers, inputs.shape[0]),
        ),
        questions,
        ids,
      ),
      observe=observe_attempts,
    )
    return jax.tree.map(lambda leaf: leaf[-1], seen)

  groups = -(-rollouts // at_a_time)
  numbers = jnp.arange(groups * at_a_time, dtype=jnp.int32)
  seen = jax.lax.map(attempt, numbers.reshape(groups, at_a_time))
  return jax.tree.map(
    lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:rollouts], seen
  )


@flax.struct.dataclass
class Noise:
  """Gaussian noise added to the latents before every supervision step.

  The draws depend on the seed, the puzzle, the attempt and the step, not on the
  batch that a puzzle is in.

  Attributes:
    scale: standard deviation.
    seed: of the draws.
    attempts: [B] int32, index of each row's attempt.
  """

  scale: float = flax.struct.field(pytree_node=False)
  seed: int = flax.struct.field(pytree_node=False)
  attempts: jax.Array


def latent_noise(
  noise: Noise, inputs: jax.Array, puzzle_ids: jax.Array
) -> solve.Perturb | None:
  """Returns a function that adds noise to the latents before a step.

  Args:
    noise: its scale may be 0.
    inputs: [B, L] int32 questions.
    puzzle_ids: [B] int32.

  Returns:
    A function of latents, [B, S, D] each, and of the step's number, [] int32;
    None if the scale is 0.
  """
  if not noise.scale:
    return None
  scale = noise.scale
  keys = jax.vmap(
    lambda puzzle, attempt: jax.random.fold_in(
      jax.random.fold_in(jax.random.key(noise.seed), puzzle), attempt
    )
  )(_fingerprints(inputs, puzzle_ids), noise.attempts)

  def perturb_row(key, number, y, z):
    y_key, z_key = jax.random.split(jax.random.fold_in(key, number))

    def noisy(key, row):
      draw = scale * jax.random.normal(key, row.shape, jnp.float32)
      return row + draw.astype(row.dtype)

    return types.Latents(
      y=noisy(y_key, y), z=None if z is None else noisy(z_key, z)
    )

  def perturb(latents, number):
    return jax.vmap(perturb_row, in_axes=(0, None, 0, 0))(
      keys, number, latents.y, latents.z
    )

  return perturb


def _fingerprints(inputs: jax.Array, puzzle_ids: jax.Array) -> jax.Array:
  """Returns a hash [B] uint32 of each puzzle, independent of its row."""
  # A polynomial of tokens and id at an odd number, modulo 2^32.
  numbers = jnp.concatenate([inputs, puzzle_ids[:, None]], axis=1)
  factors = np.full(numbers.shape[1], _ODD).cumprod(dtype=np.uint32)
  return jnp.sum(
    numbers.astype(jnp.uint32) * factors[None], axis=1, dtype=jnp.uint32
  )


def most_confident(answers: jax.Array, halt_logits: jax.Array) -> jax.Array:
  """Chooses the attempt of the highest confidence.

  Args:
    answers: [K, B, L] tokens of each attempt; not used.
    halt_logits: [K, B], of each attempt.

  Returns:
    [K, B] int32: entry k chooses among the attempts 0 to k; ties go to the
    first.
  """
  del answers
  best = jax.lax.cummax(halt_logits, axis=0)
  number = jnp.arange(halt_logits.shape[0], dtype=jnp.int32)[:, None]
  is_new = jnp.concatenate(
    [jnp.ones_like(best[:1], bool), best[1:] > best[:-1]]
  )
  return jax.lax.cummax(jnp.where(is_new, number, 0), axis=0)


def majority_vote(answers: jax.Array, halt_logits: jax.Array) -> jax.Array:
  """Chooses the answer that was given most often.

  Ties go to the higher mean confidence, then to the first seen, as in the votes
  on ARC tasks.

  Args:
    answers: [K, B, L] tokens of each attempt.
    halt_logits: [K, B].

  Returns:
    [K, B] int32: entry k is the first attempt, among 0 to k, that gave the
    chosen answer.
  """
  count = answers.shape[0]
  same = jax.lax.map(
    lambda answer: jnp.all(answers == answer[None], axis=-1), answers
  ).astype(jnp.float32)  # [K, K, B]: do attempts j and i agree?
  confidence = jax.nn.sigmoid(halt_logits)
  votes = jnp.cumsum(same, axis=0)  # of the attempts 0 to k, for i's answer
  mean = jnp.cumsum(same * confidence[:, None], axis=0) / jnp.maximum(votes, 1)
  seen = jnp.tril(jnp.ones((count, count), bool))[:, :, None]  # i <= k
  votes = jnp.where(seen, votes, 0.0)
  leads = votes == jnp.max(votes, axis=1, keepdims=True)
  # Means may be summed in another order: nearly equal ones are a tie.
  merit = jnp.where(leads, jnp.round(mean * 1e6), -1.0)
  return jnp.argmax(merit, axis=1).astype(jnp.int32)


# How to choose among attempts: (answers, halt_logits) -> [K, B].
CHOICES: Mapping[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  "confidence": most_confident,
  "vote": majority_vote,
}


def choose(
  choice: str, answers: jax.Array, halt_logits: jax.Array
) -> jax.Array:
  """Chooses attempts by an entry of `CHOICES`; see there."""
  return registry.get(CHOICES, choice, kind="choice")(answers, halt_logits)
