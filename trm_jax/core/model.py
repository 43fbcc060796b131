"""The Tiny Recursive Model: embed, recurse, read off (paper, section 4)."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from trm_jax.core import layers, recursion, types
from trm_jax.core.kernels import attention, matmul, swiglu

HALT_BIAS = -5.0  # at first no answer is believed to be right

# Of `config.model.remat`: what calls with gradient keep, other than none.
REMAT_POLICIES = {
  "dots": jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(swiglu.KEPT),
  ),
  "full": None,  # nothing is saved
}


class RecursiveNetwork(nn.Module):
  """The network that is applied again and again."""

  num_layers: int
  token_mixing: str
  num_heads: int
  rope_base: float | None
  mlp_expansion: float
  mlp_multiple: int
  norm_epsilon: float
  dtype: jnp.dtype
  token_multiple: int = 1
  attend: attention.Attend = attention.plain
  multiply: matmul.Multiply = matmul.plain
  mlp_gate: str = "silu"
  gated_product: swiglu.GatedProduct | None = None

  @nn.compact
  def __call__(self, state: jax.Array, injection: jax.Array) -> jax.Array:
    """Maps state and injection to the new state.

    All are [B, S, D], with token mixing by 'mlp' [S, B, D].
    """
    h = state + injection
    for i in range(self.num_layers):
      h = layers.Block(
        token_mixing=self.token_mixing,
        num_heads=self.num_heads,
        rope_base=self.rope_base,
        mlp_expansion=self.mlp_expansion,
        mlp_multiple=self.mlp_multiple,
        norm_epsilon=self.norm_epsilon,
        dtype=self.dtype,
        token_multiple=self.token_multiple,
        attend=self.attend,
        multiply=self.multiply,
        mlp_gate=self.mlp_gate,
        gated_product=self.gated_product,
        name=f"layers_{i}",
      )(h)
    return h


class TinyRecursiveModel(nn.Module):
  """One supervision step of TRM, pure.

  The puzzle vectors come in as an argument, so that their table, which may
  have a million rows, is no parameter. So do the latents; the caller keeps
  them between supervision steps.
  """

  vocab_size: int
  seq_len: int  # L
  hidden_size: int
  num_heads: int
  num_layers: int
  mlp_expansion: float
  mlp_multiple: int
  token_mixing: str  # 'attention' or 'mlp'
  positions: str  # 'rope', 'learned' or 'none'
  rope_base: float
  norm_epsilon: float
  num_prefix_tokens: int  # P
  latent_updates: int  # n
  recursion_cycles: int  # T
  compute_dtype: str
  remat: str  # 'none', 'dots' or 'full'
  unroll: bool = False
  token_multiple: int = 1
  attend: attention.Attend = attention.plain
  multiply: matmul.Multiply = matmul.plain
  recurrence: str = "two_latents"  # a name in recursion.RECURRENCES
  separate_networks: bool = False  # `answer_network` updates y
  gradient_updates: int = 0  # of the last n, the last so many; 0: all
  mlp_gate: str = "silu"  # or 'normed'
  gated_product: swiglu.GatedProduct | None = None

  @property
  def dtype(self) -> jnp.dtype:
    """The dtype of latents, products and answer logits."""
    return jnp.dtype(self.compute_dtype)

  @property
  def total_len(self) -> int:
    """S, prefix and grid tokens."""
    return self.num_prefix_tokens + self.seq_len

  def setup(self):
    """Names the parts; their names are the parameters' paths."""
    self.token_embedding = layers.TokenEmbedding(
      self.vocab_size, self.hidden_size, self.dtype
    )
    if self.positions == "learned":
      self.position_embedding = layers.TokenEmbedding(
        self.total_len, self.hidden_size, self.dtype
      )
    self.network = new_network(self)
    if self.separate_networks:
      self.answer_network = new_network(self)
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
    """Embeds the question behind its puzzle's prefix tokens.

    Args:
      inputs: [B, L] int32 tokens.
      puzzle_vectors: [B, E], E <= P D, filled up with zeros to P tokens.

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
    if self.positions == "learned":
      # Two terms of variance 1/D: halve the sum's variance.
      positions = self.position_embedding(jnp.arange(self.total_len))
      x = (x + positions[None]) * 0.5**0.5
    return layers.scaled(x)

  def recurse(
    self, x: jax.Array, latents: types.Latents, *, differentiated: bool = True
  ) -> types.Latents:
    """Runs the T cycles on the embedded question x, [B, S, D]."""
    tokens_first = self.token_mixing == "mlp"
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
      recurrence=recursion.RECURRENCES[self.recurrence],
      gradient_updates=self.gradient_updates,
      gradient_free=gradient_free,
      unroll=self.unroll,
    )
    return _swapped(latents) if tokens_first else latents

  def _functions(
    self, module: RecursiveNetwork
  ) -> tuple[recursion.Network, recursion.Network]:
    """Returns a network as pure functions, one with gradient, one without.

    Linen modules must not be called inside a raw lax loop.
    """
    network, variables = module.unbind()

    def apply(state, injection):
      return network.apply(variables, state, injection)

    if self.remat != "none":
      apply = jax.checkpoint(
        apply, policy=REMAT_POLICIES[self.remat], prevent_cse=False
      )

    # The gradient-free cycles cast the weights once. The last one casts
    # inside each call, so that the calls' gradients add up in float32.
    cast = jax.tree.map(
      lambda p: jax.lax.stop_gradient(p).astype(self.dtype), variables
    )
    # They multiply gate and up at once, too, unless a kernel does.
    gradient_free = network
    if self.gated_product is None and self.mlp_gate == "silu":
      gradient_free = network.clone(
        gated_product=swiglu.OneProduct(self.multiply)
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
    """Improves the latents once and reads off the answer.

    Args:
      inputs: [B, L] int32 tokens.
      puzzle_vectors: [B, E] float32.
      latents: y and z, [B, S, D] (z as the recurrence has it), in the compute
        dtype.
      differentiated: False where no gradient is asked for: costs less.

    Returns:
      New latents (detached), answer logits [B, L, V] in the compute dtype,
      halt and continue logits [B] in float32.
    """
    x = self.embed(inputs, puzzle_vectors)
    latents = self.recurse(x, latents, differentiated=differentiated)
    logits = self.answer_head(latents.y)[:, self.num_prefix_tokens :]
    halting = self.halt_head(latents.y[:, 0]).astype(jnp.float32)
    return types.Output(
      latents=jax.lax.stop_gradient(latents),
      logits=logits,
      halt_logits=halting[:, 0],
      continue_logits=halting[:, 1],
    )


def new_network(model: TinyRecursiveModel) -> RecursiveNetwork:
  """Returns the network that a model applies again and again."""
  return RecursiveNetwork(
    num_layers=model.num_layers,
    token_mixing=model.token_mixing,
    num_heads=model.num_heads,
    rope_base=model.rope_base if model.positions == "rope" else None,
    mlp_expansion=model.mlp_expansion,
    mlp_multiple=model.mlp_multiple,
    norm_epsilon=model.norm_epsilon,
    dtype=model.dtype,
    token_multiple=model.token_multiple,
    attend=model.attend,
    multiply=model.multiply,
    mlp_gate=model.mlp_gate,
    gated_product=model.gated_product,
  )


def _swapped(tree: Any) -> Any:
  """Exchanges the first two axes, of batch and sequence."""
  return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), tree)


def apply(
  model: TinyRecursiveModel,
  params: Any,
  inputs: jax.Array,
  puzzle_vectors: jax.Array,
  latents: types.Latents,
  *,
  differentiated: bool = True,
) -> types.Output:
  """Runs the model with a plain dict of parameters; arguments as its call."""
  output = model.apply(
    {"params": params},
    inputs,
    puzzle_vectors,
    latents,
    differentiated=differentiated,
  )
  return cast(types.Output, output)
