"""Data parallelism inside a step: each device works on its own rows."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

DATA = "data"
ROWS, COPIES = PartitionSpec(DATA), PartitionSpec()


def on_each_device(
  function: Callable, mesh: Mesh | None, *, in_specs: Any, out_specs: Any
) -> Callable:
  """Returns the function, run by each device on its own rows.

  Devices communicate only where the function itself does, e.g. by
  `sum_over_devices`, and the compiler need not partition kernels.

  Args:
    function: of arrays.
    mesh: the devices; None if all arrays are on one device.
    in_specs: `ROWS` or `COPIES` for each argument or parts of it.
    out_specs: likewise, for the results.
  """
  if mesh is None or mesh.size == 1:
    return function
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=in_specs,
    out_specs=out_specs,
    check_vma=False,  # kernels do not say which axes their outputs vary on
  )


def sum_over_devices(tree: Any, mesh: Mesh | None) -> Any:
  """Sums each device's values, inside `on_each_device`."""
  if mesh is None or mesh.size == 1:
    return tree
  return jax.lax.psum(tree, DATA)
