"""What a run leaves to read: terminal lines, metrics.jsonl, TensorBoard."""

import json
import math
from collections.abc import Mapping
from typing import Any

import tensorboardX
from etils import epath

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
    kept = [row for row in read_metrics(workdir) if row["step"] <= first_step]
    self._path.write_text("".join(json.dumps(row) + "\n" for row in kept))
    if tensorboard:
      self._events = tensorboardX.SummaryWriter(
        str(folder / TENSORBOARD_FOLDER),
        purge_step=first_step + 1 if first_step else None,
      )

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
  """Reads metrics.jsonl; a last line cut off in the middle is left out."""
  path = epath.Path(workdir).expanduser() / METRICS_FILE
  if not path.exists():
    return []
  rows = []
  for line in path.read_text().splitlines():
    try:
      rows.append(json.loads(line))
    except json.JSONDecodeError:
      break  # the process was killed while writing it
  return rows


def format_seconds(seconds: float) -> str:
  """Returns 3:05 or 2:03:05."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f"{hours}:{minutes:02d}:{seconds:02d}"
  return f"{minutes}:{seconds:02d}"
