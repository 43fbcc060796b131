"""TRM's training step with a network of Equinox.

`make_train_step` takes any `model.Model`: whatever can say the shapes of its
latents, draw its parameters, and take one supervision step. Here that is a
class around an Equinox module and the paper's recursion. Slots, losses,
halting and the averaged weights are trm_jax's. The loop and the puzzle, six
digits to sort, are own_loop.py's.

  python examples/equinox_network.py
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import own_loop

from trm_jax.core import recursion, types

LENGTH, TOKENS, SIZE = own_loop.LENGTH, own_loop.TOKENS, 64  # L, V, D


class Network(eqx.Module):
  """Mixes tokens and channels, and normalises."""

  tokens: jax.Array  # [L, L]
  channels: jax.Array  # [D, D]

  def __call__(self, state: jax.Array, injection: jax.Array) -> jax.Array:
    """Maps state and injection, [B, L, D] each, to the new state."""
    h = state + injection
    mixed = jnp.einsum("bsd,st,de->bte", h, self.tokens, self.channels)
    h = h + jnp.tanh(mixed)
    return h * jax.lax.rsqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-5)


class Parameters(eqx.Module):
  """All that is trained."""

  embedding: jax.Array  # [V, D]
  network: Network
  answer_head: jax.Array  # [D, V]
  halt_head: jax.Array  # [D]


@dataclasses.dataclass(frozen=True)
class EquinoxModel:
  """A `trm_jax.core.model.Model`."""

  seq_len: int = LENGTH
  total_len: int = LENGTH  # no prefix tokens

  @property
  def dtype(self) -> jnp.dtype:
    """Of the latents."""
    return jnp.dtype("float32")

  def latent_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the shapes of the initial y and z."""
    return (SIZE,), (SIZE,)

  def init_params(self, key: jax.Array, *, puzzle_embed_dim: int) -> Parameters:
    """Draws the parameters; there is no puzzle vector."""
    del puzzle_embed_dim
    normal = jax.nn.initializers.lecun_normal()
    keys = jax.random.split(key, 4)
    return Parameters(
      embedding=jax.random.normal(keys[0], (TOKENS, SIZE)),
      network=Network(
        normal(keys[1], (LENGTH, LENGTH)), normal(keys[2], (SIZE, SIZE))
      ),
      answer_head=normal(keys[3], (SIZE, TOKENS)),
      halt_head=jnp.zeros(SIZE),
    )

  def apply(self, variables: Any, *args: Any, **kwargs: Any) -> types.Output:
    """Takes a supervision step (paper, figure 3)."""
    params: Parameters = variables["params"]
    inputs, _, latents = args
    latents = recursion.deep_recursion(
      params.network if kwargs.get("differentiated", True) else None,
      params.embedding[inputs],
      latents,
      latent_updates=3,
      recursion_cycles=2,
      gradient_free=params.network,
    )
    halt_logits = latents.y[:, 0] @ params.halt_head
    return types.Output(
      latents=jax.lax.stop_gradient(latents),
      logits=latents.y @ params.answer_head,
      halt_logits=halt_logits,
      continue_logits=jnp.zeros_like(halt_logits),
    )


if __name__ == "__main__":
  own_loop.main(EquinoxModel())
