"""Executes a program that gets SIGTERM when its parent dies (on Linux).

python -I dies_with_parent.py PARENT PROGRAM ARGUMENT ...

A worker that is killed cannot stop its trainer, so the kernel does.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
  """Makes this process get SIGTERM when its parent dies."""
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
  if os.getppid() != parent:  # it died before prctl
    sys.exit(1)


if __name__ == "__main__":
  die_with(int(sys.argv[1]))
  os.execv(sys.argv[2], sys.argv[2:])
