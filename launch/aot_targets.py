"""What --topology names: TPU slices and machines with NVIDIA GPUs."""

from launch import aot_gpus, aot_slices
from trm_jax import errors

Target = aot_slices.Slice | aot_gpus.Machine


def parse(name: str) -> Target:
  """Returns the slice or machine of a name such as v5e:4x8 or h200:1.

  Raises:
    UserError: there is none of this name.
  """
  kind, _, size = name.partition(":")
  chip = aot_slices.CHIPS.get(kind)
  if chip is not None and size in chip.topologies:
    return aot_slices.Slice(kind, size)
  if kind in aot_gpus.GPUS and size in map(str, aot_gpus.COUNTS):
    return aot_gpus.Machine(kind, int(size))
  raise errors.UserError(
    f"--topology={name}: there is no such TPU slice and no such number of GPUs;"
    f" choose {_choices()}, e.g. --topology=v5e:4x8 or --topology=h200:1"
  )


def _choices() -> str:
  """Says all that there is."""
  kinds: dict[tuple[str, ...], list[str]] = {}
  for kind, chip in aot_slices.CHIPS.items():
    kinds.setdefault(chip.topologies, []).append(kind)
  counts = tuple(map(str, aot_gpus.COUNTS))
  kinds[counts] = list(aot_gpus.GPUS)
  return "; ".join(
    f"{_either(names)} with {_either(sizes)}" for sizes, names in kinds.items()
  )


def _either(words) -> str:
  *first, last = words
  return f"{', '.join(first)} or {last}"
