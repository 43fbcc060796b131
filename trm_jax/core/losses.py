"""Losses of a supervision step (paper, section 2.4; official losses.py)."""

import chex
import flax.struct
import jax
import jax.numpy as jnp
import optax

from . import registry, types


def stablemax_cross_entropy(
  logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
  """Computes cross-entropy with stablemax in place of softmax.

  p_i = s(x_i) / sum_j s(x_j), with s(x) = x + 1 for x >= 0 and 1 / (1 - x)
  below (arXiv 2501.04697, section 4). Written as log(1 + others / own), which
  keeps float32 within 1e-6 of float64.

  Args:
    logits: [..., V], any float dtype; computed in float32.
    labels: [...] int32 in 0..V-1, or IGNORED_LABEL.
    label_smoothing: share of the target spread evenly over all V tokens (arXiv
      1512.00567, section 7).

  Returns:
    [...] float32, 0 where the label is ignored.
  """
  x = logits.astype(jnp.float32)
  # The branch below 0 must not see x == 1: it would divide by 0, and its
  # gradient would turn the sum into NaN. (`minimum` would halve the gradient
  # at x == 0.)
  low = jnp.where(x < 0, x, 0.0)
  mass = jnp.where(x < 0, 1.0 / (1.0 - low), x + 1.0)
  known = labels != types.IGNORED_LABEL
  own = jax.nn.one_hot(
    jnp.where(known, labels, 0), x.shape[-1], dtype=jnp.bool_
  )
  own_mass = jnp.sum(jnp.where(own, mass, 0.0), axis=-1)
  other_mass = jnp.sum(jnp.where(own, 0.0, mass), axis=-1)
  costs = jnp.log1p(other_mass / own_mass)
  if label_smoothing:
    log_mass = jnp.where(x < 0, -jnp.log1p(-low), jnp.log1p(x - low))
    of_all = jnp.log(own_mass + other_mass) - jnp.mean(log_mass, axis=-1)
    costs = _smoothed(costs, of_all, label_smoothing)
  return jnp.where(known, costs, 0.0)


def softmax_cross_entropy(
  logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
  """Computes softmax cross-entropy; arguments as for stablemax."""
  known = labels != types.IGNORED_LABEL
  # log_softmax subtracts the largest logit first. optax's version of this loss
  # subtracts it at the end and loses digits to large logits.
  log_probs = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
  own = jnp.where(known, labels, 0)[..., None]
  costs = -jnp.take_along_axis(log_probs, own, axis=-1)[..., 0]
  if label_smoothing:
    of_all = -jnp.mean(log_probs, axis=-1)
    costs = _smoothed(costs, of_all, label_smoothing)
  return jnp.where(known, costs, 0.0)


def _smoothed(
  of_label: jax.Array, of_all: jax.Array, label_smoothing: float
) -> jax.Array:
  """Mixes the label's cross-entropy with the mean of all V tokens'."""
  return (1.0 - label_smoothing) * of_label + label_smoothing * of_all


ANSWER_LOSSES = {
  "stablemax": stablemax_cross_entropy,
  "softmax": softmax_cross_entropy,
}


@flax.struct.dataclass
class RowLosses:
  """Losses of each row.

  Attributes:
    answer: [B] float32, mean over the row's labels, never smoothed.
    halt: [B] float32.
    continue_: [B] float32, 0 without continue targets.
    total: [B] float32; its mean over rows is minimized.
  """

  answer: jax.Array
  halt: jax.Array
  continue_: jax.Array
  total: jax.Array


def sequence_is_correct(
  logits: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Compares the likeliest answer with the labels.

  Args:
    logits: [B, L, V].
    labels: [B, L] int32 or IGNORED_LABEL.

  Returns:
    correct: [B, L] bool, False where the label is ignored.
    exact: [B] bool; True for a row without labels, as in the official code.
  """
  known = labels != types.IGNORED_LABEL
  correct = known & (jnp.argmax(logits, axis=-1) == labels)
  return correct, jnp.all(correct | ~known, axis=-1)


def answer_losses(
  output: types.Output,
  labels: jax.Array,
  *,
  answer_loss: str,
  label_smoothing: float,
  num_labels: jax.Array | None = None,
) -> jax.Array:
  """Computes the mean answer loss over the labels of each row, [B].

  Args:
    output: of the model.
    labels: [B, L] int32 or IGNORED_LABEL.
    answer_loss: name in `ANSWER_LOSSES`.
    label_smoothing: of the labels.
    num_labels: [B] int, if already counted.
  """
  if num_labels is None:
    num_labels = jnp.sum(labels != types.IGNORED_LABEL, axis=-1)
  loss = registry.get(ANSWER_LOSSES, answer_loss, kind="answer_loss")
  per_token = loss(output.logits, labels, label_smoothing=label_smoothing)
  return jnp.sum(per_token, axis=-1) / jnp.maximum(num_labels, 1)


def supervision_loss(
  output: types.Output,
  labels: jax.Array,
  *,
  answer_loss: str,
  halt_loss_weight: float,
  label_smoothing: float = 0.0,
  continue_targets: jax.Array | None = None,
) -> RowLosses:
  """Computes answer loss + weight x (halt loss + continue loss), per row.

  The halting head learns whether the answer is exactly right (binary
  cross-entropy). Label smoothing changes only the total, so that the reported
  answer loss is comparable across runs and between training and evaluation.

  Args:
    output: of the model.
    labels: [B, L] int32 or IGNORED_LABEL.
    answer_loss: name in `ANSWER_LOSSES`.
    halt_loss_weight: weight of the halting losses, 0.5 in the paper.
    label_smoothing: of the answer's labels, in the total only.
    continue_targets: [B] float32 in 0..1, for the rule halt_over_continue.

  Returns:
    The losses of each row.
  """
  chex.assert_equal_shape([output.logits[..., 0], labels])
  num_labels = jnp.sum(labels != types.IGNORED_LABEL, axis=-1)

  def mean_loss(smoothing):
    return answer_losses(
      output,
      labels,
      answer_loss=answer_loss,
      label_smoothing=smoothing,
      num_labels=num_labels,
    )

  answer = mean_loss(0.0)
  _, exact = sequence_is_correct(output.logits, labels)
  halt = optax.sigmoid_binary_cross_entropy(
    output.halt_logits, exact.astype(jnp.float32)
  )
  if continue_targets is None:
    continue_ = jnp.zeros_like(halt)
  else:
    continue_ = optax.sigmoid_binary_cross_entropy(
      output.continue_logits, continue_targets
    )
  minimised = mean_loss(label_smoothing) if label_smoothing else answer
  total = minimised + halt_loss_weight * (halt + continue_)
  return RowLosses(answer=answer, halt=halt, continue_=continue_, total=total)
