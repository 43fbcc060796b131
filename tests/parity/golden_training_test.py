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
    freeze_network=False,
  )
  return train_step.StepConfig(**(arguments | overrides))


def _draws(case, prefix):
  return halting.ExplorationDraws(
    uniform=jnp.asarray(case[prefix + "rand"]),
    min_steps=jnp.asarray(case[prefix + "randint"]),
  )


def _count_checked_gradients(tree, official, noise):
  checked = 0
  for name, expected in official.items():
    actual = golden.get(tree, golden.params_path(name))
    expected = golden.to_ours(name, expected)
    golden.assert_gradient_close(actual, expected, noise[name], name)
    checked += 1
  return checked


@pytest.mark.parametrize(
  "remat",
  [
    "none",
    *(pytest.param(r, marks=pytest.mark.slow) for r in ("dots", "full")),
  ],
)
@pytest.mark.parametrize(
  "name",
  [
    "att",
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ("mlp_t", "att_learned_pad_continue_fixed")
    ),
  ],
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
  assert _count_checked_gradients(gradients[0], official, noise) == num_params
  golden.assert_gradient_close(
    gradients[1], case["grad_puzzle_rows"], noise["puzzle_rows"]
  )
  # The step itself: SGD moved the parameters by just these gradients.
  golden.assert_moved_by(
    gradients[0], state.params, after.params, golden.gradient_noise(case)
  )
  golden.assert_close(sums["loss"], case["out/loss"], noise["loss_abs"])
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


def _noise(ours, others, recorded=0.0):
  """Returns how far perturbations of 1e-7 move a quantity, at most.

  The file records one perturbation, and not of all quantities. One may leave
  a single number where it was, by chance, while training amplifies others.
  """
  return max(recorded, *(golden.difference(ours, other) for other in others))


def _norm(params, path):
  return jnp.linalg.norm(golden.get(params, path).ravel())


@pytest.mark.parametrize("name", ["att", "mlp_t"])
def test_golden_training(name):
  """Eight optimizer steps: losses, decisions, table, parameters, EMA."""
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
    metric_noise = {
      key: _noise(
        value, [other[t][1][key] for other in others], noise["loss"][t]
      )
      for key, value in sums.items()
    }
    golden.assert_close(
      sums["loss"], expected["loss"], metric_noise["loss"], "loss"
    )
    for key, value in golden.under(expected, "raw_metrics/").items():
      ours = golden.OUR_METRICS[key]
      golden.assert_close(sums[ours], value, metric_noise[ours], key)
    means = metrics.divide(jax.device_get(sums))
    for key, value in golden.under(expected, "train_metrics/").items():
      if key == "lr":
        golden.assert_close(rate(t + 1), value, name=key)
      elif key == "count":
        assert min(float(sums["count"]), 1.0) == value  # divided by itself
      elif float(sums["count"]) or key.endswith("loss"):
        ours = golden.OUR_METRICS[key]
        golden.assert_close(means[ours], value, metric_noise[ours], key)
    golden.assert_close(puzzle_rate(t + 1), expected["puzzle_lr"])
    golden.assert_same_carry(state.carry, case, f"step{t}/carry/", 0.0)
    np.testing.assert_array_equal(
      state.carry.batch.puzzle_ids, expected["puzzle_ids"]
    )
    golden.assert_close(
      state.puzzle_table,
      expected["puzzle_table"],
      _noise(
        state.puzzle_table,
        [other[t][0].puzzle_table for other in others],
        noise["puzzle_table_max"][t],
      ),
      "puzzle table",
    )
    norms = golden.under(expected, "param_norm/")
    assert len(norms) == len(jax.tree.leaves(state.params))
    for key, value in norms.items():
      ours, *perturbed = (
        _norm(end.params, golden.params_path(key))
        for end in (state, *(other[t][0] for other in others))
      )
      golden.assert_close(
        ours, value, _noise(ours, perturbed), f"norm of {key}"
      )
    squares = sum(
      float(v) ** 2 for v in golden.under(expected, "grad_norm/").values()
    )
    golden.assert_close(
      sums["grad_norm"], squares**0.5, metric_noise["grad_norm"]
    )

  state, ends = results[-1][0], [other[-1][0] for other in others]
  params, ema = (golden.under(case, f"final_{name}/") for name in ("sd", "ema"))
  for key, value in params.items():
    path = golden.params_path(key)
    if path is None:
      continue
    assert key in ema
    for ours, official, recorded in (
      ("params", value, noise["param_max"][key]),
      ("ema_params", ema[key], noise["ema_max"]),
    ):
      leaf, *perturbed = (
        golden.get(getattr(end, ours), path) for end in (state, *ends)
      )
      golden.assert_close(
        leaf,
        golden.to_ours(key, official),
        _noise(leaf, perturbed, recorded),
        f"{ours} {key}",
      )
  assert len(ema) == len(jax.tree.leaves(state.ema_params))
  np.testing.assert_array_equal(
    state.initial_latents.y, case["init_sd/inner.H_init"]
  )
  for key, value in golden.under(case, "final_adam_norms/").items():
    path = golden.params_path(key)
    for moment, norm in zip(("mu", "nu"), value, strict=True):
      ours, *perturbed = (
        _norm(getattr(end.opt_state[0], moment), path) for end in (state, *ends)
      )
      golden.assert_close(ours, norm, _noise(ours, perturbed), key)
  latents, *perturbed = (end.carry.latents for end in (state, *ends))
  z_noise = _noise(latents, perturbed, noise["z_max"])
  golden.assert_close(latents.y, case["final_carry/z_H"], z_noise)
  golden.assert_close(latents.z, case["final_carry/z_L"], z_noise)
