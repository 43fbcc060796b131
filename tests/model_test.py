"""Properties of TinyRecursiveModel; golden_model_test.py holds its numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import quickstart, sudoku
from trm_jax import config as config_lib
from trm_jax import train_state, types
from trm_jax.models import trm

B, L, D, V, E = 3, 5, 16, 7, 20


def _build(**overrides) -> trm.TinyRecursiveModel:
  arguments = dict(
    vocab_size=V,
    seq_len=L,
    hidden_size=D,
    num_heads=2,
    num_layers=2,
    mlp_expansion=4.0,
    mlp_multiple=8,
    token_mixing="mlp",
    positions="none",
    rope_base=10000.0,
    norm_epsilon=1e-5,
    num_prefix_tokens=2,
    latent_updates=2,
    recursion_cycles=2,
    compute_dtype="float32",
    remat="none",
  )
  return trm.TinyRecursiveModel(**(arguments | overrides))


ATTENTION = {"token_mixing": "attention", "positions": "rope"}
MIXINGS = pytest.mark.parametrize("mixing", [{}, ATTENTION], ids=["mlp", "att"])


def _params(model, *, random_halt_head=True):
  params = train_state.init_params(
    model, jax.random.key(0), puzzle_vector_size=E
  )
  if random_halt_head:  # it starts at 0, which would hide mistakes
    kernel = params["halt_head"]["kernel"]
    params["halt_head"]["kernel"] = jax.random.normal(
      jax.random.key(5), kernel.shape
    )
  return params


def _arguments(model, seed=1):
  keys = jax.random.split(jax.random.key(seed), 4)
  shape = (B, model.total_len, D)
  return (
    jax.random.randint(keys[0], (B, L), 0, V),
    jax.random.normal(keys[1], (B, E)),
    types.Latents(
      y=jax.random.normal(keys[2], shape, model.dtype),
      z=jax.random.normal(keys[3], shape, model.dtype),
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
  model = _build(**mixing)
  params, apply = _params(model), jax.jit(model.apply)
  arguments, other = _arguments(model), _arguments(model, seed=2)
  row = 1
  changed = jax.tree.map(
    lambda a, b: a.at[row].set(b[row]), arguments, other
  )
  before = apply({"params": params}, *arguments)
  after = apply({"params": params}, *changed)
  kept = np.arange(B) != row

  def compare(a, b):
    np.testing.assert_array_equal(a[kept], b[kept])
    assert np.all(a[row] != b[row])

  jax.tree.map(compare, before, after)


@MIXINGS
@pytest.mark.parametrize("argument", ["inputs", "vectors", "y", "z"])
def test_every_argument_reaches_the_answer(mixing, argument):
  model = _build(**mixing)
  apply = jax.jit(model.apply)
  inputs, vectors, latents = _arguments(model)
  before = apply({"params": _params(model)}, inputs, vectors, latents)
  if argument == "inputs":
    inputs = inputs.at[:, 0].set((inputs[:, 0] + 1) % V)
  elif argument == "vectors":
    vectors = vectors.at[:, -1].add(1.0)
  else:
    latents = latents.replace(**{argument: getattr(latents, argument) * 2})
  after = apply({"params": _params(model)}, inputs, vectors, latents)
  assert np.abs(after.logits - before.logits).max() > 1e-3


# --- rematerialisation -----------------------------------------------------


def _count_products(model):
  arguments = _arguments(model)
  jaxpr = jax.make_jaxpr(jax.grad(_loss(model, arguments)))(
    _params(model), arguments[1]
  )
  return str(jaxpr).count("dot_general["), str(jaxpr).count("rsqrt")


@MIXINGS
def test_remat_changes_neither_values_nor_gradients(mixing):
  results = {}
  for remat in ("none", "dots", "full"):
    model = _build(**mixing, remat=remat)
    arguments = _arguments(model)
    results[remat] = jax.jit(
      jax.value_and_grad(_loss(model, arguments), argnums=(0, 1))
    )(_params(model), arguments[1])
  for remat in ("dots", "full"):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      results[remat],
      results["none"],
    )


def test_remat_recomputes_what_its_name_says():
  none, dots, full = (
    _count_products(_build(remat=remat)) for remat in ("none", "dots", "full")
  )
  assert dots[0] == none[0]  # products are kept,
  assert dots[1] > none[1]  # norms are not
  assert full[0] > none[0]


# --- parameters ------------------------------------------------------------


def _count_params(config, *, vocab_size, seq_len):
  model = train_state.build_model(
    config.model, vocab_size=vocab_size, seq_len=seq_len
  )
  params = jax.eval_shape(
    lambda: train_state.init_params(
      model,
      jax.random.key(0),
      puzzle_vector_size=config.model.puzzle_vector_size,
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
  ("variant", "vocab_size", "seq_len", "count"),
  [
    ("", 11, 81, 5_028_866),
    ("attention", 11, 81, 6_828_034),
    ("attention", 6, 900, 6_822_914),  # the paper's network for mazes
    ("attention", 12, 900, 6_829_058),  # and for ARC
  ],
)
def test_parameter_counts_of_the_paper(variant, vocab_size, seq_len, count):
  config = config_lib.from_config_dict(sudoku.get_config(variant))
  shape = {"vocab_size": vocab_size, "seq_len": seq_len}
  assert _count_params(config, **shape) == count
  assert _count_by_hand(config, **shape) == count


@pytest.mark.parametrize(
  ("get_config", "vocab_size", "seq_len"),
  [
    (quickstart.get_config, 8, 36),
    (lambda: sudoku.get_config("smoke"), 11, 81),
    (lambda: sudoku.get_config("attention,smoke"), 11, 81),
  ],
  ids=["quickstart", "smoke", "attention-smoke"],
)
def test_parameter_counts_of_small_experiments(
  get_config, vocab_size, seq_len
):
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
  output = jax.eval_shape(
    model.apply, {"params": params}, *_arguments(model)
  )
  assert output.logits.dtype == jnp.dtype(dtype)
  assert output.latents.y.dtype == jnp.dtype(dtype)
  assert output.latents.z.dtype == jnp.dtype(dtype)
  assert output.halt_logits.dtype == jnp.dtype("float32")


def test_no_answer_is_believed_at_first():
  model = _build()
  params = _params(model, random_halt_head=False)
  output = model.apply({"params": params}, *_arguments(model))
  np.testing.assert_array_equal(output.halt_logits, -5.0)
  np.testing.assert_array_equal(output.continue_logits, -5.0)


def test_kernels_begin_with_deviation_one_over_root_fan_in():
  model = _build(hidden_size=96, mlp_multiple=32, **ATTENTION)
  params = train_state.init_params(
    model, jax.random.key(3), puzzle_vector_size=E
  )
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
  model = _build()
  params, arguments = _params(model), _arguments(model)
  inputs, vectors, latents = arguments
  assert vectors.shape[-1] < 2 * D
  padded = np.zeros((B, 2 * D), np.float32)
  padded[:, :E] = vectors
  short = model.apply({"params": params}, *arguments)
  full = model.apply({"params": params}, inputs, padded, latents)
  jax.tree.map(np.testing.assert_array_equal, short, full)


def test_prefix_tokens_stand_before_the_grid():
  model = _build()
  inputs, vectors, _ = _arguments(model)
  x = model.apply(
    {"params": _params(model)}, inputs, vectors, method="embed"
  )
  assert x.shape == (B, 2 + L, D)
  padded = np.zeros((B, 2 * D), np.float32)
  padded[:, :E] = vectors
  np.testing.assert_allclose(
    x[:, :2], padded.reshape(B, 2, D) * D**0.5, rtol=1e-6
  )


def test_learned_positions_are_one_vector_per_token_and_half_the_variance():
  model = _build(token_mixing="attention", positions="learned")
  params = _params(model)
  positions = params["position_embedding"]["embedding"]
  assert positions.shape == (model.total_len, D)
  inputs, vectors, _ = _arguments(model)
  tokens = params["token_embedding"]["embedding"][inputs]
  x = model.apply({"params": params}, inputs, vectors, method="embed")
  expected = (tokens + positions[None, 2:]) * (D / 2) ** 0.5
  np.testing.assert_allclose(x[:, 2:], expected, rtol=1e-5, atol=1e-6)


def test_attention_sees_order_only_through_positions():
  answers = {}
  for positions in ("none", "learned", "rope"):
    model = _build(token_mixing="attention", positions=positions)
    _, vectors, _ = _arguments(model)
    vector = jnp.ones((B, model.total_len, D))
    output = model.apply(
      {"params": _params(model)},
      jnp.arange(L)[None].repeat(B, 0),
      vectors,
      types.Latents(y=vector, z=-vector),
    )
    swapped = model.apply(
      {"params": _params(model)},
      jnp.arange(L)[None, ::-1].repeat(B, 0),
      vectors,
      types.Latents(y=vector, z=-vector),
    )
    difference = output.logits - swapped.logits[:, ::-1]
    answers[positions] = np.abs(difference).max()
  assert answers["none"] < 1e-4
  assert answers["learned"] > 1e-2
  assert answers["rope"] > 1e-2


# --- gradients -------------------------------------------------------------


def test_new_latents_are_detached():
  model = _build()
  arguments = _arguments(model)

  def loss(params):
    latents = model.apply({"params": params}, *arguments).latents
    return jnp.sum(latents.y**3) + jnp.sum(latents.z**3)

  for gradient in jax.tree.leaves(jax.grad(loss)(_params(model))):
    np.testing.assert_array_equal(gradient, 0.0)


@MIXINGS
@pytest.mark.parametrize("remat", ["none", "full"])
def test_bfloat16_gradients_of_the_calls_add_up_in_float32(mixing, remat):
  model = _build(**mixing, compute_dtype="bfloat16", remat=remat)
  exact = _build(**mixing, latent_updates=2)
  arguments, params = _arguments(model), _params(model)
  gradients = jax.jit(jax.grad(_loss(model, arguments)))(params, arguments[1])
  inputs, vectors, latents = arguments
  latents = jax.tree.map(lambda a: a.astype(jnp.float32), latents)
  expected = jax.jit(jax.grad(_loss(exact, (inputs, vectors, latents))))(
    params, vectors
  )
  for path, gradient in jax.tree_util.tree_leaves_with_path(
    gradients["network"]
  ):
    assert gradient.dtype == jnp.float32
    # A sum in bfloat16 would leave nothing but bfloat16 numbers.
    rounded = gradient.astype(jnp.bfloat16).astype(jnp.float32)
    assert np.mean(rounded == gradient) < 0.5, path
  flat = np.concatenate([np.ravel(g) for g in jax.tree.leaves(gradients)])
  flat_expected = np.concatenate(
    [np.ravel(g) for g in jax.tree.leaves(expected)]
  )
  error = np.linalg.norm(flat - flat_expected) / np.linalg.norm(flat_expected)
  assert error < 0.15
