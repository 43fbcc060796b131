"""A small network with random weights, and puzzles for it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from trm_jax.core import model as model_lib
from trm_jax.core import network as network_lib
from trm_jax.core import types

L, V, D, NUM_PUZZLES = 6, 5, 8, 11


def build(**fields) -> model_lib.TinyRecursiveModel:
  """A model of its own fields and of those of its network's config."""
  names = {
    field.name for field in dataclasses.fields(network_lib.NetworkConfig)
  }
  network = {name: fields.pop(name) for name in names & fields.keys()}
  return model_lib.TinyRecursiveModel(
    network_config=network_lib.NetworkConfig(**network), **fields
  )


@functools.cache
def model(token_mixing="mlp", **changes):
  fields = dict(
    vocab_size=V,
    seq_len=L,
    hidden_size=D,
    num_heads=2,
    num_layers=1,
    mlp_expansion=4.0,
    mlp_multiple=4,
    token_mixing=token_mixing,
    position_encoding="none",
    rope_theta=10000.0,
    rms_norm_eps=1e-5,
    num_prefix_tokens=1,
    latent_updates=1,
    recursion_cycles=2,
    compute_dtype="float32",
    remat="none",
  )
  return build(**(fields | changes))


@functools.cache
def weights(num_rows=NUM_PUZZLES, token_mixing="mlp"):
  """Random weights; rows of the table past the puzzles' are zero."""
  shapes = jax.eval_shape(
    lambda: model(token_mixing).init_params(
      jax.random.key(0), puzzle_embed_dim=D
    )
  )
  rng = np.random.default_rng(0)

  def normal(shape):
    return jnp.asarray(rng.standard_normal(shape, np.float32))

  table = normal((NUM_PUZZLES, D))
  return types.Weights(
    params=jax.tree.map(
      lambda leaf: normal(leaf.shape) * leaf.shape[0] ** -0.5,
      shapes,
    ),
    puzzle_table=jnp.pad(table, ((0, num_rows - NUM_PUZZLES), (0, 0))),
    initial_latents=types.Latents(y=normal(D), z=normal(D)),
  )
