"""What a run leaves to read: terminal lines, metrics.jsonl, TensorBoard."""

import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from trm_jax import errors
from trm_jax.data import files

METRICS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"
TENSORBOARD_FOLDER = "tensorboard"


class Writer:
  """Writes a run's metrics; on all processes but the first it does nothing."""

  def __init__(
    self,
    workdir: str,
    *,
    first_step: int,
    is_finished: bool,
    active: bool,
  ):
    """Opens the files.

    Args:
      workdir: of the run.
      first_step: what was written for later steps, by a run that was cut
        off, is dropped.
      is_finished: whether nothing is left to train; otherwise a result that is
        there is dropped, too.
      active: False on all processes but the first.
    """
    self._active = active
    self._first_step = first_step
    self._events_folder: epath.Path | None = None  # where there shall be some
    self._events: Any = None  # of `tensorboard_events`
    if not active:
      return
    folder = files.folder(workdir)
    self._path = folder / METRICS_FILE
    self._result_path = folder / RESULT_FILE
    self._text = ""  # of the whole file, in a bucket
    with errors.user_error_context(f"cannot write to the workdir {workdir}"):
      if not is_finished:
        self._result_path.unlink(missing_ok=True)
      self._drop_later_rows(first_step)
      if files.is_remote(folder):
        self.line(f"no TensorBoard files in a bucket; see {self._path}")
      else:
        self._events_folder = folder / TENSORBOARD_FOLDER
        self._events_folder.mkdir(exist_ok=True)

  def _drop_later_rows(self, first_step: int) -> None:
    """Leaves out unreadable lines and steps that will be made again."""
    lines = _lines(self._path) if self._path.exists() else []
    rows = [row for row in map(_parse, lines) if row is not None]
    kept = [row for row in rows if row["step"] <= first_step]
    self._text = "".join(json.dumps(row) + "\n" for row in kept)
    if len(kept) == len(lines):
      self._append("")  # it can be written to
      return
    self.line(
      f"{self._path}: dropped {len(rows) - len(kept)} row(s) after step"
      f" {first_step}, where this run begins, and {len(lines) - len(rows)}"
      " unreadable line(s)"
    )
    with files.writing(self._path) as file:
      file.write(self._text.encode())

  def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
    """Writes one group of metrics ('train', 'eval'); NaN becomes null.

    Raises:
      UserError: a file cannot be written.
    """
    if not self._active:
      return
    row = {"step": step, "group": group, **_finite(values)}
    with errors.user_error_context(f"cannot write {self._path}"):
      self._append(json.dumps(row) + "\n")
    if self._events_folder:
      with errors.user_error_context(
        f"cannot write {TENSORBOARD_FOLDER} files"
      ):
        self._events = self._events or self._open_events(self._events_folder)
        self._events.scalars(
          step,
          {
            f"{group}/{name}": float(value)
            for name, value in values.items()
            if math.isfinite(value)
          },
        )

  def _open_events(self, folder: epath.Path) -> Any:
    # Imported late: it imports PyTorch, where there is one, which takes
    # seconds. When there are metrics, the device has a step to do meanwhile.
    from trm_jax.runtime import tensorboard_events

    return tensorboard_events.Events(folder, first_step=self._first_step)

  def _append(self, line: str) -> None:
    if files.is_remote(self._path):
      self._text += line
      self._path.write_text(self._text)  # nothing can be appended there
      return
    with self._path.open("a") as file:
      file.write(line)

  def result(self, step: int, values: Mapping[str, float]) -> None:
    """Writes the metrics that the run ends with: it is finished."""
    if self._active:
      result = {"step": step, "metrics": _finite(values)}
      with files.writing(self._result_path) as file:
        file.write(json.dumps(result).encode())

  def line(self, text: str) -> None:
    """Prints to the terminal."""
    if self._active:
      print(text, flush=True)

  def close(self) -> None:
    """Closes the event file."""
    if self._events:
      self._events.close()


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
  """Returns the values as JSON can hold them: NaN becomes null."""
  return {
    name: float(value) if math.isfinite(value) else None
    for name, value in values.items()
  }


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """Reads metrics.jsonl, but for lines that are no metrics."""
  path = files.folder(workdir) / METRICS_FILE
  if not path.exists():
    return []
  return [row for row in map(_parse, _lines(path)) if row is not None]


def has_row(workdir: str, step: int, group: str) -> bool:
  """Tells whether metrics of a group were written for a step."""
  return any(
    row["step"] == step and row.get("group") == group
    for row in read_metrics(workdir)
  )


def _lines(path: epath.Path) -> list[str]:
  return path.read_bytes().decode(errors="replace").splitlines()


def _parse(line: str) -> dict[str, Any] | None:
  """Returns the row, or None: a killed process may leave half a line."""
  try:
    row = json.loads(line)
  except json.JSONDecodeError:
    return None
  if not isinstance(row, dict) or not isinstance(row.get("step"), int):
    return None
  return row


def format_seconds(seconds: float) -> str:
  """Returns 3:05 or 2:03:05."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02d}:{seconds:02d}"
  return f"{minutes}:{seconds:02d}"
