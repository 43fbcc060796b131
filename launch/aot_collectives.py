"""What travels between the chips in one run of a compiled program.

Read from the compiled HLO. The bytes of a collective are those of the whole
array: what all-reduce and reduce-scatter take, what all-gather and the others
give. (In a ring of n chips, each sends (n - 1) / n of that, and twice that for
an all-reduce.) One in a loop counts as often as the loop runs; the start and
the end of an asynchronous one count once.
"""

import dataclasses
import re
from collections.abc import Iterator

_KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "collective-permute",
  "all-to-all",
)
_COLLECTIVE = re.compile(
  rf" = (?P<type>.*?) (?P<kind>{'|'.join(_KINDS)})(?P<start>-start)?\("
)
_HEAD = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_FOOT = re.compile(r"\}(,|$)")  # kernels have lines that begin with braces
_CALLED = re.compile(
  r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_WHILE = re.compile(r"condition=%?([\w.-]+), body=%?([\w.-]+)")
_KNOWN_TRIPS = re.compile(r"known_trip_count[^0-9]*(\d+)")
_CONSTANT = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_ARRAY = re.compile(r"\b([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective operation of a program."""

  kind: str  # 'all-reduce', ...
  num_bytes: int  # of the whole array, once
  times: int  # it is done in one run of the program

  @property
  def total(self) -> int:
    """Bytes in one run of the program."""
    return self.num_bytes * self.times


def find(hlo: str, *, num_devices: int) -> list[Collective]:
  """Returns the collectives of a compiled module's text.

  Args:
    hlo: as `compiled.as_text()` gives it.
    num_devices: over which every collective goes.

  Raises:
    ValueError: a loop around a collective has no known length.
  """
  computations = dict(_computations(hlo))
  found, chains = [], set()
  for name, times in _times(computations).items():
    for line in computations[name]:
      match = _COLLECTIVE.search(line)
      if match is None:
        continue
      chain = _CHAIN.search(line)
      if chain:  # the parts of one, spread over other work to hide it
        if (match["kind"], chain[1]) in chains:
          continue
        chains.add((match["kind"], chain[1]))
      if times is None:
        raise ValueError(f"a loop of unknown length has {line.strip()[:200]}")
      found.append(Collective(match["kind"], _whole(match, num_devices), times))
  return found


def _whole(match: re.Match, num_devices: int) -> int:
  """Bytes of the whole array; what an op's start gives has the input, too."""
  kind, size = match["kind"], _num_bytes(match["type"])
  if kind == "reduce-scatter":
    return size * num_devices
  if match["start"] and kind == "all-gather":
    return size * num_devices // (num_devices + 1)
  if match["start"] and kind == "collective-permute":
    return size // 2
  return size


def _num_bytes(type_text: str) -> int:
  """Bytes of an array or of a tuple of arrays, without padding."""
  # Layouts, in braces, have brackets of their own.
  total = 0
  for letter, bits, dims in _ARRAY.findall(re.sub(r"\{[^}]*\}", "", type_text)):
    width = 8 if letter == "pred" else int(bits or 0)
    count = 1
    for dim in filter(None, dims.split(",")):
      count *= int(dim)
    total += count * width // 8
  return total


def _computations(hlo: str) -> Iterator[tuple[str, list[str]]]:
  """Yields names and lines; the program itself has no name."""
  name: str | None = None
  lines: list[str] = []
  for line in hlo.splitlines():
    if name is None:
      if head := _HEAD.match(line):
        name, lines = ("" if head["entry"] else head["name"]), []
    elif _FOOT.match(line):
      yield name, lines
      name = None
    else:
      lines.append(line)


def _times(computations: dict[str, list[str]]) -> dict[str, int | None]:
  """How often each runs; None if that is not known."""
  times: dict[str, int | None] = {"": 1}
  # Callees stand before their callers in the text of a module.
  for name in reversed(computations):
    if name not in times:
      continue
    for callee, count in _calls(computations, name):
      once, before = times[name], times.get(callee, 0)
      if once is None or count is None or before is None:
        times[callee] = None
      else:
        times[callee] = before + once * count
  return times


def _calls(computations, name) -> Iterator[tuple[str, int | None]]:
  """Yields the computations that one calls, and how often."""
  for line in computations[name]:
    for callee in _CALLED.findall(line):
      yield callee, 1
    for branches in _BRANCHES.findall(line):
      for callee in branches.split(","):
        yield callee.strip().lstrip("%"), 1
    if loop := _WHILE.search(line):
      condition, body = loop.groups()
      yield body, _trips(line, computations[condition])


def _trips(line: str, condition: list[str]) -> int | None:
  """Returns a loop's length: as noted, or of one that counts from 0."""
  if known := _KNOWN_TRIPS.search(line):
    return int(known[1])
  constants = _CONSTANT.findall("\n".join(condition))
  counts = any("direction=LT" in text for text in condition)
  return int(constants[0]) if counts and len(constants) == 1 else None
