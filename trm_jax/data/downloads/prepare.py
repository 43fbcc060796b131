"""Puzzles that TFDS prepares once and keeps in a cache folder."""

import contextlib
import hashlib
import io
import pathlib
import sys
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from trm_jax import errors

PROGRESS_EVERY = 100_000  # puzzles between two lines of progress

_READ_CHUNK = 10_000  # records fetched at once
_CONNECT_SECONDS = 20


class PuzzleBuilder(tfds.core.GeneratorBasedBuilder):
  """What the builders of all kinds of puzzles share."""

  VERSION = tfds.core.Version("1.0.0")

  title: ClassVar[str]  # what the user calls these puzzles
  folder_hint: ClassVar[str]  # what a folder of them looks like

  # What stopped a preparation. TFDS rewrites the exceptions of its generators;
  # this is the original.
  user_error: errors.UserError | None = None

  @contextlib.contextmanager
  def keeping_user_errors(self) -> Iterator[None]:
    """Keeps the UserError that stops a preparation."""
    try:
      yield
    except errors.UserError as error:
      self.user_error = error
      raise

  def download(
    self, dl_manager: Any, urls: Mapping[str, str], *, origin: str
  ) -> dict[str, pathlib.Path]:
    """Downloads public files.

    Args:
      dl_manager: As TFDS hands it to `_split_generators`.
      urls: Address of every file.
      origin: The address that an error names.

    Returns:
      Where each file is now.

    Raises:
      UserError: if that fails.
    """
    with self.keeping_user_errors():
      try:
        # TFDS tries for minutes; without a network, say so at once.
        request = urllib.request.Request(
          next(iter(urls.values())), method="HEAD"
        )
        with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS):
          pass
        return dl_manager.download(dict(urls))
      except Exception as error:  # whatever the network comes up with
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise errors.UserError(
          f"cannot download {origin} ({reason}): set config.data.source to a "
          f"folder with {self.folder_hint}"
        ) from error


Builder = TypeVar("Builder", bound=PuzzleBuilder)


def cache_folder(cache_dir: str) -> epath.Path:
  """Returns where prepared data are kept; "" is the default of TFDS."""
  return epath.Path(cache_dir or tfds.core.constants.DATA_DIR).expanduser()


def prepare(
  builder_class: type[Builder],
  *,
  config: tfds.core.BuilderConfig | None,
  origin: str,
  cache_dir: str,
) -> Builder:
  """Returns a builder whose data are prepared, preparing them if need be.

  Args:
    builder_class: Of the puzzles.
    config: Which of its configurations; None if there is but one.
    origin: Where the puzzles come from, for the line that says so.
    cache_dir: Where prepared data are kept; "" for the default of TFDS.

  Returns:
    The builder.

  Raises:
    UserError: if the puzzles are missing or malformed, if they cannot be
      downloaded or written; nothing is left behind then.
  """
  data_dir = cache_folder(cache_dir)
  arguments = {
    "data_dir": data_dir,
    "config": config,
    "file_format": "array_record",
  }
  folder = data_dir / builder_class.name / (config.name if config else "")
  folder /= str(builder_class.VERSION)
  if folder.exists():
    with damage_named(folder):
      return builder_class(**arguments)
  with _quiet_tfds():
    builder = builder_class(**arguments)
    show_progress(f"preparing {builder.title}, once, from {origin}")
    try:
      builder.download_and_prepare()
    except Exception as error:
      if builder.user_error is not None:
        _remove_empty(folder.parent)
        raise builder.user_error from None
      if folder.exists():  # another process was faster
        return builder_class(**arguments)
      if not isinstance(error, OSError):
        raise
      raise errors.UserError(
        f"cannot write the prepared puzzles to config.data.cache_dir "
        f"{cache_dir!r}: {error}"
      ) from error
    return builder


def open_split(builder: PuzzleBuilder, split: str) -> Sequence[Any]:
  """Opens the records of a split; UserError if its files are damaged."""
  with damage_named(builder.data_path):
    records = builder.as_data_source(split)
    len(records)
  return records


def read(
  builder: PuzzleBuilder, split: str, records: Any, chosen: Sequence[int]
) -> Iterator[dict[str, Any]]:
  """Yields chosen records of a split, and shows progress if they are many.

  Args:
    builder: Of the records.
    split: Its name.
    records: As `open_split` returns them.
    chosen: Numbers of the records.

  Yields:
    The records in that order.

  Raises:
    UserError: if the prepared files are damaged.
  """
  for start in range(0, len(chosen), _READ_CHUNK):
    if start and start % PROGRESS_EVERY == 0:
      show_progress(f"reading the {split} set: {start:,} of {len(chosen):,}")
    with damage_named(builder.data_path):
      chunk = records.__getitems__(list(chosen[start : start + _READ_CHUNK]))
    yield from chunk


@contextlib.contextmanager
def damage_named(folder: epath.Path) -> Iterator[None]:
  """Turns whatever a damaged file raises into advice."""
  try:
    with _quiet_tfds():
      yield
  except Exception as error:  # array_record and TFDS raise many kinds
    raise errors.UserError(
      f"the prepared puzzles in {folder} are damaged"
      f" ({errors.first_line(error)}); delete that folder to have them"
      " prepared again"
    ) from error


def digest(files: Iterable[tuple[str, pathlib.Path]]) -> str:
  """Returns a hex digest of what the files hold: a change is a new data set.

  Args:
    files: What each file is for and where it is; in any order.

  Returns:
    24 hex digits.

  Raises:
    UserError: if a file cannot be read.
  """
  result = hashlib.blake2b(digest_size=12)
  for use, path in sorted(files):
    try:
      with path.open("rb") as file:
        content = hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
      raise errors.UserError(
        f"{path} cannot be read: {error.strerror}"
      ) from error
    # The suffix decides how a file is read.
    result.update(f"{use} {path.suffix} {content} ".encode())
  return result.hexdigest()


def show_progress(text: str) -> None:
  """Prints a line to the terminal, on stderr."""
  print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
  """Keeps TFDS from reporting every step it takes."""
  verbosity = logging.get_verbosity()
  tfds.disable_progress_bar()
  logging.set_verbosity(min(verbosity, logging.ERROR))
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


def _remove_empty(folder: epath.Path) -> None:
  """Removes a failed preparation's empty folder, if it got as far as that."""
  if folder.exists() and not any(folder.iterdir()):
    folder.rmdir()
