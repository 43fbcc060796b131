"""One writer per workdir: a lock that its process holds and that dies with it.

Whoever only reads, such as an evaluation beside a training, does not ask for
it. It holds between the machines of a network file system with locks (NFS from
version 4 on). A bucket has none: there `metric_writer.Writer` looks whether the
newest line of metrics is its own, and says what that does not cover.
"""

import datetime
import errno
import json
import os
import socket
from typing import IO

from trm_jax import errors
from trm_jax.data import files
from trm_jax.runtime import processes

FILE = "training.lock"


class WorkdirLock:
  """The lock of a workdir, taken on the first host; held until `release`."""

  def __init__(self, workdir: str):
    """Takes the lock.

    Args:
      workdir: local or in a bucket; made if missing.

    Raises:
      UserError: on all hosts, if another process holds it; says which.
    """
    self._file: IO[str] | None = None
    processes.from_first(lambda: self._take(workdir))

  def _take(self, workdir: str) -> None:
    folder = files.folder(workdir)
    if files.is_remote(folder):
      return
    with errors.user_error_context(f"cannot use the workdir, {folder}"):
      folder.mkdir(parents=True, exist_ok=True)
      # Nothing in it changes before the lock is taken.
      file = open(folder / FILE, "a+")  # noqa: SIM115  # held open
      try:
        is_ours = files.try_lock(file)
      except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
          raise
        processes.log_once(
          f"WARNING: the file system of {folder} has no locks: make sure that"
          " no other training uses this workdir"
        )
        is_ours = True
      if not is_ours:
        file.seek(0)
        raise errors.UserError(
          f"{workdir} is in use by another training{_owner(file.read())}; wait"
          " until it has ended, end it, or choose another --workdir"
        )
      file.truncate(0)
      json.dump(
        {
          "host": socket.gethostname(),
          "pid": os.getpid(),
          "since": datetime.datetime.now().isoformat(" ", "seconds"),
        },
        file,
      )
      file.flush()
      self._file = file

  def release(self) -> None:
    """Frees the workdir."""
    if self._file:
      self._file.truncate(0)
      self._file.close()


def _owner(text: str) -> str:
  """Says who holds the lock, as part of a line; '' if it has not said."""
  try:
    owner = json.loads(text)
    return (
      f": process {owner['pid']} on {owner['host']}, since {owner['since']}"
    )
  except (ValueError, KeyError, TypeError):
    return ""
