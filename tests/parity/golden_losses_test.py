"""Golden case 04: cross-entropies, supervision loss, metrics."""

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import losses, metrics, types

LOGIT_SETS = ("random", "magnitude", "edge")


@pytest.mark.parametrize("logit_set", LOGIT_SETS)
@pytest.mark.parametrize("loss", ["stablemax", "softmax"])
def test_golden_cross_entropy_and_gradient(logit_set, loss):
  case = golden.load("case04_losses")
  labels = jnp.asarray(case["labels"])
  expected = golden.under(case, f"{logit_set}/{loss}/")

  def divided_sum(logits):
    per_token = losses.ANSWER_LOSSES[loss](logits, labels)
    count = jnp.maximum(jnp.sum(labels != types.IGNORED_LABEL, -1), 1)
    return jnp.sum(per_token / count[:, None]), per_token

  gradient, per_token = jax.jit(jax.grad(divided_sum, has_aux=True))(
    jnp.asarray(case[f"{logit_set}/logits"])
  )
  # Each token's loss is its own computation, up to 1e8 where others are 1.
  costs = expected["per_token"]
  golden.assert_close(per_token, costs, scale=np.maximum(np.abs(costs), 1.0))
  golden.assert_close(gradient, expected["dlogits_of_divided_sum"])


@pytest.mark.parametrize("logit_set", LOGIT_SETS)
def test_golden_log_stablemax_of_every_class(logit_set):
  case = golden.load("case04_losses")
  logits = jnp.asarray(case[f"{logit_set}/logits"])
  for label in range(logits.shape[-1]):
    loss = losses.stablemax_cross_entropy(
      logits, jnp.full(logits.shape[:-1], label)
    )
    # Relative, down to the tiniest loss: this is why it is written as log1p.
    expected = -case[f"{logit_set}/log_stablemax_f64"][..., label]
    golden.assert_close(loss, expected, scale=expected)


def test_golden_stablemax_of_two_classes_gives_s():
  """p = s(x) / (s(x) + s(0)) and s(0) = 1."""
  case = golden.load("case04_losses")
  x = jnp.asarray(case["stablemax_s/x"], jnp.float32)
  logits = jnp.stack([jnp.zeros_like(x), x], -1)
  loss = losses.stablemax_cross_entropy(logits, jnp.zeros(x.shape, jnp.int32))
  y = case["stablemax_s/y"]
  golden.assert_close(np.expm1(np.asarray(loss, np.float64)), y, scale=y)


HEADS = [
  (logit_set, loss, cont, q)
  for logit_set in ("random", "magnitude", "edge")
  for loss in ("stablemax", "softmax_fixed")
  for cont in ("no_continue", "with_continue")
  for q in ("q", "qedge")
  if f"head/{logit_set}/{loss}/{cont}/{q}/loss" in golden.load("case04_losses")
]


@pytest.mark.parametrize(("logit_set", "loss", "cont", "q"), HEADS)
def test_golden_supervision_loss(logit_set, loss, cont, q):
  case = golden.load("case04_losses")
  head = golden.under(case, "head/")
  expected = golden.under(head, f"{logit_set}/{loss}/{cont}/{q}/")
  labels = jnp.asarray(case["labels"])
  logits = jnp.asarray(case[f"{logit_set}/logits"])
  halt_logits = jnp.asarray(head["q_halt" + "_edge" * (q == "qedge")])
  targets = None
  if cont == "with_continue":
    targets = jnp.asarray(head["target_q_continue"])

  def total(logits, halt_logits, continue_logits):
    output = types.Output(None, logits, halt_logits, continue_logits)
    rows = losses.supervision_loss(
      output,
      labels,
      answer_loss=loss.removesuffix("_fixed"),
      halt_loss_weight=0.5,
      continue_targets=targets,
    )
    return jnp.sum(rows.total), (output, rows)

  gradients, (output, rows) = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(
    logits, halt_logits, jnp.asarray(head["q_continue"])
  )
  halted = jnp.asarray(head["halted"])
  sums = metrics.row_sums(
    output,
    labels,
    rows,
    steps=jnp.asarray(head["steps"]),
    counted=halted,
    rows=jnp.ones_like(halted),
  )
  golden.assert_close(sums["loss"], expected["loss"], name="loss")
  for official, value in golden.under(expected, "metrics/").items():
    golden.assert_close(
      sums[golden.OUR_METRICS[official]], value, name=official
    )
  np.testing.assert_array_equal(jnp.argmax(logits, -1), expected["preds"])
  assert bool(jnp.all(halted)) == bool(expected["all_halted"])
  for name, gradient in zip(
    ("dlogits", "dq_halt", "dq_continue"), gradients, strict=True
  ):
    if name in expected:
      golden.assert_close(gradient, expected[name], name=name)
