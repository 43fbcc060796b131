"""Optimizers that optax does not have."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class ScaleByAdamAtan2State(NamedTuple):
  """State of `scale_by_adam_atan2`."""

  count: jax.Array  # type: ignore[assignment]  # [] int32, updates so far
  mu: optax.Params  # first moment
  nu: optax.Params  # second moment


def scale_by_adam_atan2(
  b1: float = 0.9, b2: float = 0.95
) -> optax.GradientTransformation:
  """Rescales gradients as Adam does, with atan2 in place of the division.

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    update = atan2(m, sqrt(v / (1 - b2^t))) / (1 - b1^t)

  There is no epsilon, and no update exceeds pi / 2 once b1^t has vanished.
  The first moment's correction stands outside of atan2, as in the
  implementation that TRM was trained with (adam-atan2 0.0.3).

  Source: arXiv 2407.05872, section 3.3 (Scaling Exponents).

  Args:
    b1: decay of the first moment.
    b2: decay of the second moment.

  Returns:
    An optax transformation; chain decay and learning rate behind it.
  """

  def init(params):
    zeros = lambda: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    return ScaleByAdamAtan2State(
      count=jnp.zeros([], jnp.int32), mu=zeros(), nu=zeros()
    )

  def update(updates, state, params=None):
    del params
    count = optax.safe_increment(state.count)
    mu = jax.tree.map(lambda m, g: m + (1 - b1) * (g - m), state.mu, updates)
    nu = jax.tree.map(
      lambda v, g: v + (1 - b2) * (g * g - v), state.nu, updates
    )
    t = count.astype(jnp.float32)
    correction1 = _one_minus_power(b1, t)
    correction2 = jnp.sqrt(_one_minus_power(b2, t))
    updates = jax.tree.map(
      lambda m, v: jnp.arctan2(m, jnp.sqrt(v) / correction2) / correction1,
      mu,
      nu,
    )
    return updates, ScaleByAdamAtan2State(count=count, mu=mu, nu=nu)

  return optax.GradientTransformation(init, update)


def _one_minus_power(base: float, t: jax.Array) -> jax.Array:
  """Computes 1 - base^t; a base near 1 would cancel in float32."""
  log_base = math.log(base) if base > 0 else -math.inf
  return -jnp.expm1(t * log_base)
