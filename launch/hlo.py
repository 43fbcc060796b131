"""Reads the text of a compiled module: what calls what, how often, how big.

The text is what `compiled.as_text()` gives; TPUs and GPUs write it alike.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

# A computation has a head, lines of instructions, and a foot. Some kernels
# have lines of their own in between, which begin with braces too.
_HEAD = re.compile(r"(?P<entry>ENTRY )?%?(?P<name>[\w.-]+) \(.*\{$")
_FOOT = re.compile(r"\}(,|$)")
_INSTRUCTION = re.compile(
  r"\s+(?P<root>ROOT )?%?(?P<name>[\w.-]+) = (?P<type>.*?)"
  r" (?P<opcode>[\w-]+)\((?P<rest>.*)"
)
_PARAMETER = re.compile(r" parameter\((\d+)\)")
_OPERAND = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(
  r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.-]+)"
)
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_WHILE = re.compile(r"condition=%?([\w.-]+), body=%?([\w.-]+)")
_KNOWN_TRIPS = re.compile(r"known_trip_count[^0-9]*(\d+)")
_CONSTANT = re.compile(r"= s32\[\]\S* constant\((\d+)\)")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")

# What they call runs instruction by instruction; what others call is a part
# of their own kernel.
CONTROL = ("while", "conditional", "call", "call-start", "async-start")


@dataclasses.dataclass(frozen=True)
class Array:
  """An array's type."""

  bits: int  # of a number
  dims: tuple[int, ...]

  @property
  def size(self) -> int:
    """How many numbers it has."""
    return math.prod(self.dims)

  @property
  def num_bytes(self) -> int:
    """Bytes of it, without padding."""
    return self.size * self.bits // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation."""

  name: str
  opcode: str  # 'fusion', 'all-reduce-start', ...
  arrays: tuple[Array, ...]  # that it gives; of tuples in a tuple, all of them
  operands: tuple[str, ...]  # their names
  text: str  # all of the line
  is_root: bool  # what the computation returns

  @property
  def size(self) -> int:
    """How many numbers it gives."""
    return sum(array.size for array in self.arrays)

  @property
  def num_bytes(self) -> int:
    """Bytes of what it gives, without padding."""
    return sum(array.num_bytes for array in self.arrays)

  @property
  def fused(self) -> str:
    """The computation that a fusion is made of."""
    match = _CALLED.search(self.text)
    if match is None:
      raise ValueError(f"calls nothing: {self.text.strip()[:200]}")
    return match[1]


@dataclasses.dataclass(frozen=True)
class Runs:
  """How often a computation runs in one run of the program."""

  times: int
  exact: bool = True  # or within a loop of unknown length, which counts once


Computations = dict[str, list[Instruction]]


def computations(hlo: str) -> Computations:
  """Returns the instructions by computation; that of the program is ''."""
  found: Computations = {}
  name: str | None = None
  for line in hlo.splitlines():
    if name is None:
      if head := _HEAD.match(line):
        name = "" if head["entry"] else head["name"]
        found[name] = []
    elif _FOOT.match(line):
      name = None
    elif match := _INSTRUCTION.match(line):
      found[name].append(
        Instruction(
          name=match["name"],
          opcode=match["opcode"],
          arrays=tuple(_arrays(match["type"])),
          operands=tuple(_operands(match["rest"])),
          text=line,
          is_root=match["root"] is not None,
        )
      )
  return found


def _operands(rest: str) -> list[str]:
  """Returns the names in 'f32[4]{0:S(5)} %a, %b), calls=%c'."""
  return _OPERAND.findall(_without_layouts(rest).partition(")")[0])


def _without_layouts(text: str) -> str:
  """Leaves out what stands in braces, which has brackets of its own."""
  return re.sub(r"\{[^}]*\}", "", text)


def _arrays(type_text: str) -> Iterator[Array]:
  """Yields the arrays of a type such as '(f32[4,2]{1,0}, s32[])'."""
  for letters, bits, dims in _ARRAY.findall(_without_layouts(type_text)):
    yield Array(
      8 if letters == "pred" else int(bits or 0),
      tuple(int(dim) for dim in dims.split(",") if dim),
    )


def parameters(body: list[Instruction]) -> list[Instruction]:
  """Returns the parameters of a computation, by their numbers."""
  found = {
    int(match[1]): each
    for each in body
    if (match := _PARAMETER.search(each.text))
  }
  return [found[number] for number in sorted(found)]


def runs(module: Computations, *, launched: bool = False) -> dict[str, Runs]:
  """Returns how often each computation runs; of a conditional, every branch.

  Args:
    module: of `computations`.
    launched: only those whose instructions are launched one by one, not those
      that are parts of a kernel.
  """
  found = {"": Runs(1)}
  # Callees stand before their callers in the text of a module.
  for name in reversed(module):
    if name not in found:
      continue
    caller = found[name]
    for instruction in module[name]:
      if launched and instruction.opcode not in CONTROL:
        continue
      for callee, trips in _calls(module, instruction):
        before = found.get(callee, Runs(0))
        found[callee] = Runs(
          before.times + caller.times * (1 if trips is None else trips),
          before.exact and caller.exact and trips is not None,
        )
  return found


def _calls(
  module: Computations, instruction: Instruction
) -> Iterator[tuple[str, int | None]]:
  """Yields what an instruction calls, and how often; None if not known."""
  text = instruction.text
  for callee in _CALLED.findall(text):
    yield callee, 1
  for branches in _BRANCHES.findall(text):
    for callee in branches.split(","):
      yield callee.strip().lstrip("%"), 1
  if loop := _WHILE.search(text):
    condition, body = loop.groups()
    yield body, _trips(text, module[condition])


def _trips(text: str, condition: list[Instruction]) -> int | None:
  """Returns a loop's length: as noted, or of one that counts from 0."""
  if known := _KNOWN_TRIPS.search(text):
    return int(known[1])
  lines = "\n".join(instruction.text for instruction in condition)
  constants = _CONSTANT.findall(lines)
  counts = "direction=LT" in lines
  return int(constants[0]) if counts and len(constants) == 1 else None
