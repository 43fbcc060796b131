"""Files: written atomically, set aside when damaged; workdirs and caches."""

import contextlib
import fcntl
import glob
import importlib.util
import io
import os
import pathlib
import shutil
import stat
import uuid
from collections.abc import Iterator
from typing import IO

from etils import epath

from trm_jax import errors
from trm_jax.terminal import interrupts


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[IO]:
  """Opens a binary file that appears only once it is complete.

  An existing file keeps its mode and owner, and a symbolic link keeps its
  target. A killed process leaves at most one draft behind, which the next one
  to write the file removes.

  Args:
    path: Path of the file; missing folders are created.

  Yields:
    The file to write to.

  Raises:
    UserError: if the file cannot be written; where possible on entry.
  """
  path = epath.Path(path)
  try:
    if not is_remote(path):
      path = epath.Path(os.path.realpath(path))
    check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft, file = _open_draft(path)
    try:
      with interrupts.draft(os.fspath(draft)), file:
        yield file
        _sync(file)
        if not is_remote(path):
          _replace(path, draft, file)  # locked until then
      if is_remote(path):
        draft.replace(path)
    finally:
      draft.unlink(missing_ok=True)
  except Exception as error:
    if not errors.is_of_files(error):
      raise
    reason = errors.reason(error)
    raise errors.UserError(f"cannot write {path}: {reason}") from error


def check_writable(path: epath.PathLike) -> None:
  """Raises UserError unless a file can be written, as far as can be known.

  Args:
    path: Path of a file, which may be missing, as may its folder.
  """
  if is_remote(path):
    return
  real = pathlib.Path(os.path.realpath(path))
  found = next(place for place in real.parents if place.exists())
  if not found.is_dir():
    raise errors.UserError(f"cannot write {path}: Not a directory ({found})")
  for place in (real, found) if real.exists() else (found,):
    if not os.access(place, os.W_OK):
      raise errors.UserError(
        f"cannot write {path}: Permission denied ({place})"
      )


def _open_draft(path: epath.Path) -> tuple[epath.Path, IO]:
  """Opens a file to become `path`, locked; removes those of killed processes.

  Other processes may write the same file: each has its own draft.
  """
  if is_remote(path):
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    return draft, draft.open("wb")
  start = f".{path.name}."
  for old in path.parent.glob(f"{glob.escape(start)}*.draft"):
    # Whoever is still writing holds the lock.
    with contextlib.suppress(OSError), old.open("rb") as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      old.unlink()
  while True:
    draft = path.with_name(f"{start}{uuid.uuid4().hex[:12]}.draft")
    file = draft.open("wb")
    with contextlib.suppress(OSError):  # some network file systems have none
      fcntl.flock(file, fcntl.LOCK_EX)
    if draft.exists():  # nobody took it for abandoned before it was locked
      return draft, file


def _replace(path: epath.Path, draft: epath.Path, file: IO) -> None:
  """Puts an open draft in the place of a file, with its mode and owner."""
  if path.exists():
    old, new = os.stat(path), os.fstat(file.fileno())
    try:
      if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        os.fchown(file.fileno(), old.st_uid, old.st_gid)
      os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
    except PermissionError:  # only the superuser gives files away
      shutil.copyfile(draft, path)
      return
  draft.replace(path)


def _sync(file: IO) -> None:
  """Flushes to disk: the machine may be switched off right after."""
  file.flush()
  with contextlib.suppress(AttributeError, io.UnsupportedOperation):
    os.fsync(file.fileno())  # files in buckets have none


def try_lock(file: IO) -> bool:
  """Locks a local file, open for writing, until it or the process is closed.

  Returns:
    False if another process has locked it.

  Raises:
    OSError: the file system has no locks.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def denied(folder: epath.PathLike) -> str:
  """Returns what in a local folder may not be read, and why; '' if all may.

  Args:
    folder: Path of a folder, with all below it, or of a file.
  """

  def fails(error: OSError):
    raise error

  try:
    if os.path.isfile(folder):
      open(folder, "rb").close()
    elif not is_remote(folder):
      for place, _, names in os.walk(folder, onerror=fails):
        for name in names:
          open(os.path.join(place, name), "rb").close()
  except PermissionError as error:
    return f"{error.filename}: {errors.reason(error)}{_rights(error.filename)}"
  except OSError:
    pass  # other damage
  return ""


def check_listable(folder: epath.PathLike) -> None:
  """Raises UserError if a folder is there but may not be read."""
  if is_remote(folder):
    return
  try:
    os.scandir(folder).close()
  except PermissionError as error:
    raise errors.UserError(
      f"cannot read {folder}: {errors.reason(error)}{_rights(folder)}"
    ) from error
  except OSError:
    pass  # missing, or no folder


def _rights(path: epath.PathLike) -> str:
  """Returns the mode and owner of a file, as far as they can be seen."""
  try:
    found = os.stat(path)
  except OSError:  # of a folder that cannot be entered
    return ""
  return f" ({stat.filemode(found.st_mode)}, owner {found.st_uid})"


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


# Schemes of buckets, and the packages of which one reads and writes them.
_BUCKETS = {"gs": ("gcsfs", "tensorflow"), "s3": ("s3fs", "tensorflow")}


def check_scheme(path: epath.PathLike, *, buckets: bool = True) -> None:
  """Checks that a path which the user names is local, or in a bucket.

  Args:
    path: As given; empty is no path.
    buckets: Whether it may be in a bucket.

  Raises:
    UserError: it is an address of another kind, or a package is missing.
  """
  scheme, is_address, rest = os.fspath(path).partition("://")
  if not is_address:
    return
  if scheme == "file":
    raise errors.UserError(f"{path}: write a local path as it is, {rest}")
  if scheme not in _BUCKETS:
    raise errors.UserError(
      f"{path}: {scheme}:// cannot be read or written; name a local path"
      + (" or one of a bucket, gs://..." if buckets else "")
    )
  if not buckets:
    raise errors.UserError(
      f"{path}: this must be a local path; copy the files from the bucket"
    )
  if not any(map(_is_installed, _BUCKETS[scheme])):
    package = _BUCKETS[scheme][0]
    raise errors.UserError(
      f"{path}: {scheme}:// needs the package {package}; pip install {package}"
    )


def _is_installed(package: str) -> bool:
  try:
    return importlib.util.find_spec(package) is not None
  except ValueError:  # imported, but from no file
    return True


def folder(workdir: epath.PathLike) -> epath.Path:
  """Returns the absolute path of a workdir; UserError as `check_scheme`."""
  check_scheme(workdir)
  path = epath.Path(workdir)
  # pathlib would take gs://bucket for a relative path.
  return path if is_remote(path) else path.expanduser().resolve()


def cache_folder(cache_dir: str) -> epath.Path:
  """Returns the folder of prepared data: `config.data.cache_dir`.

  Args:
    cache_dir: The setting; "" for the default of TFDS.
  """
  check_scheme(cache_dir)
  default = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
  return epath.Path(cache_dir or default).expanduser()
