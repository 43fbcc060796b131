"""Device mesh and shardings, with one mesh axis, `data`.

Batch and carry are split over the devices, parameters are replicated, and the
puzzle table is split by rows.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from trm_jax import errors
from trm_jax.core import parallel, train_state, types


def make_mesh(num_devices: int | None = None) -> Mesh:
  """Returns a mesh over the first devices, by default all of them.

  Ordered by host, so that each host's rows of a batch are contiguous.
  """
  return mesh_of(jax.devices()[: num_devices or jax.device_count()])


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
  """Returns the mesh over these devices, which may be unavailable here."""
  # On TPU pods, neighbours in this order often belong to different hosts.
  neighbours = mesh_utils.create_device_mesh((len(devices),), devices)
  by_host = sorted(neighbours, key=lambda device: device.process_index)
  # Auto, not Explicit: Linen's gathers need it.
  return Mesh(by_host, (parallel.DATA,), axis_types=(AxisType.Auto,))


def split(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
  """Returns the sharding that splits an axis, by default the leading one."""
  return NamedSharding(mesh, PartitionSpec(*[None] * axis, parallel.DATA))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that puts a copy on each device."""
  return NamedSharding(mesh, parallel.COPIES)


def check_batch_size(name: str, batch_size: int, mesh: Mesh) -> None:
  """Raises UserError unless the batch divides over the devices."""
  devices = mesh.size
  if batch_size % devices:
    lower = batch_size // devices * devices
    choices = [str(n) for n in (lower, lower + devices) if n]
    raise errors.UserError(
      f"config.{name} {batch_size} does not divide over {devices} devices;"
      f" choose {' or '.join(choices)}"
    )


def num_rows(num_puzzle_ids: int, mesh: Mesh) -> int:
  """Returns how many rows a puzzle table needs so that it can be split.

  Rows past the last id are zero; no puzzle reads or writes them.
  """
  return -(-num_puzzle_ids // mesh.size) * mesh.size


def state_shardings(state: Any, mesh: Mesh) -> Any:
  """Returns a sharding for every leaf of a (possibly abstract) TrainState."""
  everywhere, by_row = replicated(mesh), split(mesh)
  shardings = jax.tree.map(lambda _: everywhere, state)
  return shardings.replace(
    carry=jax.tree.map(lambda _: by_row, state.carry), puzzle_table=by_row
  )


def create_state(init, mesh: Mesh) -> train_state.TrainState:
  """Runs `init() -> TrainState` jitted; each leaf is created in place."""
  shardings = state_shardings(jax.eval_shape(init), mesh)
  return jax.jit(init, out_shardings=shardings)()


def abstract_state(init, mesh: Mesh) -> train_state.TrainState:
  """Returns ShapeDtypeStructs with shardings, to restore a checkpoint to."""
  state = jax.eval_shape(init)
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=place
    ),
    state,
    state_shardings(state, mesh),
  )


def put_batch(host_batch: dict[str, np.ndarray], mesh: Mesh) -> types.Batch:
  """Makes a global batch from this host's rows.

  Args:
    host_batch: `inputs`, `labels` [b, L] and `puzzle_ids` [b], int32.
    mesh: of all hosts' devices.

  Returns:
    Arrays over all hosts, split over the devices.
  """
  return types.Batch(
    **{
      name: put_rows(host_batch[name], mesh)
      for name in ("inputs", "labels", "puzzle_ids")
    }
  )


def put_rows(rows: np.ndarray, mesh: Mesh) -> jax.Array:
  """Makes a global array from this host's rows, split over the devices."""
  return jax.make_array_from_process_local_data(split(mesh), rows)


def local_rows(array: jax.Array, *, axis: int = 0) -> np.ndarray:
  """Returns this host's part of an array that is split along an axis."""
  parts = {
    shard.index[axis].start or 0: shard.data
    for shard in array.addressable_shards
  }
  return np.concatenate(
    [np.asarray(parts[start]) for start in sorted(parts)], axis
  )
