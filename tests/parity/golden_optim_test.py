"""Golden case 06: AdamATan2, sign-SGD, schedule, EMA."""

import json

import golden_support as golden
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trm_jax.core import optim, puzzle_embedding


@pytest.mark.parametrize("run", ["a", "b", "c_lr_changes"])
@pytest.mark.parametrize("leaf", ["w", "b", "edge"])
def test_golden_adam_atan2(run, leaf):
  case = golden.under(golden.load("case06_optim"), f"adam_atan2/{run}/")
  _check_adam_atan2(case, leaf)


def _check_adam_atan2(case, leaf):
  hparams = golden.json_of(case, "hparams")
  b1, b2 = hparams["betas"]
  transform = optim.scale_by_adam_atan2(b1, b2)
  params = jnp.asarray(case[f"p0/{leaf}"])
  state = transform.init(params)
  m_scale = np.zeros(params.shape)
  for t, rate in enumerate(case["lrs"]):
    gradient = jnp.asarray(case[f"step{t}/grad/{leaf}"])
    if np.isnan(gradient).all():
      continue  # no gradient in this step: nothing moves, nothing counts
    updates, state = transform.update(gradient, state, params)
    updates = updates + hparams["weight_decay"] * params
    params = params - float(rate) * updates
    expected = golden.under(case, f"step{t}/")
    # XLA flushes denormals: g^2 = 0 there, where PyTorch kept 1e-42.
    normal = np.abs(gradient) ** 2 > np.finfo(np.float32).tiny
    if t == 0:
      seen = normal | (np.asarray(gradient) == 0)
    seen = seen & (normal | (np.asarray(gradient) == 0))
    p, m, v = (expected[f"{k}/{leaf}"] for k in ("p", "exp_avg", "exp_avg_sq"))
    # What is left of a first moment that cancels has the error of what it was.
    m_scale = np.maximum(m_scale, np.abs(m))
    _assert_entries(state.mu, m, seen, 0.0, m_scale)
    # The second one adds up squares, which never cancel.
    _assert_entries(state.nu, v, seen, 0.0, np.abs(v))
    # A parameter is rounded at its own size, its updates at the rates'.
    last_digit = np.spacing(np.abs(p))
    _assert_entries(params, p, seen, last_digit, max(case["lrs"][: t + 1]))
  assert int(state.count) == int(case[f"final_step_counts/{leaf}"])


def test_a_first_moment_that_cancels():
  """Any seed may have it: a gradient that undoes the moment, to 1e-6 of it."""
  b1, b2, rate, decay = 0.9, 0.95, 1e-3, 0.1
  rng = np.random.default_rng(0)
  first = rng.standard_normal(200)
  second = -b1 * first * (1 + 1e-6 * rng.standard_normal(200))
  p, m, v = rng.standard_normal(200), 0.0, 0.0
  case = {
    "hparams": json.dumps({"betas": [b1, b2], "weight_decay": decay}),
    "lrs": [rate, rate],
    "final_step_counts/w": 2,
    "p0/w": p.astype(np.float32),
  }
  for t, g in enumerate(np.float32([first, second]).astype(np.float64)):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    direction = np.arctan2(m, np.sqrt(v / (1 - b2 ** (t + 1))))
    p = p * (1 - rate * decay) - rate * direction / (1 - b1 ** (t + 1))
    for name, value in (("p", p), ("exp_avg", m), ("exp_avg_sq", v)):
      case[f"step{t}/{name}/w"] = np.float32(value)
    case[f"step{t}/grad/w"] = np.float32(g)
  assert np.abs(m).max() < 1e-4
  _check_adam_atan2(case, "w")


def _assert_entries(ours, expected, seen, noise, scale):
  """`golden.assert_close` of the entries that are seen, each at its scale."""
  noise, scale = (np.broadcast_to(x, seen.shape)[seen] for x in (noise, scale))
  golden.assert_close(ours[seen], expected[seen], noise, scale=scale)


@pytest.mark.parametrize("run", ["wd0.1", "wd1.0"])
def test_golden_sign_sgd(run):
  case = golden.under(golden.load("case06_optim"), f"sign_sgd/{run}/")
  hparams = golden.json_of(case, "hparams")
  table = jnp.asarray(case["weights0"])
  num_steps = len([k for k in case if k.endswith("/ids")])
  for t in range(num_steps):
    ids = jnp.asarray(case[f"step{t}/ids"])
    rows = puzzle_embedding.lookup(table, ids)
    golden.assert_close(rows, case[f"step{t}/y"])
    table = puzzle_embedding.sign_sgd(
      table,
      ids,
      jnp.asarray(case[f"step{t}/grad"]),
      learning_rate=hparams["lr"],
      weight_decay=hparams["weight_decay"],
    )
    golden.assert_close(table, case[f"step{t}/weights"])


def test_golden_schedule():
  case = golden.load("case06_optim")
  columns = str(case["schedule/columns"]).split(",")
  for values in case["schedule/rows_f64"]:
    row = dict(zip(columns, values, strict=True))
    schedule = optim.learning_rate_schedule(
      row["base_lr"],
      warmup_steps=int(row["num_warmup_steps"]),
      num_steps=int(row["num_training_steps"]),
      min_ratio=row["min_ratio"],
    )
    rate = float(schedule(int(row["step"])))
    golden.assert_close(rate, row["lr"], scale=row["base_lr"])


@pytest.mark.parametrize("run", ["mu0.999", "mu0.9"])
def test_golden_ema(run):
  case = golden.under(golden.load("case06_optim"), f"ema/{run}/")
  decay = float(run.removeprefix("mu"))
  for leaf in ("weight", "bias"):
    shadow = jnp.asarray(case[f"p0/{leaf}"])
    num_steps = len([k for k in case if k.endswith(f"/shadow/{leaf}")])
    for t in range(num_steps):
      params = jnp.asarray(case[f"step{t}/p/{leaf}"])
      shadow = optax.incremental_update(params, shadow, 1.0 - decay)
      golden.assert_close(shadow, case[f"step{t}/shadow/{leaf}"])
