"""The kernels of one run of a compiled GPU program, and the least they cost.

Read from the compiled HLO. No kernel is faster than its bytes at the rate of
the chip's memory (launch/aot_traffic.py counts them), nor than its products at
the rate of the matrix units; and kernels run one after another. What small
arrays save by staying in the L2 cache is not seen here, and not what travels
between chips meanwhile (launch/aot_collectives.py). Of kernels that are written
by hand, the products of trm_jax/core/kernels/swiglu.py are known. A loop of
unknown length, as that of adaptive halting, counts once: `Kernel.exact` tells. Of a
conditional, which the steps do not have, every branch counts.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence

from launch import aot_collectives, aot_gpus, aot_traffic
from launch import hlo as hlo_lib

# Names for memory, and what is counted by what it calls.
_NO_KERNELS = (
  *("parameter", "constant", "tuple", "get-tuple-element", "bitcast"),
  *("after-all", "add-dependency", "optimization-barrier", "domain"),
  *("partition-id", "replica-id"),
  *hlo_lib.CONTROL,
)
_FUSION_KIND = re.compile(r"kind=(k\w+)")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_CONTRACTED = re.compile(r"lhs_contracting_dims=\{([\d,]*)\}")
# Of the calls of libraries, in JSON.
_CUBLAS_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":\s*\[([^]]*)\]')
_ATTENTION_WEIGHTS = re.compile(
  r'"intermediate_tensor_shape":\s*\{.*?"dimensions":\s*\[([^]]*)\]'
)

_GATED_PRODUCT = ' name = "gated_product"'  # of trm_jax/core/kernels/swiglu.py


@dataclasses.dataclass(frozen=True)
class Kernel:
  """A kernel; its bytes and FLOPs are those of one time that it runs."""

  kind: str  # 'kLoop' and such of fusions, or the library's call, or opcode
  name: str  # what it computes, the last parts of JAX's name
  times: int  # it runs in one run of the program
  exact: bool  # or it may run more often
  read: int  # bytes of the chip's memory
  written: int  # bytes
  flops: int  # of the products in it, a multiply-add as 2

  @property
  def total_bytes(self) -> int:
    """Bytes in one run of the program."""
    return self.times * (self.read + self.written)

  @property
  def total_flops(self) -> int:
    """FLOPs in one run of the program."""
    return self.times * self.flops

  def seconds(self, gpu: aot_gpus.Gpu) -> float:
    """Returns the least seconds that it takes of one run of the program."""
    return max(self.total_bytes / gpu.bandwidth, self.total_flops / gpu.flops)


def least_seconds(kernels: Iterable[Kernel], gpu: aot_gpus.Gpu) -> float:
  """Returns the seconds that no run of these kernels falls below."""
  return sum(kernel.seconds(gpu) for kernel in kernels)


def costliest(
  kernels: Iterable[Kernel], gpu: aot_gpus.Gpu, *, count: int
) -> list[Kernel]:
  """Returns the kernels of the most seconds; those that are alike as one.

  Args:
    kernels: of a program. Alike are those that differ only in how often they
      run, as those of the same part of several layers do.
    gpu: that runs them.
    count: how many to return at most.
  """
  times: dict[Kernel, int] = {}
  for kernel in kernels:
    alike = dataclasses.replace(kernel, times=1)
    times[alike] = times.get(alike, 0) + kernel.times
  found = [dataclasses.replace(k, times=n) for k, n in times.items()]
  return sorted(found, key=lambda k: k.seconds(gpu), reverse=True)[:count]


def lines(
  kernels: Sequence[Kernel],
  gpu: aot_gpus.Gpu,
  *,
  model_flops: float,
  count: int,
) -> Iterator[str]:
  """Yields what people read of a step's kernels.

  Args:
    kernels: of the step.
    gpu: that runs them.
    model_flops: of the network's products, of a chip.
    count: so many kernels have a line each, the costliest.
  """
  exact = all(kernel.exact for kernel in kernels)
  moved = sum(kernel.total_bytes for kernel in kernels)
  launches = sum(kernel.times for kernel in kernels)
  yield (
    f"  device memory traffic of a step: {moved / 1e9:,.1f} GB per chip, of"
    f" {launches:,} kernels"
    + ("" if exact else ", a loop of unknown length counted once")
  )
  least = least_seconds(kernels, gpu)
  products = least_seconds((k for k in kernels if k.flops), gpu)
  line = (
    f"  the least seconds of a step: {least:.3g} at {gpu.bandwidth / 1e12:.3g}"
    f" TB/s and {gpu.flops / 1e12:.3g} TFLOP/s; products {products:.3g},"
    f" everything else {least - products:.3g}"
  )
  if exact:  # or it is not known how often the network runs
    share = model_flops / least / gpu.flops
    line += f"; at most {share:.0%} of the bfloat16 rate"
  yield line
  if count:
    yield "  the costliest kernels: times, GB, ms at least, TFLOP"
  for kernel in costliest(kernels, gpu, count=count):
    yield (
      f"    {kernel.times:6,}{kernel.total_bytes / 1e9:10.3f}"
      f"{kernel.seconds(gpu) * 1e3:10.3f}{kernel.total_flops / 1e12:10.3f}"
      f"  {kernel.kind} {kernel.name}"
    )


def find(hlo: str) -> list[Kernel]:
  """Returns the kernels of a compiled GPU module's text, in no order.

  Args:
    hlo: as `compiled.as_text()` gives it.

  Raises:
    ValueError: a product of a library does not say what it multiplies.
  """
  module = hlo_lib.computations(hlo)
  found = []
  for name, runs in hlo_lib.runs(module, launched=True).items():
    by_name = {each.name: each for each in module[name]}
    for each in filter(_is_kernel, module[name]):
      operands = [by_name[operand] for operand in each.operands]
      kernel = _with_results_only(each, operands)
      traffic = aot_traffic.of(kernel, operands, module)
      found.append(
        Kernel(
          kind=_kind(kernel),
          name=_name(kernel),
          times=runs.times,
          exact=runs.exact,
          read=traffic.read,
          written=traffic.written,
          flops=_flops(kernel, by_name, module),
        )
      )
  return found


def _is_kernel(instruction: hlo_lib.Instruction) -> bool:
  opcode = instruction.opcode
  return not (
    opcode in _NO_KERNELS
    or opcode.endswith(("-done", "-update"))  # of what has a start
    or opcode.removesuffix("-start") in aot_collectives.KINDS
  )


def _with_results_only(
  instruction: hlo_lib.Instruction, operands: list[hlo_lib.Instruction]
) -> hlo_lib.Instruction:
  """Returns it without what else it gives: operands, room to work in."""
  opcode, arrays = instruction.opcode, instruction.arrays
  if opcode == "copy-start":  # gives the copy, then what it copies
    opcode, arrays = "copy", arrays[:1]
  elif opcode.endswith("-start"):  # gives the operands first
    opcode = opcode.removesuffix("-start")
    arrays = arrays[sum(len(operand.arrays) for operand in operands) :]
  if _kind(instruction).startswith("__cu") and len(arrays) > 1:
    arrays = arrays[:-1]
  return dataclasses.replace(instruction, opcode=opcode, arrays=arrays)


def _kind(instruction: hlo_lib.Instruction) -> str:
  pattern = _FUSION_KIND if instruction.opcode == "fusion" else _TARGET
  match = pattern.search(instruction.text)
  return match[1] if match else instruction.opcode


def _name(instruction: hlo_lib.Instruction) -> str:
  """The last parts of where the program has it, or XLA's own name."""
  match = _OP_NAME.search(instruction.text)
  if match is None:
    return instruction.name.rstrip(".0123456789")
  # Without methods of modules, such as down._product after down.
  parts = [part for part in match[1].split("/") if "." not in part]
  return "/".join(parts[-3:])


def _flops(
  instruction: hlo_lib.Instruction,
  by_name: dict[str, hlo_lib.Instruction],
  module: hlo_lib.Computations,
) -> int:
  """Counts the products of an instruction and of what is fused in it."""
  if instruction.opcode == "fusion":
    inner = {each.name: each for each in module[instruction.fused]}
    return sum(_flops(each, inner, module) for each in inner.values())
  kind = _kind(instruction)
  if instruction.opcode == "dot":
    contracted = _CONTRACTED
  elif kind.startswith("__cublas$") and ("matmul" in kind or "gemm" in kind):
    contracted = _CUBLAS_CONTRACTED
  elif kind.startswith("__cudnn$fmha"):
    return _attention_flops(instruction, by_name)
  elif _GATED_PRODUCT in instruction.text:  # of x with each of two kernels
    kernels = (
      by_name[operand].arrays[0] for operand in instruction.operands[1:]
    )
    size = instruction.arrays[0].size  # of each output
    return sum(2 * size * kernel.dims[0] for kernel in kernels)
  else:
    return 0
  left = by_name[instruction.operands[0]].arrays[0]
  sums = math.prod(left.dims[dim] for dim in _numbers(instruction, contracted))
  return 2 * instruction.arrays[0].size * sums


def _attention_flops(
  instruction: hlo_lib.Instruction, by_name: dict[str, hlo_lib.Instruction]
) -> int:
  """Counts the products of cuDNN's attention.

  Forward: queries with keys, [B, H, S, S] sums over K numbers, and these
  weights with values, as many. Backward: the weights again, and two products
  for each of the two.
  """
  queries = by_name[instruction.operands[0]].arrays[0]  # [B, S, H, K]
  weights = math.prod(_numbers(instruction, _ATTENTION_WEIGHTS))
  products = 5 if "Backward" in _kind(instruction) else 2
  return products * 2 * weights * queries.dims[-1]


def _numbers(
  instruction: hlo_lib.Instruction, pattern: re.Pattern
) -> list[int]:
  """Returns the numbers of a list in an instruction's text."""
  match = pattern.search(instruction.text)
  if match is None:
    line = instruction.text.strip()[:200]
    raise ValueError(f"does not say what it multiplies: {line}")
  return [int(number) for number in re.findall(r"\d+", match[1])]
