"""Progress: a bar for people, lines for files."""

import io
import sys
import time

from trm_jax.terminal import progress


def _clock(monkeypatch):
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  return now


def test_lines_at_intervals(monkeypatch, capsys):
  now = _clock(monkeypatch)
  known = progress.Progress("puzzles", 50, done=10)
  unknown = progress.Progress("grids", verb="read")
  silent = progress.Progress("grids", active=False)
  now[0] += progress.SECONDS - 1
  known.update(20)
  now[0] += 1
  known.update(30, "exact 5.0 %")
  unknown.update(40)
  silent.update(40)
  now[0] += 100
  known.update(50)  # the result follows
  output = capsys.readouterr()
  assert output.out == ""
  assert output.err.splitlines() == [
    "  solved 30 of 50 puzzles, 2.0 puzzles/s, 10 s left, exact 5.0 %",
    "  read 40 grids, 4.0 grids/s",
  ]


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def test_a_bar_on_a_terminal(monkeypatch):
  terminal = _Terminal()
  monkeypatch.setattr(sys, "stderr", terminal)
  with progress.Progress("puzzles", 50, done=10) as shown:
    time.sleep(0.15)  # bars are drawn ten times a second
    shown.update(30, "exact 5.0 %")
    progress.write("a line between", terminal)
  text = terminal.getvalue()
  assert "30/50" in text
  assert "exact 5.0 %" in text
  assert "a line between\n" in text
  assert text.endswith("\r")  # and is gone
