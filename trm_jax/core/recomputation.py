"""What the backward pass computes again, where the settings leave it open.

To keep everything is fastest and takes the most memory; what that is follows
from the network and from the slots of a device.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from trm_jax.core import model as model_lib
from trm_jax.runtime import devices

# Of the memory; the rest of the state, gradients, workspace, the next batch,
# and gaps that no array fills need what is left.
_SHARE = 0.8


def choose(
  model: model_lib.TinyRecursiveModel,
  *,
  calls: int,
  slots: int,
  room: int,
  chip: devices.Chip,
) -> tuple[str, bool]:
  """Returns `config.model.remat` and `unroll` for the setting 'auto'.

  Args:
    model: the module.
    calls: of the network, that a step differentiates.
    slots: of a device, or of a microbatch of its.
    room: bytes of a device's memory, without its share of the puzzle table.
    chip: what kind of device. On TPUs all is computed again: nobody has yet
      measured there what is faster.
  """
  if chip.platform == "tpu" or room <= 0:
    return "full", False
  if chip.platform == "cpu":  # there XLA keeps bfloat16 as float32
    model = model.clone(compute_dtype="float32")
  if calls * bytes_of_call(model, slots) > _SHARE * room:
    return "full", False
  return "none", True


def bytes_of_call(model: model_lib.TinyRecursiveModel, slots: int) -> int:
  """Counts what a differentiated call of the network keeps, its weights too.

  Args:
    model: the module.
    slots: worked on at once.
  """
  shape = (slots, model.total_len, model.hidden_size)
  if model.token_mixing == "mlp":  # tokens first
    shape = (shape[1], shape[0], shape[2])
  state = jax.ShapeDtypeStruct(shape, model.dtype)
  network = model_lib.new_network(model)

  def kept(variables: Any, state: jax.Array, injection: jax.Array) -> Any:
    return jax.vjp(network.apply, variables, state, injection)[1]

  variables = jax.eval_shape(network.init, jax.random.key(0), state, state)
  leaves = jax.tree.leaves(jax.eval_shape(kept, variables, state, state))
  return sum(
    math.prod(leaf.shape) * jnp.dtype(leaf.dtype).itemsize for leaf in leaves
  )
