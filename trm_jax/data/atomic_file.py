"""Files that are there in full or not at all."""

import contextlib
import uuid
from collections.abc import Iterator
from typing import IO

from etils import epath

from trm_jax import errors


@contextlib.contextmanager
def writing(path: epath.PathLike) -> Iterator[IO]:
  """Opens a binary file that takes its place only when all is written.

  Args:
    path: Where it is to stand; folders that are missing are made.

  Yields:
    What to write the bytes to.

  Raises:
    UserError: if the file cannot be written.
  """
  path = epath.Path(path)
  # Other processes may write the same file: each has a draft of its own.
  draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
      with draft.open("wb") as file:
        yield file
      draft.replace(path)
    finally:
      draft.unlink(missing_ok=True)
  except OSError as error:
    reason = error.strerror or errors.first_line(error)
    raise errors.UserError(f"cannot write {path}: {reason}") from error
