"""The lines of text files, whatever system wrote them."""

import codecs
import gzip
import pathlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from trm_jax import errors
from trm_jax.data import characters

_CHUNK = 2**18  # bytes read at most at once
_MAX_LINE = 2**20  # bytes


class Line(NamedTuple):
  """A line of text.

  Attributes:
    where: Begins an error message, e.g. "train.csv line 17".
    text: Without its line end; replacement characters for what is not UTF-8.
    error: That the line is no text, or "".
  """

  where: str
  text: str
  error: str


def read_lines(path: pathlib.Path) -> Iterator[Line]:
  """Yields the lines of a file, which may be gzipped (`.gz`).

  Raises:
    UserError: with file name and line, if the file cannot be read.
  """
  opener: Callable = gzip.open if path.suffix == ".gz" else open
  number = 0
  try:
    with opener(path, "rb") as file:
      for line in decode(file, path.name):
        number += 1
        yield line
  except (EOFError, zlib.error, OSError) as error:
    raise errors.UserError(
      f"{path.name} line {number + 1}: cannot be read, "
      f"the file is damaged or not accessible ({error})"
    ) from error


def decode(file: Any, name: str) -> Iterator[Line]:
  """Decodes the lines of UTF-8 or UTF-16, those that are neither included.

  Args:
    file: A binary file with `read1`; its lines may end as on any system.
    name: The file's name, for error messages.

  Yields:
    The lines as text.

  Raises:
    UserError: if a line does not end.
  """
  for number, content in enumerate(_split(file, name), 1):
    where = f"{name} line {number}"
    error = ""
    try:
      text = content.decode()
    except UnicodeDecodeError:
      text = content.decode(errors="replace")
      error = (
        f"{where}: not UTF-8 text, save the file as UTF-8:"
        f" {characters.shown(text.rstrip())}"
      )
    # Spaces are not stripped: a maze may end in open cells. Byte order marks,
    # also those of joined files, and the ends of old files are no text.
    text = text.removeprefix("\ufeff").rstrip("\r\n\0\x1a")
    if "\0" in text and not error:
      error = f"{where}: has a NUL character: {characters.shown(text)}"
    yield Line(where, text, error)


def _split(file: Any, name: str) -> Iterator[bytes]:
  """Yields the lines of a file in UTF-8."""
  rest = b""
  decoder = None
  number = 0
  is_first = True
  while chunk := file.read1(_CHUNK):
    if is_first:
      encoding = _utf16(chunk)
      decoder = encoding and codecs.getincrementaldecoder(encoding)("replace")
      is_first = False
    if decoder:
      chunk = decoder.decode(chunk).encode()
    lines = (rest + chunk).splitlines(keepends=True)
    rest = b""
    # What follows "\r" may be "\n".
    if lines and not lines[-1].endswith(b"\n"):
      rest = lines.pop()
    yield from lines
    number += len(lines)
    if len(rest) > _MAX_LINE:
      raise errors.UserError(
        f"{name} line {number + 1}: does not end within {_MAX_LINE:,} bytes;"
        " this is no text file"
      )
  if rest:
    yield rest


def _utf16(start: bytes) -> str:
  """Returns the encoding of a file that begins so if it is UTF-16, or ""."""
  if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
    return "utf-16"
  zeros = [byte == 0 for byte in start[:4]]
  if zeros == [False, True, False, True]:
    return "utf-16-le"
  return "utf-16-be" if zeros == [True, False, True, False] else ""
