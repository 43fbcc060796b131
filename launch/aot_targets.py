"""What a step is compiled for: TPU slices or GPUs, and sizes of the data.

None of the devices has to be present, and neither have public data: libtpu and
JAX's CUDA plugin compile without hardware, and what a program has to know of
the public data sets is written down here.
"""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import topologies

from experiments import arc
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import tasks
from trm_jax.runtime import program

GIB = 2**30

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBIC = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
_GPU_COUNTS = ("1", "2", "4", "8")  # in one machine

# The share of a GPU's memory that JAX reserves unless
# XLA_PYTHON_CLIENT_MEM_FRACTION is set.
_GPU_MEMORY_FRACTION = 0.75

# Keeps libtpu from querying the machine's metadata for TPUs, and lets it load
# beside another process that has it loaded.
_LIBTPU_ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-8",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_CUDA_PLUGIN = "jax_plugins.xla_cuda13"  # of jax[cuda13], see setup.cfg

# The experiments' puzzle tables: Kaggle's ARC files with ConceptARC.
_ARC_ROWS = {"": 876_406, "2": 1_191_730}
# Settings that the number of augmented puzzles depends on.
_AUGMENTATION = (
  "subsets",
  "seed",
  "num_train",
  "augmentation",
  "num_augmentations",
  "identifiers",
)


@dataclasses.dataclass(frozen=True)
class Chip:
  """A generation of TPU chips.

  Attributes:
    memory: of a chip by its specification, GiB.
    usable: memory that libtpu lets a program use, GiB.
    topologies: slices on offer, from small to large.
    config: libtpu's name for the configuration of a chip's cores.
  """

  memory: float
  usable: float
  topologies: tuple[str, ...]
  config: str = "default"


# Memory and slices: https://cloud.google.com/tpu/docs/v4, .../v5e, .../v5p and
# .../v6e, "Key chip specifications" and "Configurations".
CHIPS = {
  "v4": Chip(32, 30.75, _CUBIC, "megacore"),
  "v5e": Chip(16, 15.75, _FLAT),
  "v5p": Chip(95, 95.74, _CUBIC),
  "v6e": Chip(32, 31.25, _FLAT),
}


@dataclasses.dataclass(frozen=True)
class Gpu:
  """A kind of GPU, as XLA's cost model needs it.

  Attributes:
    name: as the driver reports it.
    memory: as CUDA reports it, GiB.
    bandwidth: of the memory, bytes per second.
    capability: compute capability.
    multiprocessors: number of them.
    threads: resident threads per multiprocessor.
    lanes: float32 lanes per multiprocessor.
    shared_memory: per multiprocessor, KiB.
    l2: size of the L2 cache, MiB.
    clock: boost clock, GHz.
  """

  name: str
  memory: float
  bandwidth: float
  capability: tuple[int, int]
  multiprocessors: int
  threads: int
  lanes: int
  shared_memory: int
  l2: int
  clock: float

  @property
  def usable(self) -> float:
    """Memory that JAX reserves by default, GiB."""
    return _GPU_MEMORY_FRACTION * self.memory

  def target_config(self) -> str:
    """Returns XLA's GpuTargetConfigProto of it, as text."""
    major, minor = self.capability
    # Hopper's wgmma and setmaxnreg exist on no later kind.
    extension = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    shared_memory = self.shared_memory * 2**10
    return f"""
gpu_device_info {{
  cuda_compute_capability {{
    major: {major}
    minor: {minor}
    feature_extension: {extension}
  }}
  core_count: {self.multiprocessors}
  fpus_per_core: {self.lanes}
  clock_rate_ghz: {self.clock}
  device_memory_size: {int(self.memory * GIB)}
  memory_bandwidth: {int(self.bandwidth)}
  l2_cache_size: {self.l2 * 2**20}
  shared_memory_per_core: {shared_memory}
  shared_memory_per_block: {48 * 2**10}
  shared_memory_per_block_optin: {shared_memory - 2**10}
  registers_per_core_limit: {64 * 2**10}
  registers_per_block_limit: {64 * 2**10}
  threads_per_warp: 32
  threads_per_core_limit: {self.threads}
  threads_per_block_limit: 1024
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
device_description_str: "{self.name}"
"""


# NVIDIA's data sheets of A100 80GB SXM, H100 SXM and H200 SXM and its paper on
# the Ada architecture, appendix A; CUDA C++ Programming Guide, "Compute
# Capabilities"; openxla/xla, xla/backends/gpu/target_config/specs.
_A100 = Gpu(
  name="NVIDIA A100-SXM4-80GB",
  memory=79.25,
  bandwidth=2.039e12,
  capability=(8, 0),
  multiprocessors=108,
  threads=2048,
  lanes=64,
  shared_memory=164,
  l2=40,
  clock=1.41,
)
_H100 = Gpu(
  name="NVIDIA H100 80GB HBM3",
  memory=79.11,
  bandwidth=3.35e12,
  capability=(9, 0),
  multiprocessors=132,
  threads=2048,
  lanes=128,
  shared_memory=228,
  l2=50,
  clock=1.98,
)
_RTX4090 = Gpu(
  name="NVIDIA GeForce RTX 4090",
  memory=23.65,
  bandwidth=1.008e12,
  capability=(8, 9),
  multiprocessors=128,
  threads=1536,
  lanes=128,
  shared_memory=100,
  l2=72,
  clock=2.52,
)
GPUS = {
  "a100": _A100,
  "h100": _H100,
  "h200": dataclasses.replace(
    _H100, name="NVIDIA H200", memory=139.81, bandwidth=4.8e12
  ),
  "rtx4090": _RTX4090,
}


@dataclasses.dataclass(frozen=True)
class Target:
  """Devices of one kind that run a program together.

  Attributes:
    kind: a key of `CHIPS` or `GPUS`.
    size: a topology of TPU chips such as '4x8', or a number of GPUs.
  """

  kind: str
  size: str

  @property
  def name(self) -> str:
    """The value of --topology, e.g. v5e:4x8 or h200:8."""
    return f"{self.kind}:{self.size}"

  @property
  def is_tpu(self) -> bool:
    """Whether these are TPU chips, or else GPUs."""
    return self.kind in CHIPS

  @property
  def platform(self) -> str:
    """The platform that JAX lowers to."""
    return "tpu" if self.is_tpu else "cuda"

  @property
  def chip(self) -> Chip | Gpu:
    """What each device is."""
    return CHIPS[self.kind] if self.is_tpu else GPUS[self.kind]

  @property
  def num_chips(self) -> int:
    """Number of devices."""
    return math.prod(map(int, self.size.split("x")))

  @property
  def usable(self) -> int:
    """Bytes of each device's memory that a program may use."""
    return int(self.chip.usable * GIB)

  def larger(self) -> list["Target"]:
    """Returns those of the same kind with more devices."""
    sizes = _SIZES[self.kind]
    after = sizes[sizes.index(self.size) + 1 :]
    return [Target(self.kind, size) for size in after]

  def devices(self) -> Sequence[jax.Device]:
    """Returns its devices, to compile for.

    Raises:
      UserError: the compiler is not installed, or does not know the target.
    """
    compiler = "libtpu" if self.is_tpu else "JAX's CUDA plugin"
    if not _is_installed("libtpu" if self.is_tpu else _CUDA_PLUGIN):
      raise errors.UserError(
        f"compiling for {self.name} needs {compiler}, which runs on any Linux"
        f" machine; pip install '.[{'aot' if self.is_tpu else 'cuda'}]'"
      )
    try:
      return _topology(self).devices
    # The compilers' own errors, and JAX's about a plugin.
    except (RuntimeError, ValueError, TypeError) as error:
      raise errors.UserError(
        f"{compiler} cannot compile for {self.name}: {errors.first_line(error)}"
      ) from error


def _topology(target: Target) -> topologies.TopologyDescription:
  """Describes devices that need not be present."""
  if isinstance(target.chip, Gpu):
    return topologies.get_topology_desc(
      platform="cuda",
      target_config=target.chip.target_config(),
      topology=f"1x1x{target.size}",  # partitions, hosts, GPUs per host
    )
  for name, value in _LIBTPU_ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  options: dict[str, Any] = {"chip_config_name": target.chip.config}
  if target.num_chips == 1:  # libtpu expects a whole host
    options["chips_per_host_bounds"] = (1, 1, 1)
  return topologies.get_topology_desc(
    platform="tpu", topology_name=target.name, **options
  )


def _is_installed(module: str) -> bool:
  """Whether a module exists; its package may be missing as well."""
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:
    return False


_SIZES = {name: chip.topologies for name, chip in CHIPS.items()}
_SIZES |= dict.fromkeys(GPUS, _GPU_COUNTS)


def parse(name: str) -> Target:
  """Returns the target of a --topology such as v5e:4x8 or h200:1.

  Raises:
    UserError: there is no such target.
  """
  kind, _, size = name.partition(":")
  if size in _SIZES.get(kind, ()):
    return Target(kind, size)
  raise errors.UserError(
    f"--topology={name} is unknown; choose {_choices()}, e.g."
    " --topology=v5e:4x8 or --topology=h200:1"
  )


def _choices() -> str:
  """Lists all targets, kinds with the same sizes together."""
  kinds: dict[tuple[str, ...], list[str]] = {}
  for kind, sizes in _SIZES.items():
    kinds.setdefault(sizes, []).append(kind)
  return "; ".join(
    f"{_either(names)} with {_either(sizes)}" for sizes, names in kinds.items()
  )


def _either(words: Sequence[str]) -> str:
  *first, last = words
  return f"{', '.join(first)} or {last}"


def data_sizes(
  data: config_lib.DataConfig, num_puzzle_ids: int | None
) -> program.DataSpec:
  """Returns the sizes of the data, without downloading public data.

  Args:
    data: the settings. Data in a folder and generated data are loaded.
    num_puzzle_ids: rows of the puzzle table; None if they are to be found out.

  Raises:
    UserError: the number of rows is neither given nor known, or loading fails.
  """
  if num_puzzle_ids is not None and num_puzzle_ids < 1:
    raise errors.UserError(
      f"--num_puzzle_ids is {num_puzzle_ids}; it must be at least 1"
    )
  if not data.source and data.task in ("sudoku", "maze", "arc"):
    published = _arc_rows if data.task == "arc" else lambda data: 1
    look, rows = tasks.look(data), num_puzzle_ids or published(data)
  else:
    task = tasks.load(data)
    look, rows = task.look, num_puzzle_ids or task.num_puzzle_ids
  return program.DataSpec.of_look(look, rows)


def _arc_rows(data: config_lib.DataConfig) -> int:
  """Returns the rows of the table of experiments/arc.py as published."""
  for variant, rows in _ARC_ROWS.items():
    published = arc.get_config(variant).data
    if all(getattr(data, name) == published[name] for name in _AUGMENTATION):
      return rows
  raise errors.UserError(
    "the number of rows of the puzzle table is known only for arc.py and"
    " arc.py:2 as they are; give --num_puzzle_ids=N, or"
    " --config.data.source=FOLDER to count them"
  )
