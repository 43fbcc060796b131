"""Event files that TensorBoard opens, written without TensorFlow."""

import os
import time
from collections.abc import Mapping

from etils import epath
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2


class Events:
  """One event file.

  Not tensorboardX's SummaryWriter, which writes in a thread of its own: on a
  full disk that one dies with a traceback, and who waits for it waits for ever.
  """

  def __init__(self, folder: epath.Path, *, first_step: int):
    """Opens a file in a local folder, which is made if missing.

    Args:
      folder: of the run's event files.
      first_step: what earlier files have of later steps is not shown.

    Raises:
      OSError: the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A run that starts twice in a second must not overwrite its file.
    self._writer = event_file_writer.EventsWriter(
      str(folder / "events"), filename_suffix=f".{os.getpid()}"
    )
    if first_step:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(first_step + 1, session_log=start)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes values by tag; when it returns, they are in the file."""
    for tag, value in values.items():
      self._write(step, summary=summary.scalar(tag, value))
    self._writer.flush()

  def close(self) -> None:
    """Closes the file."""
    self._writer.close()

  def _write(self, step: int, **content) -> None:
    self._writer.write_event(
      event_pb2.Event(wall_time=time.time(), step=step, **content)
    )
