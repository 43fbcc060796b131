r"""Times SwiGLU's two products and their gate, XLA's way and the kernel's.

  python -m benchmarks.gated_product --config=experiments/sudoku.py

takes the shapes of the experiment at --config.eval.batch_size, on one GPU; each
block size of the kernel is a way of its own. The last line is one JSON object:
the seconds of every way, for the MLP over tokens and the one over channels, and
how far the kernel's result is from XLA's. `seconds_per_step` is that of the
fastest ways. --interpret runs the kernel on any device, slowly: no measurement.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from benchmarks import compiled_step, machine, measure
from trm_jax.core import layers
from trm_jax.core.kernels import matmul, swiglu
from trm_jax.runtime import command_line, devices, model_factory
from trm_jax.runtime import program as program_lib

_INTERPRET = flags.DEFINE_bool("interpret", False, "For tests.")

# (rows, width, depth, warps, stages); the first is what the model takes.
_BLOCKS = (
  dataclasses.astuple(swiglu.Triton())[:5],
  (128, 128, 32, 8, 4),
  (128, 64, 64, 4, 3),
  (64, 128, 64, 4, 3),
  (64, 64, 64, 4, 4),
  (256, 64, 64, 8, 3),
)


@dataclasses.dataclass(frozen=True)
class Shape:
  """One of a block's two MLPs."""

  name: str
  axis: int  # as `products.Multiply` has it
  rows: int  # of x's other axis
  depth: int  # numbers that are added up
  width: int  # numbers that each kernel makes


def shapes(program: program_lib.Program) -> Iterator[Shape]:
  """Yields the MLPs of the network at the batch size of evaluation."""
  model, settings = program.model, program.config.model
  batch, size = program.config.eval.batch_size, model.hidden_size
  width = functools.partial(
    layers.swiglu_width,
    expansion=settings.mlp_expansion,
    multiple=settings.mlp_multiple,
  )
  length = model.total_len
  if model.token_mixing == "mlp":
    yield Shape("tokens", 0, batch * size, length, width(length))
  yield Shape("channels", -1, batch * length, size, width(size))


def ways(*, interpret: bool) -> Iterator[tuple[str, swiglu.GatedProduct]]:
  """Yields names and functions."""
  yield "xla", _plain
  for block in _BLOCKS:
    yield (
      "triton " + " ".join(map(str, block)),
      swiglu.Triton(*block, interpret=interpret),
    )


def _plain(x, gate, up, axis):
  return swiglu.silu(matmul.plain(x, gate, axis), matmul.plain(x, up, axis))


def measure_shape(
  shape: Shape, effort: compiled_step.Effort, *, interpret: bool
) -> dict[str, Any]:
  """Times all ways of a shape, and compares what they make with XLA's."""
  taken = (shape.depth, shape.rows)
  x = measure.random_array(
    taken if shape.axis == 0 else taken[::-1], "bfloat16", 0
  )
  kernels = [
    measure.random_array((shape.depth, shape.width), "bfloat16", seed)
    * shape.depth**-0.5
    for seed in (1, 2)
  ]
  seconds: dict[str, float] = {}
  errors: dict[str, float] = {}
  expected = None
  for name, way in ways(interpret=interpret):
    function = jax.jit(functools.partial(way, axis=shape.axis))
    call = functools.partial(function, x, *kernels)
    seconds[name] = measure.time_calls(
      call, calls=effort.calls, warm_up=effort.warm_up
    ).median
    made = np.asarray(call().astype(jnp.float32))
    if expected is None:
      expected = made
    distance = np.linalg.norm(made - expected)
    errors[name] = float(distance / np.linalg.norm(expected))
  return {
    **dataclasses.asdict(shape),
    "seconds": seconds,
    "relative_errors": errors,
    "fastest": min(seconds, key=seconds.__getitem__),
  }


def main(argv: Sequence[str]) -> None:
  """Prints one JSON line."""
  logging.set_verbosity(logging.WARNING)
  command_line.expect_no_words(argv)
  program = compiled_step.build_program()
  settings = program.config.model
  if not _INTERPRET.value:
    model_factory.choose_gated_product(
      "triton",
      gate=settings.mlp_gate,
      dtype=settings.compute_dtype,
      chip=devices.detect_chip(program.mesh.devices.flat[0]),
    )
  effort = compiled_step.Effort.of_flags()
  found = [
    measure_shape(shape, effort, interpret=_INTERPRET.value)
    for shape in shapes(program)
  ]
  total = sum(each["seconds"][each["fastest"]] for each in found)
  batch = program.config.eval.batch_size
  print(
    json.dumps(
      {
        "benchmark": "gated_product",
        "seconds_per_step": total,
        "examples_per_second": batch / total,
        "shapes": found,
        "peak_gb": measure.peak_bytes() / 1e9,
        "command": machine.command(),
        **machine.fields(),
      }
    )
  )


if __name__ == "__main__":
  command_line.run(main)
