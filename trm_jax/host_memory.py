"""Memory of a host that computes itself: kept from one step to the next.

XLA asks the C library for a step's temporaries and frees them after it. glibc
hands blocks of such size back to the system at once, and gets them again for
the next step as pages that have to be found and zeroed one by one. On a CPU
that is a good part of a step (docs/performance.md).
"""

import ctypes
import glob
import os
import sys

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


def keep_freed() -> bool:
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
