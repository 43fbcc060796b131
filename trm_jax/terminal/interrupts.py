"""Ctrl-C: one press ends the process with one line and status 130.

Python's own handler raises KeyboardInterrupt between two bytecodes of the main
thread. Finalizers and callbacks swallow it, imports make a traceback of it,
compiled code delays it, and threads of XLA keep the process from ending after
it. Here a thread waits for the signal and ends the process itself, whatever the
main thread does. A training asks for time to save first.

Only the standard library: this is imported before everything else.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

STATUS = 128 + signal.SIGINT

_is_answered = threading.Event()
_text = "interrupted"
_request: Callable[[], None] | None = None
_was_pressed = False
_drafts: set[str] = set()


def install() -> None:
  """Takes over SIGINT, unless it is ignored (as under nohup) or taken."""
  if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  signal.signal(signal.SIGINT, _left_to_the_thread)
  threading.Thread(target=_watch, args=(reader,), daemon=True).start()


def _left_to_the_thread(number, frame) -> None:
  """Keeps the main thread from going on, or ending, before the other has acted.

  The signal is in the pipe by now, unless a library has put another in its
  place.
  """
  if not _is_answered.wait(timeout=5):
    _press()
  _is_answered.clear()


def _watch(reader: int) -> None:
  while numbers := os.read(reader, 64):
    # A program may have put a handler of its own in this place.
    is_ours = signal.getsignal(signal.SIGINT) is _left_to_the_thread
    for _ in range(numbers.count(signal.SIGINT) if is_ours else 0):
      _press()
      _is_answered.set()


def _press() -> None:
  global _request, _was_pressed
  _was_pressed = True  # before the next line: see `end_at_once`
  request, _request = _request, None
  if request is None:
    end()
  _print("interrupted; saving first, a second Ctrl-C ends at once")
  request()


def say(text: str) -> None:
  """Sets the line that is printed when the process ends at once."""
  global _text
  _text = text


def save_first(request: Callable[[], None]) -> None:
  """Lets the next press call `request`, and only the one after it end.

  Args:
    request: called in another thread; asks the main thread to save and end.
  """
  global _request
  _request = request


def end_at_once() -> bool:
  """Undoes `save_first`; returns whether there was a press since."""
  global _request, _was_pressed
  _request = None  # a press from here on ends; one before is seen below
  was_pressed, _was_pressed = _was_pressed, False
  return was_pressed


def end() -> NoReturn:
  """Ends the process: unfinished files are removed, one line is printed."""
  for path in tuple(_drafts):
    with contextlib.suppress(OSError):
      os.unlink(path)
  _print(_text)
  os._exit(STATUS)


def leave(status: int) -> NoReturn:
  """Ends the process without waiting for threads; everything is written."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(status)


def _print(text: str) -> None:
  with contextlib.suppress(OSError):  # not through a lock of the main thread's
    os.write(2, f"{text}\n".encode())


@contextlib.contextmanager
def draft(path: str) -> Iterator[None]:
  """Names a file that is removed if the process is interrupted meanwhile."""
  _drafts.add(path)
  try:
    yield
  finally:
    _drafts.discard(path)
