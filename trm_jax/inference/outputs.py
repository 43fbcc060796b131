"""Writes answers to a file, atomically, or to standard output."""

import contextlib
import csv
import gzip
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files
from trm_jax.data import task as task_lib
from trm_jax.inference import inputs

Writable = IO[bytes] | gzip.GzipFile

HEADER = ("question", "answer", "confidence", "steps", "valid", "error")
MOST_DRAWN = 20  # puzzles


class DrawnPuzzle(NamedTuple):
  """A puzzle to be drawn.

  Attributes:
    name: Name of the files, without ending.
    tokens: The question, uint8 [L].
    row: Row of the puzzle table.
  """

  name: str
  tokens: np.ndarray
  row: int = 0


# Draws the first `MOST_DRAWN` puzzles of an input.
Draw = Callable[[Sequence[DrawnPuzzle]], None]


@contextlib.contextmanager
def writing(output_path: str, *, input_path: str) -> Iterator[Writable]:
  """Opens the output for answers.

  Args:
    output_path: A file, gzipped if its name ends in .gz, which appears (and
      replaces an older one) once it is complete; or "-", to print everything at
      the end.
    input_path: The input, which must not be overwritten.

  Yields:
    A binary file.

  Raises:
    UserError: if the file cannot be written; on entry where possible, before
      any work is done.
  """
  if is_standard(output_path):
    if sys.stdout is None:
      raise errors.UserError(
        "--output is '-', but standard output is closed: name a file"
      )
    try:
      with tempfile.TemporaryFile() as file:
        yield file
        file.seek(0)
        _print(file)
    except OSError as error:
      raise errors.UserError(
        f"cannot write to standard output: {errors.reason(error)}"
      ) from error
    return
  path = place_for(output_path, hint="'-' prints the answers")
  if is_input(path, input_path):
    raise errors.UserError(
      f"--output is {output_path!r}, which is the --input: name another file"
    )
  with files.writing(path) as file:
    if path.suffix != ".gz":
      yield file
    else:
      with gzip.GzipFile(fileobj=file, mode="wb", filename="") as zipped:
        yield zipped


def place_for(output_path: str, *, hint: str) -> epath.Path:
  """Returns the path of a file to write, checked before any work is done.

  Args:
    output_path: The path as given; not "-".
    hint: Advice if it is not a file.

  Raises:
    UserError: if the path exists but is not a file, its folder is missing, or
      one of them cannot be written.
  """
  path = epath.Path(output_path).expanduser()
  if os.path.exists(path) and not os.path.isfile(path):
    raise errors.UserError(
      f"--output is {output_path!r}, which is not a file; {hint}"
    )
  if "://" not in output_path and not path.parent.is_dir():
    raise errors.UserError(
      f"--output is {output_path!r}, but there is no folder {path.parent}"
    )
  files.check_writable(path)
  return path


def is_standard(output_path: str) -> bool:
  """Returns whether answers are printed."""
  return output_path == inputs.STANDARD


def is_input(path: epath.Path, input_path: str) -> bool:
  """Returns whether a path is the input."""
  source = os.path.expanduser(input_path)
  both_exist = os.path.exists(source) and os.path.exists(path)
  return both_exist and os.path.samefile(source, path)


def place(output_path: str) -> str:
  """Returns the location of the answers, for messages."""
  return "standard output" if is_standard(output_path) else output_path


def _print(file: IO[bytes]) -> None:
  try:
    shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
  except OSError:
    # The rest of the buffer would fail again when the program exits.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise


def csv_lines(rows: Iterable[Iterable[str]]) -> bytes:
  """Returns rows as CSV in UTF-8."""
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(rows)
  return text.getvalue().encode("utf-8", "surrogateescape")


def texts(tokens: np.ndarray, look: task_lib.Look) -> list[str]:
  """Returns answers in the format of questions, one character per cell.

  Nothing is corrected: an answer may contradict a clue or have padding (token
  0, shown as the first symbol).

  Args:
    tokens: Answers, uint8 [m, L].
    look: The symbol of each token.

  Returns:
    m texts of L characters each.
  """
  symbols = np.array(look.symbols)
  return ["".join(row) for row in symbols[tokens].tolist()]
