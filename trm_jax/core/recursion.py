"""The paper's recursion (figure 3), with the network as an argument.

Pure functions that work with any `network(state, injection) -> state`, from
Flax or elsewhere, on arrays of any shape. They follow the pseudo-code:

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

A `Recurrence` defines what each call of such a cycle reads and updates. TRM's,
`TWO_LATENTS`, comes first; the variants of the ablations are at the end of this
file. HRM uses TRM's, with a network for each latent and fewer updates with
gradient. To add a recurrence, add an entry to `RECURRENCES`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from . import types

Network = Callable[[jax.Array, jax.Array], jax.Array]


class Networks(NamedTuple):
  """A network for each of the two updates (paper, section 4.3).

  Attributes:
    z: reasons; HRM's low-level module.
    y: answers; HRM's high-level module.
  """

  z: Network
  y: Network


@dataclasses.dataclass(frozen=True)
class Recurrence:
  """What a cycle computes: n updates of a state, then an answer.

  Attributes:
    begin: latents -> the state, the part of them that the updates change.
    update: (network, x, y, state, index of the update) -> the new state.
    answer: (network, y, state) -> the new latents.
    answer_calls: how often `answer` calls its network.
    z_shape: (n, D) -> shape of the initial z, or None if there is no z.
  """

  begin: Callable[[types.Latents], jax.Array]
  update: Callable[
    [Network, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array
  ]
  answer: Callable[[Network, jax.Array, jax.Array], types.Latents]
  answer_calls: int
  z_shape: Callable[[int, int], tuple[int, ...] | None]


# TRM (figure 3) and HRM: an answer y and a latent z.
TWO_LATENTS = Recurrence(
  begin=lambda latents: cast(jax.Array, latents.z),
  update=lambda network, x, y, z, _: network(z, y + x),
  answer=lambda network, y, z: types.Latents(y=network(y, z), z=z),
  answer_calls=1,
  z_shape=lambda n, size: (size,),
)


def latent_recursion(
  network: Network | Networks,
  x: jax.Array,
  latents: types.Latents,
  *,
  latent_updates: int,
  recurrence: Recurrence = TWO_LATENTS,
  gradient_updates: int = 0,
  gradient_free: Network | Networks | None = None,
  unroll: bool = False,
) -> types.Latents:
  """Reasons `latent_updates` times, then answers once.

  Args:
    network: maps (state, injection), both [B, S, D], to the new state; one for
      both updates or one for each.
    x: [B, S, D] embedded question.
    latents: y and z, [B, S, D] each (z as the recurrence has it).
    latent_updates: n of the paper.
    recurrence: what a cycle computes.
    gradient_updates: backpropagate through only the last k of the n updates,
      and the answer; 0 for all. 1 is HRM's one-step gradient.
    gradient_free: as for `deep_recursion`, for the updates without gradient.
    unroll: unrolls the differentiated updates instead of scanning.

  Returns:
    The new latents.
  """
  networks = _for_each(network)
  gradient_updates = gradient_updates or latent_updates
  free_updates = latent_updates - gradient_updates

  def updated(network, x, y, state, numbers, unroll):
    def update(state, number):
      return recurrence.update(network, x, y, state, number), None

    return jax.lax.scan(update, state, numbers, unroll=unroll)[0]

  numbers = jnp.arange(latent_updates)
  if free_updates:
    # Without differentiable inputs, nothing is saved for a backward pass.
    latents, fixed_x = jax.lax.stop_gradient((latents, x))
  state = recurrence.begin(latents)
  if free_updates:
    free = _for_each(gradient_free or networks)
    state = jax.lax.stop_gradient(
      updated(free.z, fixed_x, latents.y, state, numbers[:free_updates], False)
    )
  state = updated(
    networks.z, x, latents.y, state, numbers[free_updates:], unroll
  )
  return recurrence.answer(networks.y, latents.y, state)


def deep_recursion(
  network: Network | Networks | None,
  x: jax.Array,
  latents: types.Latents,
  *,
  latent_updates: int,
  recursion_cycles: int,
  recurrence: Recurrence = TWO_LATENTS,
  gradient_updates: int = 0,
  gradient_free: Network | Networks | None = None,
  unroll: bool = False,
) -> types.Latents:
  """Improves the latents in T - 1 cycles without gradient and one with it.

  Args:
    network: the network of the last cycle, through which gradients flow. None
      if nothing is differentiated: the last cycle is then like the others.
    x: [B, S, D] embedded question; its gradient is that of the last cycle.
    latents: y and z, [B, S, D] each (z as the recurrence has it).
    latent_updates: n of the paper.
    recursion_cycles: T of the paper.
    recurrence: what a cycle computes.
    gradient_updates: of the last cycle, as for `latent_recursion`.
    gradient_free: the same function for all calls without gradient, if a
      cheaper form exists (e.g. weights cast once); None for `network`. At least
      one of the two is required.
    unroll: of the last cycle, as for `latent_recursion`.

  Returns:
    The new latents, with gradients to `network` and `x`, none to `latents`
    if T > 1.
  """
  free = gradient_free or network
  if free is None:
    raise ValueError("pass network, gradient_free or both")
  fixed_x = jax.lax.stop_gradient(x)

  def cycle(latents, _):
    latents = latent_recursion(
      free,
      fixed_x,
      latents,
      latent_updates=latent_updates,
      recurrence=recurrence,
    )
    return latents, None

  free_cycles = recursion_cycles if network is None else recursion_cycles - 1
  if free_cycles:
    # stop_gradient at both ends: nothing is saved for a backward pass, and no
    # gradient crosses the scan's outputs.
    latents, _ = jax.lax.scan(
      cycle, jax.lax.stop_gradient(latents), None, length=free_cycles
    )
    latents = jax.lax.stop_gradient(latents)
  if network is None:
    return latents
  return latent_recursion(
    network,
    x,
    latents,
    latent_updates=latent_updates,
    recurrence=recurrence,
    gradient_updates=gradient_updates,
    gradient_free=free,
    unroll=unroll,
  )


def _for_each(network: Network | Networks) -> Networks:
  """Returns the network of each update."""
  if isinstance(network, Networks):
    return network
  return Networks(z=network, y=network)


# Variants of the paper's ablations.

# "Single z" (section 4.2, algorithm 4): one latent is both y and z.
SINGLE_LATENT = Recurrence(
  begin=lambda latents: latents.y,
  update=lambda network, x, _, state, __: network(state, x),
  answer=lambda network, _, state: types.Latents(
    y=network(state, jnp.zeros_like(state)), z=None
  ),
  answer_calls=1,
  z_shape=lambda n, size: None,
)

# "Multi-scale z" (section 4.2, algorithm 5): each update has a z of its own,
# z is [..., n, D], and every call sees the sum of all.
LATENT_PER_UPDATE = Recurrence(
  begin=lambda latents: cast(jax.Array, latents.z),
  update=lambda network, x, y, z, number: jax.lax.dynamic_update_index_in_dim(
    z, network(jnp.sum(z, axis=-2), y + x), number, axis=z.ndim - 2
  ),
  answer=lambda network, y, z: types.Latents(
    y=network(y, jnp.sum(z, axis=-2)), z=z
  ),
  answer_calls=1,
  z_shape=lambda n, size: (n, size),
)

# Direct prediction (tables 4, 5): network(answer, question) is the new answer.
# With one supervision step it is a transformer that reads the question once.
DIRECT = Recurrence(
  begin=lambda latents: latents.y,
  update=lambda network, x, _, state, __: network(state, x),
  answer=lambda network, _, state: types.Latents(y=state, z=None),
  answer_calls=0,
  z_shape=lambda n, size: None,
)

RECURRENCES: Mapping[str, Recurrence] = {
  "two_latents": TWO_LATENTS,
  "single_latent": SINGLE_LATENT,
  "latent_per_update": LATENT_PER_UPDATE,
  "direct": DIRECT,
}
