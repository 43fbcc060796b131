"""Data parallelism inside of a step: each device works on its rows."""

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

  Nothing travels between devices but what the function itself sends, as with
  `sum_over_devices`, and kernels need not be split by the compiler.

  Args:
    function: of arrays.
    mesh: the devices; None if all arrays are on one.
    in_specs: for each argument, or parts of it, `ROWS` or `COPIES`.
    out_specs: the same for what it returns.
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
  """Sums what each device has, within `on_each_device`."""
  if mesh is None or mesh.size == 1:
    return tree
  return jax.lax.psum(tree, DATA)
