"""JAX's persistent compilation cache, in a folder of trm_jax's own.

The folder is ~/.cache/trm_jax/programs, below $XDG_CACHE_HOME if that is set.
JAX keeps it below 1 GiB (the least recently used programs go first) and names
each program by a digest of the program, the devices, XLA's flags and versions.
Two environment variables of JAX change this:

  JAX_COMPILATION_CACHE_DIR=FOLDER     another folder, or gs://BUCKET/...
  JAX_ENABLE_COMPILATION_CACHE=false   no cache

Whoever may write to the folder can have any code run, so a folder that others
may write to is not used. Several processes that train together use no cache
unless the first variable names a folder that all of them see: JAX writes on the
first process only, and on GPUs those that compile would wait for the others.
"""

import builtins
import contextlib
import glob
import os
import pathlib
import re
import sys
import tempfile
import warnings

import jax
from etils import epath

from trm_jax import errors

_MAX_BYTES = 2**30  # training and evaluation take about 1 MB on a CPU
_MIN_COMPILE_SECONDS = 0.1  # reading is hardly faster than that

# JAX's warnings, with the name of the program.
_TROUBLE = re.compile(
  r"Error (reading|writing) persistent compilation cache entry for"
  r" '([^']+)': (.*)",
  re.DOTALL,
)


def enable() -> None:
  """Enables the cache; call it before anything is compiled.

  A folder that the user named, by environment variable or in `jax.config`, is
  used as it is. Trouble with the folder does not end the run: it is one warning
  on stderr, and the run compiles for itself.
  """
  if not jax.config.values["jax_enable_compilation_cache"]:
    return
  is_ours = jax.config.values["jax_compilation_cache_dir"] is None
  if is_ours:
    if jax.process_count() > 1:
      return
    folder = _folder()
    try:
      _prepare(folder)
    except OSError as error:
      _warn(folder, errors.reason(error))
      return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    jax.config.update(
      "jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS
    )
  _warn_once(repairs=is_ours)


def _folder() -> pathlib.Path:
  """Returns the current user's cache folder."""
  caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return pathlib.Path(caches, "trm_jax", "programs")


def _prepare(folder: pathlib.Path) -> None:
  """Creates the folder; raises OSError if it cannot be used."""
  if not folder.is_absolute():  # of a user without a home
    raise OSError("this user has no home folder")
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  stat = folder.stat()
  if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
    raise OSError("others may write to it; chmod go-w, or delete it")
  tempfile.TemporaryFile(dir=folder).close()


def _warn_once(*, repairs: bool) -> None:
  """Replaces JAX's warnings about the folder by one line.

  Args:
    repairs: whether to remove programs that cannot be read. A file truncated by
      a full disk or a kill would fail at each start: JAX never overwrites one.
  """
  folder = epath.Path(jax.config.values["jax_compilation_cache_dir"])
  show, has_warned = warnings.showwarning, False

  def show_other_warnings(message, *args, **kwargs):
    nonlocal has_warned
    found = _TROUBLE.match(str(message))
    if found is None:
      show(message, *args, **kwargs)
      return
    verb, program, reason = found.groups()
    if repairs and verb == "reading" and not _is_of_files(reason):
      _remove(folder, program)
    if not has_warned:
      has_warned = True
      _warn(folder, " ".join(reason.split()))

  warnings.showwarning = show_other_warnings


def _is_of_files(reason: str) -> bool:
  """Returns whether a warning is about the disk or net, not the content."""
  kind = getattr(builtins, reason.partition(":")[0], None)
  return isinstance(kind, type) and issubclass(kind, OSError)


def _remove(folder: epath.Path, program: str) -> None:
  """Removes all programs of a name: JAX's warning says no more."""
  with contextlib.suppress(OSError):
    for path in folder.glob(f"{glob.escape(program)}-*-cache"):
      path.unlink(missing_ok=True)


def _warn(folder: os.PathLike, reason: str) -> None:
  print(
    f"WARNING: the compilation cache {folder} cannot be used for all programs"
    f" ({reason}); they are compiled again. JAX_COMPILATION_CACHE_DIR=FOLDER"
    " names another folder",
    file=sys.stderr,
    flush=True,
  )
