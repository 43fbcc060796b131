"""What kind of device a program is for; some choices follow from it."""

import dataclasses
import os
import pathlib
import re
import sys

import jax

_CPU_INFO = pathlib.Path("/proc/cpuinfo")
_CONTAINER_LIMIT = pathlib.Path("/sys/fs/cgroup/memory.max")  # or "max"


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of device."""

  platform: str = "cpu"  # 'cpu', 'gpu' or 'tpu'
  # Of NVIDIA's GPUs, e.g. 9.0 of an H100; 0 of all others.
  cuda_capability: float = 0.0
  # Of CPUs: whether there is a unit for matrices of bfloat16 (Intel's AMX).
  has_cpu_tiles: bool = False


def of(device: jax.Device) -> Chip:
  """Returns the kind of a device, which need not be there."""
  capability = str(getattr(device, "compute_capability", ""))
  # AMD's GPUs have names here, such as gfx942.
  is_cuda = device.platform == "gpu" and re.fullmatch(r"\d+\.\d+", capability)
  return Chip(
    device.platform,
    float(capability) if is_cuda else 0.0,
    device.platform == "cpu" and "amx_bf16" in _cpu_features(),
  )


def memory_of(device: jax.Device) -> int:
  """Returns how many bytes JAX may use of a device, 0 if that is not known.

  Of a CPU it is half of the machine's memory, or of what its container may
  have, for all its devices together.
  """
  if device.platform == "cpu":
    return _host_memory() // 2 // jax.local_device_count("cpu")
  try:
    stats = device.memory_stats()
  except jax.errors.JaxRuntimeError:  # it is not there
    return 0
  return (stats or {}).get("bytes_limit", 0)


def _host_memory() -> int:
  try:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
  except (OSError, ValueError):
    return 0
  try:
    limit = _CONTAINER_LIMIT.read_text().strip()
  except OSError:
    limit = ""
  return min(pages * size, int(limit) if limit.isdigit() else sys.maxsize)


def _cpu_features() -> set[str]:
  """Returns what Linux knows of this CPU's instructions; elsewhere nothing."""
  try:
    lines = _CPU_INFO.read_text().splitlines()
  except OSError:
    return set()
  flags = [line for line in lines if line.startswith("flags")]
  return {word for line in flags for word in line.split()}
