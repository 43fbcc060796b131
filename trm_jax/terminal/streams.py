"""Standard streams that are closed or break do not end a run.

A closed one (`>&-`) is opened on the null device, so that no other file gets
its number. When nobody reads any more (`| head`), or a terminal is gone (ssh),
one line on standard error says so and the rest is dropped.

Only the standard library: this is imported before everything else.
"""

import contextlib
import io
import os
import sys


class _Lasting(io.TextIOWrapper):
  """A text stream whose first error is reported and redirects it to nowhere."""

  def write(self, text: str) -> int:
    try:
      return super().write(text)
    except OSError as error:
      self._drop(error)
      return len(text)

  def flush(self) -> None:
    try:
      super().flush()
    except OSError as error:
      self._drop(error)

  def _drop(self, error: OSError) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, self.fileno())
    os.close(nowhere)
    name = "error" if self.fileno() == 2 else "output"
    with contextlib.suppress(OSError):
      os.write(
        2,
        f"WARNING: standard {name} cannot be written"
        f" ({os.strerror(error.errno or 0)}); going on without it\n".encode(),
      )


def install() -> None:
  """Replaces the standard streams of this process."""
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
  if sys.stdin is None:
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  # for good
  for number, name in ((1, "stdout"), (2, "stderr")):
    old = getattr(sys, name)
    if old is not None and type(old) is not io.TextIOWrapper:
      continue  # done, or a notebook's own
    if old is not None:
      old.flush()
    buffer = old.buffer if old else io.FileIO(number, "w", closefd=False)
    lasting = _Lasting(
      buffer,
      encoding=old.encoding if old else "utf-8",
      errors="backslashreplace",  # a file's name may be no UTF-8
      line_buffering=old.line_buffering if old else False,
    )
    setattr(sys, name, lasting)
