"""Errors that users can fix, as one line each."""

import contextlib
import errno
import functools
import logging
import os
import re
import sys
import types
from collections.abc import Iterator


class UserError(Exception):
  """An error that the user can fix; its text is one line that says how.

  `main` prints it as `error: <text>` and exits with status 1, without a
  traceback. Raise it for missing files, bad rows, misspelt or contradictory
  settings; never for a bug of the program itself.
  """


def first_line(error: BaseException) -> str:
  """Returns the first line of an error's message."""
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:200]


# Reasons of failed reads and writes, in words.

# How TensorStore reports an error of the operating system.
_OS_ERROR = re.compile(r"os_error_code='(\d+)'|OS error (\d+)")
# May succeed later or on a bigger machine: no sign of damaged files.
_TROUBLE = re.compile(
  r"RESOURCE_EXHAUSTED|UNAVAILABLE|DEADLINE_EXCEEDED|PERMISSION_DENIED"
  r"|UNAUTHENTICATED|Out of memory"
)
_MEMORY = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of memory")
# TensorStore's message about a part of an array.
_PART = re.compile(r'^([A-Z_]+): .*?"([^"]+)" in OCDBT', re.DOTALL)
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_MISSING_NUMBERS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
# Packages that access buckets: their errors are no sign of damaged files.
_NETWORK = ("aiohttp", "fsspec", "gcsfs", "google", "requests", "urllib3")


def reason(error: BaseException) -> str:
  """Returns the root cause of an error, as one line."""
  *_, root = _chain(error)
  for cause in _chain(error):
    number = _errno(cause)
    if number is not None:
      return os.strerror(number)
  found = _PART.search(str(root))
  if found:
    return f"{found.group(1)} in {found.group(2)}"
  text = first_line(root).rstrip(".")
  return f"{text} is missing" if isinstance(root, KeyError) else text


def is_trouble(error: BaseException) -> bool:
  """Returns whether reading failed although the files may be intact."""

  def is_one(cause):
    if isinstance(cause, OSError):  # a lost connection has no number
      return not isinstance(cause, _MISSING)
    return (
      isinstance(cause, MemoryError)
      or type(cause).__module__.partition(".")[0] in _NETWORK
      or _errno(cause) not in (None, *_MISSING_NUMBERS)
      or bool(_TROUBLE.search(str(cause)))
    )

  return any(map(is_one, _chain(error)))


def is_out_of_memory(error: BaseException) -> bool:
  """Returns whether the host or a device had too little memory."""
  return any(
    isinstance(cause, MemoryError)
    # Of JAX, from XLA.
    or (
      type(cause).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
      and bool(_MEMORY.search(str(cause)))
    )
    for cause in _chain(error)
  )


def is_of_files(error: BaseException) -> bool:
  """Returns whether an error comes from the file system, not from a bug."""
  if isinstance(error, UserError):
    return False
  return isinstance(error, OSError) or is_trouble(error)


def _errno(error: BaseException) -> int | None:
  """Returns the errno of an error, if it has one."""
  if isinstance(error, OSError):
    return error.errno
  found = _OS_ERROR.search(str(error))
  return int(found.group(1) or found.group(2)) if found else None


def _chain(error: BaseException) -> Iterator[BaseException]:
  """Yields an error and its causes, the root cause last."""
  cause: BaseException | None = error
  while cause is not None:
    yield cause
    cause = cause.__cause__ or (
      None if cause.__suppress_context__ else cause.__context__
    )


def _denied(error: BaseException, what: str) -> str:
  """Names the file that permission was denied for, if `what` does not."""
  for cause in _chain(error):
    if isinstance(cause, PermissionError) and cause.filename:
      name = str(cause.filename)
      return "" if what.endswith(name) else f" ({name})"
  return ""


@functools.cache  # once
def silence_orbax() -> None:
  """Suppresses the tracebacks that Orbax prints in addition to raising.

  What it raises is reported in one line; an array that fails leaves others
  behind that cannot report any more. --verbosity=0 shows Orbax's own messages.
  """
  hook = sys.unraisablehook

  def unraisable(left):
    by_coroutine = isinstance(left.object, types.CoroutineType) and (
      "orbax" in left.object.cr_code.co_filename
    )
    if not by_coroutine and "Event loop is closed" not in str(left.exc_value):
      hook(left)

  def is_told(record: logging.LogRecord) -> bool:
    where = record.pathname + record.getMessage()
    if "Given directory is read only" in where:
      return True  # opened for reading on purpose
    if logging.getLogger("absl").isEnabledFor(logging.INFO):
      return False
    return "orbax" in where and bool(record.exc_info)

  sys.unraisablehook = unraisable
  for name in ("absl", "asyncio"):
    logging.getLogger(name).addFilter(lambda record: not is_told(record))


@contextlib.contextmanager
def user_error_context(what: str) -> Iterator[None]:
  """Turns any error into a UserError of one line: what failed, and why.

  Raises:
    UserError: beginning with `what`, or the one raised inside.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    raise UserError(f"{what}: {reason(error)}{_denied(error, what)}") from error
