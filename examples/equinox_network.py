"""Deep supervision in full, the paper's figure 3, with a network of Equinox.

An Equinox module is a tree of parameters and a function at once, so that
`recursion.deep_recursion` takes it as it is. Each supervision step improves
the answer, is learned from, and hands its latents to the next one.

  python examples/equinox_network.py
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from trm_jax.core import recursion, types

BATCH, LENGTH, SIZE = 32, 8, 16  # B, S, D


class Network(eqx.Module):
  """Mixes tokens and channels, and normalises."""

  tokens: jax.Array  # [S, S]
  channels: jax.Array  # [D, D]

  def __call__(self, state: jax.Array, injection: jax.Array) -> jax.Array:
    """Maps state and injection, [B, S, D] each, to the new state."""
    h = state + injection
    mixed = jnp.einsum("bsd,st,de->bte", h, self.tokens, self.channels)
    h = h + jnp.tanh(mixed)
    return h * jax.lax.rsqrt(jnp.mean(h**2, axis=-1, keepdims=True) + 1e-5)


def loss(network: Network, x: jax.Array, latents: types.Latents):
  """Returns a supervision step's loss, and the latents for the next one."""
  latents = recursion.deep_recursion(
    network, x, latents, latent_updates=6, recursion_cycles=3
  )
  return jnp.mean((latents.y - x[:, ::-1]) ** 2), jax.lax.stop_gradient(latents)


def main(num_batches: int = 50, supervision_steps: int = 4) -> list[float]:
  """Trains the network; returns the loss of each supervision step."""
  normal = jax.nn.initializers.lecun_normal()
  keys = jax.random.split(jax.random.key(0))
  network = Network(
    normal(keys[0], (LENGTH, LENGTH)), normal(keys[1], (SIZE, SIZE))
  )
  optimizer, losses = optax.adam(1e-2), []
  opt_state = optimizer.init(network)
  differentiate = jax.jit(jax.value_and_grad(loss, has_aux=True))
  for number in range(1, num_batches + 1):
    x = jax.random.normal(jax.random.key(number), (BATCH, LENGTH, SIZE))
    latents = types.Latents(y=jnp.zeros_like(x), z=jnp.ones_like(x))
    for _ in range(supervision_steps):
      (value, latents), gradients = differentiate(network, x, latents)
      updates, opt_state = optimizer.update(gradients, opt_state)
      network = optax.apply_updates(network, updates)
      losses.append(float(value))
    if number % 10 == 0:
      print(f"batch {number} | loss {value:.3f}")
  return losses


if __name__ == "__main__":
  main()
