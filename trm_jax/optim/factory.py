"""Builds the optimizer and its schedules from the settings."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.optim import transforms

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
      " PARAMETER_LABELS in trm_jax/optim/factory.py"
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
      transforms.scale_by_adam_atan2(optimizer.beta1, optimizer.beta2),
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
