"""How much memory a process may have: the machine's, or its container's.

Containers, SLURM and systemd give their processes less by control groups, of
Linux's older or newer kind; a group's limit holds for all groups below it.
"""

import os
import pathlib
from collections.abc import Iterator

_GROUPS = pathlib.Path("/proc/self/cgroup")
_MOUNTED = pathlib.Path("/sys/fs/cgroup")


def of_process() -> int:
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
