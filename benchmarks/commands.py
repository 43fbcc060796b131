"""Runs a benchmark as a subprocess and reads its result."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from trm_jax import errors


class NoResultError(errors.UserError):
  """A command that failed or did not print its result."""


def end_children_on_sigterm() -> None:
  """Makes SIGTERM, as a time limit sends it, end the running command, too."""
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
    command: its words; no shell interprets them.
    field: of its result that must be a positive number.
    seconds: time limit, after which its process group is killed.
    environment: of the process; by default that of this one.

  Returns:
    The last line of its standard output that is a JSON object.

  Raises:
    NoResultError: it does not start, fails, takes too long, or prints no
      such object with the field.
  """
  shown = f"`{shlex.join(command)}`"
  try:
    process = subprocess.Popen(
      command,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors="replace",
      env=environment,
      start_new_session=True,  # its children are killed with it
    )
  except OSError as error:
    raise NoResultError(f"{shown} does not start: {error}") from error
  with process:
    try:
      output, log = process.communicate(timeout=seconds)
    except BaseException as error:
      os.killpg(process.pid, signal.SIGKILL)
      if not isinstance(error, subprocess.TimeoutExpired):
        raise
      raise NoResultError(
        f"{shown} took longer than {seconds:.0f} s"
      ) from error
  if process.returncode:
    reason = f"failed with status {process.returncode}"
  else:
    result = _last_object(output)
    value = result.get(field)
    if isinstance(value, int | float) and value > 0:
      return result
    reason = f"printed no JSON line with {field}"
  last = _last_line(log) or _last_line(output) or "nothing"
  raise NoResultError(f"{shown} {reason}; it ended with: {last}")


def _last_object(output: str) -> dict[str, Any]:
  for line in reversed(output.splitlines()):
    try:
      found = json.loads(line)
    except ValueError:
      continue
    if isinstance(found, dict):
      return found
  return {}


def _last_line(text: str) -> str:
  """Returns the last line that starts with 'error: ', or else the last one."""
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  marked = [line for line in lines if line.startswith("error: ")]
  return (marked or lines or [""])[-1]
