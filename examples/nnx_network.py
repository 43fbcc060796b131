"""TRM's training step with a network of Flax NNX.

As in equinox_network.py, a class says what `make_train_step` asks of a model.
An NNX module is split into its graph and its parameters, and merged again
wherever it is called, since it must not be shared with JAX's loops.

  python examples/nnx_network.py
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import own_loop
from flax import nnx

from trm_jax.core import recursion, types

LENGTH, TOKENS, SIZE = own_loop.LENGTH, own_loop.TOKENS, 64  # L, V, D


class Network(nnx.Module):
  """Mixes tokens, then channels, and normalises."""

  def __init__(self, rngs: nnx.Rngs):
    self.tokens = nnx.Linear(LENGTH, LENGTH, rngs=rngs)
    self.channels = nnx.Linear(SIZE, SIZE, rngs=rngs)
    self.norm = nnx.RMSNorm(SIZE, rngs=rngs)

  def __call__(self, state: jax.Array, injection: jax.Array) -> jax.Array:
    """Maps state and injection, [B, L, D] each, to the new state."""
    h = state + injection
    mixed = jnp.swapaxes(self.tokens(jnp.swapaxes(h, 1, 2)), 1, 2)
    return self.norm(h + jnp.tanh(self.channels(mixed)))


class Modules(nnx.Module):
  """All that is trained."""

  def __init__(self, rngs: nnx.Rngs):
    self.embedding = nnx.Embed(TOKENS, SIZE, rngs=rngs)
    self.network = Network(rngs)
    self.answer_head = nnx.Linear(SIZE, TOKENS, use_bias=False, rngs=rngs)
    self.halt_head = nnx.Linear(SIZE, 1, rngs=rngs)


@dataclasses.dataclass(frozen=True)
class NnxModel:
  """A `trm_jax.core.model.Model`."""

  graph: Any
  seq_len: int = LENGTH
  total_len: int = LENGTH  # no prefix tokens

  @property
  def dtype(self) -> jnp.dtype:
    """Of the latents."""
    return jnp.dtype("float32")

  def latent_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the shapes of the initial y and z."""
    return (SIZE,), (SIZE,)

  def init_params(self, key: jax.Array, *, puzzle_embed_dim: int) -> Any:
    """Draws the parameters; there is no puzzle vector."""
    del puzzle_embed_dim
    return nnx.state(Modules(nnx.Rngs(key)))

  def apply(self, variables: Any, *args: Any, **kwargs: Any) -> types.Output:
    """Takes a supervision step (paper, figure 3)."""
    modules = nnx.merge(self.graph, variables["params"])
    graph, params = nnx.split(modules.network)

    def network(state, injection):
      return nnx.merge(graph, params)(state, injection)

    inputs, _, latents = args
    latents = recursion.deep_recursion(
      network if kwargs.get("differentiated", True) else None,
      modules.embedding(inputs),
      latents,
      latent_updates=3,
      recursion_cycles=2,
      gradient_free=network,
    )
    halt_logits = modules.halt_head(latents.y[:, 0])[:, 0]
    return types.Output(
      latents=jax.lax.stop_gradient(latents),
      logits=modules.answer_head(latents.y),
      halt_logits=halt_logits,
      continue_logits=jnp.zeros_like(halt_logits),
    )


def new_model() -> NnxModel:
  """Returns the model; its parameters are drawn by `init_params`."""
  return NnxModel(nnx.graphdef(Modules(nnx.Rngs(0))))


if __name__ == "__main__":
  own_loop.main(new_model())
