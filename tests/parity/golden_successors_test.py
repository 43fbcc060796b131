"""Golden cases 24, 26, 28, 29: layers, gates, starts, schedules after TRM."""

import functools

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_model

from trm_jax.core import (
  choices,
  curriculum,
  halting,
  layers,
  network,
  optim,
  train_step,
)
from trm_jax.core.kernels import swiglu


def _assert_noisy(case, name, found, expected):
  golden.assert_close(found, expected, golden.json_of(case, "noise")[name])


# --- SiC: layers (case 24) ---------------------------------------------------


def _mlp_params(sd, prefix=""):
  return {
    "gate_up": {"kernel": jnp.asarray(sd[f"{prefix}up_proj.weight"].T)},
    "down": {"kernel": jnp.asarray(sd[f"{prefix}down_proj.weight"].T)},
  }


def _assert_layer(module, params, case, noise, *, swap=False):
  """Compares output and gradients; swap: tokens come first in ours."""

  def turned(a):
    return jnp.swapaxes(jnp.asarray(a), 0, 1) if swap else jnp.asarray(a)

  def forward(params, x):
    return module.apply({"params": params}, x)

  y, pull = jax.vjp(forward, params, turned(case["x"]))
  gradients, dx = pull(turned(case["dy"]))
  golden.assert_close(turned(y), case["y"], noise["y"])
  golden.assert_close(turned(dx), case["dx"], noise["dx"])
  return gradients


@pytest.mark.parametrize("gate", ["normed", "plain"])
def test_sic_gates(gate):
  case = golden.load("case24_sic_layers_muon")
  noise = golden.json_of(case, "noise")[f"{gate}_gate"]
  case = golden.under(case, f"{gate}_gate/")
  module = layers.SwiGLU(
    expansion=4.0,
    multiple=256,
    dtype=jnp.float32,
    gate={"normed": "normed", "plain": "silu"}[gate],
  )
  sd = golden.under(case, "sd/")
  gradients = _assert_layer(module, _mlp_params(sd), case, noise)
  expected = _mlp_params(golden.under(case, "grad/"))
  jax.tree.map(
    lambda a, b: golden.assert_gradient_close(a, b, noise["grad_rel_max"]),
    gradients,
    expected,
  )


def test_sic_mixer_block():
  case = golden.load("case24_sic_layers_muon")
  noise = golden.json_of(case, "noise")["mixer_block"]
  case = golden.under(case, "mixer_block/")
  module = network.Block(
    network.NetworkConfig(
      num_layers=1,
      num_heads=1,
      mlp_expansion=4.0,
      mlp_multiple=256,
      token_mixing="mlp",
      mlp_gate="normed",
    )
  )

  def params_of(sd):
    return {
      "token_mlp": _mlp_params(sd, "attn."),
      "channel_mlp": _mlp_params(sd, "mlp."),
    }

  gradients = _assert_layer(
    module, params_of(golden.under(case, "sd/")), case, noise, swap=True
  )
  jax.tree.map(
    lambda a, b: golden.assert_gradient_close(a, b, noise["grad_rel_max"]),
    gradients,
    params_of(golden.under(case, "grad/")),
  )


def test_sic_orthogonalization():
  """The first update of Muon is the orthogonalized gradient."""
  case = golden.load("case24_sic_layers_muon")
  optimizer = optim.make_optimizer(
    optim.Hyperparameters(
      name="muon",
      muon_learning_rate=1.0,
      muon_weight_decay=0.0,
      muon_momentum=0.6,
      muon_iterations=3,
    ),
    num_steps=10,
  )
  for i in range(3):
    x = case[f"newton_schulz/{i}/x"].T
    params = {"network": {"layers_0": {"mlp": {"up": {"kernel": x}}}}}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    expected = case[f"newton_schulz/{i}/y3_exact"].T
    scale = max(1, x.shape[1] / x.shape[0]) ** 0.5
    update = updates["network"]["layers_0"]["mlp"]["up"]["kernel"]
    golden.assert_close(update, -scale * expected)


# --- URM: ConvSwiGLU (case 26) -----------------------------------------------


def _conv_params(sd, prefix=""):
  return {
    "gate_up": {"kernel": jnp.asarray(sd[f"{prefix}gate_up_proj.weight"].T)},
    "down": {"kernel": jnp.asarray(sd[f"{prefix}down_proj.weight"].T)},
    "conv_kernel": jnp.asarray(sd[f"{prefix}dwconv.weight"][:, 0].T),
    "conv_bias": jnp.asarray(sd[f"{prefix}dwconv.bias"]),
  }


@pytest.mark.parametrize("size", [2, 3])
def test_urm_conv_swiglu(size, monkeypatch):
  monkeypatch.setattr(swiglu, "CONV_SIZE", size)
  case = golden.load("case26_urm")
  noise = golden.json_of(case, "noise")[f"conv_k{size}_f32"]
  part = golden.under(case, f"conv_k{size}_f32/")
  part |= {"x": case["conv/x"], "dy": case["conv/dy"]}
  params = _conv_params(golden.under(part, "sd/"))
  width = params["conv_bias"].size
  module = layers.SwiGLU(
    expansion=1.5 * width / part["x"].shape[-1],
    multiple=1,
    dtype=jnp.float32,
    gate="conv",
  )
  gradients = _assert_layer(module, params, part, noise)
  jax.tree.map(
    lambda a, b: golden.assert_gradient_close(a, b, noise["grad_rel_max"]),
    gradients,
    _conv_params(golden.under(part, "grad/")),
  )


def test_urm_conv_swiglu_in_bfloat16():
  case = golden.load("case26_urm")
  sd = golden.under(case, "conv_k2_f32/sd/")
  params = _conv_params(sd)
  width, size = params["conv_bias"].size, case["conv/x"].shape[-1]
  module = layers.SwiGLU(
    expansion=1.5 * width / size, multiple=1, dtype=jnp.bfloat16, gate="conv"
  )
  x, dy = (
    jnp.asarray(case[f"conv/{name}"], jnp.bfloat16) for name in ("x", "dy")
  )
  y, pull = jax.vjp(lambda x: module.apply({"params": params}, x), x)
  (dx,) = pull(dy)
  golden.assert_rounds_alike(
    {"y": y, "dx": dx},
    golden.under(case, "conv_k2_bf16/"),
    {name: case[f"conv_k2_f32/{name}"] for name in ("y", "dx")},
    "conv",
  )


def _urm_params(sd):
  """Ours; its layers are named as those of TRM's only network."""
  named = {
    name.replace("inner.layers.", "inner.L_level.layers."): value
    for name, value in sd.items()
    if "dwconv" not in name
  }
  named["inner.L_init"] = sd.get("inner.init_hidden", np.zeros(16, np.float32))
  params = golden.params_of(
    {k: v for k, v in named.items() if "puzzle" not in k and "init" not in k}
  )
  for i in range(2):
    conv = _conv_params(sd, f"inner.layers.{i}.mlp.")
    params["network"][f"layers_{i}"]["channel_mlp"] |= {
      name: conv[name] for name in ("conv_kernel", "conv_bias")
    }
  return params


def test_urm_supervision_step():
  case = golden.load("case26_urm")
  config = golden.json_of(case, "config")
  noise = golden.json_of(case, "noise")["net"]
  case = golden.under(case, "net/")
  sd = golden.under(case, "sd/")
  model = small_model.build(
    vocab_size=config["vocab_size"],
    seq_len=config["seq_len"],
    hidden_size=config["hidden_size"],
    num_heads=config["num_heads"],
    num_layers=config["num_layers"],
    mlp_expansion=float(config["expansion"]),
    mlp_multiple=256,
    mlp_gate="conv",
    token_mixing="attention",
    position_encoding="rope",
    num_prefix_tokens=1,
    latent_updates=config["L_cycles"],
    recursion_cycles=config["H_cycles"],
    recursion_type="direct",
    compute_dtype="float32",
    remat="none",
  )
  batch = golden.batch_of(golden.under(case, "batch/"))
  params, optimizer = _urm_params(sd), optax.sgd(1.0)
  types = train_step.types
  state = train_step.train_state.TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    ema_params=params,
    opt_state=optimizer.init(params),
    puzzle_table=jnp.asarray(sd["inner.puzzle_emb.weights"]),
    initial_latents=types.Latents(y=jnp.asarray(sd["inner.init_hidden"])),
    carry=types.Carry(
      latents=types.Latents(y=jnp.asarray(case["carry_in/hidden"])),
      batch=batch,
      steps=jnp.asarray(case["carry_in/steps"]),
      halted=jnp.asarray(case["carry_in/halted"]),
    ),
  )
  after, sums = jax.jit(
    functools.partial(
      train_step.supervision_step,
      model=model,
      optimizer=optimizer,
      config=train_step.StepConfig(
        max_supervision_steps=config["loops"],
        exploration_prob=0.1,
        halt_rule="halt",
        answer_loss="stablemax",
        halt_loss_weight=0.5,
        puzzle_learning_rate=lambda step: 0.0,
        puzzle_weight_decay=0.0,
        ema_decay=0.0,
        freeze_network=False,
      ),
    )
  )(
    state,
    batch,
    halting.ExplorationDraws(
      uniform=jnp.asarray(case["rand"]), min_steps=jnp.asarray(case["randint"])
    ),
  )
  golden.assert_close(after.carry.latents.y, case["hidden"], noise["hidden"])
  golden.assert_close(sums["loss"], case["loss"], noise["loss"])
  np.testing.assert_array_equal(after.carry.halted, case["halted"])
  np.testing.assert_array_equal(after.carry.steps, case["steps"])
  for official, value in golden.under(case, "metrics/").items():
    name = golden.OUR_METRICS[official]
    golden.assert_close(sums[name], value, noise["loss"], official)
  carry = halting.refill(state.carry, batch, state.initial_latents)
  output = model.apply(
    {"params": params},
    carry.batch.inputs,
    state.puzzle_table[carry.batch.puzzle_ids],
    carry.latents,
  )
  golden.assert_close(output.logits, case["logits"], noise["logits"])
  golden.assert_close(output.halt_logits, case["q_halt"], noise["q_halt"])
  golden.assert_close(
    output.continue_logits, case["q_continue"], noise["q_continue"]
  )
  np.testing.assert_array_equal(output.logits.argmax(-1), case["preds"])
  gradients = _urm_params(golden.under(case, "grad/"))
  golden.assert_moved_by(
    gradients,
    params,
    after.params,
    jax.tree.map(lambda _: noise["grad_rel_max"], gradients),
  )


# --- EqR: random starts and the choice by residual (case 28) -----------------


def test_eqr_starts():
  case = golden.load("case28_eqr")
  for name in ("z_H", "z_L"):
    golden.assert_close(
      halting.start_of_uniform(jnp.asarray(case[f"start/u_{name}"])),
      case[f"start/{name}"],
    )


def test_eqr_choice_by_residual():
  case = golden.under(golden.load("case28_eqr"), "breadth/")
  logits = jnp.asarray(case["logits"])  # [steps, puzzles x starts, L, V]
  changes, before = (
    choices.no_changes(logits.shape[1]),
    jnp.zeros_like(logits[0]),
  )
  for number, after in enumerate(logits, 1):
    steps = jnp.full((logits.shape[1],), number)
    changes = choices.add_change(changes, after, before, steps)
    before = after
  num_puzzles, starts = case["score_window3"].shape
  residual = choices.residual(changes, steps).reshape(num_puzzles, starts)
  noise = golden.json_of(golden.load("case28_eqr"), "noise")["score3"]
  golden.assert_close(residual, case["score_window3"], noise)
  np.testing.assert_array_equal(residual.argsort(axis=1), case["order_window3"])
  chosen = choices.choose(
    "residual",
    choices.Candidates(
      answers=None,
      halt_logits=jnp.zeros((starts, num_puzzles)),
      residual=residual.T,
      halted_after=jnp.full((starts, num_puzzles), choices.NEVER),
    ),
  )
  np.testing.assert_array_equal(chosen[-1], case["order_window3"][:, 0])


# --- CGAR: the depth curriculum (case 29) ------------------------------------


def test_cgar_schedule():
  case = golden.load("case29_cgar")
  for i, (cycles, updates) in enumerate(case["schedule/base_H_L"].tolist()):
    stages = curriculum.depths(updates, cycles)
    for j, progress in enumerate(case["schedule/progress_f64"].tolist()):
      stage = sum(progress >= share for share in curriculum.STAGES)
      assert stages[stage] == tuple(case["schedule/H_L"][i, j][::-1].tolist())


def test_cgar_weights():
  """Those of the paper; the code's are one number for a whole batch."""
  case = golden.load("case29_cgar")
  steps = case["weight/paper_step"]
  weights = curriculum.step_weights(
    jnp.asarray(steps),
    decay=float(case["weight/decay"]),
    max_supervision_steps=len(steps),
  )
  golden.assert_close(weights, case["weight/paper_normalised_times_steps_f64"])
  golden.assert_close(weights / len(steps), case["weight/paper_normalised_f64"])
