"""Compiled programs that are kept, so that the next start need not compile.

JAX does the keeping. Its name of a program is a digest of the program itself,
of the devices (for a CPU its instruction sets: machines that share a home
folder do not take each other's programs), of XLA's flags and the versions.

The folder is ~/.cache/trm_jax/compiled, or $XDG_CACHE_HOME/trm_jax/compiled;
at most 1 GiB of programs is left in it. Two environment variables of JAX:

  JAX_COMPILATION_CACHE_DIR=FOLDER     another folder, or gs://BUCKET/...
  JAX_ENABLE_COMPILATION_CACHE=false   nothing is kept

Whoever may write to the folder can have any code run. Several processes that
train as one keep nothing unless the first variable names a folder that all of
them see: JAX writes on the first process only, and on GPUs those that compile
would wait for those that need not.
"""

import builtins
import contextlib
import glob
import os
import pathlib
import re
import shutil
import sys
import tempfile
import warnings

import jax
from etils import epath

from trm_jax import errors

_MAX_BYTES = 2**30  # a training and its evaluations are 1 MB on a CPU
_LEAST_FREE_BYTES = 2**26  # a full disk would cut off what is written
_LEAST_SECONDS = 0.1  # what compiles faster is hardly faster to read

# What JAX warns of, with the name of the program.
_TROUBLE = re.compile(
  r"Error (reading|writing) persistent compilation cache entry for"
  r" '([^']+)': (.*)",
  re.DOTALL,
)


def enable() -> None:
  """Keeps what is compiled from now on; to be called before the first of it.

  A folder that the user has named, by environment variable or in `jax.config`,
  is left as it is, whatever is in it. No trouble with the folder ends the run:
  one line on stderr tells of it, and the run compiles for itself.
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
    jax.config.update(
      "jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS
    )
  _tell_trouble_once(mends=is_ours)


def _folder() -> pathlib.Path:
  """Returns this user's folder of compiled programs."""
  caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return pathlib.Path(caches, "trm_jax", "compiled")


def _prepare(folder: pathlib.Path) -> None:
  """Makes room in the folder; OSError if it cannot be used."""
  if not folder.is_absolute():  # of a user without a home
    raise OSError("this user has no home folder")
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  stat = folder.stat()
  if stat.st_uid != os.getuid() or stat.st_mode & 0o022:
    raise OSError("others may write to it; chmod go-w, or delete it")
  tempfile.TemporaryFile(dir=folder).close()
  _remove_unused(folder, max_bytes=_MAX_BYTES)
  free = shutil.disk_usage(folder).free
  if free < _LEAST_FREE_BYTES:
    raise OSError(f"only {free / 1e6:.0f} MB of its disk are free")


def _remove_unused(folder: pathlib.Path, *, max_bytes: int) -> None:
  """Removes the programs that were not used for longest, so that few are left.

  JAX could do it, but for each program that is read it would wait for a lock,
  with a package that does not come with it.
  """
  programs = []
  for path in folder.glob("*-cache"):
    with contextlib.suppress(FileNotFoundError):  # another process was faster
      stat = path.stat()
      # Not all file systems note when a file was read.
      programs.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
  total = 0
  for _, size, path in sorted(programs, reverse=True):
    total += size
    if total > max_bytes:
      path.unlink(missing_ok=True)


def _tell_trouble_once(*, mends: bool) -> None:
  """Has all that goes wrong with the folder told in one line.

  Args:
    mends: removes programs that cannot be read, so that they are kept anew. A
      file that was cut off, by a full disk or a kill, would be read in vain at
      each start: JAX never writes one that is there.
  """
  folder = epath.Path(jax.config.values["jax_compilation_cache_dir"])
  show, told = warnings.showwarning, False

  def show_other_warnings(message, *args, **kwargs):
    nonlocal told
    found = _TROUBLE.match(str(message))
    if found is None:
      show(message, *args, **kwargs)
      return
    verb, program, reason = found.groups()
    if mends and verb == "reading" and not _is_of_files(reason):
      _remove(folder, program)
    if not told:
      told = True
      _warn(folder, " ".join(reason.split()))

  warnings.showwarning = show_other_warnings


def _is_of_files(reason: str) -> bool:
  """Tells whether a warning is of the disk or net, not of what was read."""
  kind = getattr(builtins, reason.partition(":")[0], None)
  return isinstance(kind, type) and issubclass(kind, OSError)


def _remove(folder: epath.Path, program: str) -> None:
  """Removes what is kept of the programs of a name: JAX tells no more."""
  with contextlib.suppress(OSError):
    for path in folder.glob(f"{glob.escape(program)}-*-cache"):
      path.unlink(missing_ok=True)


def _warn(folder: os.PathLike, reason: str) -> None:
  print(
    f"WARNING: not all compiled programs can be kept in {folder} or read from"
    f" it ({reason}): the run compiles them; JAX_COMPILATION_CACHE_DIR=FOLDER"
    " names another folder",
    file=sys.stderr,
    flush=True,
  )
