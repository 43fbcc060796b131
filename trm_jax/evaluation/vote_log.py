"""What an ARC evaluation has done so far, on disk: a kill costs little of it.

A text file: the first line says which evaluation it is of, each further line
holds what one batch brought. All are JSON with their number and a checksum. A
kill may cut off the last line, which is then dropped; nothing else is ever
passed over. In a bucket, where nothing can be appended, the file is written
anew for each batch.
"""

import dataclasses
import errno
import fcntl
import io
import json
import os
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files
from trm_jax.evaluation import voting

_FORMAT = 1  # goes up when what the lines hold changes its form
_MISSING = object()  # entry of a header; None may be one


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
  """What one batch brought.

  Attributes:
    sums: Metric sums over its rows, by name; float64 when read back.
    results: Of the tasks that are finished with it, perhaps none.
  """

  sums: Mapping[str, np.ndarray]
  results: tuple[voting.TaskResult, ...]

  def to_json(self) -> dict[str, Any]:
    """Returns what `from_json` reads, of JSON's types."""
    return {
      "sums": {
        name: np.asarray(value, np.float64).tolist()
        for name, value in self.sums.items()
      },
      "results": [result.to_json() for result in self.results],
    }

  @classmethod
  def from_json(cls, value: Mapping[str, Any]) -> "Entry":
    """Builds the entry that `to_json` took apart."""
    return cls(
      sums={
        name: np.asarray(numbers, np.float64)
        for name, numbers in value["sums"].items()
      },
      results=tuple(map(voting.TaskResult.from_json, value["results"])),
    )


class VoteLog:
  """A file to which one entry is appended for each batch.

  Attributes:
    path: Of the file.
    entries: What the file held when it was opened, in the order of writing.
    replaced: Names of the header's entries in which it differed from the header
      of a log that stood in this place and was therefore left out; () if none
      was.
  """

  def __init__(self, path: epath.PathLike, header: Mapping[str, Any]):
    """Opens a log to go on with it, or begins one.

    Args:
      path: A file, here or in a bucket; it and its folder need not exist.
      header: All that the votes depend on, such as settings and digests of
        weights and puzzles; of JSON's types. The same as when the log was
        begun, or it is begun anew.

    Raises:
      UserError: if the file is damaged or cannot be written.
    """
    self.path = epath.Path(path).expanduser()
    self.entries: list[Entry] = []
    self.replaced: tuple[str, ...] = ()
    self._num_lines = 0
    wanted = json.loads(json.dumps({**header, "format": _FORMAT}))
    try:
      self.path.parent.mkdir(parents=True, exist_ok=True)
      self._file: _LocalFile | _Object = (
        _Object(self.path)
        if files.is_remote(self.path)
        else _LocalFile(self.path)
      )
    except Exception as error:
      self._tell(error)
    try:
      size = self._read(wanted)
      self._file.truncate(size)
      if not size:
        self._write(wanted)
    except Exception as error:
      self._file.close()
      self._tell(error)

  def append(self, entry: Entry) -> None:
    """Adds an entry; when it returns, that is on the disk.

    Raises:
      UserError: if the file cannot be written.
    """
    try:
      self._write(entry.to_json())
    except Exception as error:
      self._tell(error)

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def __enter__(self) -> "VoteLog":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _read(self, wanted: dict[str, Any]) -> int:
    """Sets `entries` and `replaced`; returns how many bytes to keep."""
    if not self.path.exists():
      return 0
    content = self.path.read_bytes()
    *lines, cut_off = content.split(b"\n")
    if not lines:
      return 0
    found = self._parse(lines[0], 1)
    if found != wanted:
      self.replaced = tuple(
        name
        for name in sorted({*wanted, *found})
        if wanted.get(name, _MISSING) != found.get(name, _MISSING)
      )
      return 0
    self.entries = [
      Entry.from_json(self._parse(line, number))
      for number, line in enumerate(lines[1:], start=2)
    ]
    self._num_lines = len(lines)
    return len(content) - len(cut_off)

  def _parse(self, line: bytes, number: int) -> dict[str, Any]:
    """Returns the content of a line, which is then as it was written.

    Its number shows when two evaluations have written to one file.
    """
    try:
      value = json.loads(line)
      content = value["content"]
      whole = value["crc32"] == zlib.crc32(_dump(content))
      if not whole or value["line"] != number:
        raise ValueError("wrong checksum or number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
      raise errors.UserError(
        f"{self.path} line {number} is damaged; delete the file to count the"
        " votes of all tasks anew"
      ) from error
    return content

  def _write(self, content: dict[str, Any]) -> None:
    self._num_lines += 1
    line = {
      "line": self._num_lines,
      "crc32": zlib.crc32(_dump(content)),
      "content": content,
    }
    self._file.write(_dump(line) + b"\n")

  def _tell(self, error: Exception) -> NoReturn:
    """Raises the error, in one line if it is the file system's."""
    if not errors.is_of_files(error):
      raise error
    raise errors.UserError(
      f"cannot keep the votes in {self.path}: {errors.reason(error)}"
    ) from error


class _LocalFile:
  """A file that is appended to; locked until it is closed or we are killed."""

  def __init__(self, path: epath.Path):
    self._file = io.FileIO(os.fspath(path), "a")
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      self._file.close()
      raise errors.UserError(
        f"another evaluation is writing {path}; wait until it has ended"
      ) from error
    except OSError as error:
      if error.errno not in (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK):
        self._file.close()
        raise  # some network file systems have no locks

  def truncate(self, size: int) -> None:
    """Keeps only the first bytes."""
    self._file.truncate(size)

  def write(self, line: bytes) -> None:
    """Appends; when it returns, the line is on the disk."""
    while line:  # an unbuffered file may take only a part
      line = line[self._file.write(line) :]
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Gives the lock back."""
    self._file.close()


class _Object:
  """A bucket's: of two that write it, the last one wins, whole."""

  def __init__(self, path: epath.Path):
    self._path = path
    self._content = b""

  def truncate(self, size: int) -> None:
    """Keeps only the first bytes of what is there."""
    self._content = self._path.read_bytes()[:size] if size else b""

  def write(self, line: bytes) -> None:
    """Writes the object anew with one more line."""
    self._content += line
    self._path.write_bytes(self._content)

  def close(self) -> None:
    """Has nothing left to do."""


def _dump(content: Any) -> bytes:
  return json.dumps(content).encode()
