"""Reads golden files, translates official names, and measures agreement."""

import functools
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import small_model
import tiny

from trm_jax import config as config_lib
from trm_jax.core import model as model_lib
from trm_jax.core import train_state, types
from trm_jax.interop import torch_names

# How far results may be apart; see `assert_close` and `assert_rounds_alike`.
FLOAT32_TOLERANCE = 1e-5
NOISE_FACTOR = 20.0
BFLOAT16_FACTOR = 2.0
# Seeds of the perturbed runs that measure noise where no file records it.
PERTURBATIONS = (0, 1, 2)

OUR_METRICS = {
  "accuracy": "cell_accuracy",
  "count": "count",
  "exact_accuracy": "exact_accuracy",
  "lm_loss": "answer_loss",
  "q_continue_loss": "continue_loss",
  "q_halt_accuracy": "halt_accuracy",
  "q_halt_loss": "halt_loss",
  "steps": "steps",
}


def golden_dir() -> pathlib.Path:
  default = pathlib.Path(__file__).parent.parent / "golden"
  return pathlib.Path(os.environ.get("TRM_GOLDEN_DIR") or default)


@functools.cache
def load(name: str) -> dict[str, np.ndarray]:
  """A case; one that the folder lacks is read from the project's own."""
  path = golden_dir() / f"{name}.npz"
  if not path.exists():
    path = pathlib.Path(__file__).parent.parent / "golden" / path.name
  with np.load(path) as arrays:
    return {key: arrays[key] for key in arrays.files}


def json_of(case, key):
  return json.loads(str(case[key]))


def under(case, prefix):
  """The arrays below a prefix, with the prefix taken off."""
  return {
    key[len(prefix) :]: value
    for key, value in case.items()
    if key.startswith(prefix)
  }


def assert_close(actual, expected, noise=0.0, name="", *, scale=None):
  """Asserts |actual - expected| <= 20 x noise + 1e-5 x scale, everywhere.

  Float32 is as exact as the largest number that went into a result, not as the
  result: what a cancellation leaves has the error of what was cancelled. So
  the unit is the scale of the whole quantity, and not each entry's own.

  Args:
    actual: array or number, ours.
    expected: the same, official.
    noise: absolute; how far a perturbation of 1e-7 moves the quantity. A
      number, or one for each entry.
    name: of the quantity, for the message.
    scale: the largest magnitude of the quantity; that of `expected` if None.
      One for each entry where they are separate computations of very different
      sizes: one common scale would let errors of the small ones pass.
  """
  actual = np.asarray(jnp.asarray(actual, jnp.float32), np.float64)
  expected = np.asarray(expected, np.float64)
  assert actual.shape == expected.shape, (name, actual.shape, expected.shape)
  if scale is None:
    scale = np.abs(expected).max(initial=0.0)
  tolerance = NOISE_FACTOR * np.asarray(noise) + FLOAT32_TOLERANCE * scale
  error = np.abs(actual - expected)
  excess = np.max(error - tolerance, initial=-np.inf)
  assert excess <= 0, f"{name}: {error.max():.3g}, {excess:.3g} too far away"


def assert_gradient_close(actual, expected, relative_noise, name=""):
  """`assert_close` with noise relative to the tensor's largest gradient."""
  noise = relative_noise * np.abs(expected).max()
  assert_close(actual, expected, noise, name)


def gradient_noise(case):
  """The recorded relative noise of each parameter's gradient, as our tree."""
  recorded = json_of(case, "noise")
  tree = params_of(
    {
      name: np.full_like(value, recorded[name])
      for name, value in under(case, "grad/").items()
    }
  )
  return jax.tree.map(lambda leaf: float(leaf.ravel()[0]), tree)


def assert_moved_by(gradients, before, after, relative_noise):
  """Asserts that SGD with rate 1 moved parameters by these gradients."""

  def check(gradient, old, new, noise):
    last_digit = np.spacing(np.abs(old).max())
    noise = noise * np.abs(gradient).max() + last_digit
    assert_close(old - new, gradient, noise)

  jax.tree.map(check, gradients, before, after, relative_noise)


def assert_rounds_alike(ours, official, float32, name=""):
  """Asserts that our bfloat16 is as close to float32 as the official one.

  Two bfloat16 runs round in different places, and a deep recursion amplifies
  that until single entries have nothing in common. Their distances from
  float32 keep one distribution, which anything wrong in the arithmetic widens:
  its mean and its 99th percentile over all quantities of a network, and the
  mean of each, may be at most twice the official ones. A single maximum is the
  luck of one entry, and so is the mean of a handful.

  Args:
    ours: our bfloat16 results, by the name of the quantity.
    official: the official bfloat16 results.
    float32: the official float32 results.
    name: of the network, for the message.
  """
  pools = [], []
  for key, exact in float32.items():
    distance, reference = (
      np.abs(np.asarray(run[key], np.float32) - exact).ravel()
      for run in (ours, official)
    )
    # In units of the recorded deviation quantities can be pooled.
    unit = reference.mean()
    pools[0].append(distance / unit)
    pools[1].append(reference / unit)
    if exact.size >= 100:
      _assert_no_wider(np.mean, distance, reference, f"{name} {key}")
  pooled, reference = (np.concatenate(pool) for pool in pools)
  _assert_no_wider(np.mean, pooled, reference, name)
  if pooled.size >= 100:
    _assert_no_wider(_percentile_99, pooled, reference, name)


def _assert_no_wider(statistic, distances, reference, name):
  ratio = statistic(distances) / statistic(reference)
  assert ratio <= BFLOAT16_FACTOR, (name, statistic.__name__, ratio)


def _percentile_99(values):
  return np.percentile(values, 99)


def assert_rounded(actual, expected):
  """Asserts one rounding to bfloat16 of what is computed in float32.

  The last digits of float32 decide few roundings: nearly all entries are
  equal, and the others are neighbours.
  """
  actual = np.asarray(actual, np.float32)
  # One unit in the last place of bfloat16, at the value's own magnitude.
  np.testing.assert_allclose(actual, expected, rtol=2.0**-7, atol=1e-5)
  assert np.mean(actual != expected) <= 0.02


def perturbed(params, seed=0):
  """Every parameter times 1 + 1e-7 x a standard normal draw."""
  rng = np.random.default_rng(seed)

  def perturb(leaf):
    factor = 1 + 1e-7 * rng.standard_normal(leaf.shape)
    return jnp.asarray(np.asarray(leaf, np.float64) * factor, jnp.float32)

  return jax.tree.map(perturb, params)


def difference(tree, other) -> float:
  """The largest absolute difference of two trees."""
  pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
  return max(float(jnp.abs(a - b).max()) for a, b in pairs)


def num_prefix_tokens(config) -> int:
  """The official rule: ceil(ndim / hidden) where no length is given."""
  return config["puzzle_emb_len"] or -(
    -config["puzzle_emb_ndim"] // config["hidden_size"]
  )


def build_model(config, **overrides) -> model_lib.TinyRecursiveModel:
  """Our model for an official config."""
  arguments = dict(
    vocab_size=config["vocab_size"],
    seq_len=config["seq_len"],
    hidden_size=config["hidden_size"],
    num_heads=config["num_heads"],
    num_layers=config["L_layers"],
    mlp_expansion=config["expansion"],
    mlp_multiple=256,
    token_mixing="mlp" if config["mlp_t"] else "attention",
    position_encoding=config["pos_encodings"],
    rope_theta=config["rope_theta"],
    rms_norm_eps=config["rms_norm_eps"],
    num_prefix_tokens=num_prefix_tokens(config),
    latent_updates=config["L_cycles"],
    recursion_cycles=config["H_cycles"],
    compute_dtype=config["forward_dtype"],
    remat="none",
  )
  return small_model.build(**(arguments | overrides))


def run_config(official) -> config_lib.Config:
  """Our experiment for an official config: grids of 3 x 4 cells."""
  config = tiny.config_dict()
  config.data.task = "grid"
  config.data.grid_rows, config.data.grid_cols = 3, official["seq_len"] // 3
  config.data.charset = "0123456789ABCDEF"[: official["vocab_size"] - 1]
  is_mlp = official["mlp_t"]
  config.model.update(
    hidden_size=official["hidden_size"],
    num_heads=official["num_heads"],
    num_layers=official["L_layers"],
    mlp_expansion=float(official["expansion"]),
    mlp_multiple=256,
    token_mixing="mlp" if is_mlp else "attention",
    position_encoding=official["pos_encodings"],
    rope_theta=official["rope_theta"],
    rms_norm_eps=official["rms_norm_eps"],
    puzzle_embed_dim=official["puzzle_emb_ndim"],
    num_prefix_tokens=num_prefix_tokens(official),
    latent_updates=official["L_cycles"],
    recursion_cycles=official["H_cycles"],
    compute_dtype=official["forward_dtype"],
  )
  config.train.max_supervision_steps = official["halt_max_steps"]
  config.train.halt_rule = halt_rule(official)
  config.eval.supervision_steps = official["halt_max_steps"]
  return config_lib.from_config_dict(config)


def _names(state_dict):
  """The names without the prefix of the wrapper around the model."""
  return {
    torch_names.without_prefix(name): value
    for name, value in state_dict.items()
  }


def params_path(name: str) -> tuple[str, ...] | None:
  """Our path of an official parameter; None if it is no parameter of ours."""
  return torch_names.path_of(torch_names.without_prefix(name))


def to_ours(name: str, value: np.ndarray) -> np.ndarray:
  """An official parameter or gradient in our layout."""
  assert params_path(name) is not None, name
  return torch_names.in_our_layout(torch_names.without_prefix(name), value)


def params_of(state_dict):
  """Our parameter tree of an official state dict (gradients, too)."""
  return jax.tree.map(jnp.asarray, torch_names.params_of(_names(state_dict)))


def weights_of(state_dict) -> types.Weights:
  """All of ours that an official state dict has."""
  weights = torch_names.weights_of(_names(state_dict))
  return jax.tree.map(jnp.asarray, weights)


def get(params, path):
  for part in path:
    params = params[part]
  return params


def table_of(state_dict):
  """The puzzle table; width 0 where the model has none."""
  return weights_of(state_dict).puzzle_table


def vectors_of(state_dict, puzzle_ids):
  table = table_of(state_dict)
  if table.shape[1] == 0:
    return jnp.zeros((len(puzzle_ids), 0), jnp.float32)
  return table[np.asarray(puzzle_ids)]


def constants_of(state_dict) -> types.Latents:
  return weights_of(state_dict).initial_latents


def latents_of(case, prefix, dtype=jnp.float32) -> types.Latents:
  """Official latents as ours: y is z_H, or the only one; z may be many."""
  parts = {
    name: jnp.asarray(value, dtype)
    for name, value in sorted(under(case, prefix + "z_").items())
  }
  y = parts.pop("H") if "H" in parts else parts.pop("L")
  if not parts:
    return types.Latents(y=y)
  is_one = set(parts) == {"L"}
  z = parts["L"] if is_one else jnp.stack([*parts.values()], axis=-2)
  return types.Latents(y=y, z=z)


def batch_of(arrays) -> types.Batch:
  return types.Batch(
    inputs=jnp.asarray(arrays["inputs"]),
    labels=jnp.asarray(arrays["labels"]),
    puzzle_ids=jnp.asarray(arrays["puzzle_identifiers"]),
  )


def carry_of(case, prefix) -> types.Carry:
  return types.Carry(
    latents=latents_of(case, prefix),
    batch=batch_of(under(case, prefix + "current_data/")),
    steps=jnp.asarray(case[prefix + "steps"]),
    halted=jnp.asarray(case[prefix + "halted"]),
  )


def halt_rule(config) -> str:
  return "halt" if config["no_ACT_continue"] else "halt_over_continue"


def state_of(state_dict, carry, optimizer) -> train_state.TrainState:
  params = params_of(state_dict)
  return train_state.TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    ema_params=params,
    opt_state=optimizer.init(params),
    puzzle_table=table_of(state_dict),
    initial_latents=constants_of(state_dict),
    carry=carry,
  )


def assert_same_carry(carry, case, prefix, noise):
  expected = under(case, prefix)
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
    assert_close(carry.latents.y, expected["z_H"], noise)
    assert_close(carry.latents.z, expected["z_L"], noise)
