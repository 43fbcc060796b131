"""Files: written atomically, set aside when damaged; workdirs and caches."""

import contextlib
import io
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import IO

from etils import epath

from trm_jax import errors, interrupts


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[IO]:
  """Opens a binary file that appears only once it is complete.

  Args:
    path: Path of the file; missing folders are created.

  Yields:
    The file to write to.

  Raises:
    UserError: if the file cannot be written.
  """
  path = epath.Path(path)
  # Other processes may write the same file: each has its own draft.
  draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with interrupts.draft(os.fspath(draft)):
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
  """Flushes to disk: the machine may be switched off right after."""
  file.flush()
  with contextlib.suppress(AttributeError, io.UnsupportedOperation):
    os.fsync(file.fileno())  # files in buckets have none


def put_aside(path: epath.Path) -> epath.Path:
  """Renames a damaged file or folder, so that it is neither used nor lost.

  Args:
    path: Path; x becomes damaged_x, or damaged_x_2 and so on.

  Returns:
    The new path.

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


def plain_or_gzipped(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  """Returns the file of a name, or of NAME.gz; None if there is neither.

  Args:
    folder: Where to look.
    name: File name.

  Raises:
    UserError: if there are both.
  """
  paths = (folder / name, folder / f"{name}.gz")
  found = [path for path in paths if path.is_file()]
  if len(found) > 1:
    raise errors.UserError(
      f"{folder} has both {name} and {name}.gz: remove one of them"
    )
  return found[0] if found else None


# --- folders: local, or in a bucket (gs://...) -------------------------------


def is_remote(path: epath.PathLike) -> bool:
  """Returns whether a path is in a bucket, without appending and locks."""
  return "://" in os.fspath(path)


def folder(workdir: epath.PathLike) -> epath.Path:
  """Returns the absolute path of a workdir."""
  path = epath.Path(workdir)
  # pathlib would take gs://bucket for a relative path.
  return path if is_remote(path) else path.expanduser().resolve()


def cache_folder(cache_dir: str) -> epath.Path:
  """Returns the folder of prepared data: `config.data.cache_dir`.

  Args:
    cache_dir: The setting; "" for the default of TFDS.
  """
  default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  return epath.Path(cache_dir or default).expanduser()
