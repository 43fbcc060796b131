"""The host's memory: how much this process may use, and keeping what it freed.

Containers, SLURM and systemd limit their processes by control groups (Linux
cgroups v1 or v2); the limit of a group holds for all groups below it.

XLA asks the C library for a step's temporaries and frees them after it. glibc
returns blocks of that size to the system at once, and gets them again for the
next step as pages that have to be found and zeroed one by one. On a CPU that is
a good part of a step (docs/performance.md).

No jax here: malloc is tuned before JAX starts its threads.
"""

import ctypes
import glob
import os
import pathlib
import sys
from collections.abc import Iterator

_GROUPS = pathlib.Path("/proc/self/cgroup")
_MOUNTED = pathlib.Path("/sys/fs/cgroup")
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


def process_limit() -> int:
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
