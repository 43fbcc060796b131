"""Golden cases 05 and 07: gradients, and eight steps of training."""

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trm_jax import config as config_lib
from trm_jax.core import (
  halting,
  losses,
  metrics,
  optim,
  puzzle_embedding,
  train_state,
  train_step,
)


def _settings(config, **overrides):
  arguments = dict(
    max_supervision_steps=config["halt_max_steps"],
    exploration_prob=config["halt_exploration_prob"],
    halt_rule=golden.halt_rule(config),
    answer_loss="stablemax",
    halt_loss_weight=0.5,
    puzzle_learning_rate=lambda step: 0.0,
    puzzle_weight_decay=0.0,
    ema_decay=0.0,
    frozen_network=False,
  )
  return train_step.StepConfig(**(arguments | overrides))


def _draws(case, prefix):
  return halting.ExplorationDraws(
    uniform=jnp.asarray(case[prefix + "rand"]),
    min_steps=jnp.asarray(case[prefix + "randint"]),
  )


def _relative_errors(tree, official, noise):
  """Asserts each gradient relative to the largest of its tensor."""
  checked = 0
  for name, expected in official.items():
    actual = np.asarray(golden.get(tree, golden.params_path(name)))
    expected = golden.to_ours(name, expected)
    scale = np.abs(expected).max()
    error = np.abs(actual - expected).max() / scale
    assert error <= golden.tolerance(noise[name]), (name, error)
    checked += 1
  return checked


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@pytest.mark.parametrize(
  "name", ["att", "mlp_t", "att_learned_pad_continue_fixed"]
)
def test_golden_gradients(name, remat):
  case = golden.under(golden.load("case05_grads"), f"{name}/")
  config = golden.json_of(case, "config")
  noise = golden.json_of(case, "noise")
  model = golden.build_model(config, remat=remat)
  # SGD with rate 1 and zeroed parameters' EMA: the update is the gradient.
  optimizer = optax.sgd(1.0)
  state = golden.state_of(
    golden.under(case, "sd/"), golden.carry_of(case, "carry_in/"), optimizer
  )
  after, sums = jax.jit(
    lambda s, b, d: train_step.supervision_step(
      s, b, d, model=model, optimizer=optimizer, config=_settings(config)
    )
  )(state, golden.batch_of(golden.under(case, "batch/")), _draws(case, "out/"))
  gradients = _step_gradients(model, config, state, after)
  official = golden.under(case, "grad/")
  num_params = len(jax.tree.leaves(state.params))
  assert _relative_errors(gradients[0], official, noise) == num_params
  rows = case["grad_puzzle_rows"]
  error = np.abs(gradients[1] - rows).max() / np.abs(rows).max()
  assert error <= golden.tolerance(noise["puzzle_rows"])
  # The step itself: SGD moved the parameters by just these gradients.
  moved = jax.tree.map(lambda a, b: a - b, state.params, after.params)
  for a, b in zip(
    jax.tree.leaves(moved), jax.tree.leaves(gradients[0]), strict=True
  ):
    np.testing.assert_allclose(a, b, atol=1e-6)

  _assert_close_scaled(sums["loss"], case["out/loss"], noise["loss_abs"])
  for official_name, value in golden.under(case, "out/metrics/").items():
    golden.assert_close(
      sums[golden.OUR_METRICS[official_name]],
      value,
      noise["loss_abs"],
      official_name,
    )
  golden.assert_same_carry(
    after.carry, case, "out/carry_out/", noise["logits_abs"]
  )
  assert bool(after.carry.halted.all()) == bool(case["out/all_halted"])


def _assert_close_scaled(actual, expected, noise):
  np.testing.assert_allclose(
    float(actual), float(expected), rtol=1e-6, atol=golden.tolerance(noise)
  )


def _step_gradients(model, config, state, after):
  """Gradients of the mean row loss, to parameters and puzzle vectors."""
  carry = after.carry
  before = halting.refill(state.carry, carry.batch, state.initial_latents)
  vectors = puzzle_embedding.lookup(state.puzzle_table, carry.batch.puzzle_ids)

  @jax.jit
  def loss(params, vectors):
    output = model.apply(
      {"params": params}, carry.batch.inputs, vectors, before.latents
    )
    targets = None
    if not config["no_ACT_continue"]:
      ahead = model.apply(
        {"params": params}, carry.batch.inputs, vectors, output.latents
      )
      targets = halting.continue_targets(
        carry.steps, ahead, max_supervision_steps=config["halt_max_steps"]
      )
    rows = losses.supervision_loss(
      output,
      carry.batch.labels,
      answer_loss="stablemax",
      halt_loss_weight=0.5,
      continue_targets=targets,
    )
    return jnp.mean(rows.total)

  return jax.grad(loss, (0, 1))(state.params, vectors)


def _optimizer_config(hparams) -> config_lib.OptimizerConfig:
  return config_lib.OptimizerConfig(
    name="adam_atan2",
    learning_rate=hparams["lr"],
    warmup_steps=hparams["lr_warmup_steps"],
    min_learning_rate_ratio=hparams["lr_min_ratio"],
    beta1=hparams["beta1"],
    beta2=hparams["beta2"],
    weight_decay=hparams["weight_decay"],
    muon_learning_rate=0.0,
    muon_weight_decay=0.0,
    muon_momentum=0.0,
    muon_iterations=1,
    max_gradient_norm=0.0,
    puzzle_learning_rate=hparams["puzzle_emb_lr"],
    puzzle_weight_decay=hparams["puzzle_emb_weight_decay"],
    ema_decay=hparams["ema_rate"],
  )


def _training(case):
  """Our optimizer steps on the recorded batches and draws.

  Returns a list of (state, sums) per step, and the same for each of the
  perturbed beginnings.
  """
  config = golden.json_of(case, "config")
  hparams = golden.json_of(case, "hparams")
  assert hparams["loss_type"] == "stablemax_cross_entropy"
  settings = _optimizer_config(hparams)
  optimizer = optim.make_optimizer(settings, hparams["total_steps"])
  model = golden.build_model(config)
  batches = golden.under(case, "batches/")
  num_steps, batch_size = batches["inputs"].shape[:2]
  step_settings = _settings(
    config,
    puzzle_learning_rate=optim.make_schedule(
      settings.puzzle_learning_rate, settings, hparams["total_steps"]
    ),
    puzzle_weight_decay=settings.puzzle_weight_decay,
    ema_decay=settings.ema_decay,
  )
  step = jax.jit(
    lambda s, b, d: train_step.supervision_step(
      s, b, d, model=model, optimizer=optimizer, config=step_settings
    )
  )

  def run(seed):
    state = golden.state_of(
      golden.under(case, "init_sd/"),
      train_state.empty_carry(model, batch_size),
      optimizer,
    )
    if seed is not None:
      params = golden.perturbed(state.params, seed)
      state = state.replace(params=params, ema_params=params)
    results = []
    for t in range(num_steps):
      batch = golden.batch_of({k: v[t] for k, v in batches.items()})
      state, sums = step(state, batch, _draws(case, f"step{t}/"))
      results.append((state, sums))
    return results

  return run(None), [run(seed) for seed in golden.PERTURBATIONS]


@pytest.mark.parametrize("name", ["att", "mlp_t"])
def test_golden_training(name):
  """Eight optimizer steps: losses, decisions, table, parameters, EMA.

  The file records the noise of losses, table, parameters, EMA and latents;
  for single metrics and gradient norms ours is that of the same perturbation.
  """
  case = golden.load(f"case07_train_{name}")
  noise = golden.json_of(case, "noise")
  hparams = golden.json_of(case, "hparams")
  settings = _optimizer_config(hparams)
  rate, puzzle_rate = (
    optim.make_schedule(peak, settings, hparams["total_steps"])
    for peak in (settings.learning_rate, settings.puzzle_learning_rate)
  )
  results, others = _training(case)
  for t, (state, sums) in enumerate(results):
    expected = golden.under(case, f"step{t}/")
    golden.assert_close(sums["loss"], expected["loss"], noise["loss"][t])
    metric_noise = {
      key: max(
        noise["loss"][t],
        *(abs(float(value) - float(other[t][1][key])) for other in others),
      )
      for key, value in sums.items()
    }
    for key, value in golden.under(expected, "raw_metrics/").items():
      ours = golden.OUR_METRICS[key]
      golden.assert_close(sums[ours], value, metric_noise[ours], key)
    means = metrics.divide(jax.device_get(sums))
    for key, value in golden.under(expected, "train_metrics/").items():
      if key == "lr":
        np.testing.assert_allclose(float(rate(t + 1)), value, rtol=1e-5)
      elif key == "count":
        assert min(float(sums["count"]), 1.0) == value  # divided by itself
      elif float(sums["count"]) or key.endswith("loss"):
        ours = golden.OUR_METRICS[key]
        golden.assert_close(means[ours], value, metric_noise[ours], key)
    np.testing.assert_allclose(
      float(puzzle_rate(t + 1)), expected["puzzle_lr"], rtol=1e-5
    )
    golden.assert_same_carry(state.carry, case, f"step{t}/carry/", 0.0)
    np.testing.assert_array_equal(
      state.carry.batch.puzzle_ids, expected["puzzle_ids"]
    )
    golden.assert_close(
      state.puzzle_table,
      expected["puzzle_table"],
      noise["puzzle_table_max"][t],
    )
    norms = golden.under(expected, "param_norm/")
    assert len(norms) == len(jax.tree.leaves(state.params))
    for key, value in norms.items():
      ours = golden.get(state.params, golden.params_path(key))
      np.testing.assert_allclose(
        jnp.linalg.norm(ours.ravel()), value, rtol=1e-5, err_msg=key
      )
    squares = sum(
      float(v) ** 2 for v in golden.under(expected, "grad_norm/").values()
    )
    golden.assert_close(
      sums["grad_norm"], squares**0.5, metric_noise["grad_norm"]
    )

  state = results[-1][0]
  final = golden.under(case, "final_sd/")
  for key, value in final.items():
    path = golden.params_path(key)
    if path is not None:
      golden.assert_close(
        golden.get(state.params, path),
        golden.to_ours(key, value),
        noise["param_max"][key],
        key,
      )
  golden.assert_close(
    state.puzzle_table,
    final["inner.puzzle_emb.weights"],
    noise["param_max"]["inner.puzzle_emb.weights"],
  )
  np.testing.assert_array_equal(
    state.initial_latents.y, case["init_sd/inner.H_init"]
  )
  ema = golden.under(case, "final_ema/")
  assert len(ema) == len(jax.tree.leaves(state.ema_params))
  for key, value in ema.items():
    golden.assert_close(
      golden.get(state.ema_params, golden.params_path(key)),
      golden.to_ours(key, value),
      noise["ema_max"],
      key,
    )
  adams = [run[-1][0].opt_state[0] for run in (results, *others)]
  for key, value in golden.under(case, "final_adam_norms/").items():
    path = golden.params_path(key)
    for moment, norm in zip(("mu", "nu"), value, strict=True):
      ours, *perturbed = (
        float(jnp.linalg.norm(golden.get(getattr(adam, moment), path).ravel()))
        for adam in adams
      )
      spread = max(abs(ours - other) for other in perturbed)
      np.testing.assert_allclose(
        ours, norm, rtol=1e-5, atol=20 * spread, err_msg=key
      )
  z_noise = noise["z_max"]
  golden.assert_close(state.carry.latents.y, case["final_carry/z_H"], z_noise)
  golden.assert_close(state.carry.latents.z, case["final_carry/z_L"], z_noise)
