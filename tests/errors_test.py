"""What an error's reason is, and which errors may pass by themselves."""

import errno
import json
import os

import pytest

from trm_jax import errors

TENSORSTORE = (
  'RESOURCE_EXHAUSTED: Error writing "step/0": Failed to write 2778 bytes:'
  " No space left on device [os_error_code='28']\nmore"
)


def _caused_by(cause):
  try:
    try:
      raise cause
    except Exception as error:
      raise ValueError("see below") from error
  except ValueError as error:
    return error


@pytest.mark.parametrize(
  ("error", "text"),
  [
    (OSError(errno.ENOSPC, "x"), os.strerror(errno.ENOSPC)),
    (ValueError(TENSORSTORE), os.strerror(errno.ENOSPC)),
    (ValueError("NOT_FOUND [OS error 2: x]"), os.strerror(errno.ENOENT)),
    (
      ValueError(
        'DATA_LOSS: bad: Error reading "a.b/0" in OCDBT database at x'
      ),
      "DATA_LOSS in a.b/0",
    ),
    (KeyError("state"), "'state' is missing"),
    (TypeError("one\ntwo"), "one"),
  ],
)
def test_the_reason_is_what_is_at_the_bottom(error, text):
  assert errors.reason(error) == text
  assert errors.reason(_caused_by(error)) == text


@pytest.mark.parametrize(
  ("error", "is_trouble"),
  [
    (OSError(errno.ENOENT, "x"), False),
    (OSError(errno.EACCES, "x"), True),
    (OSError(errno.EIO, "x"), True),
    (FileNotFoundError("x"), False),
    (TimeoutError(), True),
    (ConnectionError("x"), True),
    (ValueError("DATA_LOSS: checksum"), False),
    (ValueError("UNAVAILABLE: try again"), True),
    (ValueError("x [os_error_code='13']"), True),
    (json.JSONDecodeError("x", "y", 0), False),
    (MemoryError(), True),
  ],
)
def test_only_what_cannot_be_well_tomorrow_is_damage(error, is_trouble):
  assert errors.is_trouble(error) == is_trouble
  assert errors.is_trouble(_caused_by(error)) == is_trouble
