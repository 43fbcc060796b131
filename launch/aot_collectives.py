"""What travels between the chips in one run of a compiled program.

Read from the compiled HLO. The bytes of a collective are those of the whole
array: what all-reduce and reduce-scatter take, what all-gather and the others
give. (In a ring of n chips, each sends (n - 1) / n of that, and twice that for
an all-reduce.) One in a loop counts as often as the loop runs; the start and
the end of an asynchronous one count once.
"""

import dataclasses
import re

from launch import hlo as hlo_lib

KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "collective-permute",
  "all-to-all",
)
_CHAIN = re.compile(r'chain_id="(\d+)"')


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
  module = hlo_lib.computations(hlo)
  found, chains = [], set()
  for name, runs in hlo_lib.runs(module).items():
    for instruction in module[name]:
      kind = instruction.opcode.removesuffix("-start")
      if kind not in KINDS:
        continue
      chain = _CHAIN.search(instruction.text)
      if chain:  # the parts of one, spread over other work to hide it
        if (kind, chain[1]) in chains:
          continue
        chains.add((kind, chain[1]))
      if not runs.exact:
        line = instruction.text.strip()[:200]
        raise ValueError(f"a loop of unknown length has {line}")
      found.append(
        Collective(kind, _whole(instruction, kind, num_devices), runs.times)
      )
  return found


def _whole(
  instruction: hlo_lib.Instruction, kind: str, num_devices: int
) -> int:
  """Bytes of the whole array; what an op's start gives has the input, too."""
  size = instruction.num_bytes
  if instruction.opcode.endswith("-start"):
    if kind in ("all-gather", "reduce-scatter"):  # the whole, and a share
      return size * num_devices // (num_devices + 1)
    if kind in ("collective-permute", "all-to-all"):
      return size // 2
  elif kind == "reduce-scatter":
    return size * num_devices
  return size
