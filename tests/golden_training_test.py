"""Golden cases 03 to 07 and 09: halting, losses, gradients, training."""

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trm_jax import config as config_lib
from trm_jax import (
  evaluate,
  halting,
  losses,
  metrics,
  puzzle_embedding,
  train_state,
  train_step,
  types,
)
from trm_jax.optim import factory, transforms

# Seeds of the perturbed runs that measure noise where no file records it.
PERTURBATIONS = (0, 1, 2)

# --- case 03: 8 supervision steps without optimizer -----------------------


def _compare_carry(carry, case, prefix, noise):
  expected = golden.under(case, prefix)
  np.testing.assert_array_equal(carry.steps, expected["steps"])
  np.testing.assert_array_equal(carry.halted, expected["halted"])
  for ours, official in (
    ("inputs", "inputs"),
    ("labels", "labels"),
    ("puzzle_ids", "puzzle_identifiers"),
  ):
    np.testing.assert_array_equal(
      getattr(carry.batch, ours), expected[f"current_data/{official}"]
    )
  if "z_H" in expected:
    golden.assert_close(carry.latents.y, expected["z_H"], noise)
    golden.assert_close(carry.latents.z, expected["z_L"], noise)


def _supervision_steps(whole, case, variant, params):
  """Our 8 (or 3) supervision steps on the recorded batches and draws."""
  config = golden.json_of(case, "config")
  model = golden.build_model(config)
  state_dict = golden.under(whole, "sd/")
  table = golden.table_of(state_dict)
  max_steps = config["halt_max_steps"]
  carry = golden.carry_of(whole, "carry0/")
  apply = jax.jit(model.apply)
  num_steps = len({k.split("/")[0] for k in case if k.startswith("step")})
  assert num_steps >= 3
  results = []
  for t in range(num_steps):
    recorded = golden.under(case, f"step{t}/")
    batch = golden.batch_of(
      {k: v[t] for k, v in golden.under(whole, "batches/").items()}
    )
    carry = halting.refill(carry, batch, golden.constants_of(state_dict))
    vectors = puzzle_embedding.lookup(table, carry.batch.puzzle_ids)
    arguments = {"params": params}, carry.batch.inputs, vectors
    output = apply(*arguments, carry.latents)
    steps = carry.steps + 1
    halted = steps >= max_steps
    if variant != "eval":
      # Without recorded draws (one step at most) they decide nothing.
      zeros = np.zeros(steps.shape, np.int32)
      halted = halting.halt(
        steps,
        output,
        halt_rule=golden.halt_rule(config),
        max_supervision_steps=max_steps,
        exploration_prob=config["halt_exploration_prob"],
        draws=halting.ExplorationDraws(
          uniform=jnp.asarray(recorded.get("rand", zeros)),
          min_steps=jnp.asarray(recorded.get("randint", zeros)),
        ),
      )
    target = None
    if golden.halt_rule(config) == "halt_over_continue":
      ahead = apply(*arguments, output.latents)
      target = halting.continue_targets(
        steps, ahead, max_supervision_steps=max_steps
      )
    carry = types.Carry(
      latents=output.latents, batch=carry.batch, steps=steps, halted=halted
    )
    results.append((output, target, carry))
  return results


@pytest.mark.parametrize(
  "variant", ["no_continue", "with_continue_fixed", "eval", "max_steps1"]
)
def test_golden_supervision_steps(variant):
  """The file records no noise: ours is that of the same perturbation."""
  whole = golden.load("case03_act")
  case = golden.under(whole, f"{variant}/")
  params = golden.params_of(golden.under(whole, "sd/"))
  results = _supervision_steps(whole, case, variant, params)
  others = [
    _supervision_steps(whole, case, variant, golden.perturbed(params, seed))
    for seed in PERTURBATIONS
  ]
  for t, (output, target, carry) in enumerate(results):
    noise = max(
      golden.difference((output, target), other[t][:2]) for other in others
    )
    expected = golden.under(case, f"step{t}/")
    golden.assert_close(output.halt_logits, expected["q_halt"], noise)
    golden.assert_close(output.continue_logits, expected["q_continue"], noise)
    if "logits" in expected:
      golden.assert_close(output.logits, expected["logits"], noise)
    assert (target is None) == ("target_q_continue" not in expected)
    if target is not None:
      golden.assert_close(target, expected["target_q_continue"], noise)
    _compare_carry(carry, case, f"step{t}/carry/", noise)


# --- case 04: losses -------------------------------------------------------

LOGIT_SETS = ("random", "magnitude", "edge")


def _assert_relative(actual, expected, name=""):
  np.testing.assert_allclose(
    np.asarray(actual, np.float64),
    np.asarray(expected, np.float64),
    rtol=1e-5,
    atol=1e-5,
    err_msg=name,
  )


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

  gradient, per_token = jax.grad(divided_sum, has_aux=True)(
    jnp.asarray(case[f"{logit_set}/logits"])
  )
  _assert_relative(per_token, expected["per_token"])
  _assert_relative(gradient, expected["dlogits_of_divided_sum"])


@pytest.mark.parametrize("logit_set", LOGIT_SETS)
def test_golden_log_stablemax_of_every_class(logit_set):
  case = golden.load("case04_losses")
  logits = jnp.asarray(case[f"{logit_set}/logits"])
  for label in range(logits.shape[-1]):
    loss = losses.stablemax_cross_entropy(
      logits, jnp.full(logits.shape[:-1], label)
    )
    # Relative, down to the tiniest loss: this is why it is written as log1p.
    np.testing.assert_allclose(
      -np.asarray(loss, np.float64),
      case[f"{logit_set}/log_stablemax_f64"][..., label],
      rtol=1e-5,
      atol=1e-30,
    )


def test_golden_stablemax_of_two_classes_gives_s():
  """p = s(x) / (s(x) + s(0)) and s(0) = 1."""
  case = golden.load("case04_losses")
  x = jnp.asarray(case["stablemax_s/x"], jnp.float32)
  logits = jnp.stack([jnp.zeros_like(x), x], -1)
  loss = losses.stablemax_cross_entropy(logits, jnp.zeros(x.shape, jnp.int32))
  np.testing.assert_allclose(
    np.expm1(np.asarray(loss, np.float64)), case["stablemax_s/y"], rtol=1e-5
  )


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

  gradients, (output, rows) = jax.grad(total, (0, 1, 2), has_aux=True)(
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
  _assert_relative(sums["loss"], expected["loss"], "loss")
  for official, value in golden.under(expected, "metrics/").items():
    _assert_relative(sums[golden.OUR_METRICS[official]], value, official)
  np.testing.assert_array_equal(jnp.argmax(logits, -1), expected["preds"])
  assert bool(jnp.all(halted)) == bool(expected["all_halted"])
  for name, gradient in zip(
    ("dlogits", "dq_halt", "dq_continue"), gradients, strict=True
  ):
    if name in expected:
      _assert_relative(gradient, expected[name], name)


# --- cases 05 and 07: gradients and training --------------------------------


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
  )
  return train_step.Settings(**(arguments | overrides))


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
      s, b, d, model=model, optimizer=optimizer, settings=_settings(config)
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
  _compare_carry(after.carry, case, "out/carry_out/", noise["logits_abs"])
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
    muon_momentum=0.0,
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
  optimizer = factory.make_optimizer(settings, hparams["total_steps"])
  model = golden.build_model(config)
  batches = golden.under(case, "batches/")
  num_steps, batch_size = batches["inputs"].shape[:2]
  step_settings = _settings(
    config,
    puzzle_learning_rate=factory.make_schedule(
      settings.puzzle_learning_rate, settings, hparams["total_steps"]
    ),
    puzzle_weight_decay=settings.puzzle_weight_decay,
    ema_decay=settings.ema_decay,
  )
  step = jax.jit(
    lambda s, b, d: train_step.supervision_step(
      s, b, d, model=model, optimizer=optimizer, settings=step_settings
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

  return run(None), [run(seed) for seed in PERTURBATIONS]


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
    factory.make_schedule(peak, settings, hparams["total_steps"])
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
    _compare_carry(state.carry, case, f"step{t}/carry/", 0.0)
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


# --- case 06: optimizers -----------------------------------------------------


@pytest.mark.parametrize("run", ["a", "b", "c_lr_changes"])
@pytest.mark.parametrize("leaf", ["w", "b", "edge"])
def test_golden_adam_atan2(run, leaf):
  case = golden.under(golden.load("case06_optim"), f"adam_atan2/{run}/")
  hparams = golden.json_of(case, "hparams")
  b1, b2 = hparams["betas"]
  transform = transforms.scale_by_adam_atan2(b1, b2)
  params = jnp.asarray(case[f"p0/{leaf}"])
  state = transform.init(params)
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
    for ours, name in (
      (params, "p"),
      (state.mu, "exp_avg"),
      (state.nu, "exp_avg_sq"),
    ):
      np.testing.assert_allclose(
        np.asarray(ours)[seen],
        expected[f"{name}/{leaf}"][seen],
        rtol=1e-5,
        atol=1e-7 if name == "p" else 1e-30,
        err_msg=f"{name} after step {t}",
      )
  assert int(state.count) == int(case[f"final_step_counts/{leaf}"])


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
    table = puzzle_embedding.sign_update(
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
    schedule = factory.learning_rate_schedule(
      row["base_lr"],
      warmup_steps=int(row["num_warmup_steps"]),
      num_steps=int(row["num_training_steps"]),
      min_ratio=row["min_ratio"],
    )
    rate = float(schedule(int(row["step"])))
    np.testing.assert_allclose(rate, row["lr"], atol=1e-5 * row["base_lr"])


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
      np.testing.assert_allclose(
        shadow, case[f"step{t}/shadow/{leaf}"], rtol=1e-5, atol=1e-7
      )


# --- case 09: evaluation -----------------------------------------------------


def test_golden_evaluation():
  case = golden.load("case09_eval")
  config = golden.json_of(case, "config")
  model = golden.build_model(config)
  state_dict = golden.under(case, "sd/")
  sets = golden.json_of(case, "batch_sets")
  evaluate_batch = jax.jit(
    evaluate.make_evaluate_batch(
      model,
      supervision_steps=config["halt_max_steps"],
      answer_loss="stablemax",
      halt_loss_weight=0.5,
    )
  )
  totals: dict = {}
  for t, name in enumerate(sets):
    batch = golden.batch_of(golden.under(case, f"batch{t}/batch/"))
    # The official evaluation counts the losses of padding rows, too.
    rows = jnp.ones(batch.puzzle_ids.shape, bool)
    result = evaluate_batch(
      types.Weights(
        params=golden.params_of(state_dict),
        puzzle_table=golden.table_of(state_dict),
        initial_latents=golden.constants_of(state_dict),
      ),
      batch,
      rows,
    )
    sums = jax.device_get(result.sums)
    np.testing.assert_array_equal(result.answers[-1], case[f"batch{t}/preds"])
    golden.assert_close(
      result.halt_logits[-1], case[f"batch{t}/q_halt_logits"], 1e-5
    )
    each_step = golden.json_of(case, f"batch{t}/metric_sums_each_step")
    for number, expected in enumerate(each_step):
      last = number == len(each_step) - 1
      for key, value in expected.items():
        if key.endswith("loss") or last:
          golden.assert_close(
            sums[golden.OUR_METRICS[key]][number], value, 1e-5, key
          )
    totals[name] = metrics.add(totals.get(name, {}), sums)
  for name, expected in golden.json_of(case, "result").items():
    final = {key: value[-1] for key, value in totals[name].items()}
    for key, value in expected.items():
      # Officially every sum is divided by the count of labelled rows.
      ours = final[golden.OUR_METRICS[key]] / final["count"]
      golden.assert_close(ours, value, 1e-6, key)
