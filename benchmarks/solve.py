r"""Times the evaluation of a batch, all supervision steps.

  python -m benchmarks.solve --config=experiments/sudoku.py \
    --config.eval.batch_size=16 --config.model.compute_dtype=float32

solves random tokens with random weights; nothing is downloaded. The last line
is one JSON object like that of `benchmarks.train_step`; `seconds_per_step`,
quartiles and fastest are of one supervision step.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from benchmarks import compiled_step
from trm_jax.runtime import command_line, flops, mesh
from trm_jax.runtime import program as program_lib

_REMEDY = "lower config.eval.batch_size"


def step_of(program: program_lib.Program) -> compiled_step.Step:
  """Returns the evaluation of a batch of a program."""
  config = program.config
  size = config.eval.batch_size
  function = program.evaluate_batch()
  batch = program.abstract_batch(size)

  def prepare():
    state = mesh.create_state(program.init, program.mesh)
    weights = state.ema_weights
    batch = compiled_step.random_batch(program, size)
    rows = mesh.put_rows(np.ones(size, bool), program.mesh)
    return lambda: function(weights, batch, rows)

  return compiled_step.Step(
    function=function,
    arguments=(
      program.abstract_state().ema_weights,
      batch,
      jax.ShapeDtypeStruct((size,), bool, sharding=batch.puzzle_ids.sharding),
    ),
    prepare=prepare,
    batch_size=size,
    flops=flops.evaluate_flops(config, program.model),
    remedy=_REMEDY,
  )


def measure(
  program: program_lib.Program, effort: compiled_step.Effort
) -> dict[str, Any]:
  """Measures the evaluation of a batch; raises UserError if too big."""
  step = step_of(program)
  timing, fields = compiled_step.measure_step(program, step, effort)
  steps = program.config.eval.supervision_steps
  return {
    "benchmark": "solve",
    **timing.divided(steps).fields(),
    "supervision_steps": steps,
    "seconds_per_batch": timing.median,
    "puzzles_per_second": step.batch_size / timing.median,
    "model_tflop_per_batch": step.flops / 1e12,
    **fields,
  }


def main(argv: Sequence[str]) -> None:
  """Prints one JSON line."""
  compiled_step.print_measurement(argv, measure)


if __name__ == "__main__":
  command_line.run(main)
