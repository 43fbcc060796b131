"""NVIDIA GPUs that a program is compiled for, none of which has to be there."""

import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import ClassVar

import jax
from jax.experimental import topologies

from launch import aot_slices
from trm_jax import errors

COUNTS = (1, 2, 4, 8)  # GPUs of one machine

# What JAX takes of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says
# otherwise; a program has to do with that.
_MEMORY_FRACTION = 0.75

_PLUGIN = "jax_plugins.xla_cuda13"  # of jax[cuda13], in setup.cfg

# The versions that are expected where the program runs.
_CUDNN = (9, 10, 0)
_CUDA = (13, 0, 0)

# Alike in all kinds.
_SHARED_MEMORY_OF_BLOCK = 48 * 2**10  # bytes; a kernel may ask for more,
_SHARED_MEMORY_OF_SYSTEM = 2**10  # but not for these of a multiprocessor
_REGISTERS = 64 * 2**10


@dataclasses.dataclass(frozen=True)
class Gpu:
  """A kind of GPU."""

  name: str  # as its driver says it
  memory: float  # GiB, as CUDA finds it: less than what is printed on it
  bandwidth: float  # of the memory, bytes a second
  flops: float  # of dense products in bfloat16, FLOP a second
  capability: tuple[int, int]  # 'compute capability'
  multiprocessors: int
  threads: int  # that a multiprocessor holds
  lanes: int  # that it computes at once in float32
  shared_memory: int  # KiB of a multiprocessor
  l2: int  # MiB of the last cache
  clock: float  # GHz, at most

  def target_config(self) -> str:
    """Returns XLA's description of it, a GpuTargetConfigProto as text."""
    major, minor = self.capability
    # From Hopper on there are instructions that no later kind has.
    extension = "ACCELERATED_FEATURES" if major >= 9 else "NONE"
    shared_memory = self.shared_memory * 2**10
    largest = shared_memory - _SHARED_MEMORY_OF_SYSTEM
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
  device_memory_size: {int(self.memory * aot_slices.GIB)}
  memory_bandwidth: {int(self.bandwidth)}
  l2_cache_size: {self.l2 * 2**20}
  shared_memory_per_core: {shared_memory}
  shared_memory_per_block: {_SHARED_MEMORY_OF_BLOCK}
  shared_memory_per_block_optin: {largest}
  registers_per_core_limit: {_REGISTERS}
  registers_per_block_limit: {_REGISTERS}
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
dnn_version_info {{ {_version(_CUDNN)} }}
runtime_version {{ {_version(_CUDA)} }}
device_description_str: "{self.name}"
"""


def _version(numbers: tuple[int, int, int]) -> str:
  major, minor, patch = numbers
  return f"major: {major} minor: {minor} patch: {patch}"


# Rates: NVIDIA's data sheets of A100 80GB SXM, H100 SXM and H200 SXM (half of
# what is said there with sparsity) and its paper on the Ada architecture,
# appendix A. The rest: CUDA C++ Programming Guide, "Compute Capabilities", and
# the descriptions in openxla/xla, xla/backends/gpu/target_config/specs.
GPUS = {
  "a100": Gpu(
    name="NVIDIA A100-SXM4-80GB",
    memory=79.25,
    bandwidth=2.039e12,
    flops=312e12,
    capability=(8, 0),
    multiprocessors=108,
    threads=2048,
    lanes=64,
    shared_memory=164,
    l2=40,
    clock=1.41,
  ),
  "h100": Gpu(
    name="NVIDIA H100 80GB HBM3",
    memory=79.11,
    bandwidth=3.35e12,
    flops=989.4e12,
    capability=(9, 0),
    multiprocessors=132,
    threads=2048,
    lanes=128,
    shared_memory=228,
    l2=50,
    clock=1.98,
  ),
  "h200": Gpu(
    name="NVIDIA H200",
    memory=139.81,
    bandwidth=4.8e12,
    flops=989.4e12,
    capability=(9, 0),
    multiprocessors=132,
    threads=2048,
    lanes=128,
    shared_memory=228,
    l2=50,
    clock=1.98,
  ),
  "rtx4090": Gpu(
    name="NVIDIA GeForce RTX 4090",
    memory=23.65,
    bandwidth=1.008e12,
    flops=165.2e12,
    capability=(8, 9),
    multiprocessors=128,
    threads=1536,
    lanes=128,
    shared_memory=100,
    l2=72,
    clock=2.52,
  ),
}


@dataclasses.dataclass(frozen=True)
class Machine:
  """GPUs of one kind in one machine."""

  kind: str  # 'h200'
  num_chips: int
  platform: ClassVar[str] = "cuda"  # that JAX lowers to

  @property
  def name(self) -> str:
    """What --topology names, e.g. h200:8."""
    return f"{self.kind}:{self.num_chips}"

  @property
  def gpu(self) -> Gpu:
    """What each of them is."""
    return GPUS[self.kind]

  @property
  def hbm(self) -> float:
    """GiB of memory of each."""
    return self.gpu.memory

  @property
  def usable(self) -> int:
    """Bytes of memory that a program may use of each."""
    return int(_MEMORY_FRACTION * self.gpu.memory * aot_slices.GIB)

  def larger(self) -> list["Machine"]:
    """Returns those with more GPUs of this kind."""
    return [Machine(self.kind, n) for n in COUNTS if n > self.num_chips]

  def devices(self) -> Sequence[jax.Device]:
    """Returns its devices, to compile for.

    Raises:
      UserError: JAX's plugin for CUDA is missing, or cannot do it.
    """
    if not _is_installed(_PLUGIN):
      raise errors.UserError(
        "JAX's plugin for CUDA 13 is not installed, which compiles for NVIDIA"
        " GPUs on any Linux machine; pip install '.[cuda]'"
      )
    try:
      return topologies.get_topology_desc(
        platform="cuda",
        target_config=self.gpu.target_config(),
        topology=f"1x1x{self.num_chips}",  # partitions, hosts, GPUs of a host
      ).devices
    # Jaxlib's own, and what JAX makes of it or of an argument.
    except (RuntimeError, ValueError, TypeError) as error:
      raise errors.UserError(
        f"JAX's plugin for CUDA cannot compile for {self.name}:"
        f" {errors.first_line(error)}"
      ) from error


def _is_installed(module: str) -> bool:
  """Whether there is such a module, in a package that may be missing, too."""
  try:
    return importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:
    return False
