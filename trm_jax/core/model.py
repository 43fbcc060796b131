"""The Tiny Recursive Model: embed, recurse, read out (paper, section 4)."""

import dataclasses
from typing import Any, Protocol, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from . import layers, recursion, registry, types
from . import network as network_lib
from .kernels import attention, swiglu

HALT_BIAS = -5.0  # at first, no answer is predicted to be right

# What differentiated network calls save, by `TinyRecursiveModel.remat`.
REMAT_POLICIES = {
  "dots": jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(swiglu.KEPT),
  ),
  "full": None,  # nothing is saved
}


Shape = tuple[int, ...]


class Model(Protocol):
  """A network that the training step and the solvers accept.

  One supervision step of it, as a pure function of its parameters, which are
  any tree of arrays. `TinyRecursiveModel` is one; examples/equinox_network.py
  and examples/nnx_network.py have others.
  """

  @property
  def seq_len(self) -> int:
    """L, grid tokens."""

  @property
  def total_len(self) -> int:
    """S, tokens of the latents."""

  @property
  def dtype(self) -> jnp.dtype:
    """Of the latents."""

  def latent_shapes(self) -> tuple[Shape, Shape | None]:
    """Returns the shapes of the initial y and z, which all S tokens share.

    They are [D]. z may have more axes in front of it, or be None.
    """

  def init_params(self, key: jax.Array, *, puzzle_embed_dim: int) -> Any:
    """Draws float32 parameters."""

  def apply(self, variables: Any, *args: Any, **kwargs: Any) -> Any:
    """Takes a supervision step; returns a `types.Output`.

    Args:
      variables: {"params": parameters}.
      *args: inputs [B, L] int32, puzzle vectors [B, E] float32, and
        `types.Latents` of [B, S, D].
      **kwargs: `differentiated`, False where no gradient is needed.
    """


class TinyRecursiveModel(nn.Module):
  """One supervision step of TRM, as a pure function.

  Puzzle vectors are an argument, so that their table, which may have a million
  rows, is no parameter. So are the latents: the caller carries them from one
  supervision step to the next.

  Attributes:
    vocab_size: V.
    seq_len: L.
    hidden_size: D.
    network_config: of the network that is applied recursively.
    num_prefix_tokens: P.
    latent_updates: n of the paper.
    recursion_cycles: T of the paper.
    recursion_type: name in `recursion.RECURRENCES`.
    separate_networks: whether y is updated by a network of its own.
    gradient_updates: backpropagate through only the last k of the n updates in
      the last cycle; 0 for all.
    remat: what the backward pass recomputes: 'none', 'dots' (everything but
      matrix products) or 'full'.
    unroll: unrolls the differentiated updates instead of scanning.
  """

  vocab_size: int
  seq_len: int
  hidden_size: int
  network_config: network_lib.NetworkConfig
  num_prefix_tokens: int
  latent_updates: int
  recursion_cycles: int
  recursion_type: str = "two_latents"
  separate_networks: bool = False
  gradient_updates: int = 0
  remat: str = "none"
  unroll: bool = False

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of latents, products and answer logits."""
    return self.network_config.dtype

  @property
  def total_len(self) -> int:
    """S, prefix and grid tokens."""
    return self.num_prefix_tokens + self.seq_len

  @nn.nowrap
  def network_state_shape(self, batch_size: int) -> tuple[int, ...]:
    """Returns the shape of the states that the network maps."""
    shape = (batch_size, self.total_len)
    if network_lib.token_mixer(self.network_config).tokens_first:
      shape = shape[::-1]
    return *shape, self.hidden_size

  @nn.nowrap
  def with_network(self, **changes: Any) -> "TinyRecursiveModel":
    """Returns the model with changes to its `network_config`."""
    return self.clone(
      network_config=dataclasses.replace(self.network_config, **changes)
    )

  @nn.nowrap
  def latent_shapes(self) -> tuple[Shape, Shape | None]:
    """Returns the shapes of the initial y and z; see `Model`."""
    recurrence = registry.get(
      recursion.RECURRENCES, self.recursion_type, kind="recurrence"
    )
    z_shape = recurrence.z_shape(self.latent_updates, self.hidden_size)
    return (self.hidden_size,), z_shape

  @nn.nowrap
  def init_params(self, key: jax.Array, *, puzzle_embed_dim: int) -> Any:
    """Draws the parameters, a dict of float32 arrays."""
    # No kernels: they could not split a single row over devices. The number of
    # network calls does not affect the parameters.
    model = self.with_network(attend=attention.plain, gated_product=None).clone(
      latent_updates=1, gradient_updates=0, recursion_cycles=1
    )
    empty = (1, self.total_len)
    y_shape, z_shape = model.latent_shapes()
    latents = types.Latents(
      y=jnp.zeros((*empty, *y_shape), self.dtype),
      z=None if z_shape is None else jnp.zeros((*empty, *z_shape), self.dtype),
    )
    inputs = jnp.zeros((1, self.seq_len), jnp.int32)
    vectors = jnp.zeros((1, puzzle_embed_dim), jnp.float32)
    return model.init(key, inputs, vectors, latents)["params"]

  def setup(self):
    """Creates the submodules; their names are the parameters' paths."""
    self.token_embedding = layers.TokenEmbedding(
      self.vocab_size, self.hidden_size, self.dtype
    )
    if self.network_config.position_encoding == "learned":
      self.position_embedding = layers.TokenEmbedding(
        self.total_len, self.hidden_size, self.dtype
      )
    self.network = network_lib.RecursiveNetwork(self.network_config)
    if self.separate_networks:
      self.answer_network = network_lib.RecursiveNetwork(self.network_config)
    self.answer_head = nn.Dense(
      self.vocab_size,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=layers.linear_init,
    )
    self.halt_head = nn.Dense(
      2,
      dtype=self.dtype,
      kernel_init=nn.initializers.zeros,
      bias_init=nn.initializers.constant(HALT_BIAS),
    )

  def embed(self, inputs: jax.Array, puzzle_vectors: jax.Array) -> jax.Array:
    """Embeds the question, with the puzzle's prefix tokens in front.

    Args:
      inputs: [B, L] int32 tokens.
      puzzle_vectors: [B, E], E <= P D, zero-padded to P tokens.

    Returns:
      x: [B, S, D] in the compute dtype.
    """
    x = self.token_embedding(inputs)
    batch, _, size = x.shape
    if self.num_prefix_tokens:
      fill = self.num_prefix_tokens * size - puzzle_vectors.shape[-1]
      prefix = jnp.pad(puzzle_vectors.astype(x.dtype), ((0, 0), (0, fill)))
      prefix = prefix.reshape(batch, self.num_prefix_tokens, size)
      x = jnp.concatenate([prefix, x], axis=1)
    if self.network_config.position_encoding == "learned":
      # Two terms of variance 1/D: halve the sum's variance.
      positions = self.position_embedding(jnp.arange(self.total_len))
      x = (x + positions[None]) * 0.5**0.5
    return layers.scaled(x)

  def recurse(
    self, x: jax.Array, latents: types.Latents, *, differentiated: bool = True
  ) -> types.Latents:
    """Runs the T cycles on the embedded question x, [B, S, D]."""
    tokens_first = network_lib.token_mixer(self.network_config).tokens_first
    if tokens_first:
      x, latents = _swapped((x, latents))
    modules = [self.network]
    if self.separate_networks:
      modules.append(self.answer_network)
    if self.is_initializing():
      for module in modules:
        module(latents.y, x)  # creates the parameters, outside any loop
    functions = [self._functions(module) for module in modules]
    networks, gradient_free = (
      recursion.Networks(z=each[0], y=each[-1])
      for each in zip(*functions, strict=True)
    )
    latents = recursion.deep_recursion(
      networks if differentiated else None,
      x,
      latents,
      latent_updates=self.latent_updates,
      recursion_cycles=self.recursion_cycles,
      recurrence=registry.get(
        recursion.RECURRENCES, self.recursion_type, kind="recurrence"
      ),
      gradient_updates=self.gradient_updates,
      gradient_free=gradient_free,
      unroll=self.unroll,
    )
    return _swapped(latents) if tokens_first else latents

  def _functions(
    self, module: network_lib.RecursiveNetwork
  ) -> tuple[recursion.Network, recursion.Network]:
    """Returns a network as two pure functions, with and without gradient.

    Linen modules must not be called inside a raw lax loop.
    """
    network, variables = module.unbind()

    def apply(state, injection):
      return network.apply(variables, state, injection)

    if self.remat != "none":
      policy = registry.get(REMAT_POLICIES, self.remat, kind="remat")
      apply = jax.checkpoint(apply, policy=policy, prevent_cse=False)

    # The gradient-free cycles cast the weights once. The last cycle casts
    # inside each call, so that the calls' gradients accumulate in float32.
    cast = jax.tree.map(
      lambda p: jax.lax.stop_gradient(p).astype(self.dtype), variables
    )
    # They also compute gate and up as one product, unless a kernel does.
    gradient_free, config = network, self.network_config
    if config.gated_product is None and config.mlp_gate == "silu":
      fused = swiglu.FusedGateUp(config.multiply)
      gradient_free = network.clone(
        config=dataclasses.replace(config, gated_product=fused)
      )

    def gradient_free_apply(state, injection):
      return gradient_free.apply(cast, state, injection)

    return apply, gradient_free_apply

  def __call__(
    self,
    inputs: jax.Array,
    puzzle_vectors: jax.Array,
    latents: types.Latents,
    *,
    differentiated: bool = True,
  ) -> types.Output:
    """Improves the latents once and reads out the answer.

    Args:
      inputs: [B, L] int32 tokens.
      puzzle_vectors: [B, E] float32.
      latents: y and z, [B, S, D] (z as the recurrence has it), in the compute
        dtype.
      differentiated: False where no gradient is needed: saves memory and time.

    Returns:
      New latents (detached), answer logits [B, L, V] in the compute dtype,
      halt and continue logits [B] in float32.
    """
    x = self.embed(inputs, puzzle_vectors)
    latents = self.recurse(x, latents, differentiated=differentiated)
    logits, halting = self.read_out(latents.y)
    halting = halting.astype(jnp.float32)
    return types.Output(
      latents=jax.lax.stop_gradient(latents),
      logits=logits,
      halt_logits=halting[:, 0],
      continue_logits=halting[:, 1],
    )

  def read_out(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns answer logits [B, L, V] and halting logits [B, 2] of y."""
    logits = self.answer_head(y)[:, self.num_prefix_tokens :]
    return logits, self.halt_head(y[:, 0])


def _swapped(tree: Any) -> Any:
  """Swaps the batch and sequence axes, the first two."""
  return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), tree)


def apply(
  model: Model,
  params: Any,
  inputs: jax.Array,
  puzzle_vectors: jax.Array,
  latents: types.Latents,
  *,
  differentiated: bool = True,
) -> types.Output:
  """Applies a model to its parameters; see `Model.apply`."""
  output = model.apply(
    {"params": params},
    inputs,
    puzzle_vectors,
    latents,
    differentiated=differentiated,
  )
  return cast(types.Output, output)
