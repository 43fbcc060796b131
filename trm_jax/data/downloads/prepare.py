"""Downloads prepared once by TFDS and cached as array records."""

import contextlib
import io
import pathlib
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from trm_jax import errors
from trm_jax.data import files
from trm_jax.terminal import progress

_READ_CHUNK = 10_000  # records fetched at once
_CONNECT_SECONDS = 20


class PuzzleBuilder(tfds.core.GeneratorBasedBuilder):
  """Base class of the builders.

  Attributes:
    title: The data set's name, for the user.
    folder_hint: What a local folder of such puzzles contains.
    user_error: The error that stopped a preparation. TFDS rewrites the
      exceptions of its generators; this is the original.
  """

  VERSION = tfds.core.Version("2.0.0")

  title: ClassVar[str]
  folder_hint: ClassVar[str]
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
      dl_manager: The argument of `_split_generators`.
      urls: Address of every file.
      origin: The address that an error names.

    Returns:
      Path of each file.

    Raises:
      UserError: if that fails.
    """
    with self.keeping_user_errors():
      try:
        # TFDS retries for minutes; without a network, fail at once.
        request = urllib.request.Request(
          next(iter(urls.values())), method="HEAD"
        )
        with urllib.request.urlopen(request, timeout=_CONNECT_SECONDS):
          pass
        return dl_manager.download(dict(urls))
      except Exception as error:  # networks raise many kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise errors.UserError(
          f"cannot download {origin} ({reason}): set config.data.source to a "
          f"folder with {self.folder_hint}"
        ) from error


Builder = TypeVar("Builder", bound=PuzzleBuilder)


def prepare(
  builder_class: type[Builder], *, origin: str, cache_dir: str
) -> Builder:
  """Returns a builder whose data are prepared, which is done on first use.

  Args:
    builder_class: The data set.
    origin: Its address, to show to the user.
    cache_dir: `config.data.cache_dir`.

  Returns:
    The builder.

  Raises:
    UserError: if the puzzles are malformed or cannot be downloaded or written;
      nothing is left behind then.
  """
  data_dir = files.cache_folder(cache_dir)
  arguments = {"data_dir": data_dir, "file_format": "array_record"}
  folder = data_dir / builder_class.name / str(builder_class.VERSION)
  if folder.exists():
    with damage_named(folder):
      return builder_class(**arguments)
  with _quiet_tfds():
    builder = builder_class(**arguments)
    progress.write(
      f"preparing {builder.title}, once, from {origin}", sys.stderr
    )
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
  """Yields some records of a split, with progress if there are many.

  Args:
    builder: The data set.
    split: Name of the split.
    records: Its records, from `open_split`.
    chosen: Indices of the records.

  Yields:
    The records in that order.

  Raises:
    UserError: if the prepared files are damaged.
  """
  shown = progress.Progress(
    f"puzzles of the {split} set", len(chosen), verb="read"
  )
  with shown:
    for start in range(0, len(chosen), _READ_CHUNK):
      shown.update(start)
      with damage_named(builder.data_path):
        chunk = records.__getitems__(list(chosen[start : start + _READ_CHUNK]))
      yield from chunk


@contextlib.contextmanager
def damage_named(folder: epath.Path) -> Iterator[None]:
  """Turns any error of a damaged file into a UserError with advice."""
  try:
    with _quiet_tfds():
      yield
  except Exception as error:  # array_record and TFDS raise many kinds
    raise errors.UserError(
      f"the prepared puzzles in {folder} are damaged"
      f" ({errors.first_line(error)}); delete that folder to have them"
      " prepared again"
    ) from error


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
  """Silences TFDS."""
  verbosity = logging.get_verbosity()
  tfds.disable_progress_bar()
  logging.set_verbosity(min(verbosity, logging.ERROR))
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logging.set_verbosity(verbosity)


def _remove_empty(folder: epath.Path) -> None:
  """Removes the empty folder of a failed preparation."""
  if folder.exists() and not any(folder.iterdir()):
    folder.rmdir()
