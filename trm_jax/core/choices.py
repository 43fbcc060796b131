"""Choosing one of several attempts at a puzzle; see `rollouts`.

To add a way to choose, add an entry to `CHOICES`.
"""

from collections.abc import Callable, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from . import registry

NEVER = np.int32(2**30)  # the step at which an attempt halts that does not


_WINDOW = 3  # steps over which the change of an answer is averaged


def no_changes(count: int) -> jax.Array:
  """Returns the changes before the first step, [count, w] float32."""
  return jnp.zeros((count, _WINDOW), jnp.float32)


def add_change(
  changes: jax.Array, logits: jax.Array, before: jax.Array, steps: jax.Array
) -> jax.Array:
  """Adds the change of an answer in a step and drops the oldest one.

  Args:
    changes: [s, w] float32, the latest last.
    logits: [s, L, V] float32, of the answer.
    before: [s, L, V], of the step before.
    steps: [s] int32, number of the step; there is no change in the first.
  """
  change = jnp.linalg.norm(logits - before, axis=-1).mean(axis=-1)
  change = jnp.where(steps > 1, change, 0.0)
  return jnp.concatenate([changes[:, 1:], change[:, None]], axis=1)


def residual(changes: jax.Array, steps: jax.Array) -> jax.Array:
  """Returns the mean change in the last steps, [s]; infinite after one step.

  Source: EqR's code (arXiv 2605.21488): the L2 norm over tokens, averaged over
  cells and steps.
  """
  number = jnp.minimum(steps - 1, _WINDOW)
  mean = changes.sum(axis=1) / jnp.maximum(number, 1)
  return jnp.where(number > 0, mean, jnp.inf)


@flax.struct.dataclass
class Candidates:
  """What attempts are chosen by, after some number of steps.

  Attributes:
    answers: [K, B, L] tokens; only the vote needs them, else None.
    halt_logits: [K, B].
    residual: [K, B], as of `rollouts.Attempts`.
    halted_after: [K, B], as of `rollouts.Attempts`.
  """

  answers: jax.Array | None
  halt_logits: jax.Array
  residual: jax.Array
  halted_after: jax.Array


def leaders(merit: jax.Array) -> jax.Array:
  """Returns the index of the largest merit so far.

  Args:
    merit: [K, B].

  Returns:
    [K, B] int32: entry k is an index among 0 to k; ties go to the first.
  """
  best = jax.lax.cummax(merit, axis=0)
  number = jnp.arange(merit.shape[0], dtype=jnp.int32)[:, None]
  is_new = jnp.concatenate(
    [jnp.ones_like(best[:1], bool), best[1:] > best[:-1]]
  )
  return jax.lax.cummax(jnp.where(is_new, number, 0), axis=0)


def _by_keys(first: jax.Array, second: jax.Array) -> jax.Array:
  """Returns the leaders by the smallest first key, then the second."""
  order = jnp.lexsort((second, first), axis=0)
  return leaders(-jnp.argsort(order, axis=0))


def most_confident(candidates: Candidates) -> jax.Array:
  """Chooses the attempt of the highest confidence; see `CHOICES`."""
  return leaders(candidates.halt_logits)


def least_changing(candidates: Candidates) -> jax.Array:
  """Chooses the attempt of the smallest residual (EqR); see `CHOICES`."""
  return leaders(-candidates.residual)


def first_to_halt(candidates: Candidates) -> jax.Array:
  """Chooses the attempt that halted in the fewest steps; see `CHOICES`.

  Ties go to the higher confidence; if none halted, attempt 0 is chosen (Speed
  is Confidence, arXiv 2601.19085).
  """
  after = candidates.halted_after
  return _by_keys(after, jnp.where(after < NEVER, -candidates.halt_logits, 0.0))


def majority_vote(candidates: Candidates) -> jax.Array:
  """Chooses the first attempt that gave the most frequent answer.

  Ties go to the higher mean confidence, then to the first seen, as in the votes
  on ARC tasks; see `CHOICES`.
  """
  answers, halt_logits = candidates.answers, candidates.halt_logits
  if answers is None:
    raise ValueError("a vote needs the answers")
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


# How to choose among attempts: candidates -> [K, B] int32; entry k chooses
# among the attempts 0 to k. The rules of a game, which are no part of a
# program, choose on the host: `by_rules`.
CHOICES: Mapping[str, Callable[[Candidates], jax.Array]] = {
  "confidence": most_confident,
  "first": first_to_halt,
  "residual": least_changing,
  "vote": majority_vote,
}


def choose(choice: str, candidates: Candidates) -> jax.Array:
  """Chooses attempts by an entry of `CHOICES`; see there."""
  return registry.get(CHOICES, choice, kind="choice")(candidates)


def by_rules(valid: np.ndarray, halt_logits: np.ndarray) -> np.ndarray:
  """Chooses a valid attempt, of several the most confident.

  Args:
    valid: [K, B] bool, by the rules of the game.
    halt_logits: [K, B].

  Returns:
    [B] int; the most confident attempt where none is valid.
  """
  merit = np.where(valid == valid.any(axis=0), halt_logits, -np.inf)
  return merit.argmax(axis=0)
