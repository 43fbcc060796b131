"""Kinds of devices, their memory, and XLA options for them."""

import dataclasses
import os
import pathlib
import re

import jax

from trm_jax import errors
from trm_jax.runtime import host_memory

_CPU_INFO = pathlib.Path("/proc/cpuinfo")
# CPU features with bfloat16 products: Intel's AMX, and AVX-512 BF16 (e.g. AMD
# from Zen 4 on).
_MULTIPLY_BFLOAT16 = {"amx_bf16", "avx512_bf16"}


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of device.

  Attributes:
    platform: 'cpu', 'gpu' or 'tpu'.
    cuda_capability: of NVIDIA GPUs, e.g. 9.0 for an H100; otherwise 0.
    cpu_has_bfloat16: whether a CPU has instructions for bfloat16 products.
  """

  platform: str = "cpu"
  cuda_capability: float = 0.0
  cpu_has_bfloat16: bool = False


def check_available() -> None:
  """Raises UserError if JAX lacks the devices that the settings ask for."""
  try:
    if jax.devices():
      return
    reason = "there are none"
  except Exception as error:  # of many kinds, by the device
    reason = (str(error) and errors.first_line(error)) or "it is not installed"
    reason = reason.partition(" (set JAX_PLATFORMS")[0].rstrip(".")
  wanted = jax.config.values["jax_platforms"]
  jax.config.update("jax_platforms", None)
  try:
    found = ", ".join(sorted({d.platform for d in jax.devices()}))
  except Exception:
    found = ""
  if wanted and found:
    raise errors.UserError(
      f"JAX cannot use JAX_PLATFORMS={wanted} here ({reason}); it has {found}:"
      " unset JAX_PLATFORMS, or install JAX for that device (pip install"
      " '.[cuda]' or '.[tpu]')"
    )
  raise errors.UserError(
    f"JAX has no device to use ({reason}); XLA_FLAGS and JAX_NUM_CPU_DEVICES"
    " must leave at least one CPU device"
  )


def detect_chip(device: jax.Device) -> Chip:
  """Returns the kind of a device, which may be unavailable here."""
  capability = str(getattr(device, "compute_capability", ""))
  # For AMD GPUs this is a name such as gfx942.
  is_cuda = device.platform == "gpu" and re.fullmatch(r"\d+\.\d+", capability)
  return Chip(
    device.platform,
    float(capability) if is_cuda else 0.0,
    device.platform == "cpu" and bool(_MULTIPLY_BFLOAT16 & _cpu_features()),
  )


def device_memory(device: jax.Device) -> int:
  """Returns the bytes of a device that JAX may use, 0 if unknown.

  For a CPU this is half of this process' memory limit, divided by the number of
  devices of all processes, which may share one machine.
  """
  if device.platform == "cpu":
    return host_memory.process_limit() // 2 // jax.device_count("cpu")
  try:
    stats = device.memory_stats()
  except jax.errors.JaxRuntimeError:  # the device is unavailable
    return 0
  return (stats or {}).get("bytes_limit", 0)


def _cpu_features() -> set[str]:
  """Returns this CPU's feature flags on Linux; elsewhere none."""
  try:
    lines = _CPU_INFO.read_text().splitlines()
  except OSError:
    return set()
  flags = [line for line in lines if line.startswith("flags")]
  return {word for line in flags for word in line.split()}


# XLA's options for the compiled steps. They go to `jax.jit` with the program,
# so that nothing else in the process is compiled otherwise; what they gain is
# in docs/performance.md.


# XLA delegates products to YNNPACK. By default it also delegates reductions,
# with everything fused into them: a norm over the sequence then takes the whole
# MLP before it along, which YNNPACK computes much slower than XLA does.
_CPU = {
  "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}
# XLA uses 256-bit vectors, because wider ones lower the clock of older CPUs.
# CPUs with bfloat16 products are newer, have 512-bit vectors, and are limited
# by rounding to bfloat16.
_CPU_IN_BFLOAT16 = {"xla_cpu_prefer_vector_width": "512"}


def compiler_options(chip: Chip, dtype: str) -> dict[str, str]:
  """Returns compiler options for `jax.jit`.

  Options that the user sets in XLA_FLAGS are left out.

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
