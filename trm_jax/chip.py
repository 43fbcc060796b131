"""What kind of device a program is for; some choices follow from it."""

import dataclasses
import pathlib
import re

import jax

from trm_jax import memory_limit

_CPU_INFO = pathlib.Path("/proc/cpuinfo")
# Instructions that multiply numbers of bfloat16: Intel's AMX, and what AMD's
# CPUs have from Zen 4 on.
_MULTIPLY_BFLOAT16 = {"amx_bf16", "avx512_bf16"}


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of device."""

  platform: str = "cpu"  # 'cpu', 'gpu' or 'tpu'
  # Of NVIDIA's GPUs, e.g. 9.0 of an H100; 0 of all others.
  cuda_capability: float = 0.0
  # Of CPUs: whether they multiply bfloat16 as it is.
  cpu_has_bfloat16: bool = False


def of(device: jax.Device) -> Chip:
  """Returns the kind of a device, which need not be there."""
  capability = str(getattr(device, "compute_capability", ""))
  # AMD's GPUs have names here, such as gfx942.
  is_cuda = device.platform == "gpu" and re.fullmatch(r"\d+\.\d+", capability)
  return Chip(
    device.platform,
    float(capability) if is_cuda else 0.0,
    device.platform == "cpu" and bool(_MULTIPLY_BFLOAT16 & _cpu_features()),
  )


def memory_of(device: jax.Device) -> int:
  """Returns how many bytes JAX may use of a device, 0 if that is not known.

  Of a CPU it is half of the memory that this process may have, for all devices
  of all processes together: these may run on one machine.
  """
  if device.platform == "cpu":
    return memory_limit.of_process() // 2 // jax.device_count("cpu")
  try:
    stats = device.memory_stats()
  except jax.errors.JaxRuntimeError:  # it is not there
    return 0
  return (stats or {}).get("bytes_limit", 0)


def _cpu_features() -> set[str]:
  """Returns what Linux knows of this CPU's instructions; elsewhere nothing."""
  try:
    lines = _CPU_INFO.read_text().splitlines()
  except OSError:
    return set()
  flags = [line for line in lines if line.startswith("flags")]
  return {word for line in flags for word in line.split()}
