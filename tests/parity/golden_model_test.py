"""Golden cases 01, 02 and 12: layers and whole forward passes."""

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.core import layers, network, norm, types
from trm_jax.core import model as model_lib
from trm_jax.core.kernels import matmul

FORWARD_NAMES = (
  "att_rope",
  "mlp_t",
  "att_learned",
  "att_ndim0",
  "att_len0",
  "mlp_t_len0",
  "att_pad",
)
CYCLES = {"H3L6": (3, 6), "H2L4": (2, 4), "H1L1": (1, 1)}


def _linear(weight):
  return {"kernel": jnp.asarray(weight.T)}


@pytest.mark.parametrize(
  ("epsilon", "prefix"), [("1e-05", ""), ("1e-06", ""), ("1e-05", "bf16_")]
)
def test_golden_rms_norm(epsilon, prefix):
  case = golden.under(golden.load("case01_layers"), "rms_norm/")
  dtype = jnp.bfloat16 if prefix else jnp.float32
  x = jnp.asarray(case[f"{prefix}x"], dtype)
  y = norm.rms_norm(x, epsilon=float(epsilon))
  assert y.dtype == dtype
  check = golden.assert_rounded if prefix else golden.assert_close
  check(y, case[f"{prefix}y_eps{epsilon}"])


def test_golden_swiglu_width():
  table = golden.load("case01_layers")["swiglu/inter_table"]
  for size, expansion, width in table:
    assert width == layers.swiglu_width(
      int(size), expansion=expansion, multiple=256
    )


@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_golden_swiglu(prefix):
  case = golden.under(golden.load("case01_layers"), "swiglu/")
  dtype = jnp.bfloat16 if prefix else jnp.float32
  module = layers.SwiGLU(expansion=4.0, multiple=256, dtype=dtype)
  params = {
    "gate_up": _linear(case["sd/gate_up_proj.weight"]),
    "down": _linear(case["sd/down_proj.weight"]),
  }
  y = module.apply({"params": params}, jnp.asarray(case[f"{prefix}x"], dtype))
  _assert_layer(y, case[f"{prefix}y"], case["y"], prefix)


def _assert_layer(y, expected, float32, prefix):
  if prefix:
    golden.assert_rounds_alike({"y": y}, {"y": expected}, {"y": float32})
  else:
    golden.assert_close(y, expected)


def test_golden_rope_tables():
  case = golden.under(golden.load("case01_layers"), "rope/dim")
  names = {key.rsplit("/", 1)[0] for key in case}
  assert names
  for name in names:
    size, length, base = (part.lstrip("nbase") for part in name.split("_"))
    cos, sin = layers.rope_tables(int(length), int(size), base=float(base))
    golden.assert_close(cos, case[f"{name}/cos"], name=name)
    golden.assert_close(sin, case[f"{name}/sin"], name=name)


@pytest.mark.parametrize("kind", ["apply", "apply_bf16"])
def test_golden_rotation(kind):
  case = golden.under(golden.load("case01_layers"), f"rope/{kind}/")
  dtype = jnp.bfloat16 if kind.endswith("bf16") else jnp.float32
  for name in ("q", "k"):
    x = jnp.asarray(case[name], dtype)
    cos, sin = layers.rope_tables(x.shape[1], x.shape[3], base=10000.0)
    is_rounded = dtype == jnp.bfloat16
    check = golden.assert_rounded if is_rounded else golden.assert_close
    check(layers.rotate(x, cos, sin), case[f"{name}_out"])


@pytest.mark.parametrize("name", ["attention", "attention_odd"])
@pytest.mark.parametrize("rope", ["rope", "norope"])
def test_golden_attention(name, rope):
  case = golden.under(golden.load("case01_layers"), f"{name}/")
  config = golden.json_of(case, "config")
  params = {
    "qkv": _linear(case["sd/qkv_proj.weight"]),
    "out": _linear(case["sd/o_proj.weight"]),
  }

  def run(dtype):
    module = layers.Attention(
      num_heads=config["num_heads"],
      head_size=config["head_dim"],
      rope_theta=config["rope_base"] if rope == "rope" else None,
      dtype=dtype,
    )
    return module.apply({"params": params}, jnp.asarray(case["x"], dtype))

  golden.assert_close(run(jnp.float32), case[f"y_{rope}"])
  if f"bf16_y_{rope}" in case:
    _assert_layer(
      run(jnp.bfloat16), case[f"bf16_y_{rope}"], case[f"y_{rope}"], "bf16_"
    )


@pytest.mark.parametrize("name", ["block_att", "block_mlp_t"])
def test_golden_block(name):
  case = golden.under(golden.load("case01_layers"), f"{name}/")
  config = golden.json_of(case, "config")
  state_dict = {
    f"inner.L_level.layers.0.{key}": value
    for key, value in golden.under(case, "sd/").items()
  }
  params = golden.params_of(state_dict)["network"]["layers_0"]
  module = network.Block(
    network.NetworkConfig(
      num_layers=1,
      token_mixing="mlp" if config["mlp_t"] else "attention",
      position_encoding="none" if config["mlp_t"] else "rope",
      num_heads=config["num_heads"],
      rope_theta=config["rope_theta"],
      mlp_expansion=config["expansion"],
      mlp_multiple=256,
      rms_norm_eps=config["rms_norm_eps"],
    )
  )
  x, expected = case["x"], case["y"]
  if config["mlp_t"]:  # ours has the tokens first
    x, expected = x.swapaxes(0, 1), expected.swapaxes(0, 1)
  golden.assert_close(module.apply({"params": params}, x), expected)


@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_golden_embedding(prefix):
  case = golden.under(golden.load("case01_layers"), "embedding/")
  dtype = jnp.bfloat16 if prefix else jnp.float32
  table = case["sd/embedding_weight"]
  module = layers.TokenEmbedding(*table.shape, dtype)
  y = module.apply({"params": {"embedding": table}}, case["ids"])
  np.testing.assert_array_equal(np.asarray(y, np.float32), case[f"{prefix}y"])


@pytest.mark.parametrize("prefix", ["", "bf16_"])
def test_golden_halt_head(prefix):
  case = golden.under(golden.load("case01_layers"), "linear/")
  dtype = jnp.bfloat16 if prefix else jnp.float32
  config = golden.json_of(golden.load("case02_inner"), "att_rope/config")
  x = jnp.asarray(case[f"{prefix}x"], dtype)
  model = golden.build_model(config, compute_dtype=jnp.dtype(dtype).name)
  head = _linear(case["sd/weight"]) | {"bias": jnp.asarray(case["sd/bias"])}
  y = model.apply(
    {"params": {"halt_head": head}}, x, method=lambda m, x: m.halt_head(x)
  )
  _assert_layer(y, case[f"{prefix}y"], case["y"], prefix)


@pytest.mark.parametrize("std", ["1.000000", "0.044194"])
def test_golden_truncated_normal_quantiles(std):
  """The golden y is the quantile function at u, rescaled to 0..1."""
  case = golden.under(golden.load("case01_layers"), f"trunc_normal/std{std}/")
  lo, hi = case["lo_hi"]
  y, p = case["y"], (case["u"] - lo) / (hi - lo)
  num_rows, fan_in = 4000, round(float(std) ** -2)
  fan_in = max(fan_in, 1)
  draws = np.asarray(
    layers.linear_init(
      jax.random.key(0), (fan_in, 2 * num_rows * 512 // fan_in), jnp.float32
    )
  ).ravel()
  # 4e6 draws: the empirical distribution is within 1.6e-3 of the true one
  # with probability 1 - 1e-8 (Dvoretzky-Kiefer-Wolfowitz).
  empirical = np.searchsorted(np.sort(draws), y) / draws.size
  assert np.abs(empirical - p).max() < 1.6e-3
  # Nothing beyond the truncation, and something close to it.
  bound = 2 * fan_in**-0.5 / 0.87962566103423978
  assert np.abs(draws).max() <= bound * (1 + 1e-6)
  assert np.abs(y).max() <= bound * (1 + 1e-4)


def test_golden_truncated_normal_moments():
  mean, std, low, high = golden.load("case01_layers")[
    "trunc_normal/stats_1e6_std1"
  ]
  draws = np.asarray(
    layers.linear_init(jax.random.key(1), (1, 1_000_000), jnp.float32)
  )
  assert abs(draws.mean() - mean) < 0.007  # five standard errors of a pair
  assert abs(draws.std() - std) < 0.005
  assert abs(draws.min() - low) < 1e-3
  assert abs(draws.max() - high) < 1e-3


def _forward(model, state_dict, case, prefix_batch, latents):
  params = golden.params_of(state_dict)
  vectors = golden.vectors_of(
    state_dict, case[f"{prefix_batch}puzzle_identifiers"]
  )
  inputs = jnp.asarray(case[f"{prefix_batch}inputs"])
  return jax.jit(model.apply)({"params": params}, inputs, vectors, latents)


@pytest.mark.parametrize("name", FORWARD_NAMES)
def test_golden_input_embeddings(name):
  case = golden.under(golden.load("case02_inner"), f"{name}/")
  model = golden.build_model(golden.json_of(case, "config"))
  state_dict = golden.under(case, "sd/")
  x = model.apply(
    {"params": golden.params_of(state_dict)},
    case["batch/inputs"],
    golden.vectors_of(state_dict, case["batch/puzzle_identifiers"]),
    method=model_lib.TinyRecursiveModel.embed,
  )
  golden.assert_close(x, case["input_embeddings"])


@pytest.mark.parametrize(
  "remat",
  [
    "none",
    *(pytest.param(r, marks=pytest.mark.slow) for r in ("dots", "full")),
  ],
)
@pytest.mark.parametrize("cycles", ["H3L6", "H2L4"])
@pytest.mark.parametrize("name", FORWARD_NAMES)
def test_golden_forward(name, cycles, remat):
  case = golden.under(golden.load("case02_inner"), f"{name}/")
  t, n = CYCLES[cycles]
  model = golden.build_model(
    golden.json_of(case, "config"),
    recursion_cycles=t,
    latent_updates=n,
    remat=remat,
  )
  output = _forward(
    model,
    golden.under(case, "sd/"),
    case,
    "batch/",
    golden.latents_of(case, "carry_in/"),
  )
  expected = golden.under(case, f"{cycles}/")
  noise_y, noise_z, noise_logits, noise_halt = case["noise"][
    ("H3L6", "H2L4").index(cycles)
  ]
  golden.assert_close(output.latents.y, expected["carry_out/z_H"], noise_y)
  golden.assert_close(output.latents.z, expected["carry_out/z_L"], noise_z)
  golden.assert_close(output.logits, expected["logits"], noise_logits)
  golden.assert_close(output.halt_logits, expected["q_halt"], noise_halt)
  golden.assert_close(
    output.continue_logits, expected["q_continue"], noise_halt
  )
  np.testing.assert_array_equal(
    jnp.argmax(output.logits, -1), expected["preds"]
  )


@pytest.mark.parametrize("name", ["att_rope", "mlp_t"])
def test_golden_every_network_call(name):
  """All 21 calls of the network, in the paper's order, for one row."""
  case = golden.under(golden.load("case02_inner"), f"{name}/")
  config = golden.json_of(case, "config")
  model = golden.build_model(config)
  params = {"params": golden.params_of(golden.under(case, "sd/"))}
  y, z = case["carry_in/z_H"][:1], case["carry_in/z_L"][:1]
  x = jnp.asarray(case["input_embeddings"][:1])
  if config["mlp_t"]:  # ours has the tokens first
    x, y, z = (a.swapaxes(0, 1) for a in (x, y, z))

  @jax.jit
  def network(state, injection):
    return model.apply(
      params, state, injection, method=lambda m, s, i: m.network(s, i)
    )

  calls = []
  for _ in range(3):
    for _ in range(6):
      z = network(z, y + x)
      calls.append(jnp.squeeze(z))
    y = network(y, z)
    calls.append(jnp.squeeze(y))
  noise = case["noise"][0, :2].max()
  golden.assert_close(jnp.stack(calls), case["H3L6/trace_row0"], noise)


BIG_NAMES = ("att_rope", "mlp_t")


def _bfloat16_results(name, cycles, multiply):
  """Results by quantity: our bfloat16, official bfloat16, official float32."""
  case = golden.under(golden.load("case12_bf16"), f"{name}/")
  t, n = CYCLES[cycles]
  model = golden.build_model(
    golden.json_of(case, "config"),
    recursion_cycles=t,
    latent_updates=n,
    multiply=multiply,
  )
  assert model.dtype == jnp.bfloat16
  output = _forward(
    model,
    golden.under(golden.load("case02_inner"), f"{name}/sd/"),
    case,
    "batch/",
    golden.latents_of(case, "carry_in/", jnp.bfloat16),
  )
  assert output.latents.y.dtype == jnp.bfloat16
  ours = {
    "carry_out/z_H": output.latents.y,
    "carry_out/z_L": output.latents.z,
    "logits": output.logits,
    "q_halt": output.halt_logits,
    "q_continue": output.continue_logits,
  }
  return ours, *(
    {key: case[f"{cycles}/{dtype}/{key}"] for key in ours}
    for dtype in ("bf16", "f32")
  )


@pytest.mark.parametrize(
  "multiply",
  [
    matmul.plain,
    pytest.param(matmul.bf16_matmul_f32_accum, marks=pytest.mark.slow),
  ],
)
def test_golden_bfloat16(multiply):
  check_bfloat16(CYCLES, multiply)


def check_bfloat16(all_cycles, multiply):
  """Checks each network, and the few halting logits of both together."""
  halting = [{}, {}, {}]
  for cycles in all_cycles:
    runs = [_bfloat16_results(name, cycles, multiply) for name in BIG_NAMES]
    for name, run in zip(BIG_NAMES, runs, strict=True):
      golden.assert_rounds_alike(*run, name=f"{name} {cycles}")
    for pool, networks in zip(halting, zip(*runs, strict=True), strict=True):
      pool[cycles] = np.concatenate(
        [each[key] for each in networks for key in ("q_halt", "q_continue")]
      )
  golden.assert_rounds_alike(*halting, name="halting logits")


def test_golden_float32_forward_from_bfloat16_latents():
  for name in BIG_NAMES:
    case = golden.under(golden.load("case12_bf16"), f"{name}/")
    inner = golden.under(golden.load("case02_inner"), f"{name}/")
    model = golden.build_model(
      golden.json_of(case, "config"),
      recursion_cycles=1,
      latent_updates=1,
      compute_dtype="float32",
    )
    output = _forward(
      model,
      golden.under(inner, "sd/"),
      case,
      "batch/",
      golden.latents_of(case, "carry_in/"),
    )
    golden.assert_close(output.logits, case["H1L1/f32/logits"])


def test_golden_model_dtype_is_kept_by_the_embedding_scale():
  """bfloat16 x a NumPy scalar would become float32."""
  x = layers.scaled(jnp.ones((1, 2, 7), jnp.bfloat16))
  assert x.dtype == jnp.bfloat16
  assert isinstance(types.IGNORED_LABEL, int)
