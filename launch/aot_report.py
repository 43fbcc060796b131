"""Memory of a step compiled for TPUs or GPUs, and what would make it fit."""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from launch import aot_targets
from trm_jax.runtime import flops
from trm_jax.runtime import program as program_lib

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# libtpu's errors about memory. The compiler for GPUs raises none.
_TOO_MUCH = re.compile(
  r"\(([\d.]+)([KMGT])\) exceeds available HBM|Used ([\d.]+)([KMGT]) of .* hbm"
)


@dataclasses.dataclass(frozen=True)
class Report:
  """Memory of a chip while it runs a compiled step.

  Attributes:
    step: 'train' or 'evaluate'.
    batch_size: global batch size.
    compile_seconds: tracing and compiling.
    memory: bytes by purpose.
    usable: bytes of a chip's memory that a program may use.
    total: sum of `memory`, an upper bound: not all temporaries are in it, nor
      all at the same time.
    fits: whether a chip can run the step.
    model_flops: of the network's matrix products on all chips, recomputation
      not counted.
  """

  step: str
  batch_size: int
  compile_seconds: float
  memory: dict[str, int]
  usable: int
  total: int
  fits: bool
  model_flops: float

  def lines(self, num_chips: int) -> Iterator[str]:
    """Yields the lines of the report."""
    yield (
      f"{self.step} step: batch {self.batch_size},"
      f" {self.batch_size // num_chips} per chip; compiled in"
      f" {self.compile_seconds:.0f} s"
    )
    yield "  memory of a chip, GiB"
    for name, size in self.memory.items():
      yield f"    {name:<32}{_gib(size):7.3f}"
    yield (
      f"    {'total':<32}{_gib(self.total):7.3f} of {_gib(self.usable):.3f}"
      + (f", {_gib(max(0, self.usable - self.total)):.3f} left" * self.fits)
    )
    yield (
      f"  matrix products of the network: {self.model_flops / 1e12:.3g} TFLOP,"
      f" {self.model_flops / num_chips / 1e12:.3g} per chip (excluding"
      " recomputation)"
    )


def _gib(size: int) -> float:
  return size / aot_targets.GIB


def train(program: program_lib.Program, target: aot_targets.Target) -> Report:
  """Compiles the training step of a program for a target."""
  state = program.abstract_state()
  batch = program.abstract_batch(program.config.train.batch_size)
  return _report(
    "train",
    target,
    lambda: compile_step(program.train_step(), state, batch, target=target),
    {
      "parameters": state.params,
      "EMA parameters": state.ema_params,
      "optimizer state": state.opt_state,
      "share of the puzzle table": state.puzzle_table,
      "initial latents": state.initial_latents,
      "carry": state.carry,
      "batch": batch,
    },
    batch_size=program.config.train.batch_size,
    model_flops=flops.train_flops(program.config, program.model),
  )


def evaluate(
  program: program_lib.Program, target: aot_targets.Target
) -> Report:
  """Compiles the evaluation of a batch, as it runs between training steps."""
  size = program.config.eval.batch_size
  state, batch = program.abstract_state(), program.abstract_batch(size)
  rows = jax.ShapeDtypeStruct((size,), bool, sharding=batch.puzzle_ids.sharding)
  weights = state.ema_weights
  return _report(
    "evaluate",
    target,
    lambda: compile_step(
      program.evaluate_batch(), weights, batch, rows, target=target
    ),
    {
      "EMA parameters": weights.params,
      "share of the puzzle table": weights.puzzle_table,
      "initial latents": weights.initial_latents,
      "batch": batch,
    },
    beside_it=_num_bytes(state) - _num_bytes(weights),
    batch_size=size,
    model_flops=flops.evaluate_flops(program.config, program.model),
  )


def compile_step(
  step: Any, *arguments: Any, target: aot_targets.Target
) -> jax.stages.Compiled:
  """Compiles a jitted step for a target.

  Args:
    step: of a program on the target's devices.
    *arguments: shapes, dtypes and shardings of its arguments.
    target: what to compile for.

  Raises:
    JaxRuntimeError: among other things, a TPU's memory is too small.
  """
  mesh = jax.tree.leaves(arguments)[0].sharding.mesh
  # Pallas kernels are chosen for the device of this mesh, not for this host's.
  with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
    lowered = step.trace(*arguments).lower(
      lowering_platforms=(target.platform,)
    )
  return lowered.compile()


def _report(
  step: str,
  target: aot_targets.Target,
  compile_it: Callable[[], jax.stages.Compiled],
  arguments: dict[str, Any],
  *,
  batch_size: int,
  model_flops: float,
  beside_it: int = 0,
) -> Report:
  """Compiles a step and reports its memory.

  Args:
    step: its name.
    target: what to compile for.
    compile_it: compiles it.
    arguments: abstract arrays that the step takes, by purpose.
    batch_size: global batch size.
    model_flops: of the network's matrix products.
    beside_it: bytes of arrays that stay in a chip's memory meanwhile.
  """
  start = time.monotonic()
  try:
    memory = _memory(compile_it(), arguments)
    compiles = True
  except jax.errors.JaxRuntimeError as error:
    needed = _TOO_MUCH.search(str(error))
    if needed is None:
      raise
    number, unit = filter(None, needed.groups())
    memory = {"by the compiler's account": int(float(number) * _UNITS[unit])}
    compiles = False
  seconds = time.monotonic() - start
  if beside_it:
    memory["rest of the training state"] = beside_it
  total = sum(memory.values())
  # libtpu refuses what does not fit, but it knows nothing of what is beside it.
  trusts_compiler = target.is_tpu and not beside_it
  return Report(
    step=step,
    batch_size=batch_size,
    compile_seconds=seconds,
    memory=memory,
    usable=target.usable,
    total=total,
    fits=compiles and (trusts_compiler or total <= target.usable),
    model_flops=model_flops,
  )


def _memory(
  compiled: jax.stages.Compiled, arguments: dict[str, Any]
) -> dict[str, int]:
  """Returns the bytes that a compiled step needs on a chip, by purpose."""
  memory: Any = compiled.memory_analysis()
  read = {name: _num_bytes(tree) for name, tree in arguments.items()}
  return {
    **read,
    "padding": memory.argument_size_in_bytes - sum(read.values()),
    "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
    "temporaries": memory.temp_size_in_bytes,
    "program": memory.generated_code_size_in_bytes,
  }


def _num_bytes(tree: Any) -> int:
  """Returns the bytes that a chip holds of abstract arrays."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def advice(
  program: program_lib.Program, target: aot_targets.Target, report: Report
) -> str:
  """Returns the error about a step that does not fit: what would help."""
  config = program.config
  group = "train" if report.step == "train" else "eval"
  size = report.batch_size
  ways = [
    f"--topology={larger.name} ({size // larger.num_chips} per chip)"
    for larger in target.larger()
    if size % larger.num_chips == 0
  ][:1]
  if report.step == "train" and program.model.remat != "full":
    ways.append("--config.model.remat=full")
  elif report.step == "train":
    parts = 2 * config.train.gradient_accumulation_steps
    if size % (parts * target.num_chips) == 0:
      ways.append(f"--config.train.gradient_accumulation_steps={parts}")
  if size // 2 >= target.num_chips:
    ways.append(f"--config.{group}.batch_size={size // 2}")
  return (
    f"the {report.step} step does not fit {target.name}: it needs"
    f" {_gib(report.total):.1f} GiB of a chip's {_gib(target.usable):.2f};"
    f" try {', or '.join(ways) or 'chips with more memory'}"
  )
