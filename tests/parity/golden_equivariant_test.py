"""Golden cases 20 to 23: symbol-equivariant networks (FPRS's digit fields)."""

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from trm_jax.core import (
  equivariant,
  halting,
  losses,
  network,
  train_state,
  train_step,
  types,
)

CASES = (
  ("case20_fields_mlp_mean", "H2L2"),
  ("case20_fields_mlp_mean", "H3L6"),
  ("case21_fields_att_att", "H2L2"),
  ("case21_fields_att_att", "H3L6"),
  ("case22_fields_mlp_mean_9x9", "H2L2"),
  ("case23_fields_att_att_heads32", "H2L2"),
)
CYCLES = {"H2L2": (2, 2), "H3L6": (3, 6)}
# Token 0 is padding, 1 an empty cell; theirs are 0 for empty and 1 to 9.
SYMBOLS = tuple(range(2, 11))


def _model(config, cycles):
  board = config["board"]
  side = board if isinstance(board, int) else board[0]
  is_mlp = config["dec_token_mixer"] == "mlp"
  width = config["dec_width"]
  return equivariant.SymbolEquivariantModel(
    vocab_size=11,
    seq_len=side**2,
    hidden_size=width,
    network_config=network.NetworkConfig(
      num_layers=config["trm_layers"],
      num_heads=1 if is_mlp else width // config["dec_tok_dk"],
      mlp_expansion=config["trm_expansion"],
      mlp_multiple=256,
      token_mixing="mlp" if is_mlp else "attention",
      position_encoding="none" if is_mlp else "rope_2d",
      grid=(side, side),
      symbol_mixing={"attn": "attention"}.get(
        config["dec_coupling_kind"], config["dec_coupling_kind"]
      ),
      num_symbols=len(SYMBOLS),
      symbol_heads=config["dec_attn_heads"],
      symbol_head_size=config["dec_attn_dk"],
    ),
    num_prefix_tokens=0,
    recursion_cycles=cycles[0],
    latent_updates=cycles[1],
    symbols=SYMBOLS,
  )


def _params(theirs, num_layers):
  """Their parameters or gradients as ours."""

  def layer(i):
    def kernels(ours, *names):
      found = [theirs[f"blocks.{i}.{name}"] for name in names]
      return {ours: {"kernel": jnp.concatenate(found, axis=1)}}

    def swiglu(name):
      return kernels("gate_up", f"{name}.gate_up") | kernels(
        "down", f"{name}.down"
      )

    block = {"channel_mlp": swiglu("mlp")}
    if f"blocks.{i}.att_o" in theirs:
      block["attention"] = kernels("qkv", "att_qkv") | kernels("out", "att_o")
    else:
      block["token_mlp"] = swiglu("mlp_t")
    if f"blocks.{i}.attn_q" in theirs:
      block["symbol_attention"] = kernels(
        "query_key", "attn_q", "attn_k"
      ) | kernels("value", "fc")
    else:
      block["symbol_mean"] = kernels("out", "fc")
    return block

  roles = jnp.asarray(theirs["role_emb"])
  return {
    # Padding has a role of its own, which never occurs.
    "role_embedding": {
      "embedding": jnp.concatenate([jnp.zeros_like(roles[:1]), roles])
    },
    "network": {f"layers_{i}": layer(i) for i in range(num_layers)},
    "answer_head": {"kernel": jnp.asarray(theirs["lm_head"])[:, None]},
    "halt_head": {
      "kernel": jnp.asarray(theirs["q_head.w"]),
      "bias": jnp.asarray(theirs["q_head.b"]),
    },
  }


def _latents(case, prefix):
  def folded(array):
    return jnp.asarray(array).reshape(len(array), -1, array.shape[-1])

  return types.Latents(
    y=folded(case[prefix + "y"]), z=folded(case[prefix + "z"])
  )


def _assert_same_output(output, case, cycles, noise):
  expected = _latents(case, f"{cycles}/carry_out/")
  golden.assert_close(output.latents.y, expected.y, noise["z"], "y")
  golden.assert_close(output.latents.z, expected.z, noise["z"], "z")
  logits = output.logits[..., 2:]
  golden.assert_close(logits, case[f"{cycles}/logits"], noise["logits"])
  answers = jnp.argmax(output.logits, -1) - 1
  np.testing.assert_array_equal(answers, case[f"{cycles}/preds"])
  for ours, theirs in (
    (output.halt_logits, "q_halt"),
    (output.continue_logits, "q_continue"),
  ):
    golden.assert_close(ours, case[f"{cycles}/{theirs}"], noise["q"], theirs)


@pytest.mark.parametrize(("name", "cycles"), CASES)
def test_golden_equivariant_networks(name, cycles):
  case = golden.load(name)
  config = golden.json_of(case, "config")
  noise = golden.json_of(case, "noise")[cycles]["perturb"]
  model = _model(config, CYCLES[cycles])
  params = _params(golden.under(case, "params/"), config["trm_layers"])
  inputs = jnp.asarray(case["inputs"]) + 1
  labels = jnp.asarray(case["labels"]) + 1
  latents = _latents(case, "carry_in/")

  def loss(params):
    output = model.apply({"params": params}, inputs, None, latents)
    rows = losses.supervision_loss(
      output, labels, answer_loss="stablemax", halt_loss_weight=0.5
    )
    return jnp.mean(rows.total), (output, rows)

  compute = jax.value_and_grad(loss, has_aux=True)
  (total, (output, rows)), gradients = jax.jit(compute)(params)
  _assert_same_output(output, case, cycles, noise)
  official = golden.under(case, f"{cycles}/official11/")
  golden.assert_close(jnp.mean(rows.answer), official["ce_loss"], noise["loss"])
  golden.assert_close(total, official["loss"], noise["loss"])
  if cycles == "H2L2":  # gradients are recorded for this one
    expected = _params(golden.under(official, "grad/"), config["trm_layers"])
    jax.tree.map_with_path(
      lambda path, ours, theirs: golden.assert_gradient_close(
        ours, theirs, noise["grad_rel_max"], jax.tree_util.keystr(path)
      ),
      gradients,
      expected,
    )


def test_golden_training_of_an_equivariant_network():
  case = golden.load("case20b_fields_train")
  config = golden.json_of(case, "config")
  noise = golden.json_of(case, "noise")
  model = _model(config, (config["trm_h_cycles"], config["trm_l_cycles"]))
  warmup = optax.linear_schedule(0.0, config["lr"], config["warmup"])
  optimizer = optax.chain(
    optax.clip_by_global_norm(config["clip"]),
    optax.adamw(
      warmup,
      config["b1"],
      config["b2"],
      eps=config["eps"],
      weight_decay=config["weight_decay"],
    ),
  )
  params = _params(golden.under(case, "params/"), config["trm_layers"])
  batch_size = case["rand"].shape[1]
  state = train_state.TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    ema_params=params,
    opt_state=optimizer.init(params),
    puzzle_table=jnp.zeros((1, 0)),
    initial_latents=types.Latents(
      y=jnp.asarray(case["init/y"]), z=jnp.asarray(case["init/z"])
    ),
    carry=train_state.empty_carry(model, batch_size),
  )
  settings = train_step.StepConfig(
    max_supervision_steps=config["halt_max_steps"],
    exploration_prob=config["exploration"],
    halt_rule="halt",
    answer_loss="stablemax",
    halt_loss_weight=0.5,
    puzzle_learning_rate=lambda step: 0.0,
    puzzle_weight_decay=0.0,
    ema_decay=config["ema"],
    freeze_network=False,
  )
  step = jax.jit(
    lambda state, batch, draws: train_step.supervision_step(
      state, batch, draws, model=model, optimizer=optimizer, config=settings
    )
  )
  for t in range(len(case["rand"])):
    batch = types.Batch(
      inputs=jnp.asarray(case["batches/inputs"][t]) + 1,
      labels=jnp.asarray(case["batches/labels"][t]) + 1,
      puzzle_ids=jnp.zeros((batch_size,), jnp.int32),
    )
    draws = halting.ExplorationDraws(
      uniform=jnp.asarray(case["rand"][t]),
      min_steps=jnp.asarray(case["randint"][t]),
    )
    state, sums = step(state, batch, draws)
    golden.assert_close(
      sums["loss"] / batch_size, case["steps/loss_f64"][t], noise["loss"]
    )
    golden.assert_close(
      sums["grad_norm"], case["steps/grad_norm_f64"][t], noise["loss"]
    )
    np.testing.assert_array_equal(state.carry.steps, case["steps/steps"][t])
    np.testing.assert_array_equal(state.carry.halted, case["steps/halted"][t])
  for ours, theirs in (
    (state.params, "final_params/"),
    (state.ema_params, "final_ema/"),
  ):
    expected = _params(golden.under(case, theirs), config["trm_layers"])
    # Unused, and decayed.
    ours["role_embedding"]["embedding"] = (
      ours["role_embedding"]["embedding"].at[0].set(0)
    )
    jax.tree.map(
      lambda a, b: golden.assert_close(a, b, noise["final_params"]),
      ours,
      expected,
    )
  expected = _latents(case, "carry_out/")
  golden.assert_close(state.carry.latents.y, expected.y, noise["carry"])
  golden.assert_close(state.carry.latents.z, expected.z, noise["carry"])
