"""The training state, and its initialization."""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from . import halting, types
from . import model as model_lib


@flax.struct.dataclass
class TrainState:
  """Everything that the next supervision step depends on.

  Attributes:
    step: [] int32, supervision steps done.
    params: of the model, float32.
    ema_params: their exponential moving average, float32; evaluated.
    opt_state: of optax.
    puzzle_table: [N, E] float32.
    initial_latents: [D] each, float32; never trained.
    carry: the slots.
  """

  step: jax.Array
  params: Any
  ema_params: Any
  opt_state: Any
  puzzle_table: jax.Array
  initial_latents: types.Latents
  carry: types.Carry

  @property
  def ema_weights(self) -> types.Weights:
    """The weights to evaluate; the puzzle table is not averaged."""
    return types.Weights(
      params=self.ema_params,
      puzzle_table=self.puzzle_table,
      initial_latents=self.initial_latents,
    )

  def with_weights(self, weights: types.Weights) -> "TrainState":
    """Returns the initial state of a run that starts from trained weights."""
    return TrainState(
      step=self.step,
      params=weights.params,
      # A copy: a training step donates both buffers.
      ema_params=jax.tree.map(jnp.copy, weights.params),
      opt_state=self.opt_state,
      puzzle_table=weights.puzzle_table,
      initial_latents=weights.initial_latents,
      carry=self.carry,
    )


def empty_carry(
  model: model_lib.Model, batch_size: int, num_starts: int = 1
) -> types.Carry:
  """Returns slots that are all halted, ready to be refilled.

  Args:
    model: the module.
    batch_size: B.
    num_starts: K, chains of each puzzle; see `winner`.
  """
  tokens = (batch_size, model.seq_len)
  y_shape, z_shape = model.latent_shapes()
  constants = types.Latents(
    y=jnp.zeros(y_shape), z=None if z_shape is None else jnp.zeros(z_shape)
  )
  latents = halting.initial_latents(
    constants, batch_size, model.total_len, model.dtype
  )
  alive = None
  if num_starts > 1:
    assert latents.z is not None
    latents = types.Latents(
      y=latents.y, z=jnp.repeat(latents.z[:, None], num_starts, axis=1)
    )
    alive = jnp.ones((batch_size, num_starts), bool)
  return types.Carry(
    latents=latents,
    batch=types.Batch(
      inputs=jnp.zeros(tokens, jnp.int32),
      labels=jnp.full(tokens, types.IGNORED_LABEL, jnp.int32),
      puzzle_ids=jnp.zeros((batch_size,), jnp.int32),
    ),
    steps=jnp.zeros((batch_size,), jnp.int32),
    halted=jnp.ones((batch_size,), bool),
    alive=alive,
  )


def init_state(
  model: model_lib.Model,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  batch_size: int,
  num_puzzle_rows: int,
  puzzle_embed_dim: int,
  num_starts: int = 1,
) -> TrainState:
  """Draws the state before the first supervision step.

  Args:
    model: the module.
    optimizer: of its parameters.
    seed: of all random numbers.
    batch_size: slots, over all devices.
    num_puzzle_rows: N; the puzzle table is initialized to 0.
    puzzle_embed_dim: E.
    num_starts: as for `empty_carry`.

  Returns:
    The state. Call this under jit; on several devices with `out_shardings`.
  """
  params_key, y_key, z_key = jax.random.split(jax.random.key(seed), 3)
  params = model.init_params(params_key, puzzle_embed_dim=puzzle_embed_dim)

  def initial_latent(key, shape):
    # Random constants of standard deviation 1, as in the official code.
    init = jax.nn.initializers.variance_scaling(
      shape[-1], "fan_out", "truncated_normal"
    )
    drawn = init(key, (math.prod(shape[:-1]), shape[-1]), jnp.float32)
    # Rounded to the compute dtype, as in the official code.
    return drawn.reshape(shape).astype(model.dtype).astype(jnp.float32)

  y_shape, z_shape = model.latent_shapes()
  return TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    ema_params=jax.tree.map(jnp.copy, params),
    opt_state=optimizer.init(params),
    puzzle_table=jnp.zeros((num_puzzle_rows, puzzle_embed_dim), jnp.float32),
    initial_latents=types.Latents(
      y=initial_latent(y_key, y_shape),
      z=None if z_shape is None else initial_latent(z_key, z_shape),
    ),
    carry=empty_carry(model, batch_size, num_starts),
  )
