"""Files that are there in full or not at all, and damaged ones put aside."""

import contextlib
import io
import os
import uuid
from collections.abc import Iterator
from typing import IO

from etils import epath

from trm_jax import errors


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[IO]:
  """Opens a binary file that takes its place only when all is written.

  Args:
    path: Where it is to stand; folders that are missing are made.

  Yields:
    What to write the bytes to.

  Raises:
    UserError: if the file cannot be written.
  """
  path = epath.Path(path)
  # Other processes may write the same file: each has a draft of its own.
  draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with draft.open("wb") as file:
        yield file
        _sync(file)
      draft.replace(path)
    finally:
      draft.unlink(missing_ok=True)
  except Exception as error:
    if not errors.is_of_files(error):
      raise
    reason = errors.reason(error)
    raise errors.UserError(f"cannot write {path}: {reason}") from error


def _sync(file: IO) -> None:
  """Waits for the disk: a machine may be switched off right after."""
  file.flush()
  with contextlib.suppress(AttributeError, io.UnsupportedOperation):
    os.fsync(file.fileno())  # a bucket's has none


def put_aside(path: epath.Path) -> epath.Path:
  """Renames a damaged file or folder, so that it is neither used nor lost.

  Args:
    path: Of what is damaged; x becomes damaged_x, or damaged_x_2 and so on.

  Returns:
    Its new path.

  Raises:
    UserError: if it cannot be renamed.
  """
  new = path.with_name(f"damaged_{path.name}")
  number = 1
  while new.exists():
    number += 1
    new = path.with_name(f"damaged_{path.name}_{number}")
  try:
    return path.rename(new)
  except Exception as error:
    raise errors.UserError(
      f"{path} is damaged and cannot be renamed: {errors.reason(error)}"
    ) from error


# Where a run's files lie: a folder here, or one of a bucket (gs://...).


def is_remote(path: epath.PathLike) -> bool:
  """Tells whether a path is of a bucket: no appending, no locks there."""
  return "://" in os.fspath(path)


def folder(workdir: epath.PathLike) -> epath.Path:
  """Returns a workdir's path, whole so that it may be shown or handed on."""
  path = epath.Path(workdir)
  # To the parts of pathlib, gs://bucket would be a folder of this one.
  return path if is_remote(path) else path.expanduser().resolve()
