"""Ctrl-C at any moment: one line, status 130."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

from trm_jax import main

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _not_ignored():
  """Whoever starts the tests in the background ignores SIGINT."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


def _start(*command, **options):
  return subprocess.Popen(
    [sys.executable, *command],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


def _pressed(process, presses=1) -> tuple[int, str, str]:
  """Presses each time the process has printed a line; how it then ended."""
  with process:
    said = ""
    for _ in range(presses):
      said += process.stdout.readline()
      process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
  return process.returncode, said + output, errors


def _program(body) -> tuple[str, str]:
  start = """
    import ctypes, sys, time
    from trm_jax.terminal import interrupts
    interrupts.install()
    interrupts.say("interrupted; a line")
  """
  return "-c", textwrap.dedent(start) + textwrap.dedent(body)


@pytest.mark.parametrize(
  "body",
  [
    # Where KeyboardInterrupt would be swallowed, or come late.
    """
    class Finalized:
      def __del__(self):
        print("ready", flush=True)
        time.sleep(50)
    Finalized()
    """,
    """
    try:
      print("ready", flush=True)
      time.sleep(50)
    except BaseException:
      time.sleep(50)
    """,
    """
    import signal
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # to a thread
    print("ready", flush=True)
    ctypes.CDLL(None).sleep(50)  # compiled code
    """,
  ],
  ids=["finalizer", "except", "compiled"],
)
def test_one_press_ends_it_wherever_it_is(body):
  ended = _pressed(_start(*_program(body)))
  assert ended == (130, "ready\n", "interrupted; a line\n")


def test_who_has_something_to_save_is_asked_first_and_the_second_press_ends():
  body = """
    interrupts.save_first(lambda: print("asked", flush=True))
    print("ready", flush=True)
    time.sleep(50)
  """
  assert _pressed(_start(*_program(body)), presses=2) == (
    130,
    "ready\nasked\n",
    "interrupted; saving first, a second Ctrl-C ends at once\n"
    "interrupted; a line\n",
  )


def test_no_half_file_is_left(tmp_path):
  body = f"""
    from trm_jax.data import files
    with files.writing({str(tmp_path / "out")!r}) as file:
      file.write(b"half")
      print("ready", flush=True)
      time.sleep(50)
  """
  status, _, errors = _pressed(_start(*_program(body)))
  assert (status, errors) == (130, "interrupted; a line\n")
  assert not list(tmp_path.iterdir())


def test_what_is_ignored_or_taken_stays_so():
  body = """
    import signal
    signal.signal(signal.SIGINT, lambda *_: print("taken", flush=True))
    print("ready", flush=True)
    time.sleep(1)
  """
  assert _pressed(_start(*_program(body))) == (0, "ready\ntaken\n", "")
  ignored = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
  flag, text = _program("print('ready', flush=True)\ntime.sleep(1)")
  status, *_ = _pressed(_start(flag, ignored + text))
  assert status == 0


def test_the_command_is_ended_while_it_imports(tmp_path):
  """An experiment is Python: this one swallows what would be raised."""
  config = tmp_path / "slow.py"
  config.write_text(
    "import time\n"
    "try:\n  print('ready', flush=True)\n  time.sleep(50)\n"
    "except BaseException:\n  time.sleep(50)\n"
  )
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  process = _start("-m", "trm_jax.main", f"--config={config}", env=environment)
  assert _pressed(process) == (130, "ready\n", "interrupted\n")


def test_ctrl_c_promises_only_what_holds():
  for mode, text in (
    ("predict", "what was not announced as written is not there"),
    ("train", "goes on from the last checkpoint"),
  ):
    assert text in main._interrupted(mode)
