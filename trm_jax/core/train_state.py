"""The training state, and its initialization."""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from . import halting, recursion, registry, types
from . import model as model_lib
from .kernels import attention


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
  model: model_lib.TinyRecursiveModel, batch_size: int, num_starts: int = 1
) -> types.Carry:
  """Returns slots that are all halted, ready to be refilled.

  Args:
    model: the module.
    batch_size: B.
    num_starts: K, chains of each puzzle; see `winner`.
  """
  tokens = (batch_size, model.seq_len)
  constants = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _abstract_latents(model)
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


def _abstract_latents(model: model_lib.TinyRecursiveModel) -> types.Latents:
  """Returns the shapes of the initial latents."""
  size = model.hidden_size
  recurrence = registry.get(
    recursion.RECURRENCES, model.recursion_type, kind="recurrence"
  )
  z_shape = recurrence.z_shape(model.latent_updates, size)

  def abstract(shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  return types.Latents(
    y=abstract((size,)), z=None if z_shape is None else abstract(z_shape)
  )


def init_params(
  model: model_lib.TinyRecursiveModel,
  key: jax.Array,
  *,
  puzzle_embed_dim: int,
) -> Any:
  """Draws the model's parameters, a dict of float32 arrays."""
  # No kernels: they could not split a single row over devices. The number of
  # network calls does not affect the parameters.
  model = model.with_network(attend=attention.plain, gated_product=None).clone(
    latent_updates=1, gradient_updates=0, recursion_cycles=1
  )
  carry = empty_carry(model, batch_size=1)
  vectors = jnp.zeros((1, puzzle_embed_dim), jnp.float32)
  variables = model.init(key, carry.batch.inputs, vectors, carry.latents)
  return variables["params"]


def init_state(
  model: model_lib.TinyRecursiveModel,
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
  params = init_params(model, params_key, puzzle_embed_dim=puzzle_embed_dim)

  def initial_latent(key, shape):
    # Random constants of standard deviation 1, as in the official code.
    init = jax.nn.initializers.variance_scaling(
      model.hidden_size, "fan_out", "truncated_normal"
    )
    drawn = init(key, (math.prod(shape[:-1]), shape[-1]), jnp.float32)
    # Rounded to the compute dtype, as in the official code.
    return drawn.reshape(shape).astype(model.dtype).astype(jnp.float32)

  latents = _abstract_latents(model)

  return TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    ema_params=jax.tree.map(jnp.copy, params),
    opt_state=optimizer.init(params),
    puzzle_table=jnp.zeros((num_puzzle_rows, puzzle_embed_dim), jnp.float32),
    initial_latents=types.Latents(
      y=initial_latent(y_key, latents.y.shape),
      z=(None if latents.z is None else initial_latent(z_key, latents.z.shape)),
    ),
    carry=empty_carry(model, batch_size, num_starts),
  )
