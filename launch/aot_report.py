"""What a compiled step costs a chip: memory, products, traffic."""

import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any

import jax

from launch import (
  aot_collectives,
  aot_gpus,
  aot_kernels,
  aot_slices,
  aot_targets,
)
from trm_jax.runtime import flops
from trm_jax.runtime import program as program_lib

_REST = "the rest of the training state"
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# How compilers say that a TPU's memory is too small. For GPUs they say nothing.
_TOO_MUCH = re.compile(
  r"\(([\d.]+)([KMGT])\) exceeds available HBM|Used ([\d.]+)([KMGT]) of .* hbm"
)


@dataclasses.dataclass(frozen=True)
class Report:
  """One step of a program, compiled; bytes are those of one chip."""

  step: str  # 'train' or 'evaluate'
  batch_size: int  # over all chips
  compile_seconds: float
  memory: dict[str, int]  # while it runs, by what it is for
  usable: int  # memory of a chip
  compiles: bool  # or the compiler says that it is too much
  # Of a chip; XLA counts a loop's body once, no kernels, for GPUs nothing.
  xla_flops: float | None
  model_flops: float  # of all chips; the network's products, by hand
  collectives: tuple[aot_collectives.Collective, ...]
  gpu: aot_gpus.Gpu | None  # what a chip is, if it is one
  kernels: tuple[aot_kernels.Kernel, ...]  # of a GPU

  @property
  def total(self) -> int:
    """Bytes of memory while the step runs, at most.

    Temporaries do not all lie in it, nor all at the same time.
    """
    return sum(self.memory.values())

  @property
  def fits(self) -> bool:
    """Whether a chip can run it.

    The compilers for TPU say so themselves, but they know of the step alone.
    """
    if self.gpu is None and _REST not in self.memory:
      return self.compiles
    return self.compiles and self.total <= self.usable

  @property
  def traffic_bytes(self) -> int | None:
    """Bytes that a GPU's kernels read from its memory and write to it."""
    if self.gpu is None:
      return None
    return sum(kernel.total_bytes for kernel in self.kernels)

  @property
  def least_seconds(self) -> float | None:
    """Seconds that no run of the step on these GPUs falls below."""
    if self.gpu is None:
      return None
    return aot_kernels.least_seconds(self.kernels, self.gpu)

  def traffic(self) -> dict[str, int]:
    """Bytes of the collectives of a step, by kind."""
    kinds: dict[str, int] = {}
    for each in self.collectives:
      kinds[each.kind] = kinds.get(each.kind, 0) + each.total
    return kinds

  def largest_collective(self) -> int:
    """Bytes of the largest array that travels."""
    return max((each.num_bytes for each in self.collectives), default=0)

  def to_json(self) -> dict[str, Any]:
    """Returns what JSON can hold."""
    fields = dataclasses.asdict(self)
    del fields["gpu"], fields["kernels"]
    return fields | {
      "total": self.total,
      "fits": self.fits,
      "collectives": self.traffic(),
      "largest_collective": self.largest_collective(),
      "traffic_bytes": self.traffic_bytes,
      "least_seconds": self.least_seconds,
    }

  def lines(self, chips: int, *, kernels: int = 0) -> Iterator[str]:
    """Yields the report as people read it.

    Args:
      chips: that run the step together.
      kernels: so many of a GPU's, the costliest, have a line each.
    """
    yield (
      f"{self.step} step: batch {self.batch_size},"
      f" {self.batch_size // chips} per chip; compiled in"
      f" {self.compile_seconds:.0f} s"
    )
    yield "  memory of a chip, GiB"
    for name, size in self.memory.items():
      yield f"    {name:<32}{_gib(size)}"
    left = _gib(max(0, self.usable - self.total)).strip()
    yield (
      f"    {'in all':<32}{_gib(self.total)} of {_gib(self.usable).strip()}"
      + (f", {left} left" if self.fits else "")
    )
    if not self.compiles:
      return
    yield (
      f"  products of the network: {self.model_flops / 1e12:.3g} TFLOP a"
      f" step, {self.model_flops / chips / 1e12:.3g} per chip; recomputing is"
      " not counted"
    )
    if self.xla_flops is not None:
      yield (
        f"  XLA's own count: {self.xla_flops / 1e12:.3g} TFLOP per chip, each"
        " loop's body once, kernels not counted"
      )
    yield (
      "  collectives of a step, MB per chip (size of the whole arrays): "
      + (
        ", ".join(f"{k} {v / 1e6:.2f}" for k, v in self.traffic().items())
        or "none"
      )
      + f"; the largest {self.largest_collective() / 1e6:.2f}"
    )
    if self.gpu is not None:
      yield from aot_kernels.lines(
        self.kernels,
        self.gpu,
        model_flops=self.model_flops / chips,
        count=kernels,
      )


def _gib(size: int) -> str:
  return f"{size / aot_slices.GIB:7.3f}"


def train(program: program_lib.Program, target: aot_targets.Target) -> Report:
  """Compiles the training step of a program on the target's devices."""
  size = program.config.train.batch_size
  state, batch = program.abstract_state(), program.abstract_batch(size)
  return _report(
    "train",
    program,
    program.train_step(),
    (state, batch),
    arguments={
      "parameters": state.params,
      "their average": state.ema_params,
      "optimizer": state.opt_state,
      "share of the puzzle table": state.puzzle_table,
      "initial latents": state.initial_latents,
      "slots": state.carry,
      "batch": batch,
    },
    resident={},
    target=target,
    batch_size=size,
    model_flops=flops.train_flops(program.config, program.sizes.seq_len),
  )


def evaluate(
  program: program_lib.Program, target: aot_targets.Target
) -> Report:
  """Compiles the evaluation of a batch, as it runs between training steps."""
  size = program.config.eval.batch_size
  state, batch = program.abstract_state(), program.abstract_batch(size)
  rows = jax.ShapeDtypeStruct((size,), bool, sharding=batch.puzzle_ids.sharding)
  weights = state.averaged_weights
  return _report(
    "evaluate",
    program,
    program.evaluate_batch(),
    (weights, batch, rows),
    arguments={
      "averaged parameters": weights.params,
      "share of the puzzle table": weights.puzzle_table,
      "initial latents": weights.initial_latents,
      "batch": batch,
    },
    resident={_REST: _num_bytes(state) - _num_bytes(weights)},
    target=target,
    batch_size=size,
    model_flops=flops.evaluate_flops(program.config, program.sizes.seq_len),
  )


def _report(
  step: str,
  program: program_lib.Program,
  function: Any,
  arguments_of_step: tuple[Any, ...],
  *,
  arguments: dict[str, Any],
  resident: dict[str, int],
  target: aot_targets.Target,
  batch_size: int,
  model_flops: float,
) -> Report:
  start = time.monotonic()
  # Kernels are written for the device of this mesh, not for that of this host.
  with jax.sharding.use_abstract_mesh(program.mesh.abstract_mesh):
    lowered = function.trace(*arguments_of_step).lower(
      lowering_platforms=(target.platform,)
    )
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needed = _TOO_MUCH.search(str(error))
    if needed is None:
      raise
    compiled = None
    memory = {
      "by the compiler's account": _size(*filter(None, needed.groups()))
    }
  else:
    memory = _memory(compiled, arguments)
  seconds = time.monotonic() - start
  gpu = target.gpu if isinstance(target, aot_gpus.Machine) else None
  counts = compiled.cost_analysis() if compiled else None
  text = compiled.as_text() if compiled else None
  return Report(
    step=step,
    batch_size=batch_size,
    compile_seconds=seconds,
    memory=memory | resident,
    usable=target.usable,
    compiles=compiled is not None,
    xla_flops=counts["flops"] if counts else None,
    model_flops=model_flops,
    collectives=tuple(
      aot_collectives.find(text, num_devices=program.mesh.size) if text else ()
    ),
    gpu=gpu,
    kernels=tuple(aot_kernels.find(text) if text and gpu else ()),
  )


def _memory(compiled: Any, arguments: dict[str, Any]) -> dict[str, int]:
  """Bytes of a chip's memory that a compiled step needs, by what for."""
  memory = compiled.memory_analysis()
  read = {name: _num_bytes(tree) for name, tree in arguments.items()}
  return {
    **read,
    "padding": memory.argument_size_in_bytes - sum(read.values()),
    "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "program": memory.generated_code_size_in_bytes,
  }


def _num_bytes(tree: Any) -> int:
  """Bytes that a chip holds of abstract arrays."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    shape = leaf.sharding.shard_shape(leaf.shape)
    count = 1
    for side in shape:
      count *= side
    total += count * leaf.dtype.itemsize
  return total


def _size(number: str, unit: str) -> int:
  return int(float(number) * _UNITS[unit])
