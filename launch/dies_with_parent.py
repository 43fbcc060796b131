"""Executes a command that gets SIGTERM when its parent dies.

python -I dies_with_parent.py PARENT PROGRAM ARGUMENT ...

A worker that is killed cannot stop its trainer, so the kernel does: on Linux
the program gets SIGTERM, saves and ends. On other systems it runs to its end.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
  """Replaces this process by the program."""
  parent, *command = sys.argv[1:]
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
  if os.getppid() == int(parent):  # otherwise the parent died before prctl
    os.execv(command[0], command)


if __name__ == "__main__":
  main()
