"""Measures a compiled step of a program, for the benchmarks of both steps."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from benchmarks import machine, measure
from launch import aot_targets
from trm_jax.core import types
from trm_jax.runtime import command_line, host_memory
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import program as program_lib

_NUM_PUZZLE_IDS = flags.DEFINE_integer(
  "num_puzzle_ids", None, "Rows of the puzzle table, if unknown."
)
_COMPILE_SECONDS = flags.DEFINE_bool(
  "compile_seconds",
  True,
  "Time compilation, cold and from a cache of its own; otherwise JAX's settings"
  " of the compilation cache apply.",
)


@dataclasses.dataclass(frozen=True)
class Step:
  """A compiled step and what it works on.

  Attributes:
    function: of jax.jit.
    arguments: their shapes, dtypes and shardings.
    prepare: creates the arrays and returns the call, which returns what to
      wait for.
    batch_size: global batch size.
    flops: of the network's matrix products in a call.
    remedy: for a device whose memory is too small.
  """

  function: Any
  arguments: Sequence[Any]
  prepare: Callable[[], Callable[[], Any]]
  batch_size: int
  flops: float
  remedy: str


@dataclasses.dataclass(frozen=True)
class Effort:
  """How long to measure.

  Attributes:
    calls: number of timed calls.
    warm_up: number of calls before them.
    cold: whether to time compilation, cold and cached.
  """

  calls: int
  warm_up: int
  cold: bool

  @classmethod
  def of_flags(cls) -> "Effort":
    """Returns the effort that the flags name."""
    return cls(
      calls=measure.CALLS.value,
      warm_up=measure.WARM_UP.value,
      cold=_COMPILE_SECONDS.value,
    )


def print_measurement(
  argv: Sequence[str],
  benchmark: Callable[[program_lib.Program, Effort], dict[str, Any]],
) -> None:
  """Measures the program that the flags name and prints one JSON line."""
  logging.set_verbosity(logging.WARNING)
  command_line.expect_no_words(argv)
  print(json.dumps(benchmark(build_program(), Effort.of_flags())))


def build_program() -> program_lib.Program:
  """Builds the program that the flags name, on all devices.

  Raises:
    UserError: a flag is wrong, or the data cannot be read.
  """
  host_memory.tune_malloc()  # as trm_jax.main does
  config = command_line.config()
  sizes = aot_targets.data_sizes(config.data, _NUM_PUZZLE_IDS.value)
  return program_lib.build(config, sizes, mesh_lib.make_mesh())


def random_batch(program: program_lib.Program, batch_size: int) -> types.Batch:
  """Draws tokens, and puzzle ids from the whole table."""
  sizes = program.sizes
  draw = np.random.default_rng(program.config.seed).integers
  tokens = (batch_size, sizes.seq_len)
  batch = {
    "inputs": draw(sizes.vocab_size, size=tokens, dtype=np.int32),
    "labels": draw(sizes.vocab_size, size=tokens, dtype=np.int32),
    "puzzle_ids": draw(sizes.num_puzzle_ids, size=batch_size, dtype=np.int32),
  }
  return mesh_lib.put_batch(batch, program.mesh)


def measure_step(
  program: program_lib.Program, step: Step, effort: Effort
) -> tuple[measure.Timing, dict[str, Any]]:
  """Compiles and times a step.

  Args:
    program: that the step is of.
    step: what to measure.
    effort: how long to measure it.

  Returns:
    The seconds of a call, and the fields that all measurements have.

  Raises:
    UserError: the device's memory is too small.
  """
  config, mesh = program.config, program.mesh
  platform = mesh.devices.flat[0].platform
  cache = measure.empty_cache if effort.cold else contextlib.nullcontext
  with measure.explain_out_of_memory(step.remedy), cache():
    # First: compiling one program may speed up compiling the next.
    compiling = measure.compile_step(
      step.function, *step.arguments, cold=effort.cold
    )
    call = step.prepare()
    rate = measure.product_rate(platform)
    timing = measure.time_calls(
      call, calls=effort.calls, warm_up=effort.warm_up
    )
    peak = measure.peak_bytes()
    rate = max(rate, measure.product_rate(platform))
  params = jax.tree.leaves(program.abstract_state().params)
  return timing, {
    "experiment": config.name,
    "command": machine.command(),
    **machine.fields(),
    "num_devices": mesh.size,
    "batch_size": step.batch_size,
    "dtype": config.model.compute_dtype,
    "token_mixing": config.model.token_mixing,
    "remat": program.model.remat,
    "unroll": program.model.unroll,
    "sequence_length": program.model.total_len,
    "parameters": sum(leaf.size for leaf in params),
    "puzzle_ids": program.sizes.num_puzzle_ids,
    # Of all devices together.
    "model_tflops_per_second": step.flops / timing.median / 1e12,
    "product_tflops_per_second": rate * mesh.size / 1e12,
    "share_of_product": step.flops / timing.median / (rate * mesh.size),
    "peak_gb": peak / 1e9,
    **compiling,
  }
