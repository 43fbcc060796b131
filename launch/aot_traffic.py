"""What a GPU kernel reads and writes of the chip's memory, by its HLO.

It reads each of its operands once, or what it needs of them: of an array that
it slices or gathers from, what it takes out. It writes its results once; of an
array that it updates in place, what is new, and that it does not read.
"""

import dataclasses

from launch import hlo

_TAKE_A_PART = ("slice", "dynamic-slice", "gather", "broadcast")


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Bytes of one run of a kernel."""

  read: int
  written: int


def of(
  instruction: hlo.Instruction,
  operands: list[hlo.Instruction],
  module: hlo.Computations,
) -> Traffic:
  """Returns the traffic of an instruction that is a kernel.

  Args:
    instruction: the kernel.
    operands: what gives its operands, in their order.
    module: with the computations that it is made of.
  """
  if instruction.opcode == "fusion":
    body = module[instruction.fused]
  else:  # as if it were a fusion of one
    body = [
      *{each.name: _parameter(each) for each in operands}.values(),
      dataclasses.replace(instruction, is_root=True),
    ]
  needed = _needed(body, module)
  return Traffic(
    read=sum(
      _share(each, needed[each.name])
      for each in body
      if each.opcode == "parameter"
    ),
    written=_written(body),
  )


def _parameter(giver: hlo.Instruction) -> hlo.Instruction:
  return dataclasses.replace(
    giver, opcode="parameter", operands=(), is_root=False
  )


def _share(instruction: hlo.Instruction, needed: int) -> int:
  """Bytes of so many numbers of what an instruction gives."""
  return instruction.num_bytes * needed // max(1, instruction.size)


def _needed(
  body: list[hlo.Instruction], module: hlo.Computations
) -> dict[str, int]:
  """How many numbers are needed of what each instruction gives."""
  users: dict[str, list[hlo.Instruction]] = {each.name: [] for each in body}
  for each in body:
    for operand in dict.fromkeys(each.operands):
      users[operand].append(each)
  in_place = {
    update.name
    for result in _results(body)
    for update in _updates(body, result)
  }
  needed: dict[str, int] = {}

  def needs(user: hlo.Instruction, giver: hlo.Instruction) -> int:
    if user.opcode == "fusion":  # one within another
      inner = module[user.fused]
      parts = _needed(inner, module)
      return sum(
        parts[parameter.name]
        for operand, parameter in zip(
          user.operands, hlo.parameters(inner), strict=True
        )
        if operand == giver.name
      )
    first = user.operands[0] == giver.name
    if first and user.name in in_place:
      return 0
    # What gives as many numbers as it takes needs of them as many as are
    # needed of it; products, sums and others need all.
    if (first and user.opcode in _TAKE_A_PART) or user.size == giver.size:
      return needed[user.name]
    return giver.size

  for each in reversed(body):  # users before givers
    total = sum(needs(user, each) for user in users[each.name])
    needed[each.name] = each.size if each.is_root else min(each.size, total)
  return needed


def _written(body: list[hlo.Instruction]) -> int:
  """Bytes of the results; of those updated in place, what is new."""
  by_name = {each.name: each for each in body}
  total = 0
  for result in _results(body):
    updates = _updates(body, result)
    if updates:
      total += sum(by_name[_new(each)].num_bytes for each in updates)
    else:
      total += result.num_bytes
  return total


def _results(body: list[hlo.Instruction]) -> list[hlo.Instruction]:
  """What gives the results, one by one."""
  by_name = {each.name: each for each in body}
  (root,) = (each for each in body if each.is_root)
  if root.opcode == "tuple":
    return [by_name[operand] for operand in root.operands]
  return [root]


def _updates(
  body: list[hlo.Instruction], result: hlo.Instruction
) -> list[hlo.Instruction]:
  """The updates of a parameter, one after another, that give a result."""
  by_name = {each.name: each for each in body}
  updates, each = [], result
  while each.opcode == "bitcast" or _is_update(each):
    if _is_update(each):
      updates.append(each)
    each = by_name[each.operands[0]]
  return updates if each.opcode == "parameter" else []


def _is_update(instruction: hlo.Instruction) -> bool:
  """Whether it gives its first operand with a part of it written over."""
  return instruction.opcode == "dynamic-update-slice" or (
    instruction.opcode == "scatter" and len(instruction.arrays) == 1
  )


def _new(update: hlo.Instruction) -> str:
  """Names the operand of an update that is written."""
  return update.operands[2 if update.opcode == "scatter" else 1]
