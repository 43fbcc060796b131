"""All that the next supervision step depends on, and its beginning."""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from trm_jax import config as config_lib
from trm_jax.core import halting, recursion, types
from trm_jax.core import model as model_lib
from trm_jax.core.kernels import attention, matmul, swiglu
from trm_jax.runtime import devices

_CPU = devices.Chip("cpu")


@flax.struct.dataclass
class TrainState:
  """The state that checkpoints hold, whole."""

  step: jax.Array  # [] int32, supervision steps done
  params: Any  # of the model, float32
  ema_params: Any  # their running mean, float32; what is evaluated
  opt_state: Any  # of optax
  puzzle_table: jax.Array  # [N, E] float32
  initial_latents: types.Latents  # [D] each, float32; never trained
  carry: types.Carry  # the slots

  @property
  def averaged_weights(self) -> types.Weights:
    """What is evaluated; the puzzle table is not averaged."""
    return types.Weights(
      params=self.ema_params,
      puzzle_table=self.puzzle_table,
      initial_latents=self.initial_latents,
    )

  def started_from(self, weights: types.Weights) -> "TrainState":
    """The first state of a run that begins with trained weights."""
    return TrainState(
      step=self.step,
      params=weights.params,
      # Its own buffers: a step takes over both.
      ema_params=jax.tree.map(jnp.copy, weights.params),
      opt_state=self.opt_state,
      puzzle_table=weights.puzzle_table,
      initial_latents=weights.initial_latents,
      carry=self.carry,
    )


def build_model(
  model: config_lib.ModelConfig,
  *,
  vocab_size: int,
  seq_len: int,
  chip: devices.Chip = _CPU,
) -> model_lib.TinyRecursiveModel:
  """Returns the module for puzzles of `seq_len` tokens.

  Args:
    model: the settings.
    vocab_size: V.
    seq_len: L.
    chip: that will run it.
  """
  return model_lib.TinyRecursiveModel(
    vocab_size=vocab_size,
    seq_len=seq_len,
    hidden_size=model.hidden_size,
    num_heads=model.num_heads,
    num_layers=model.num_layers,
    mlp_expansion=model.mlp_expansion,
    mlp_multiple=model.mlp_multiple,
    mlp_gate=model.mlp_gate,
    token_mixing=model.token_mixing,
    positions=model.positions,
    rope_base=model.rope_base,
    norm_epsilon=model.norm_epsilon,
    num_prefix_tokens=model.num_prefix_tokens,
    latent_updates=model.latent_updates,
    recursion_cycles=model.recursion_cycles,
    recurrence=model.recurrence,
    separate_networks=model.separate_networks,
    gradient_updates=model.gradient_updates,
    compute_dtype=model.compute_dtype,
    # Where this is open, what always fits; `recomputation` may know better.
    remat="full" if model.remat == "auto" else model.remat,
    unroll=model.unroll,
    token_multiple=model.token_multiple or (8 if chip.platform == "gpu" else 1),
    attend=attention.choose(
      model.attention_kernel,
      length=model.num_prefix_tokens + seq_len,
      head_size=model.hidden_size // model.num_heads,
      dtype=model.compute_dtype,
      chip=chip,
    ),
    multiply=matmul.choose(model.compute_dtype, chip),
    gated_product=swiglu.choose(
      model.gate_kernel,
      gate=model.mlp_gate,
      dtype=model.compute_dtype,
      chip=chip,
    ),
  )


def empty_carry(
  model: model_lib.TinyRecursiveModel, batch_size: int
) -> types.Carry:
  """Returns slots that are all free."""
  tokens = (batch_size, model.seq_len)
  constants = jax.tree.map(
    lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _abstract_latents(model)
  )
  return types.Carry(
    latents=halting.initial_latents(
      constants, batch_size, model.total_len, model.dtype
    ),
    batch=types.Batch(
      inputs=jnp.zeros(tokens, jnp.int32),
      labels=jnp.full(tokens, types.IGNORED_LABEL, jnp.int32),
      puzzle_ids=jnp.zeros((batch_size,), jnp.int32),
    ),
    steps=jnp.zeros((batch_size,), jnp.int32),
    halted=jnp.ones((batch_size,), bool),
  )


def _abstract_latents(model: model_lib.TinyRecursiveModel) -> types.Latents:
  """Returns shapes of the initial latents; z as the recurrence has it."""
  size = model.hidden_size
  z_shape = recursion.RECURRENCES[model.recurrence].z_shape(
    model.latent_updates, size
  )

  def abstract(shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  return types.Latents(
    y=abstract((size,)), z=None if z_shape is None else abstract(z_shape)
  )


def init_params(
  model: model_lib.TinyRecursiveModel,
  key: jax.Array,
  *,
  puzzle_vector_size: int,
) -> Any:
  """Draws the model's parameters, a dict of float32 arrays."""
  # No kernel: it could not split a single row over the devices. How often the
  # network is called says nothing of its parameters.
  model = model.clone(
    attend=attention.plain,
    gated_product=None,
    latent_updates=1,
    gradient_updates=0,
    recursion_cycles=1,
  )
  carry = empty_carry(model, batch_size=1)
  vectors = jnp.zeros((1, puzzle_vector_size), jnp.float32)
  variables = model.init(key, carry.batch.inputs, vectors, carry.latents)
  return variables["params"]


def init_state(
  model: model_lib.TinyRecursiveModel,
  optimizer: optax.GradientTransformation,
  *,
  seed: int,
  batch_size: int,
  num_puzzle_rows: int,
  puzzle_vector_size: int,
) -> TrainState:
  """Draws the state before the first supervision step.

  Args:
    model: the module.
    optimizer: of its parameters.
    seed: of all random numbers.
    batch_size: slots, over all devices.
    num_puzzle_rows: N, of the puzzle table, which starts at 0.
    puzzle_vector_size: E, their width.

  Returns:
    The state; call it under jit with the shardings of `sharding`.
  """
  params_key, y_key, z_key = jax.random.split(jax.random.key(seed), 3)
  params = init_params(model, params_key, puzzle_vector_size=puzzle_vector_size)

  def initial_latent(key, shape):
    # Random constants of standard deviation 1, as in the official code.
    init = jax.nn.initializers.variance_scaling(
      model.hidden_size, "fan_out", "truncated_normal"
    )
    drawn = init(key, (math.prod(shape[:-1]), shape[-1]), jnp.float32)
    # As they are used; the official code keeps them so, too.
    return drawn.reshape(shape).astype(model.dtype).astype(jnp.float32)

  latents = _abstract_latents(model)

  return TrainState(
    step=jnp.zeros([], jnp.int32),
    params=params,
    ema_params=jax.tree.map(jnp.copy, params),
    opt_state=optimizer.init(params),
    puzzle_table=jnp.zeros((num_puzzle_rows, puzzle_vector_size), jnp.float32),
    initial_latents=types.Latents(
      y=initial_latent(y_key, latents.y.shape),
      z=(None if latents.z is None else initial_latent(z_key, latents.z.shape)),
    ),
    carry=empty_carry(model, batch_size),
  )
