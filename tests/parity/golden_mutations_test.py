"""Wrong arithmetic, which the golden tests catch with tolerances to spare.

Each test breaks one function and runs a golden test whose tolerances are made
several times as wide.
"""

import golden_losses_test
import golden_model_test
import golden_optim_test
import golden_support as golden
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import losses, metrics, norm, optim, recursion
from trm_jax.core.kernels import matmul


@pytest.fixture(autouse=True)
def _wide_tolerances(monkeypatch):
  for name, factor in (
    ("FLOAT32_TOLERANCE", 10.0),
    ("NOISE_FACTOR", 10.0),
    ("BFLOAT16_FACTOR", 2.0),
  ):
    monkeypatch.setattr(golden, name, factor * getattr(golden, name))


def _leave_out_a_cycle(monkeypatch):
  recurse = recursion.deep_recursion

  def shorter(*args, recursion_cycles, **kwargs):
    return recurse(*args, recursion_cycles=recursion_cycles - 1, **kwargs)

  monkeypatch.setattr(recursion, "deep_recursion", shorter)


# --- moments and parameters of the optimizer ----------------------------------


def _assert_optimizer_fails(run):
  for leaf in ("w", "b", "edge"):
    with pytest.raises(AssertionError):
      golden_optim_test.test_golden_adam_atan2(run, leaf)


RUNS = pytest.mark.parametrize("run", ["a", "b", "c_lr_changes"])


@RUNS
def test_swapped_betas_are_caught(monkeypatch, run):
  make = optim.scale_by_adam_atan2
  monkeypatch.setattr(
    optim, "scale_by_adam_atan2", lambda b1, b2: make(b1=b2, b2=b1)
  )
  _assert_optimizer_fails(run)


@RUNS
@pytest.mark.parametrize("moment", [0, 1])
def test_a_dropped_bias_correction_is_caught(monkeypatch, run, moment):
  hparams = golden.json_of(
    golden.load("case06_optim"), f"adam_atan2/{run}/hparams"
  )
  correction = optim._one_minus_power

  def dropped(base, t):
    is_dropped = base == hparams["betas"][moment]
    return jnp.ones_like(t) if is_dropped else correction(base, t)

  monkeypatch.setattr(optim, "_one_minus_power", dropped)
  _assert_optimizer_fails(run)


def test_a_moment_in_bfloat16_is_caught(monkeypatch):
  """Where it is right at first, and rounding adds up."""
  make = optim.scale_by_adam_atan2

  def rounded(b1, b2):
    transform = make(b1, b2)

    def update(*args):
      updates, state = transform.update(*args)
      mu = state.mu.astype(jnp.bfloat16).astype(jnp.float32)
      return updates, state._replace(mu=mu)

    return transform._replace(update=update)

  monkeypatch.setattr(optim, "scale_by_adam_atan2", rounded)
  with pytest.raises(AssertionError):
    golden_optim_test.test_golden_adam_atan2("a", "w")


# --- losses -------------------------------------------------------------------


def _assert_losses_fail():
  with pytest.raises(AssertionError, match="loss"):
    golden_losses_test.test_golden_supervision_loss(
      "random", "stablemax", "no_continue", "q"
    )


def test_a_mean_over_rows_instead_of_a_sum_is_caught(monkeypatch):
  row_sums = metrics.row_sums

  def mean(*args, rows, **kwargs):
    sums = row_sums(*args, rows=rows, **kwargs)
    return sums | {"loss": sums["loss"] / rows.size}

  monkeypatch.setattr(metrics, "row_sums", mean)
  _assert_losses_fail()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_another_weight_of_the_halting_loss_is_caught(monkeypatch, weight):
  loss = losses.supervision_loss

  def weighted(*args, halt_loss_weight, **kwargs):
    return loss(*args, halt_loss_weight=weight, **kwargs)

  monkeypatch.setattr(losses, "supervision_loss", weighted)
  _assert_losses_fail()


# --- the network --------------------------------------------------------------


def _rounded_norm(monkeypatch):
  exact = norm.rms_norm

  def rounded(x, **kwargs):
    return exact(x, **kwargs).astype(jnp.bfloat16).astype(x.dtype)

  monkeypatch.setattr(norm, "rms_norm", rounded)


@pytest.mark.slow
@pytest.mark.parametrize("mutate", [_rounded_norm, _leave_out_a_cycle])
@pytest.mark.parametrize("name", golden_model_test.BIG_NAMES)
def test_a_wrong_float32_recursion_is_caught(monkeypatch, name, mutate):
  mutate(monkeypatch)
  with pytest.raises(AssertionError):
    golden_model_test.test_golden_forward(name, "H2L4", "none")


@pytest.mark.slow
def test_a_cycle_left_out_in_bfloat16_is_caught(monkeypatch):
  _leave_out_a_cycle(monkeypatch)
  with pytest.raises(AssertionError):
    golden_model_test.check_bfloat16(["H2L4"], matmul.plain)


def test_a_norm_computed_in_bfloat16_is_caught(monkeypatch):
  def coarse(x, *, epsilon):
    mean_square = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(mean_square + jnp.asarray(epsilon, x.dtype))

  monkeypatch.setattr(norm, "rms_norm", coarse)
  with pytest.raises(AssertionError):
    golden_model_test.test_golden_rms_norm("1e-05", "bf16_")


# --- the measure itself -------------------------------------------------------


def test_one_wrong_quantity_of_many_is_caught():
  """Six times the error of few numbers among many right ones."""
  rng = np.random.default_rng(0)
  exact = {"z": np.zeros(10000), "logits": np.zeros(400)}
  official, ours = (
    {key: rng.standard_normal(zeros.shape) for key, zeros in exact.items()}
    for _ in range(2)
  )
  golden.assert_rounds_alike(ours, official, exact)
  wrong = ours | {"logits": 6.0 * ours["logits"]}
  with pytest.raises(AssertionError, match="logits"):
    golden.assert_rounds_alike(wrong, official, exact)
