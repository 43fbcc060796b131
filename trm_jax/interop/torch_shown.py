"""How a value of a file from elsewhere is told: short, and on one line.

Whoever made the file chose it. It may be huge, or of lists in each other whose
text outgrows any memory, or hold what a terminal obeys.
"""

from typing import Any

_MAX_TEXT = 80  # characters, as they are shown
_MAX_BITS = 128  # as the seeds of random numbers; no size is near it


def shown(value: Any) -> str:
  """Returns words for any value, in ASCII without line breaks."""
  if isinstance(value, str):
    text = ascii(value[:_MAX_TEXT])
    is_whole = len(value) <= _MAX_TEXT and len(text) <= _MAX_TEXT + 2
    return text if is_whole else f"{text[:_MAX_TEXT]}...{text[0]}"
  if is_short(value):
    return repr(value)
  if isinstance(value, int):
    return f"a number of {value.bit_length():,} bits"
  return f"something of type {type(value).__name__}"


def is_short(value: Any) -> bool:
  """Tells whether a value is None, or a word or a number of usual length."""
  if isinstance(value, str):
    return len(value) <= _MAX_TEXT
  if isinstance(value, int):
    return value.bit_length() <= _MAX_BITS
  return value is None or isinstance(value, float)
