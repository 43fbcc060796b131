"""Answers on their way out: to a file, in full or not at all, or to a pipe."""

import contextlib
import csv
import gzip
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files
from trm_jax.data import task as task_lib
from trm_jax.inference import question_rows

Writable = IO[bytes] | gzip.GzipFile

HEADER = ("question", "answer", "confidence", "steps", "valid", "error")


@contextlib.contextmanager
def writing(output_path: str, *, input_path: str) -> Iterator[Writable]:
  """Opens what answers are written to.

  Args:
    output_path: A file, gzipped if called .gz, which takes its place (and that
      of an older one) when all is written; or "-", to print when all is
      written.
    input_path: What the questions are read from, not to be written over.

  Yields:
    What to write the bytes to.

  Raises:
    UserError: if the file cannot be written; already on entry where it is clear
      by then, before any work is done.
  """
  if is_standard(output_path):
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
  """Returns the path of a file to be written, checked before any work.

  Args:
    output_path: As it was typed, not "-".
    hint: What to do where it is no file.

  Raises:
    UserError: if it can be no file, or has no folder.
  """
  path = epath.Path(output_path).expanduser()
  if os.path.exists(path) and not os.path.isfile(path):
    raise errors.UserError(
      f"--output is {output_path!r}, which is no file; {hint}"
    )
  if "://" not in output_path and not path.parent.is_dir():
    raise errors.UserError(
      f"--output is {output_path!r}, but there is no folder {path.parent}"
    )
  return path


def is_standard(output_path: str) -> bool:
  """Tells whether answers are to be printed."""
  return output_path == question_rows.STANDARD


def is_input(path: epath.Path, input_path: str) -> bool:
  """Tells whether a file or folder is the one that is to be read."""
  source = os.path.expanduser(input_path)
  both_exist = os.path.exists(source) and os.path.exists(path)
  return both_exist and os.path.samefile(source, path)


def place(output_path: str) -> str:
  """Returns where answers are to be found, in words."""
  return "standard output" if is_standard(output_path) else output_path


def _print(file: IO[bytes]) -> None:
  try:
    shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()
  except OSError:
    # What is left in the buffer would fail again at the end of the program.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise


def csv_lines(rows: Iterable[Iterable[str]]) -> bytes:
  """Returns rows as lines of CSV in UTF-8."""
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(rows)
  return text.getvalue().encode("utf-8", "surrogateescape")


def texts(tokens: np.ndarray, look: task_lib.Look) -> list[str]:
  """Writes answers as questions are written, one character per cell.

  Nothing is put right: where a network contradicts a clue or answers padding
  (token 0, written as the look's first symbol), that is what is written.

  Args:
    tokens: uint8 [m, L].
    look: Says what character a token is.

  Returns:
    Texts of L characters each, m.
  """
  symbols = np.array(look.symbols)
  return ["".join(row) for row in symbols[tokens].tolist()]
