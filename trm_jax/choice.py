"""Which answer to give of several attempts at a puzzle, pure."""

import jax
import jax.numpy as jnp


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
