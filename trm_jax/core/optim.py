"""Builds the optimizer and its schedules from the settings."""

import math
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from trm_jax import config as config_lib
from trm_jax import errors

# What each parameter is, by its path; Muon treats matrices of the recursive
# network alone. Every parameter must be covered.
PARAMETER_LABELS = (
  (r"(answer_)?network/layers_\d+/\w+/\w+/kernel", "matrix"),
  (r"(token|position)_embedding/embedding", "embedding"),
  (r"(answer|halt)_head/(kernel|bias)", "head"),
)


def label_parameters(
  params: Any, rules: tuple[tuple[str, str], ...] = PARAMETER_LABELS
) -> Any:
  """Names what each parameter is.

  Args:
    params: a tree of arrays.
    rules: (pattern of the whole path, label); the first match counts.

  Returns:
    The same tree with a label in place of each array.

  Raises:
    UserError: some parameters match no rule; all are listed.
  """
  uncovered = []

  def label(path, _):
    name = "/".join(str(getattr(p, "key", p)) for p in path)
    for pattern, value in rules:
      if re.fullmatch(pattern, name):
        return value
    uncovered.append(name)
    return None

  labels = jax.tree_util.tree_map_with_path(label, params)
  if uncovered:
    raise errors.UserError(
      "no optimizer label covers " + ", ".join(uncovered) + "; add a rule to"
      " PARAMETER_LABELS in trm_jax/core/optim.py"
    )
  return labels


def learning_rate_schedule(
  peak: float, *, warmup_steps: int, num_steps: int, min_ratio: float
) -> optax.Schedule:
  """Returns the rate by supervision step: linear warm-up, then cosine.

  optax's cosine holds its last value; the official one, followed here,
  would rise again past `num_steps`, where no training goes.

  Args:
    peak: rate after the warm-up.
    warmup_steps: the rate rises from 0 at step 0 to the peak at this step.
    num_steps: where the cosine ends.
    min_ratio: the cosine's end as a share of the peak; 1 holds the peak.

  Returns:
    A function of the step, counted from 1 in training.
  """

  def rate(step):
    decay_steps = max(num_steps - warmup_steps, 1)
    progress = (step - warmup_steps) / decay_steps
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return peak * jnp.where(
      step < warmup_steps,
      step / max(warmup_steps, 1),
      min_ratio + (1.0 - min_ratio) * cosine,
    )

  return rate


def make_schedule(
  peak: float, optimizer: config_lib.OptimizerConfig, num_steps: int
) -> optax.Schedule:
  """Returns the schedule of the settings, scaled to `peak`."""
  return learning_rate_schedule(
    peak,
    warmup_steps=optimizer.warmup_steps,
    num_steps=num_steps,
    min_ratio=optimizer.min_learning_rate_ratio,
  )


def make_optimizer(
  optimizer: config_lib.OptimizerConfig, num_steps: int
) -> optax.GradientTransformation:
  """Returns the optimizer of the network's parameters.

  Args:
    optimizer: the settings.
    num_steps: supervision steps of the whole training, for the schedule.

  Returns:
    An optax transformation. Its `init` raises UserError if a parameter is
    covered by no label.
  """

  def schedule(peak):
    rate = make_schedule(peak, optimizer, num_steps)
    # optax counts updates from 0, the schedule counts steps from 1.
    return lambda count: rate(count + 1)

  rate = schedule(optimizer.learning_rate)
  adamw = optax.adamw(
    rate,
    b1=optimizer.beta1,
    b2=optimizer.beta2,
    weight_decay=optimizer.weight_decay,
  )
  if optimizer.name == "muon":
    # Kernels are [in, out]: updates are scaled by sqrt(max(1, out / in)). A
    # kernel that holds several maps (gate and up; query, key and value) is
    # orthogonalised as the one matrix that it is.
    muon = optax.contrib.muon(
      schedule(optimizer.muon_learning_rate),
      ns_steps=optimizer.muon_iterations,
      beta=optimizer.muon_momentum,
      weight_decay=optimizer.muon_weight_decay,
    )
    transform = optax.partition(
      {"matrix": muon, "embedding": adamw, "head": adamw}, label_parameters
    )
  elif optimizer.name == "adamw":
    transform = adamw
  else:
    transform = optax.chain(
      scale_by_adam_atan2(optimizer.beta1, optimizer.beta2),
      optax.add_decayed_weights(optimizer.weight_decay),
      optax.scale_by_learning_rate(rate),
    )
  if optimizer.max_gradient_norm:
    clip = optax.clip_by_global_norm(optimizer.max_gradient_norm)
    transform = optax.chain(clip, transform)

  def init(params):
    label_parameters(params)  # every optimizer covers every parameter
    return transform.init(params)

  return optax.GradientTransformation(init, transform.update)


# Optimizers that optax does not have.


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
