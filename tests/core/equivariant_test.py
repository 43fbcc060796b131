"""Networks that are equivariant to permutations of the symbols."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import sudoku_equivariant
from tests import tiny
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import types
from trm_jax.interop import torch_names
from trm_jax.runtime import mesh, program, setting_checks

SIDE, SYMBOLS = 4, (2, 3, 4, 5)
VARIANTS = ("mean", "attention")


@functools.cache
def _model(variant, **settings):
  config = tiny.config_dict()
  config.model.update(
    num_layers=2,
    num_prefix_tokens=0,
    puzzle_embed_dim=0,
    symbol_mixing=variant,
    symbol_head_size=8,
    recursion_cycles=1,  # more would amplify rounding
    **settings,
  )
  if variant == "attention":
    config.model.update(
      token_mixing="attention", position_encoding="rope_2d", num_heads=2
    )
  sizes = program.DataSpec(
    vocab_size=6,
    seq_len=SIDE**2,
    num_puzzle_ids=1,
    grid=(SIDE, SIDE),
    symbols=SYMBOLS,
  )
  built = program.build(
    config_lib.from_config_dict(config), sizes, mesh.make_mesh(1)
  )
  return built.model


@functools.cache
def _solved(variant):
  """The model, its parameters (none zero), puzzles, latents and output."""
  model, rng = _model(variant), np.random.default_rng(0)
  params = model.init_params(jax.random.key(0), puzzle_embed_dim=0)
  # It begins with zeros, which no permutation changes.
  shape = params["halt_head"]["kernel"].shape
  params["halt_head"]["kernel"] = rng.normal(size=shape).astype(np.float32)
  inputs = rng.integers(1, 6, (3, SIDE**2)).astype(np.int32)
  shape = (3, len(SYMBOLS), SIDE**2, model.hidden_size)
  y, z = rng.normal(size=(2, *shape)).astype(np.float32)
  return model, params, inputs, (y, z), _run(model, params, inputs, y, z)


def _run(model, params, inputs, y, z):
  def folded(state):
    return jnp.asarray(state).reshape(len(state), -1, state.shape[-1])

  latents = types.Latents(y=folded(y), z=folded(z))
  return model.apply({"params": params}, inputs, None, latents)


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_symbols_permutes_the_answer(variant):
  model, params, inputs, (y, z), output = _solved(variant)
  order = np.array([2, 0, 3, 1])  # of the symbols
  renamed = np.arange(6)
  renamed[np.array(SYMBOLS)] = np.array(SYMBOLS)[order]
  moved = np.argsort(order)  # the part of a symbol moves to its new name
  after = _run(model, params, renamed[inputs], y[:, moved], z[:, moved])
  expected = np.asarray(output.logits)[..., 2:]
  assert np.ptp(expected, axis=-1).min() > 1e-3  # the symbols differ
  np.testing.assert_allclose(
    np.asarray(after.logits)[..., renamed[2:]],
    expected,
    rtol=0,
    atol=1e-6 * np.abs(expected).max(),
  )
  np.testing.assert_allclose(after.halt_logits, output.halt_logits, rtol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_other_tokens_are_never_the_answer(variant):
  *_, output = _solved(variant)
  answers = np.asarray(jnp.argmax(output.logits, axis=-1))
  assert set(answers.ravel()) <= set(SYMBOLS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_cell_and_symbol_matters_to_every_other(variant):
  model, params, inputs, (y, z), output = _solved(variant)
  changed = inputs.copy()
  changed[:, 0] = np.where(inputs[:, 0] == 2, 3, 2)
  after = _run(model, params, changed, y, z)
  difference = np.abs(np.asarray(after.logits - output.logits))[..., 2:]
  assert (difference > 0).all()


def test_positions_in_two_dimensions_tell_rows_from_columns():
  model, params, inputs, (y, z), output = _solved("attention")
  transposed = np.arange(SIDE**2).reshape(SIDE, SIDE).T.ravel()
  same = _run(
    model,
    params,
    inputs[:, transposed],
    y[:, :, transposed],
    z[:, :, transposed],
  )
  difference = np.abs(
    np.asarray(same.logits - output.logits[:, transposed])[..., 2:]
  )
  assert difference.max() > 1e-3


def test_a_task_whose_symbols_are_not_interchangeable_is_refused():
  config = config_lib.from_config_dict(sudoku_equivariant.get_config("smoke"))
  sizes = program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=1)
  with pytest.raises(errors.UserError, match="symbols are interchangeable"):
    program.build(config, sizes, mesh.make_mesh(1))


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"num_prefix_tokens": 1}, "needs config.model.num_prefix_tokens"),
    ({"symbol_heads": 5}, "does not divide into"),
    ({"symbol_mixing": "median"}, "choose one of none, mean, attention"),
    ({"position_encoding": "rope_2d"}, "with token_mixing 'mlp'"),
  ],
)
def test_impossible_settings_are_one_line(settings, message):
  config = sudoku_equivariant.get_config("smoke")
  config.model.update(settings)
  with pytest.raises(errors.UserError, match=message):
    setting_checks.check_names(config_lib.from_config_dict(config))


def test_the_official_code_has_no_such_network():
  model, params, *_ = _solved("mean")
  latents = types.Latents(
    y=jnp.zeros(model.hidden_size), z=jnp.zeros(model.hidden_size)
  )
  weights = types.Weights(
    params=params, puzzle_table=jnp.zeros((1, 0)), initial_latents=latents
  )
  with pytest.raises(errors.UserError, match="export --format=stablehlo"):
    torch_names.state_dict_of(
      weights, num_puzzle_ids=1, recurrence="two_latents"
    )


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
  ("text", "optimizer"),
  [
    ("attention,smoke", "muon"),
    pytest.param("smoke", "adamw", marks=pytest.mark.slow),
  ],
)
def test_it_trains(text, optimizer):
  config = sudoku_equivariant.get_config(text)
  config.model.update(hidden_size=16, num_heads=2, latent_updates=1)
  config.model.update(symbol_heads=2, symbol_head_size=8, recursion_cycles=1)
  config.optimizer.update(name=optimizer, learning_rate=1e-2)
  config.train.update(batch_size=4, num_steps=4)
  config.data.update(num_train=8, num_test=4)
  run = program.load(config_lib.from_config_dict(config))
  state = mesh.create_state(run.program.init, run.program.mesh)
  begin = jax.device_get(state.params)
  step = run.program.train_step()
  batches = run.program.train_batches(run.task, 0)
  for _ in range(4):
    batch = mesh.put_batch(next(batches), run.program.mesh)
    state, sums = step(state, batch)
  assert np.isfinite(sums["loss"])
  for path, leaf in jax.tree_util.tree_leaves_with_path(state.params):
    before = functools.reduce(lambda tree, key: tree[key.key], path, begin)
    assert np.abs(np.asarray(leaf) - before).max() > 0, path
