"""What a compiled step sends between devices, read from its HLO text."""

import math
import re

_ARRAY = re.compile(r"\b[a-z]+(\d+)\[([\d,]*)\]")
_COLLECTIVE = re.compile(
  r"= (.*?) ((?:all-reduce|all-gather|all-to-all|reduce-scatter"
  r"|collective-permute|collective-broadcast)(?:-start)?)\("
)


def _num_bytes(arrays: str) -> int:
  """Bytes of the arrays of a type, e.g. "(f32[8,2], s32[4])"."""
  return sum(
    int(bits) // 8 * math.prod(int(n) for n in sizes.split(",") if n)
    for bits, sizes in _ARRAY.findall(arrays)
  )


def sizes(text: str) -> list[int]:
  """Returns the bytes of what each collective makes, loops' included."""
  return [_num_bytes(arrays) for arrays, _ in _COLLECTIVE.findall(text)]


def all_reduced_floats(text: str) -> int:
  """Returns the bytes of float32 that all-reduces sum up in one run.

  None of these may be in a loop: it would be counted once.
  """
  before, entry = text.split("\nENTRY ")
  assert not re.search(r"\bf32\[\d.* all-reduce(?:-start)?\(", before)
  return sum(
    _num_bytes(" ".join(re.findall(r"f32\[[\d,]*\]", arrays)))
    for arrays, kind in _COLLECTIVE.findall(entry)
    if kind.startswith("all-reduce")
  )
