"""What kind of device a program is for; some choices follow from it."""

import dataclasses
import os
import pathlib
import re

import jax

from trm_jax.runtime import host_memory

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


def detect_chip(device: jax.Device) -> Chip:
  """Returns the kind of a device, which need not be there."""
  capability = str(getattr(device, "compute_capability", ""))
  # AMD's GPUs have names here, such as gfx942.
  is_cuda = device.platform == "gpu" and re.fullmatch(r"\d+\.\d+", capability)
  return Chip(
    device.platform,
    float(capability) if is_cuda else 0.0,
    device.platform == "cpu" and bool(_MULTIPLY_BFLOAT16 & _cpu_features()),
  )


def device_memory(device: jax.Device) -> int:
  """Returns how many bytes JAX may use of a device, 0 if that is not known.

  Of a CPU it is half of the memory that this process may have, for all devices
  of all processes together: these may run on one machine.
  """
  if device.platform == "cpu":
    return host_memory.process_limit() // 2 // jax.device_count("cpu")
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


# XLA's options for the compiled steps. They go to `jax.jit` with the program,
# so that nothing else in the process is compiled otherwise; what they gain is
# in docs/performance.md.


# XLA hands products to a library (YNNPACK). By default it hands it sums, too,
# with all that goes into them: a norm over the sequence comes with the whole
# MLP before it, which that library computes much slower as one than XLA does
# piece by piece.
_CPU = {
  "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}
# XLA computes with vectors of 256 bits, since wider ones slow down the clock of
# older CPUs. Those that multiply bfloat16 are newer, have 512 bits, and in
# bfloat16 are busy with rounding.
_CPU_IN_BFLOAT16 = {"xla_cpu_prefer_vector_width": "512"}


def compiler_options(chip: Chip, dtype: str) -> dict[str, str]:
  """Returns the options for a kind of device, for `jax.jit`.

  An option that the user sets in XLA_FLAGS is left to the user.

  Args:
    chip: the kind of device.
    dtype: 'float32' or 'bfloat16', of the network's products.
  """
  options = dict(_CPU) if chip.platform == "cpu" else {}
  if dtype == "bfloat16" and chip.cpu_has_bfloat16:
    options |= _CPU_IN_BFLOAT16
  of_the_user = os.environ.get("XLA_FLAGS", "")
  return {
    name: value for name, value in options.items() if name not in of_the_user
  }
