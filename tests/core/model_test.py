"""Properties of TinyRecursiveModel; golden_model_test.py holds its numbers."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import arc, custom, maze, quickstart, sudoku
from tests import small_model
from trm_jax import config as config_lib
from trm_jax.core import model as model_lib
from trm_jax.core import types
from trm_jax.runtime import model_factory

B, L, D, V, E = 3, 5, 16, 7, 20


def _build(**changes) -> model_lib.TinyRecursiveModel:
  fields = dict(
    vocab_size=V,
    seq_len=L,
    hidden_size=D,
    num_layers=2,
    mlp_multiple=8,
    num_prefix_tokens=2,
    latent_updates=2,
  )
  return small_model.model(**(fields | changes))


@functools.cache
def _applied(**overrides):
  """A model and its compiled step."""
  model = _build(**overrides)
  return model, jax.jit(model.apply)


ATTENTION = {"token_mixing": "attention", "position_encoding": "rope"}
MIXINGS = pytest.mark.parametrize("mixing", [{}, ATTENTION], ids=["mlp", "att"])


def _params(model):
  """Random parameters; the halt head's, too, whose zeros hide mistakes."""
  shapes = jax.eval_shape(
    lambda: model.init_params(jax.random.key(0), puzzle_embed_dim=E)
  )
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: (
      rng.standard_normal(leaf.shape, np.float32)
      * np.float32(leaf.shape[0] ** -0.5)
    ),
    shapes,
  )


def _arguments(model, seed=1):
  rng = np.random.default_rng(seed)
  shape = (B, model.total_len, D)
  return (
    rng.integers(0, V, (B, L), np.int32),
    rng.standard_normal((B, E), np.float32),
    types.Latents(
      y=jnp.asarray(rng.standard_normal(shape), model.dtype),
      z=jnp.asarray(rng.standard_normal(shape), model.dtype),
    ),
  )


def _loss(model, arguments):
  def loss(params, vectors):
    inputs, _, latents = arguments
    output = model.apply({"params": params}, inputs, vectors, latents)
    return jnp.sum(jnp.sin(output.logits.astype(jnp.float32))) + jnp.sum(
      output.halt_logits * output.continue_logits
    )

  return loss


# --- rows are independent --------------------------------------------------


@MIXINGS
def test_changing_one_puzzle_leaves_every_other_row_as_it_is(mixing):
  model, apply = _applied(**mixing)
  params = _params(model)
  arguments, other = _arguments(model), _arguments(model, seed=2)
  row = 1
  is_row = np.arange(B) == row

  def replace_row(a, b):
    return jnp.where(is_row.reshape((B,) + (1,) * (a.ndim - 1)), b, a)

  changed = jax.tree.map(replace_row, arguments, other)
  before = apply({"params": params}, *arguments)
  after = apply({"params": params}, *changed)

  def compare(a, b):
    np.testing.assert_array_equal(a[~is_row], b[~is_row])
    assert np.mean(a[row] != b[row]) > 0.9

  jax.tree.map(compare, before, after)


@MIXINGS
def test_every_argument_reaches_the_answer(mixing):
  model, apply = _applied(**mixing)
  params = {"params": _params(model)}
  inputs, vectors, latents = _arguments(model)
  before = apply(params, inputs, vectors, latents)
  for changed in (
    ((inputs + 1) % V, vectors, latents),
    (inputs, vectors * np.float32(np.arange(E) < E - 1), latents),
    (inputs, vectors, latents.replace(y=latents.y * 2)),
    (inputs, vectors, latents.replace(z=latents.z * 2)),
  ):
    after = apply(params, *changed)
    assert np.abs(after.logits - before.logits).max() > 1e-3


# --- rematerialisation -----------------------------------------------------


def _count_products(model):
  arguments = _arguments(model)
  jaxpr = jax.make_jaxpr(jax.grad(_loss(model, arguments)))(
    _params(model), arguments[1]
  )
  return str(jaxpr).count("dot_general["), str(jaxpr).count("rsqrt")


@functools.cache
def _value_and_gradients(**overrides):
  model = _build(**overrides)
  arguments = _arguments(model)
  value_and_gradients = jax.jit(
    jax.value_and_grad(_loss(model, arguments), argnums=(0, 1)),
    # Else XLA may leave out the roundings that are looked for below.
    compiler_options={"xla_allow_excess_precision": False},
  )
  return value_and_gradients(_params(model), arguments[1])


def _flat(tree):
  return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize(
  "changes",
  [
    {"remat": "dots"},
    {"remat": "full"},
    {"unroll": True},
    {"token_multiple": 8},
    {"token_multiple": 128},
  ],
  ids=str,
)
def test_settings_of_speed_change_neither_value_nor_gradients(changes):
  value, gradients = _value_and_gradients(**changes)
  expected_value, expected = _value_and_gradients()
  np.testing.assert_allclose(value, expected_value, rtol=1e-5)
  flat, expected = _flat(gradients), _flat(expected)
  np.testing.assert_allclose(
    flat, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
  )


def test_remat_recomputes_what_its_name_says():
  none, dots, full = (
    _count_products(_build(remat=remat)) for remat in ("none", "dots", "full")
  )
  assert dots[0] == none[0]  # products are kept,
  assert dots[1] > none[1]  # norms are not
  assert full[0] > none[0]


def _count_forward_products(model, *, differentiated):
  function = functools.partial(
    model_lib.apply, model, differentiated=differentiated
  )
  jaxpr = jax.make_jaxpr(function)(_params(model), *_arguments(model))
  return str(jaxpr).count("dot_general[")


@pytest.mark.parametrize(("mlp_gate", "fewer"), [("silu", 4), ("normed", 0)])
def test_calls_without_gradient_multiply_gate_and_up_at_once(mlp_gate, fewer):
  model = _build(mlp_gate=mlp_gate)
  # A cycle is written down as two calls: one in a loop, and the answer's. Both
  # layers have two MLPs of three products; at the end are two heads.
  free_cycles, last_cycle, heads = 2 * (12 - fewer), 2 * 12, 2
  trained = _count_forward_products(model, differentiated=True)
  assert trained == free_cycles + last_cycle + heads
  inferred = _count_forward_products(model, differentiated=False)
  assert inferred == free_cycles + heads


@pytest.mark.parametrize(
  "changes",
  [
    {},
    ATTENTION,
    {"recursion_cycles": 1},
    {"separate_networks": True, "gradient_updates": 1},
    {"remat": "full"},
    {"unroll": True},
  ],
  ids=str,
)
def test_inference_equals_the_step_that_is_trained(changes):
  model = _build(**changes)
  params = _params(model)
  inferred, expected = (
    jax.jit(
      functools.partial(model_lib.apply, model, differentiated=differentiated)
    )(params, *_arguments(model))
    for differentiated in (False, True)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    inferred,
    expected,
  )


# --- layout ----------------------------------------------------------------


def test_a_token_multiple_leaves_the_parameters_as_they_are():
  shapes = jax.tree.map(jnp.shape, _params(_build()))
  assert shapes == jax.tree.map(jnp.shape, _params(_build(token_multiple=64)))


def test_mixing_by_an_mlp_transposes_nothing():
  """No network call moves its activations around, nor does its gradient."""
  model = _build()
  state = jnp.ones((model.total_len, B, D))

  def loss(params, state, injection):
    new = model.apply(
      {"params": params},
      state,
      injection,
      method=lambda m, s, i: m.network(s, i),
    )
    return jnp.sum(jnp.sin(new))

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
  text = gradient.lower(_params(model), state, state).compile().as_text()
  activations = re.findall(r"f32\[\d+,\d+,\d+\]\S* transpose\(", text)
  assert activations == []
  assert len(re.findall(r" dot\(", text)) == 3 * 2 * 6


@pytest.mark.parametrize("mlp_gate", ["silu", "normed"])
@pytest.mark.parametrize("token_mixing", ["mlp", "attention"])
def test_what_is_computed_in_float32_is_not_kept(token_mixing, mlp_gate):
  """Norms and gates keep what goes into them, in the compute dtype."""
  model = _build(
    compute_dtype="bfloat16",
    remat="none",
    token_mixing=token_mixing,
    mlp_gate=mlp_gate,
  ).with_network(
    attend=lambda query, key, value: query * key * value
  )  # no softmax
  state = jax.ShapeDtypeStruct((model.total_len, B, D), jnp.bfloat16)

  def residuals(params, state):
    def call(state):
      return model.apply(
        {"params": params},
        state,
        state,
        method=lambda m, s, i: m.network(s, i),
      )

    return jax.vjp(call, state)[1]

  kept = jax.tree.leaves(jax.eval_shape(residuals, _params(model), state))
  assert any(leaf.dtype == jnp.bfloat16 and leaf.ndim == 3 for leaf in kept)
  assert not [leaf for leaf in kept if leaf.dtype == jnp.float32 and leaf.ndim]


def test_recomputing_saves_memory():
  def temporaries(remat):
    model = _build(remat=remat, num_layers=1, latent_updates=6)
    arguments = _arguments(model)
    lowered = jax.jit(jax.grad(_loss(model, arguments))).lower(
      _params(model), arguments[1]
    )
    return lowered.compile().memory_analysis().temp_size_in_bytes

  none, dots, full = map(temporaries, ("none", "dots", "full"))
  assert full < dots < none


# --- parameters ------------------------------------------------------------


def _count_params(config, *, vocab_size, seq_len):
  model = model_factory.build_model(
    config.model, vocab_size=vocab_size, seq_len=seq_len
  )
  params = jax.eval_shape(
    lambda: model.init_params(
      jax.random.key(0),
      puzzle_embed_dim=config.model.puzzle_embed_dim,
    )
  )
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def _swiglu_by_hand(size, model):
  inner = model.mlp_expansion * size * 2 / 3
  width = model.mlp_multiple
  while width < round(inner):
    width += model.mlp_multiple
  return 3 * size * width


def _count_by_hand(config, *, vocab_size, seq_len):
  model = config.model
  size = model.hidden_size
  if model.token_mixing == "attention":
    mixing = 4 * size * size
  else:
    mixing = _swiglu_by_hand(model.num_prefix_tokens + seq_len, model)
  blocks = model.num_layers * (mixing + _swiglu_by_hand(size, model))
  return blocks + 2 * vocab_size * size + 2 * size + 2


@pytest.mark.parametrize(
  ("get_config", "vocab_size", "seq_len", "count"),
  [
    (sudoku.get_config, 11, 81, 5_028_866),
    (lambda: sudoku.get_config("attention"), 11, 81, 6_828_034),
    (maze.get_config, 6, 900, 6_822_914),
    (arc.get_config, 12, 900, 6_829_058),
    (lambda: arc.get_config("2"), 12, 900, 6_829_058),
  ],
  ids=["sudoku", "sudoku-attention", "maze", "arc", "arc-2"],
)
def test_parameter_counts_of_the_paper(get_config, vocab_size, seq_len, count):
  config = config_lib.from_config_dict(get_config())
  shape = {"vocab_size": vocab_size, "seq_len": seq_len}
  assert _count_params(config, **shape) == count
  assert _count_by_hand(config, **shape) == count


@pytest.mark.parametrize(
  ("get_config", "vocab_size", "seq_len"),
  [
    (quickstart.get_config, 8, 36),
    (lambda: sudoku.get_config("smoke"), 11, 81),
    (lambda: sudoku.get_config("attention,smoke"), 11, 81),
    (lambda: maze.get_config("smoke"), 6, 80),
    (lambda: arc.get_config("smoke"), 12, 900),
    (custom.get_config, 7, 6),
    (lambda: custom.get_config("arc"), 12, 900),
  ],
  ids=[
    "quickstart",
    "smoke",
    "attention-smoke",
    "maze-smoke",
    "arc-smoke",
    "custom",
    "custom-arc",
  ],
)
def test_parameter_counts_of_small_experiments(get_config, vocab_size, seq_len):
  config = config_lib.from_config_dict(get_config())
  shape = {"vocab_size": vocab_size, "seq_len": seq_len}
  assert _count_params(config, **shape) == _count_by_hand(config, **shape)


@MIXINGS
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_are_float32_and_hold_no_puzzle(mixing, dtype):
  model = _build(**mixing, compute_dtype=dtype)
  params = _params(model)
  assert set(params) == {
    "token_embedding",
    "network",
    "answer_head",
    "halt_head",
  }
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {
    jnp.dtype("float32")
  }
  output = jax.eval_shape(model.apply, {"params": params}, *_arguments(model))
  assert output.logits.dtype == jnp.dtype(dtype)
  assert output.latents.y.dtype == jnp.dtype(dtype)
  assert output.latents.z.dtype == jnp.dtype(dtype)
  assert output.halt_logits.dtype == jnp.dtype("float32")


def test_no_answer_is_believed_at_first():
  model = _build(num_layers=1, latent_updates=1, recursion_cycles=1)

  def first_answer():
    params = model.init_params(jax.random.key(0), puzzle_embed_dim=E)
    return model.apply({"params": params}, *_arguments(model))

  output = jax.jit(first_answer)()
  np.testing.assert_array_equal(output.halt_logits, -5.0)
  np.testing.assert_array_equal(output.continue_logits, -5.0)


def test_kernels_begin_with_deviation_one_over_root_fan_in():
  model = _build(hidden_size=96, mlp_multiple=32, **ATTENTION)
  params = jax.jit(
    lambda: model.init_params(jax.random.key(3), puzzle_embed_dim=E)
  )()
  leaves = jax.tree_util.tree_leaves_with_path(params["network"])
  assert len(leaves) == 8
  for path, kernel in leaves:
    expected = kernel.shape[0] ** -0.5
    assert abs(np.std(kernel) / expected - 1) < 0.05, path
    # Truncated at two deviations, before the correction of 1 / 0.8796.
    assert np.abs(kernel).max() <= 2 * expected / 0.87962566 * 1.0001, path
  embedding = params["token_embedding"]["embedding"]
  assert abs(np.std(embedding) * 96**0.5 - 1) < 0.1


# --- embedding -------------------------------------------------------------


def test_a_short_puzzle_vector_is_filled_up_with_zeros():
  model, apply = _applied()
  params, arguments = _params(model), _arguments(model)
  inputs, vectors, latents = arguments
  assert vectors.shape[-1] < 2 * D
  padded = np.zeros((B, 2 * D), np.float32)
  padded[:, :E] = vectors
  short = apply({"params": params}, *arguments)
  full = apply({"params": params}, inputs, padded, latents)
  jax.tree.map(np.testing.assert_array_equal, short, full)


def test_prefix_tokens_stand_before_the_grid():
  model = _build()
  inputs, vectors, _ = _arguments(model)
  x = model.apply({"params": _params(model)}, inputs, vectors, method="embed")
  assert x.shape == (B, 2 + L, D)
  padded = np.zeros((B, 2 * D), np.float32)
  padded[:, :E] = vectors
  np.testing.assert_allclose(
    x[:, :2], padded.reshape(B, 2, D) * D**0.5, rtol=1e-6
  )


def test_learned_positions_are_one_vector_per_token_and_half_the_variance():
  model = _build(token_mixing="attention", position_encoding="learned")
  params = _params(model)
  positions = params["position_embedding"]["embedding"]
  assert positions.shape == (model.total_len, D)
  inputs, vectors, _ = _arguments(model)
  tokens = params["token_embedding"]["embedding"][inputs]
  x = model.apply({"params": params}, inputs, vectors, method="embed")
  expected = (tokens + positions[None, 2:]) * (D / 2) ** 0.5
  np.testing.assert_allclose(x[:, 2:], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("positions", ["none", "learned", "rope"])
def test_attention_sees_order_only_through_positions(positions):
  model, apply = _applied(token_mixing="attention", position_encoding=positions)
  params = {"params": _params(model)}
  _, vectors, _ = _arguments(model)
  vector = jnp.ones((B, model.total_len, D))
  latents = types.Latents(y=vector, z=-vector)
  tokens = np.tile(np.arange(L, dtype=np.int32), (B, 1))
  forward = apply(params, tokens, vectors, latents).logits
  backward = apply(params, tokens[:, ::-1], vectors, latents).logits
  difference = np.abs(forward - backward[:, ::-1]).max()
  if positions == "none":
    assert difference < 1e-4
  else:
    assert difference > 1e-2


# --- gradients -------------------------------------------------------------


def test_new_latents_are_detached():
  model = _build(num_layers=1, latent_updates=1, recursion_cycles=1)
  arguments = _arguments(model)

  def loss(params):
    latents = model.apply({"params": params}, *arguments).latents
    return jnp.sum(latents.y**3) + jnp.sum(latents.z**3)

  for gradient in jax.tree.leaves(jax.jit(jax.grad(loss))(_params(model))):
    np.testing.assert_array_equal(gradient, 0.0)


def test_bfloat16_gradients_of_the_calls_add_up_in_float32():
  _, (gradients, _) = _value_and_gradients(
    compute_dtype="bfloat16", remat="full"
  )
  for path, gradient in jax.tree_util.tree_leaves_with_path(
    gradients["network"]
  ):
    assert gradient.dtype == jnp.float32
    # A sum in bfloat16 would leave nothing but bfloat16 numbers.
    rounded = gradient.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.mean(rounded == gradient) < 0.5, path
  _, (expected, _) = _value_and_gradients()
  flat, expected = _flat(gradients), _flat(expected)
  lengths = np.linalg.norm(flat) * np.linalg.norm(expected)
  assert flat @ expected / lengths > 0.98
