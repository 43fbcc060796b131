"""What a run leaves to read: terminal lines, metrics.jsonl, trackers.

Two runs in one workdir: a local one is locked (`workdir_lock`). In a bucket a
run ends when the newest line of metrics is not its own. Until then, for as long
as `log.every_steps` take, the other run may have saved checkpoints and scores
that this one reads or replaces, and of two lines written at the same moment one
is lost.
"""

import functools
import json
import math
from collections.abc import Mapping
from typing import Any

from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import files
from trm_jax.runtime import trackers

METRICS_FILE = "metrics.jsonl"
RESULT_FILE = "result.json"


class Writer:
  """Writes a run's metrics; on all processes but the first it does nothing."""

  def __init__(
    self,
    workdir: str,
    *,
    first_step: int,
    is_finished: bool,
    active: bool,
    config: config_lib.Config,
  ):
    """Opens the files.

    Args:
      workdir: of the run.
      first_step: what was written for later steps, by a run that was cut
        off, is dropped.
      is_finished: whether nothing is left to train; otherwise a result that is
        there is dropped, too.
      active: False on all processes but the first.
      config: of the run.
    """
    self._active = active
    self._trackers: dict[str, trackers.Tracker] | None = None
    if not active:
      return
    folder = files.folder(workdir)
    self._path = folder / METRICS_FILE
    self._result_path = folder / RESULT_FILE
    self._text = ""  # of the whole file, in a bucket
    self._newest: str | None = None  # line there, once this run wrote one
    with errors.user_error_context(f"cannot write to the workdir {workdir}"):
      if not is_finished:
        self._result_path.unlink(missing_ok=True)
      self._drop_later_rows(first_step)
    names = config.log.trackers
    if files.is_remote(folder) and "tensorboard" in names:
      self.line(f"no TensorBoard files in a bucket; see {self._path}")
      names = tuple(name for name in names if name != "tensorboard")
    run = trackers.Run(
      folder=folder,
      name=config.name,
      first_step=first_step,
      settings=config_lib.flatten(config),
    )
    # Started with the first metrics, while the device has a step to do.
    self._start_trackers = functools.partial(trackers.start, names, run)

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
    if self._trackers is None:
      self._trackers = self._start_trackers()
    finite = {
      f"{group}/{name}": float(value)
      for name, value in values.items()
      if math.isfinite(value)
    }
    for name, tracker in list(self._trackers.items()):
      try:
        tracker.scalars(step, finite)
      # Whatever a service's package raises.
      except Exception as error:
        failed = f"cannot log metrics to {name} ({errors.reason(error)})"
        if tracker.is_local:
          raise errors.UserError(failed) from error
        self.line(f"WARNING: {failed}; it gets no more metrics of this run")
        del self._trackers[name]

  def _append(self, line: str) -> None:
    if files.is_remote(self._path):
      if self._newest and self._newest not in _lines(self._path)[-1:]:
        raise errors.UserError(
          f"another run writes to {self._path}; this one ends here: choose"
          " another --workdir for one of them"
        )
      self._text += line
      self._newest = line.strip() or None
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
    """Ends the run in its trackers."""
    for tracker in (self._trackers or {}).values():
      tracker.close()


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
  """Returns the values as JSON can hold them: NaN becomes null."""
  return {
    name: float(value) if math.isfinite(value) else None
    for name, value in values.items()
  }


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """Reads metrics.jsonl, but for lines that are no metrics."""
  path = files.folder(workdir) / METRICS_FILE
  with errors.user_error_context(f"cannot read {path}"):
    if not path.exists():
      return []
    return [row for row in map(_parse, _lines(path)) if row is not None]


def has_row(workdir: str, step: int, group: str) -> bool:
  """Tells whether metrics of a group were written for a step."""
  return any(
    row["step"] == step and row.get("group") == group
    for row in read_metrics(workdir)
  )


def last_row(workdir: str, group: str) -> dict[str, Any] | None:
  """Returns the newest metrics of a group; None if there are none."""
  rows = [row for row in read_metrics(workdir) if row.get("group") == group]
  return rows[-1] if rows else None


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
