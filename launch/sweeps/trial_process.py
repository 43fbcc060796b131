"""A trial in a process of its own, and what it leaves to read."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from trm_jax import errors
from trm_jax.runtime import metric_writer

# What trains; tests put something small in its place.
TRAINER: tuple[str, ...] = (sys.executable, "-m", "trm_jax.main")

LOG_FILE = "log.txt"
_SHIM = pathlib.Path(__file__).with_name("dies_with_parent.py")
_TAIL_BYTES = 1 << 16


class TrialProcess:
  """A trainer that runs."""

  def __init__(
    self,
    arguments: Sequence[str],
    *,
    log: pathlib.Path,
    lock: int,
    environment: Mapping[str, str],
  ):
    """Starts the trainer.

    Args:
      arguments: of its command line.
      log: file that its output is appended to.
      lock: file descriptor that it shall hold as long as it lives.
      environment: of the process.

    Raises:
      UserError: the log cannot be written.
    """
    self._log = log
    try:
      log.parent.mkdir(parents=True, exist_ok=True)
      with log.open("ab") as file:
        self._log_start = file.tell()
        self._process = subprocess.Popen(
          [
            *(sys.executable, "-I", str(_SHIM), str(os.getpid())),
            *(*TRAINER, *arguments),
          ],
          stdin=subprocess.DEVNULL,
          stdout=file,
          stderr=subprocess.STDOUT,
          pass_fds=(lock,),
          env=dict(environment),
          start_new_session=True,  # Ctrl-C is for the sweep, which stops it
        )
    except OSError as error:
      raise errors.UserError(f"cannot start a trial: {error}") from error

  @property
  def process_id(self) -> int:
    """Of the trainer."""
    return self._process.pid

  def poll(self) -> int | None:
    """Returns the exit status; below 0 the signal; None while it runs."""
    return self._process.poll()

  def ask_to_stop(self) -> None:
    """Lets it save and end."""
    self._process.send_signal(signal.SIGTERM)

  def kill(self) -> None:
    """Ends it at once, and waits for that."""
    self._process.kill()
    self._process.wait()

  def last_words(self) -> str:
    """Returns the last `error:` line since the start, or how it ended."""
    with self._log.open("rb") as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(self._log_start, size - _TAIL_BYTES))
      lines = file.read().decode(errors="replace").splitlines()
    told = [line for line in lines if line.startswith("error: ")]
    if told:
      return told[-1].removeprefix("error: ")
    last = next((f": {line[:200]}" for line in lines[::-1] if line.strip()), "")
    return f"{ended(self._process.returncode)}{last}; see {self._log}"


def ended(status: int) -> str:
  """Says how a process ended."""
  if status >= 0:
    return f"exit status {status}"
  return f"killed by {signal.Signals(-status).name}"


def evaluations(workdir: epath.Path) -> list[dict[str, Any]]:
  """Returns the evaluations in a run's metrics, in the order of steps."""
  rows = [
    r for r in metric_writer.read_metrics(workdir) if r.get("group") == "eval"
  ]
  return sorted(rows, key=lambda row: row["step"])


def result(workdir: epath.Path) -> dict[str, Any] | None:
  """Returns {"step": ..., "metrics": ...} of a training that ended, or None.

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / metric_writer.RESULT_FILE
  try:
    text = path.read_text()
  except FileNotFoundError:
    return None
  try:
    read = json.loads(text)
    return {"step": int(read["step"]), "metrics": dict(read["metrics"])}
  except (ValueError, TypeError, KeyError) as error:
    raise errors.UserError(
      f"{path} is damaged ({errors.first_line(error)}); delete it to train this"
      " trial's last steps again"
    ) from error


def number(value: Any) -> float:
  """Returns a metric's value; what is none, or null, is NaN."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return math.nan
  return float(value)
