"""Where a run's files lie: a folder here, or one of a bucket (gs://...)."""

import os

from etils import epath


def is_remote(path: epath.PathLike) -> bool:
  """Tells whether a path is of a bucket: no appending, no locks there."""
  return "://" in os.fspath(path)


def folder(workdir: epath.PathLike) -> epath.Path:
  """Returns a workdir's path, whole so that it may be shown or handed on."""
  path = epath.Path(workdir)
  # To the parts of pathlib, gs://bucket would be a folder of this one.
  return path if is_remote(path) else path.expanduser().resolve()
