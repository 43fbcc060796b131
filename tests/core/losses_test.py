"""Losses against float64, and metrics as sums that add up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import losses, metrics, types

IGNORED = types.IGNORED_LABEL
LOSSES = pytest.mark.parametrize("name", ["stablemax", "softmax"])


def _stablemax_float64(logits, labels):
  x = np.asarray(logits, np.float64)
  mass = np.where(x < 0, 1 / (1 - np.minimum(x, 0)), x + 1)
  own = np.take_along_axis(mass, labels[..., None], -1)[..., 0]
  others = mass.copy()
  np.put_along_axis(others, labels[..., None], 0.0, -1)
  return np.log1p(others.sum(-1) / own)


def _softmax_float64(logits, labels):
  x = np.asarray(logits, np.float64)
  own = np.take_along_axis(x, labels[..., None], -1)
  shifted = np.exp(x - own)
  np.put_along_axis(shifted, labels[..., None], 0.0, -1)
  return np.log1p(shifted.sum(-1))


ORACLES = {"stablemax": _stablemax_float64, "softmax": _softmax_float64}


@LOSSES
@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
def test_losses_match_float64(name, scale):
  rng = np.random.default_rng(0)
  logits = (rng.standard_normal((500, 7)) * scale).astype(np.float32)
  labels = rng.integers(0, 7, 500)
  actual = losses.ANSWER_LOSSES[name](jnp.asarray(logits), labels)
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(
    np.asarray(actual, np.float64),
    ORACLES[name](logits, labels),
    rtol=1e-6,
    atol=0.0 if name == "stablemax" else 1e-6,  # as float32 log_softmax
  )


@pytest.mark.parametrize("peak", [1e2, 1e4, 1e8, 1e12])
def test_tiny_stablemax_losses_match_float64(peak):
  logits = np.array([[peak, 1.0, -3.0], [peak, -peak, -0.5]], np.float32)
  labels = np.array([0, 0])
  expected = _stablemax_float64(logits, labels)
  assert expected.max() < 0.03
  actual = losses.stablemax_cross_entropy(jnp.asarray(logits), labels)
  np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_small_softmax_losses_match_float64():
  logits = np.array([[1000.0, 1002.0, 992.0], [5.0, 5.0, 0.0]], np.float32)
  labels = np.array([1, 0])
  actual = losses.softmax_cross_entropy(jnp.asarray(logits), labels)
  np.testing.assert_allclose(
    actual, _softmax_float64(logits, labels), rtol=1e-6
  )


@functools.cache
def _value_and_gradient(name, smoothing):
  def total(logits, labels):
    return jnp.sum(
      losses.ANSWER_LOSSES[name](logits, labels, label_smoothing=smoothing)
    )

  return jax.jit(jax.value_and_grad(total))


EDGES = (1.0, 0.0, -0.0, -1.0, 1e18, -1e18, 30000.0, -30000.0)


@LOSSES
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_no_gradient_is_nan(name, dtype, edge, smoothing):
  # As the label's logit, as another's, as all; and where no label is.
  logits = jnp.array(
    [[edge, 0.5, -0.5], [0.5, edge, -0.5], [edge] * 3, [edge] * 3], dtype
  )
  labels = np.array([0, 0, 0, IGNORED])
  value, gradient = _value_and_gradient(name, smoothing)(logits, labels)
  assert np.isfinite(value)
  assert gradient.dtype == dtype
  assert np.isfinite(np.asarray(gradient, np.float32)).all()
  np.testing.assert_array_equal(gradient[3], 0.0)


def test_softmax_survives_the_largest_logits():
  gradient = jax.grad(
    lambda x: jnp.sum(losses.softmax_cross_entropy(x, np.array([0])))
  )(jnp.array([[-1e30, 1e30, 0.0]]))
  np.testing.assert_array_equal(gradient, [[-1.0, 1.0, 0.0]])


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("x", [-3.0, -1e-3, 0.0, 1e-3, 1.0, 4.0])
def test_stablemax_gradient_matches_the_formula(x, smoothing):
  # d/dx log(s(x)) = 1 / (1 + |x|) on both sides of 0.
  logits = jnp.array([[x, 0.25]])
  _, gradient = _value_and_gradient("stablemax", smoothing)(
    logits, np.array([0])
  )
  mass = x + 1 if x >= 0 else 1 / (1 - x)
  share = mass / (mass + 1.25)
  expected = (share - (1 - smoothing / 2)) / (1 + abs(x))
  np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-5)


# --- label smoothing -------------------------------------------------------


@LOSSES
@pytest.mark.parametrize("smoothing", [0.1, 0.2, 0.9])
def test_smoothed_losses_are_cross_entropies_with_a_mixed_target(
  name, smoothing
):
  rng = np.random.default_rng(3)
  logits = (rng.standard_normal((200, 6)) * 3).astype(np.float32)
  labels = rng.integers(0, 6, 200)
  of_each = np.stack(  # the cost of every token, were it the label
    [ORACLES[name](logits, np.full(200, token)) for token in range(6)], -1
  )
  target = np.full((200, 6), smoothing / 6)
  target[np.arange(200), labels] += 1 - smoothing
  actual = losses.ANSWER_LOSSES[name](
    jnp.asarray(logits), labels, label_smoothing=smoothing
  )
  assert actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, (target * of_each).sum(-1), rtol=2e-6)


@pytest.mark.parametrize(
  ("name", "logits", "expected"),
  [
    # Shares 3/4 and 1/4: 0.9 log(4/3) + 0.1 log 4.
    ("stablemax", [2.0, 0.0], 0.397543),
    ("softmax", [float(np.log(3)), 0.0], 0.397543),
    # Masses 1, 1/2, 1/2: (0.8 + 0.2/3) log 2 + 2 (0.2/3) log 4.
    ("stablemax", [0.0, -1.0, -1.0], 0.785567),
  ],
)
def test_smoothed_losses_by_hand(name, logits, expected):
  actual = losses.ANSWER_LOSSES[name](
    jnp.array([logits]), np.array([0]), label_smoothing=0.2
  )
  np.testing.assert_allclose(actual, [expected], rtol=1e-5)


@LOSSES
def test_the_smoothed_loss_is_least_at_the_mixed_target(name):
  # Its masses or exponentials are 0.85, 0.05, 0.05, 0.05 times a number.
  target = np.array([0.85, 0.05, 0.05, 0.05])
  if name == "softmax":
    logits = np.log(target)
  else:
    mass = 4 * target
    logits = np.where(mass < 1, 1 - 1 / mass, mass - 1)

  def cost(logits):
    return losses.ANSWER_LOSSES[name](
      logits[None], np.array([0]), label_smoothing=0.2
    )[0]

  logits = jnp.asarray(logits, jnp.float32)
  np.testing.assert_allclose(
    cost(logits), -np.sum(target * np.log(target)), rtol=1e-5
  )
  np.testing.assert_allclose(jax.grad(cost)(logits), 0.0, atol=1e-6)


@LOSSES
def test_ignored_labels_are_not_smoothed_either(name):
  logits = jnp.array([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]])
  labels = np.array([IGNORED, 2])
  _, gradient = _value_and_gradient(name, 0.2)(logits, labels)
  np.testing.assert_array_equal(gradient[0], 0.0)
  assert np.abs(gradient[1]).min() > 0


# --- supervision loss ------------------------------------------------------


def _output(seed, *, batch=4, length=6, vocab=5):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(  # noqa: E731
    rng.standard_normal(shape), jnp.float32
  )
  nothing = jnp.zeros((batch, 1, 1))
  return types.Output(
    latents=types.Latents(y=nothing, z=nothing),
    logits=normal(batch, length, vocab) * 2,
    halt_logits=normal(batch),
    continue_logits=normal(batch),
  )


def _labels(seed=0, *, batch=4, length=6, vocab=5):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, vocab, (batch, length)).astype(np.int32)
  rows, cells = np.indices(labels.shape)
  return np.where((rows + 2 * cells) % 5 == 0, IGNORED, labels)


_supervision_loss = jax.jit(
  losses.supervision_loss, static_argnames=("answer_loss", "label_smoothing")
)
_row_sums = jax.jit(metrics.row_sums)


def _loss(
  output, labels, name="stablemax", weight=0.5, targets=None, **smoothing
):
  return _supervision_loss(
    output,
    jnp.asarray(labels),
    answer_loss=name,
    halt_loss_weight=weight,
    continue_targets=targets,
    **smoothing,
  )


@LOSSES
def test_masked_loss_is_the_loss_of_the_subset(name):
  output, labels = _output(1), _labels()
  rows = _loss(output, labels, name)
  for row in range(len(labels)):
    known = labels[row] != IGNORED
    assert 0 < known.sum() < 6
    subset = types.Output(
      latents=output.latents,
      logits=output.logits[row : row + 1, known],
      halt_logits=output.halt_logits[row : row + 1],
      continue_logits=output.continue_logits[row : row + 1],
    )
    alone = _loss(subset, labels[row : row + 1, known], name)
    for field in ("answer", "halt", "total"):
      np.testing.assert_allclose(
        getattr(rows, field)[row], getattr(alone, field)[0], rtol=1e-6
      )


@LOSSES
def test_reductions_by_hand(name):
  output, labels = _output(2), _labels()
  targets = np.array([0.1, 0.5, 0.9, 0.0], np.float32)
  rows = _loss(output, labels, name, weight=0.25, targets=targets)
  known = labels != IGNORED
  per_token = ORACLES[name](output.logits, np.where(known, labels, 0))
  answer = (per_token * known).sum(-1) / known.sum(-1)
  right = np.argmax(output.logits, -1) == labels
  exact = np.float64((right | ~known).all(-1))

  def cross_entropy(logits, target):
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return -(target * np.log(p) + (1 - target) * np.log1p(-p))

  halt = cross_entropy(output.halt_logits, exact)
  continue_ = cross_entropy(output.continue_logits, targets)
  np.testing.assert_allclose(rows.answer, answer, rtol=1e-5)
  np.testing.assert_allclose(rows.halt, halt, rtol=1e-5)
  np.testing.assert_allclose(rows.continue_, continue_, rtol=1e-5)
  np.testing.assert_allclose(
    rows.total, answer + 0.25 * (halt + continue_), rtol=1e-5
  )
  without = _loss(output, labels, name, weight=0.25)
  np.testing.assert_array_equal(without.continue_, 0.0)
  np.testing.assert_allclose(without.total, answer + 0.25 * halt, rtol=1e-5)


@LOSSES
def test_smoothing_is_in_the_total_alone(name):
  output, labels = _output(8), _labels()
  plain = _loss(output, labels, name)
  smoothed = _loss(output, labels, name, label_smoothing=0.2)
  for field in ("answer", "halt", "continue_"):
    np.testing.assert_allclose(
      getattr(smoothed, field), getattr(plain, field), rtol=1e-6
    )
  per_token = losses.ANSWER_LOSSES[name](
    output.logits, labels, label_smoothing=0.2
  )
  known = (labels != IGNORED).sum(-1)
  np.testing.assert_allclose(
    smoothed.total, per_token.sum(-1) / known + 0.5 * plain.halt, rtol=1e-6
  )
  assert np.abs(smoothed.total - plain.total).min() > 1e-3


def test_a_row_without_labels_costs_nothing_and_counts_as_right():
  output, labels = _output(3), _labels()
  labels[2] = IGNORED
  rows = _loss(output, labels)
  assert rows.answer[2] == 0.0
  correct, exact = losses.sequence_is_correct(output.logits, labels)
  assert not correct[2].any()
  assert exact[2]
  np.testing.assert_allclose(
    rows.halt[2], np.log1p(np.exp(-output.halt_logits[2])), rtol=1e-5
  )


def test_one_wrong_cell_makes_the_grid_wrong():
  labels = np.array([[0, 1, IGNORED], [0, 1, 2], [0, 1, 2]], np.int32)
  logits = np.array(jax.nn.one_hot(np.where(labels < 0, 4, labels), 5))
  logits[2, 1] = [9, 0, 0, 0, 0]
  correct, exact = losses.sequence_is_correct(jnp.asarray(logits), labels)
  assert exact.tolist() == [True, True, False]
  assert correct.tolist() == [
    [True, True, False],
    [True, True, True],
    [True, False, True],
  ]


def test_the_halting_loss_sends_no_gradient_to_the_answer():
  output, labels = _output(4), _labels()

  def halting_losses(logits):
    rows = _loss(output.replace(logits=logits), labels)
    return jnp.sum(rows.halt + rows.continue_)

  np.testing.assert_array_equal(jax.grad(halting_losses)(output.logits), 0.0)


# --- metrics ---------------------------------------------------------------

ALL = np.ones(4, bool)
STEPS = np.array([1, 2, 3, 16], np.int32)


def _sums(output, labels, *, counted=ALL, rows=ALL, steps=STEPS):
  return jax.device_get(
    _row_sums(
      output,
      jnp.asarray(labels),
      _loss(output, labels),
      steps=jnp.asarray(steps),
      counted=jnp.asarray(counted),
      rows=jnp.asarray(rows),
    )
  )


def _half(output, labels, part, **masks):
  return _sums(
    jax.tree.map(lambda leaf: leaf[part], output),
    labels[part],
    steps=STEPS[part],
    **{name: mask[part] for name, mask in masks.items()},
  )


def test_metrics_by_hand():
  labels = np.array([[0, 1], [0, 1], [0, IGNORED], [1, 1]], np.int32)
  answers = np.array([[0, 1], [0, 0], [0, 3], [0, 0]])
  output = _output(0, length=2).replace(
    logits=jax.nn.one_hot(answers, 5),
    halt_logits=jnp.array([1.0, 1.0, -1.0, 0.0]),
  )
  counted = np.array([True, True, True, False])
  means = metrics.divide(_sums(output, labels, counted=counted))
  assert means["count"] == 3
  np.testing.assert_allclose(means["exact_accuracy"], 2 / 3)
  np.testing.assert_allclose(means["cell_accuracy"], (1 + 0.5 + 1) / 3)
  # Right: believed and right. Wrong: believed but wrong, right but unbelieved.
  np.testing.assert_allclose(means["halt_accuracy"], 1 / 3)
  np.testing.assert_allclose(means["steps"], (1 + 2 + 3) / 3)
  rows = _loss(output, labels)
  np.testing.assert_allclose(  # losses of all rows, halted or not
    means["answer_loss"], np.mean(rows.answer), rtol=1e-6
  )
  np.testing.assert_allclose(means["loss"], np.mean(rows.total), rtol=1e-6)


def test_the_first_steps_are_counted_apart():
  labels = np.array([[0, 1], [0, 1], [0, 1], [IGNORED, IGNORED]], np.int32)
  answers = np.array([[0, 1], [0, 0], [0, 1], [0, 1]])
  output = _output(0, length=2).replace(logits=jax.nn.one_hot(answers, 5))
  steps = np.array([1, 1, 2, 1], np.int32)
  means = metrics.divide(
    _sums(output, labels, counted=np.zeros(4, bool), steps=steps)
  )
  assert means["first_step_count"] == 2
  assert means["first_step_exact_accuracy"] == 0.5
  assert means["first_step_cell_accuracy"] == 0.75
  later = metrics.divide(_sums(output, labels, steps=steps + 1))
  assert later["first_step_count"] == 0
  assert np.isnan(later["first_step_exact_accuracy"])


def test_a_row_without_labels_is_never_counted():
  output, labels = _output(1), _labels()
  labels[0] = IGNORED
  sums = _sums(output, labels)
  assert sums["count"] == 3
  assert sums["rows"] == 4
  assert sums["steps"] == 2 + 3 + 16


def test_sums_of_two_halves_are_the_sums_of_the_whole():
  output, labels = _output(5), _labels()
  masks = {
    "counted": np.array([True, False, True, True]),
    "rows": np.array([True, True, False, True]),
  }
  whole = _sums(output, labels, **masks)
  halves = metrics.add(
    metrics.add({}, _half(output, labels, slice(0, 1), **masks)),
    _half(output, labels, slice(1, 4), **masks),
  )
  assert set(halves) == set(whole)
  for name, value in halves.items():
    assert value.dtype == np.float64
    np.testing.assert_allclose(value, whole[name], rtol=1e-6, err_msg=name)


def test_host_sums_do_not_freeze_as_float32_would():
  total = {"rows": np.float32(2**24)}
  for _ in range(4):
    total = metrics.add(total, {"rows": np.float32(1)})
  assert total["rows"] == 2**24 + 4


@pytest.mark.parametrize("spoilt", ["padding", "real"])
def test_nan_spreads_from_real_rows_only(spoilt):
  output, labels = _output(6), _labels()
  rows = np.array([True, True, True, False])
  row = 3 if spoilt == "padding" else 1
  is_row = np.arange(4) == row
  output = output.replace(
    logits=jnp.where(is_row[:, None, None], jnp.nan, output.logits),
    halt_logits=jnp.where(is_row, jnp.nan, output.halt_logits),
  )
  sums = _sums(output, labels, counted=rows, rows=rows)
  for name in ("answer_loss", "halt_loss", "loss"):
    assert np.isnan(sums[name]) == (spoilt == "real"), name
  assert sums["count"] == 3


def test_the_mean_of_no_counted_row_is_nan():
  nobody = np.zeros(4, bool)
  means = metrics.divide(_sums(_output(7), _labels(), counted=nobody))
  for name in ("exact_accuracy", "cell_accuracy", "halt_accuracy", "steps"):
    assert np.isnan(means[name]), name
  assert means["count"] == 0
  assert np.isfinite(means["loss"])
