r"""Times the supervision step of training that `trm_jax.main` runs.

  python -m benchmarks.train_step --config=experiments/sudoku.py \
    --config.train.batch_size=16 --config.model.compute_dtype=float32

trains on random tokens; nothing is downloaded. The last line is one JSON
object: seconds per step, the rate of the network's matrix products (excluding
recomputation) and its share of a large product's rate in the same process,
memory, and seconds of compiling.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks import compiled_step
from trm_jax.runtime import command_line, flops, mesh
from trm_jax.runtime import program as program_lib

_REMEDY = (
  "raise config.train.gradient_accumulation_steps, lower"
  " config.train.batch_size, or set"
  " config.model.remat to 'full'"
)


def step_of(program: program_lib.Program) -> compiled_step.Step:
  """Returns the training step of a program."""
  config = program.config
  size = config.train.batch_size
  function = program.train_step()

  def prepare():
    state = mesh.create_state(program.init, program.mesh)
    batch = compiled_step.random_batch(program, size)

    def call():
      nonlocal state  # the step donates its buffers
      state, sums = function(state, batch)
      return state, sums

    return call

  return compiled_step.Step(
    function=function,
    arguments=(program.abstract_state(), program.abstract_batch(size)),
    prepare=prepare,
    batch_size=size,
    flops=flops.train_flops(config, program.model),
    remedy=_REMEDY,
  )


def measure(
  program: program_lib.Program, effort: compiled_step.Effort
) -> dict[str, Any]:
  """Measures the training step of a program; raises UserError if too big."""
  step = step_of(program)
  timing, fields = compiled_step.measure_step(program, step, effort)
  return {
    "benchmark": "train_step",
    **timing.fields(),
    "examples_per_second": step.batch_size / timing.median,
    "model_tflop_per_step": step.flops / 1e12,
    **fields,
  }


def main(argv: Sequence[str]) -> None:
  """Prints one JSON line."""
  compiled_step.print_measurement(argv, measure)


if __name__ == "__main__":
  command_line.run(main)
