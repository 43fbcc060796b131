"""Runs a measurement as a process of its own and reads what it found."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from trm_jax import errors


class MeasuredNothingError(errors.UserError):
  """A command that failed, or did not say what it measured."""


def end_with_what_was_started() -> None:
  """Lets SIGTERM, as a time limit sends it, end the running command, too."""
  signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def run(
  command: Sequence[str],
  *,
  field: str = "seconds_per_step",
  seconds: float | None = None,
  environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
  """Runs a command to its end.

  Args:
    command: words, of which no shell makes anything.
    field: of its result that must be a number above 0.
    seconds: after which it is killed, with all that it started; None: never.
    environment: of the process; None: that of this one.

  Returns:
    The last JSON object that is a line of its standard output.

  Raises:
    MeasuredNothingError: it could not be started, failed, took too long, or
      that object does not have the field.
  """
  try:
    process = subprocess.Popen(
      command,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors="replace",
      env=environment,
      start_new_session=True,  # a group, to be killed as one
    )
  except OSError as error:
    raise MeasuredNothingError(
      f"`{shlex.join(command)}` does not start: {error}"
    ) from error
  with process:
    try:
      output, log = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
      _kill(process)
      raise MeasuredNothingError(
        f"`{shlex.join(command)}` took longer than {seconds:.0f} s"
      ) from error
    except BaseException:
      _kill(process)
      raise
  if process.returncode:
    reason = f"failed with status {process.returncode}"
  else:
    result = _last_object(output)
    value = result.get(field)
    if isinstance(value, int | float) and value > 0:
      return result
    reason = f"printed no JSON line with {field}"
  raise MeasuredNothingError(
    f"`{shlex.join(command)}` {reason}; it ended with:"
    f" {_last_line(log) or _last_line(output) or 'nothing'}"
  )


def _kill(process: subprocess.Popen) -> None:
  # It is not reaped yet, so that its number is still its own.
  os.killpg(process.pid, signal.SIGKILL)


def _last_object(output: str) -> dict[str, Any]:
  for line in reversed(output.splitlines()):
    try:
      found = json.loads(line)
    except ValueError:
      continue  # something else that was said
    if isinstance(found, dict):
      return found
  return {}


def _last_line(text: str) -> str:
  """Returns the last line that is an error of ours, else the last one."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  told = [line for line in lines if line.startswith("error: ")]
  return (told or lines or [""])[-1]
