"""Progress of long loops: a bar on a terminal, otherwise a line now and then.

with Progress("puzzles", total=1000) as progress:
  for done, batch in enumerate(batches):
    progress.update(done, "exact 31.4 %")
"""

import sys
import time
from typing import IO

import tqdm

SECONDS = 10.0  # between two lines


class Progress:
  """Shows on stderr how far a loop is, and how fast."""

  def __init__(
    self,
    what: str,
    total: int | None = None,
    *,
    verb: str = "solved",
    done: int = 0,
    active: bool = True,
  ):
    """Starts the clock.

    Args:
      what: Plural noun, e.g. "puzzles"; the speed is in WHAT/s.
      total: Their number, if known.
      verb: Past participle that begins a line, e.g. "solved".
      done: Number already done by an earlier run.
      active: Whether to show anything; False on all processes but the first.
    """
    self._what, self._total, self._verb = what, total, verb
    self._first, self._active = done, active
    self._start = self._logged = time.monotonic()
    self._bar = None
    if active and sys.stderr is not None and sys.stderr.isatty():
      self._bar = tqdm.tqdm(
        desc=verb,
        total=total,
        initial=done,
        unit=f" {what}",
        file=sys.stderr,
        dynamic_ncols=True,
        leave=False,
      )

  def update(self, done: int, details: str = "") -> None:
    """Shows that `done` are done; lines are at least `SECONDS` apart.

    Args:
      done: Number done so far, those of an earlier run included.
      details: What to show beside it, e.g. "exact 31.4 %".
    """
    if self._bar is not None:
      self._bar.set_postfix_str(details, refresh=False)
      self._bar.update(done - self._bar.n)
      return
    now = time.monotonic()
    if not self._active or done == self._total or now - self._logged < SECONDS:
      return
    self._logged = now
    seconds_each = (now - self._start) / max(done - self._first, 1)
    total = left = ""
    if self._total is not None:
      total = f" of {self._total:,}"
      left = f", {seconds_each * (self._total - done):.0f} s left"
    details = details and f", {details}"
    write(
      f"  {self._verb} {done:,}{total} {self._what}, {1 / seconds_each:,.1f}"
      f" {self._what}/s{left}{details}",
      sys.stderr,
    )

  def close(self) -> None:
    """Removes the bar."""
    if self._bar is not None:
      self._bar.close()

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *_) -> None:
    self.close()


def write(text: str, file: IO[str] | None) -> None:
  """Prints a line above the bars, if there are any.

  Args:
    text: The line.
    file: Where to print; None if that is closed.
  """
  if file is None:
    return
  with tqdm.tqdm.external_write_mode(file=file):
    print(text, file=file, flush=True)
