"""Standard streams that are closed or break."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
from trm_jax.terminal import streams
streams.install()
streams.install()
print("a line", flush=True)
held = os.open("/dev/null", os.O_RDONLY)
assert held > 2, held  # no file takes the place of a closed stream
for _ in range(3):
  print("x" * 100_000)
sys.stdin.read()
print("warned", file=sys.stderr, flush=True)
"""
GOES_ON = "); going on without it\n"


def _run(redirection) -> tuple[int, str, str]:
  """Runs the program in a shell that redirects its streams."""
  ended = subprocess.run(
    ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, PROGRAM],
    cwd=ROOT,
    capture_output=True,
    text=True,
    stdin=subprocess.DEVNULL,
    check=False,
  )
  return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
  ("redirection", "error"),
  [
    (">&-", "warned\n"),
    ("2>&-", ""),
    (">&- 2>&- <&-", ""),
  ],
)
def test_a_closed_stream_is_no_error(redirection, error):
  status, _, printed = _run(redirection)
  assert (status, printed) == (0, error)


@pytest.mark.parametrize(
  ("redirection", "reason"),
  [("| head -n 1", "Broken pipe"), ("> /dev/full", "No space left on device")],
)
def test_a_stream_that_breaks_is_one_line(redirection, reason):
  status, output, printed = _run(f"{redirection}; exit ${{PIPESTATUS[0]}}")
  assert status == 0, printed
  assert output == ("a line\n" if "head" in redirection else "")
  assert printed == (
    f"WARNING: standard output cannot be written ({reason}{GOES_ON}warned\n"
  )


def test_all_is_written_where_nothing_breaks():
  status, output, printed = _run("")
  assert (status, printed) == (0, "warned\n")
  assert output == "a line\n" + 3 * ("x" * 100_000 + "\n")
