"""Noise in the latents, so that attempts at a puzzle differ (PTRM), pure."""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from trm_jax.core import types

_ODD = np.uint32(2654435761)  # of Knuth's multiplicative hashing


@flax.struct.dataclass
class Noise:
  """What disturbs the latents before every supervision step.

  Source: PTRM (arXiv 2605.19943). The draws follow from the seed, the puzzle,
  the attempt and the step, not from the batch that a puzzle is in.
  """

  scale: float = flax.struct.field(pytree_node=False)  # standard deviation
  seed: int = flax.struct.field(pytree_node=False)
  attempts: jax.Array  # [B] int32, number of each row's attempt


def disturber(
  noise: Noise | None, inputs: jax.Array, puzzle_ids: jax.Array
) -> Callable[[types.Latents, jax.Array], types.Latents]:
  """Returns what adds noise to the latents before a numbered step.

  Args:
    noise: None, or of scale 0, for none at all.
    inputs: [B, L] int32 questions.
    puzzle_ids: [B] int32.

  Returns:
    A function of latents, [B, S, D] each, and a step's number, [] int32.
  """
  if noise is None or not noise.scale:
    return lambda latents, _: latents
  scale = noise.scale
  keys = jax.vmap(
    lambda puzzle, attempt: jax.random.fold_in(
      jax.random.fold_in(jax.random.key(noise.seed), puzzle), attempt
    )
  )(_fingerprints(inputs, puzzle_ids), noise.attempts)

  def disturb_row(key, number, y, z):
    y_key, z_key = jax.random.split(jax.random.fold_in(key, number))

    def noisy(key, row):
      draw = scale * jax.random.normal(key, row.shape, jnp.float32)
      return row + draw.astype(row.dtype)

    return types.Latents(
      y=noisy(y_key, y), z=None if z is None else noisy(z_key, z)
    )

  def disturb(latents, number):
    return jax.vmap(disturb_row, in_axes=(0, None, 0, 0))(
      keys, number, latents.y, latents.z
    )

  return disturb


def _fingerprints(inputs: jax.Array, puzzle_ids: jax.Array) -> jax.Array:
  """Returns a number [B] uint32 for each puzzle, wherever it stands."""
  # A polynomial of tokens and id at an odd number, modulo 2^32.
  numbers = jnp.concatenate([inputs, puzzle_ids[:, None]], axis=1)
  factors = np.full(numbers.shape[1], _ODD).cumprod(dtype=np.uint32)
  return jnp.sum(
    numbers.astype(jnp.uint32) * factors[None], axis=1, dtype=jnp.uint32
  )


# Which answer to give of several attempts at a puzzle, pure.


def by_confidence(halt_logits: jax.Array) -> jax.Array:
  """Chooses the attempt of the highest confidence (PTRM, arXiv 2605.19943).

  Args:
    halt_logits: [K, B], of each attempt.

  Returns:
    [K, B] int32: entry k chooses among the attempts 0 to k; ties go to the
    first.
  """
  best = jax.lax.cummax(halt_logits, axis=0)
  number = jnp.arange(halt_logits.shape[0], dtype=jnp.int32)[:, None]
  is_new = jnp.concatenate(
    [jnp.ones_like(best[:1], bool), best[1:] > best[:-1]]
  )
  return jax.lax.cummax(jnp.where(is_new, number, 0), axis=0)


def by_vote(answers: jax.Array, halt_logits: jax.Array) -> jax.Array:
  """Chooses the answer that was given most often.

  Ties go to the higher mean confidence, then to the first that was seen, as in
  the votes on ARC's tasks.

  Args:
    answers: [K, B, L] tokens, of each attempt.
    halt_logits: [K, B].

  Returns:
    [K, B] int32: entry k is the first attempt, among 0 to k, that gave the
    chosen answer.
  """
  count = answers.shape[0]
  same = jax.lax.map(
    lambda answer: jnp.all(answers == answer[None], axis=-1), answers
  ).astype(jnp.float32)  # [K, K, B]: whether attempts j and i agree
  confidence = jax.nn.sigmoid(halt_logits)
  votes = jnp.cumsum(same, axis=0)  # of the attempts 0 to k, for i's answer
  mean = jnp.cumsum(same * confidence[:, None], axis=0) / jnp.maximum(votes, 1)
  seen = jnp.tril(jnp.ones((count, count), bool))[:, :, None]  # i <= k
  votes = jnp.where(seen, votes, 0.0)
  leads = votes == jnp.max(votes, axis=1, keepdims=True)
  # Equal means may be summed in another order: what is alike is a tie.
  merit = jnp.where(leads, jnp.round(mean * 1e6), -1.0)
  return jnp.argmax(merit, axis=1).astype(jnp.int32)


def choose(
  choice: str, answers: jax.Array, halt_logits: jax.Array
) -> jax.Array:
  """Chooses by 'confidence' or by 'vote'; see there."""
  if choice == "vote":
    return by_vote(answers, halt_logits)
  if choice == "confidence":
    return by_confidence(halt_logits)
  raise ValueError(f"unknown choice {choice!r}")
