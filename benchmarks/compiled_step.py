"""Measures a program's compiled step: what its benchmarks have in common."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags, logging

from benchmarks import machine, measure, products
from launch import aot_sizes
from trm_jax.core import types
from trm_jax.runtime import command_line, devices
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import program as program_lib

_NUM_PUZZLE_IDS = flags.DEFINE_integer(
  "num_puzzle_ids", None, "Rows of the puzzle table, where not known."
)
_COMPILE_SECONDS = flags.DEFINE_bool(
  "compile_seconds",
  True,
  "Time compiling, cold and from a cache of its own; if not, JAX's settings of"
  " the compilation cache hold.",
)


@dataclasses.dataclass(frozen=True)
class Step:
  """A compiled step and what it works on."""

  function: Any  # jitted
  arguments: Sequence[Any]  # their shapes, dtypes and shardings
  # Creates the arrays and returns the call, which returns what to wait for.
  prepare: Callable[[], Callable[[], Any]]
  batch_size: int
  flops: float  # of a call, by trm_jax/runtime/flops.py
  products: products.Counted  # of a call
  remedy: str  # for a device that is too small


@dataclasses.dataclass(frozen=True)
class Effort:
  """How long to measure."""

  calls: int  # timed
  warm_up: int  # calls before them
  cold: bool  # whether to compile with an empty cache, and once more from it

  @classmethod
  def of_flags(cls) -> "Effort":
    """Returns what the command line says."""
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
  devices.tune_malloc()  # as trm_jax.main does
  config = command_line.config()
  sizes = aot_sizes.of_data(config.data, _NUM_PUZZLE_IDS.value)
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
  with measure.told_if_too_big(step.remedy), cache():
    # First: what is compiled for one program may help the next.
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
    floor = None
    if platform == "cpu" and mesh.size == 1:
      floor = products.seconds(step.products, config.model.compute_dtype)
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
    **_rates(step, timing, rate * mesh.size),
    **_share_of_floor(timing, floor),
    "peak_gb": peak / 1e9,
    **compiling.fields(),
  }


def _rates(
  step: Step, timing: measure.Timing, product_rate: float
) -> dict[str, float]:
  """Returns rates of all devices together."""
  rate = step.flops / timing.median
  return {
    "model_tflops_per_second": rate / 1e12,
    "product_tflops_per_second": product_rate / 1e12,
    "share_of_product": rate / product_rate,
  }


def _share_of_floor(
  timing: measure.Timing, floor: float | None
) -> dict[str, float]:
  if floor is None:
    return {}
  return {
    "seconds_of_products_at_these_shapes": floor,
    "share_of_products_at_these_shapes": floor / timing.median,
  }
