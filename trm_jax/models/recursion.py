"""The paper's recursion (figure 3), with the network as an argument.

Pure functions: they work with any `network(state, injection) -> state`, from
Flax or elsewhere, on arrays of any shape. As in the pseudo-code:

  def latent_recursion(x, y, z, n=6):
    for i in range(n):          # latent reasoning
      z = net(x, y, z)
    y = net(y, z)               # refine the answer
    return y, z

  def deep_recursion(x, y, z, n=6, T=3):
    with torch.no_grad():       # improve y and z T-1 times
      for j in range(T-1):
        y, z = latent_recursion(x, y, z, n)
    return latent_recursion(x, y, z, n)   # once, with gradients
"""

from collections.abc import Callable

import jax

from trm_jax import types

Network = Callable[[jax.Array, jax.Array], jax.Array]


def latent_recursion(
  network: Network,
  x: jax.Array,
  latents: types.Latents,
  *,
  latent_updates: int,
  unroll: bool = False,
) -> types.Latents:
  """Reasons `latent_updates` times, then answers once.

  Args:
    network: maps (state, injection), both [B, S, D], to the new state.
    x: [B, S, D] embedded question.
    latents: y and z, [B, S, D] each.
    latent_updates: n of the paper.
    unroll: writes the n calls one after another instead of as a loop.

  Returns:
    The new latents.
  """

  def update(z, _):
    return network(z, latents.y + x), None

  z, _ = jax.lax.scan(
    update, latents.z, None, length=latent_updates, unroll=unroll
  )
  return types.Latents(y=network(latents.y, z), z=z)


def deep_recursion(
  network: Network,
  x: jax.Array,
  latents: types.Latents,
  *,
  latent_updates: int,
  recursion_cycles: int,
  gradient_free_network: Network | None = None,
  unroll: bool = False,
) -> types.Latents:
  """Improves the latents in T - 1 cycles without gradient and one with it.

  Args:
    network: the network of the last cycle, through which gradients flow.
    x: [B, S, D] embedded question; its gradient, too, is the last cycle's.
    latents: y and z, [B, S, D] each.
    latent_updates: n of the paper.
    recursion_cycles: T of the paper.
    gradient_free_network: the same function for the first T - 1 cycles,
      where it differs in cost, e.g. with weights cast once; `network` if
      None.
    unroll: of the last cycle, as for `latent_recursion`.

  Returns:
    The new latents, with gradients to `network` and `x`, none to `latents`
    if T > 1.
  """
  free_network = gradient_free_network or network
  fixed_x = jax.lax.stop_gradient(x)

  def cycle(latents, _):
    latents = latent_recursion(
      free_network, fixed_x, latents, latent_updates=latent_updates
    )
    return latents, None

  if recursion_cycles > 1:
    # The scan is cut at both ends: nothing is saved for a backward pass,
    # and no gradient crosses its outputs.
    latents, _ = jax.lax.scan(
      cycle, jax.lax.stop_gradient(latents), None, length=recursion_cycles - 1
    )
    latents = jax.lax.stop_gradient(latents)
  return latent_recursion(
    network, x, latents, latent_updates=latent_updates, unroll=unroll
  )
