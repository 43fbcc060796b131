"""The paper's recursion with a network of Flax NNX.

`recursion.deep_recursion` takes any function (state, injection) -> state and
calls it within JAX's loops: so the module is split into graph and parameters,
and merged again inside. Gradients are those of the last cycle alone.

  python examples/nnx_network.py
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from trm_jax.core import recursion, types

BATCH, LENGTH, SIZE = 32, 8, 16  # B, S, D


class Network(nnx.Module):
  """Mixes tokens, then channels, and normalises."""

  def __init__(self, rngs: nnx.Rngs):
    self.tokens = nnx.Linear(LENGTH, LENGTH, rngs=rngs)
    self.channels = nnx.Linear(SIZE, SIZE, rngs=rngs)
    self.norm = nnx.RMSNorm(SIZE, rngs=rngs)

  def __call__(self, state: jax.Array, injection: jax.Array) -> jax.Array:
    """Maps state and injection, [B, S, D] each, to the new state."""
    h = state + injection
    mixed = jnp.swapaxes(self.tokens(jnp.swapaxes(h, 1, 2)), 1, 2)
    return self.norm(h + jnp.tanh(self.channels(mixed)))


def loss(params, graph, x: jax.Array) -> jax.Array:
  """Returns how far the answer is from x, [B, S, D], turned round."""
  start = types.Latents(y=jnp.zeros_like(x), z=jnp.zeros_like(x))
  latents = recursion.deep_recursion(
    lambda state, injection: nnx.merge(graph, params)(state, injection),
    x,
    start,
    latent_updates=6,
    recursion_cycles=3,
  )
  return jnp.mean((latents.y - x[:, ::-1]) ** 2)


def main(num_steps: int = 150) -> list[float]:
  """Trains the network; returns the loss of each step."""
  graph, params = nnx.split(Network(nnx.Rngs(0)))
  optimizer, losses = optax.adam(1e-2), []
  opt_state = optimizer.init(params)
  loss_and_gradients = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  for number in range(1, num_steps + 1):
    x = jax.random.normal(jax.random.key(number), (BATCH, LENGTH, SIZE))
    value, gradients = loss_and_gradients(params, graph, x)
    updates, opt_state = optimizer.update(gradients, opt_state)
    params = optax.apply_updates(params, updates)
    losses.append(float(value))
    if number % 25 == 0:
      print(f"step {number} | loss {value:.3f}")
  return losses


if __name__ == "__main__":
  main()
