"""What kind of device a program is for; some choices follow from it."""

import ctypes
import dataclasses
import glob
import os
import pathlib
import re
import sys
from collections.abc import Iterator

import jax

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
    return process_memory_limit() // 2 // jax.device_count("cpu")
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


# How much memory a process may have: the machine's, or its container's.

_GROUPS = pathlib.Path("/proc/self/cgroup")
_MOUNTED = pathlib.Path("/sys/fs/cgroup")


def process_memory_limit() -> int:
  """Returns the least limit in bytes, 0 if nothing is known."""
  try:
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
  except (AttributeError, OSError, ValueError):  # Windows has no sysconf
    return 0
  return min([pages * size, *_of_groups()])


def _of_groups() -> Iterator[int]:
  for file in _files():
    try:
      text = file.read_text().strip()
    except OSError:  # a container sees its own group only, at the top
      continue
    if text.isdigit():  # or 'max'
      yield int(text)


def _files() -> Iterator[pathlib.Path]:
  """Yields where limits may stand, of this process' groups and those above."""
  try:
    lines = _GROUPS.read_text().splitlines()
  except OSError:
    return
  for line in lines:
    _, controllers, path = line.split(":", maxsplit=2)
    if not controllers:  # the newer kind, alone or beside the older one
      places = [(_MOUNTED, "memory.max"), (_MOUNTED / "unified", "memory.max")]
    elif "memory" in controllers.split(","):
      places = [(_MOUNTED / "memory", "memory.limit_in_bytes")]
    else:
      places = []
    group = pathlib.PurePosixPath(path.lstrip("/"))
    for top, name in places:
      for each in (group, *group.parents):
        yield top / each / name


# Memory of a host that computes itself: kept from one step to the next.

# Of mallopt, in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
# NVIDIA's, the same under WSL, AMD's, older and newer TPU machines'.
_ACCELERATORS = (
  "/dev/nvidia[0-9]*",
  "/dev/dxg",
  "/dev/kfd",
  "/dev/accel[0-9]*",
  "/dev/vfio/[0-9]*",
)


def tune_malloc() -> bool:
  """Lets the C library keep what is freed, for as long as the process lives.

  To be called before JAX is used: the threads that it starts shall have no
  arenas of their own. Does nothing where there is an accelerator (unless
  JAX_PLATFORMS=cpu), where there is no glibc, and where the user has set one
  of glibc's own variables (MALLOC_ARENA_MAX and the like).

  Returns:
    Whether freed memory is kept.
  """
  if sys.platform != "linux" or not _is_alone():
    return False
  if any(n.startswith("MALLOC_") or n == "GLIBC_TUNABLES" for n in os.environ):
    return False
  library = ctypes.CDLL(None)
  if not hasattr(library, "gnu_get_libc_version"):
    return False
  # Only one arena can grow without limit; no block is mapped by itself, which
  # would end with it; nothing is given back.
  wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
  return all([library.mallopt(name, value) for name, value in wanted])


def _is_alone() -> bool:
  """Whether the CPU is the only device that JAX will use."""
  platforms = os.environ.get("JAX_PLATFORMS")
  if platforms:
    return platforms == "cpu"
  return not any(glob.glob(path) for path in _ACCELERATORS)


# XLA's options for the compiled steps, all in one place.


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
