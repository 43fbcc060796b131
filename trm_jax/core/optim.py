"""Optimizers of the network's parameters, and the learning-rate schedule.

To add an optimizer, add an entry to `OPTIMIZERS`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from . import registry

# The kind of each parameter, by its path; Muon trains only the matrices of the
# recursive network. Every parameter must be covered.
PARAMETER_LABELS = (
  (r"(answer_)?network/layers_\d+/\w+/\w+/kernel", "matrix"),
  # No matrices; trained as the heads are.
  (r"(answer_)?network/layers_\d+/\w+/conv_(kernel|bias)", "head"),
  (r"(token|position|role)_embedding/embedding", "embedding"),
  (r"(answer|halt)_head/(kernel|bias)", "head"),
)


def label_parameters(
  params: Any, rules: tuple[tuple[str, str], ...] = PARAMETER_LABELS
) -> Any:
  """Labels each parameter with its kind.

  Args:
    params: a tree of arrays.
    rules: (pattern of the whole path, label); the first match counts.

  Returns:
    The same tree with a label in place of each array.

  Raises:
    ValueError: some parameters match no rule; all are listed.
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
    raise ValueError(
      "no optimizer label covers " + ", ".join(uncovered) + "; add a rule to"
      " PARAMETER_LABELS in core/optim.py"
    )
  return labels


def learning_rate_schedule(
  peak: float, *, warmup_steps: int, num_steps: int, min_ratio: float
) -> optax.Schedule:
  """Returns the rate by supervision step: linear warm-up, then cosine.

  optax's cosine holds its last value. This one follows the official code: it
  would rise again past `num_steps`, which training never reaches.

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


@dataclasses.dataclass(frozen=True)
class Hyperparameters:
  """Hyperparameters of an optimizer and its schedule.

  Attributes:
    name: name in `OPTIMIZERS`.
    learning_rate: after the warm-up.
    warmup_steps: of the linear warm-up from 0.
    min_learning_rate_ratio: end of the cosine as a share of its peak; 1 for a
      constant rate.
    beta1: decay of the first moment.
    beta2: decay of the second moment.
    weight_decay: decoupled, times the learning rate.
    muon_learning_rate: of matrices, with 'muon'.
    muon_weight_decay: of matrices, times their learning rate.
    muon_momentum: Nesterov momentum of matrices.
    muon_iterations: Newton-Schulz iterations.
    max_gradient_norm: over all parameters; 0 for no clipping.
  """

  name: str = "adam_atan2"
  learning_rate: float = 1e-4
  warmup_steps: int = 0
  min_learning_rate_ratio: float = 1.0
  beta1: float = 0.9
  beta2: float = 0.95
  weight_decay: float = 0.0
  muon_learning_rate: float = 0.02
  muon_weight_decay: float = 0.005
  muon_momentum: float = 0.95
  muon_iterations: int = 5
  max_gradient_norm: float = 0.0


def make_schedule(
  peak: float, settings: Hyperparameters, num_steps: int
) -> optax.Schedule:
  """Returns the schedule of the hyperparameters with another peak."""
  return learning_rate_schedule(
    peak,
    warmup_steps=settings.warmup_steps,
    num_steps=num_steps,
    min_ratio=settings.min_learning_rate_ratio,
  )


def make_optimizer(
  settings: Hyperparameters, num_steps: int
) -> optax.GradientTransformation:
  """Returns the optimizer of the network's parameters.

  Args:
    settings: its hyperparameters.
    num_steps: supervision steps of the whole training, for the schedule.

  Returns:
    An optax transformation. Its `init` raises ValueError if a parameter is
    covered by no label.

  Raises:
    ValueError: there is no optimizer of this name.
  """

  def schedule(peak):
    rate = make_schedule(peak, settings, num_steps)
    # optax counts updates from 0, the schedule counts steps from 1.
    return lambda count: rate(count + 1)

  make = registry.get(OPTIMIZERS, settings.name, kind="optimizer")
  transform = make(settings, schedule)
  if settings.max_gradient_norm:
    clip = optax.clip_by_global_norm(settings.max_gradient_norm)
    transform = optax.chain(clip, transform)

  def init(params):
    label_parameters(params)  # every optimizer covers every parameter
    return transform.init(params)

  return optax.GradientTransformation(init, transform.update)


def _adam_atan2(settings, schedule):
  return optax.chain(
    scale_by_adam_atan2(settings.beta1, settings.beta2),
    optax.add_decayed_weights(settings.weight_decay),
    optax.scale_by_learning_rate(schedule(settings.learning_rate)),
  )


def _adamw(settings, schedule):
  return optax.adamw(
    schedule(settings.learning_rate),
    b1=settings.beta1,
    b2=settings.beta2,
    weight_decay=settings.weight_decay,
  )


def _muon(settings, schedule):
  """Muon for the network's matrices, AdamW for the rest."""
  # Kernels are [in, out]: updates are scaled by sqrt(max(1, out / in)). A
  # kernel that holds several maps (gate and up; query, key and value) is
  # orthogonalized as one matrix.
  muon = optax.contrib.muon(
    schedule(settings.muon_learning_rate),
    ns_steps=settings.muon_iterations,
    beta=settings.muon_momentum,
    weight_decay=settings.muon_weight_decay,
  )
  adamw = _adamw(settings, schedule)
  return optax.partition(
    {"matrix": muon, "embedding": adamw, "head": adamw}, label_parameters
  )


# Each makes an optimizer of the hyperparameters and of a function that maps a
# peak learning rate to its schedule.
OPTIMIZERS: Mapping[
  str,
  Callable[
    [Hyperparameters, Callable[[float], optax.Schedule]],
    optax.GradientTransformation,
  ],
] = {"adam_atan2": _adam_atan2, "adamw": _adamw, "muon": _muon}


class ScaleByAdamAtan2State(NamedTuple):
  """State of `scale_by_adam_atan2`.

  Attributes:
    count: [] int32, updates so far.
    mu: first moment, like the parameters.
    nu: second moment, like the parameters.
  """

  count: jax.Array  # type: ignore[assignment]
  mu: optax.Params
  nu: optax.Params


def scale_by_adam_atan2(
  b1: float = 0.9, b2: float = 0.95
) -> optax.GradientTransformation:
  """Rescales gradients as Adam does, with atan2 in place of the division.

    m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
    update = atan2(m, sqrt(v / (1 - b2^t))) / (1 - b1^t)

  There is no epsilon, and no update exceeds pi / 2 once b1^t has vanished.
  The first moment is corrected outside atan2, as in the implementation that TRM
  was trained with (adam-atan2 0.0.3).

  Source: arXiv 2407.05872, section 3.3 (Scaling Exponents).

  Args:
    b1: decay of the first moment.
    b2: decay of the second moment.

  Returns:
    An optax transformation, to be followed by decay and learning rate.
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
  """Computes 1 - base^t without cancellation for a base near 1."""
  log_base = math.log(base) if base > 0 else -math.inf
  return -jnp.expm1(t * log_base)
