"""Becomes another program, which is told to end when its parent dies.

python -I dies_with_parent.py PARENT PROGRAM ARGUMENT ...

A worker that is killed cannot tell its trial, so the kernel does: on Linux the
program gets SIGTERM, saves and ends. Elsewhere it runs to its end, and holds
the trial's lock so long.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
  """Becomes the program."""
  parent, *command = sys.argv[1:]
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
  if os.getppid() == int(parent):  # else it died before this was set
    os.execv(command[0], command)


if __name__ == "__main__":
  main()
