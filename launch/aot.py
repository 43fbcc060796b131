r"""Compiles an experiment for TPUs or GPUs without the hardware: does it fit?

  python -m launch.aot --config=experiments/arc.py --topology=v5e:4x8
  python -m launch.aot --config=experiments/arc.py --topology=h200:1

needs no TPU, no GPU and no data. TPUs need libtpu (pip install '.[aot]'),
NVIDIA GPUs JAX's plugin (pip install '.[cuda]'). It compiles the training step
and the evaluation step that a run on these chips would compile
(--mode=evaluate: the latter only), and prints how much of a chip's memory each
takes, by the compiler's account. The settings are those of `python -m
trm_jax.main`, e.g. --config.train.batch_size or --config.model.remat.

The exit status is 0 if both steps fit. Otherwise it is 1, and the last line
says what would help. --json prints one JSON object at the end. If the data are
neither public nor in a folder, --num_puzzle_ids gives the rows of the puzzle
table.
"""

import dataclasses
import json
import os
from collections.abc import Sequence

from absl import flags

from trm_jax import errors
from trm_jax.runtime import command_line

_TOPOLOGY = flags.DEFINE_string(
  "topology",
  "v5e:4x8",
  "TPU slice, e.g. v5e:4x8 or v5p:2x2x2, or GPUs, e.g. h200:8.",
)
_MODE = flags.DEFINE_enum(
  "mode", "train", ["train", "evaluate"], "'evaluate' skips the training step."
)
_NUM_PUZZLE_IDS = flags.DEFINE_integer(
  "num_puzzle_ids", None, "Rows of the puzzle table, if unknown."
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object at the end.")


def main(argv: Sequence[str]) -> None:
  """Compiles, prints, and raises UserError if a step does not fit."""
  command_line.expect_no_words(argv)
  config = command_line.config()
  # Leave this machine's own accelerators alone: somebody may train on them.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
  # Hides warnings about what the compilers tried on the way.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # Imported late: JAX reads these variables, and a mistake in the flags is
  # reported before it starts.
  from launch import aot_report, aot_targets
  from trm_jax.core.kernels import attention
  from trm_jax.runtime import mesh
  from trm_jax.runtime import program as program_lib

  target = aot_targets.parse(_TOPOLOGY.value)
  sizes = aot_targets.data_sizes(config.data, _NUM_PUZZLE_IDS.value)
  program = program_lib.build(
    config,
    sizes,
    mesh.mesh_of(target.devices()),
    memory_bytes=target.usable,
  )
  model, num_chips = program.model, target.num_chips
  rows = mesh.num_rows(sizes.num_puzzle_ids, program.mesh) // num_chips
  fused = (
    config.model.token_mixing == "attention"
    and model.network_config.attend is not attention.plain
  )
  print(
    f"{config.name} on {target.name}: {num_chips} chip{'s' * (num_chips > 1)}"
    f" of {target.chip.memory} GiB, {target.usable / aot_targets.GIB:.2f}"
    f" usable; puzzle table of {sizes.num_puzzle_ids:,} rows, {rows:,} per"
    f" chip; remat {model.remat}"
    + ", unrolled" * model.unroll
    + "; fused attention" * fused,
    flush=True,
  )
  steps = [aot_report.train, aot_report.evaluate]
  reports = []
  for step in steps if _MODE.value == "train" else steps[1:]:
    reports.append(step(program, target))
    print(*reports[-1].lines(num_chips), sep="\n", flush=True)
  if _JSON.value:
    result = {
      "experiment": config.name,
      "topology": target.name,
      "chips": num_chips,
      "usable": target.usable,
      "puzzle_ids": sizes.num_puzzle_ids,
      "table_share": rows,
      "remat": model.remat,
      "unroll": model.unroll,
      "fused_attention": fused,
      "fits": all(report.fits for report in reports),
      "steps": {report.step: dataclasses.asdict(report) for report in reports},
    }
    print(json.dumps(result), flush=True)
  for report in reports:
    if not report.fits:
      raise errors.UserError(aot_report.advice(program, target, report))


if __name__ == "__main__":
  command_line.run(main)
