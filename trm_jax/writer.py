"""What a run leaves to read: terminal lines, metrics.jsonl, TensorBoard."""

import json
import math
from collections.abc import Mapping
from typing import Any

import tensorboardX
from etils import epath

from trm_jax import errors

METRICS_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class Writer:
  """Writes a run's metrics; on all processes but the first it does nothing."""

  def __init__(
    self, workdir: str, *, first_step: int, tensorboard: bool, active: bool
  ):
    """Opens the files.

    Args:
      workdir: of the run.
      first_step: what was written for later steps, by a run that was cut
        off, is dropped.
      tensorboard: whether to write event files.
      active: False on all processes but the first.
    """
    self._active = active
    self._events = None
    if not active:
      return
    folder = epath.Path(workdir).expanduser()
    self._path = folder / METRICS_FILE
    try:
      self._drop_later_rows(first_step)
      if tensorboard:
        self._events = tensorboardX.SummaryWriter(
          str(folder / TENSORBOARD_FOLDER),
          purge_step=first_step + 1 if first_step else None,
        )
    except OSError as error:
      raise errors.UserError(
        f"cannot write to the workdir {workdir}: {error}"
      ) from error

  def _drop_later_rows(self, first_step: int) -> None:
    """Leaves out unreadable lines and steps that will be made again."""
    if not self._path.exists():
      self._path.write_text("")
      return
    lines = _lines(self._path)
    rows = [row for row in map(_parse, lines) if row is not None]
    kept = [row for row in rows if row["step"] <= first_step]
    if len(kept) == len(lines):
      self._path.open("a").close()  # it can be written to
      return
    self.line(
      f"{self._path}: dropped {len(rows) - len(kept)} row(s) after step"
      f" {first_step}, where this run begins, and {len(lines) - len(rows)}"
      " unreadable line(s)"
    )
    new = self._path.with_suffix(".new")
    new.write_text("".join(json.dumps(row) + "\n" for row in kept))
    new.replace(self._path)

  def scalars(self, step: int, group: str, values: Mapping[str, float]) -> None:
    """Writes one group of metrics ('train', 'eval'); NaN becomes null."""
    if not self._active:
      return
    row: dict[str, Any] = {"step": step, "group": group}
    for name, value in values.items():
      row[name] = float(value) if math.isfinite(value) else None
      if self._events and math.isfinite(value):
        self._events.add_scalar(f"{group}/{name}", float(value), step)
    with self._path.open("a") as file:
      file.write(json.dumps(row) + "\n")
    if self._events:
      self._events.flush()

  def line(self, text: str) -> None:
    """Prints to the terminal."""
    if self._active:
      print(text, flush=True)

  def close(self) -> None:
    """Closes the event file."""
    if self._events:
      self._events.close()


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """Reads metrics.jsonl, but for lines that are no metrics."""
  path = epath.Path(workdir).expanduser() / METRICS_FILE
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
