"""TPU slices that a program is compiled for, none of which has to be there."""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
from jax.experimental import topologies

from trm_jax import errors

GIB = 2**30

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBIC = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")

# Libtpu looks for the machine that it believes to run on. There is none, and
# it may be loaded beside a process that trains, or that compiles, too.
_NO_MACHINE = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-8",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Chip:
  """A generation of TPU chips."""

  hbm: float  # GiB of a chip's memory, by the specification
  usable: float  # GiB of it, as libtpu says when a program needs more
  topologies: tuple[str, ...]  # that are lent, from small to big
  config: str = "default"  # of a chip's cores: as one device, as a run has it


# Memory and slices: https://cloud.google.com/tpu/docs/v4, .../v5e, .../v5p and
# .../v6e, "Key chip specifications" and "Configurations".
CHIPS = {
  "v4": Chip(32, 30.75, _CUBIC, "megacore"),
  "v5e": Chip(16, 15.75, _FLAT),
  "v5p": Chip(95, 95.74, _CUBIC),
  "v6e": Chip(32, 31.25, _FLAT),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """Chips that are lent together."""

  generation: str  # 'v5e'
  topology: str  # '4x8'
  platform: ClassVar[str] = "tpu"  # that JAX lowers to

  @property
  def name(self) -> str:
    """What --topology names, e.g. v5e:4x8."""
    return f"{self.generation}:{self.topology}"

  @property
  def num_chips(self) -> int:
    """How many chips it has."""
    return math.prod(int(side) for side in self.topology.split("x"))

  @property
  def hbm(self) -> float:
    """GiB of memory of each chip, by the specification."""
    return CHIPS[self.generation].hbm

  @property
  def usable(self) -> int:
    """Bytes of memory that a program may use of each chip."""
    return int(CHIPS[self.generation].usable * GIB)

  def larger(self) -> list["Slice"]:
    """Returns those of its generation with more chips."""
    known = CHIPS[self.generation].topologies
    after = known[known.index(self.topology) + 1 :]
    return [Slice(self.generation, topology) for topology in after]

  def devices(self) -> Sequence[jax.Device]:
    """Returns its devices, to compile for.

    Raises:
      UserError: libtpu is missing.
    """
    if importlib.util.find_spec("libtpu") is None:
      raise errors.UserError(
        "libtpu is not installed, which compiles for TPU on any machine; pip"
        " install '.[tpu]'"
      )
    for name, value in _NO_MACHINE.items():
      os.environ.setdefault(name, value)
    options: dict[str, Any] = {
      "chip_config_name": CHIPS[self.generation].config
    }
    if self.num_chips == 1:  # less than the whole host that is expected
      options["chips_per_host_bounds"] = (1, 1, 1)
    try:
      return topologies.get_topology_desc(
        platform="tpu", topology_name=self.name, **options
      ).devices
    except jax.errors.JaxRuntimeError as error:
      raise errors.UserError(
        f"libtpu cannot compile for {self.name}: {errors.first_line(error)}"
      ) from error
