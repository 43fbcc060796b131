r"""Compiles an experiment for TPUs or GPUs that are not there; does it fit?

  python -m launch.aot --config=experiments/arc.py --topology=v5e:4x8
  python -m launch.aot --config=experiments/arc.py --topology=h200:1

needs no TPU and no data, only libtpu: pip install '.[tpu]'; and no NVIDIA GPU
and no driver, only JAX's plugin: pip install '.[cuda]'. It compiles the very
steps that a run on these chips compiles, the training step and the evaluation
step (--mode=evaluate: this one only), and prints for each what a chip holds,
computes and exchanges with others. Settings are those of
`python -m trm_jax.main`, so that one sees before a machine is paid for what
--config.train.batch_size or --config.model.remat would cost there.

For GPUs it prints also what the kernels move through the memory, and the time
that no run of them falls below; --kernels=20 names the costliest. Where there
is a GPU, XLA tries several kernels for a product and takes the fastest; here it
takes its first choice.

The exit status is 0 if all fits. If not, it is 1, and the last line says what
would help. --json prints one JSON object at the end. For data that are neither
public nor in a folder, --num_puzzle_ids gives the rows of the puzzle table.
"""

import json
import os
from collections.abc import Sequence

from absl import flags

from trm_jax import errors
from trm_jax.runtime import command_line

_TOPOLOGY = flags.DEFINE_string(
  "topology",
  "v5e:4x8",
  "The slice, e.g. v5e:4x8 or v5p:2x2x2, or the GPUs, e.g. h200:8.",
)
_MODE = flags.DEFINE_enum(
  "mode", "train", ["train", "evaluate"], "'evaluate' leaves training out."
)
_NUM_PUZZLE_IDS = flags.DEFINE_integer(
  "num_puzzle_ids", None, "Rows of the puzzle table, where not known."
)
_KERNELS = flags.DEFINE_integer(
  "kernels",
  0,
  "Name so many of the costliest kernels; GPUs only.",
  lower_bound=0,
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object at the end.")


def main(argv: Sequence[str]) -> None:
  """Compiles, prints, and raises UserError if it does not fit."""
  command_line.expect_no_words(argv)
  config = command_line.config()
  # Not those of this machine, if it has any: somebody may train on them.
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
  # What a compiler tries where memory is short is nothing to put right.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # Imported late: a mistake in the flags is told before JAX starts.
  from launch import (
    aot_gpus,
    aot_report,
    aot_sizes,
    aot_slices,
    aot_targets,
  )
  from trm_jax.core.kernels import attention
  from trm_jax.runtime import mesh
  from trm_jax.runtime import program as program_lib

  target = aot_targets.parse(_TOPOLOGY.value)
  if _KERNELS.value and not isinstance(target, aot_gpus.Machine):
    raise errors.UserError(
      "--kernels knows those of NVIDIA's GPUs only; leave it out, or choose"
      " GPUs, e.g. --topology=h200:1"
    )
  sizes = aot_sizes.of_data(config.data, _NUM_PUZZLE_IDS.value)
  program = program_lib.build(
    config,
    sizes,
    mesh.mesh_of(target.devices()),
    memory_bytes=target.usable,
  )
  fused = (
    config.model.token_mixing == "attention"
    and program.model.network_config.attend is not attention.plain
  )
  share = mesh.num_rows(sizes.num_puzzle_ids, program.mesh)
  chips = f"{target.num_chips} chip{'s' if target.num_chips > 1 else ''}"
  print(
    f"{config.name} on {target.name}: {chips} of {target.hbm} GiB,"
    f" {target.usable / aot_slices.GIB:.2f} usable; puzzle table of"
    f" {sizes.num_puzzle_ids:,} rows, {share // target.num_chips:,} per chip;"
    f" remat {program.model.remat}"
    + (", unrolled" if program.model.unroll else "")
    + ("; fused attention" if fused else ""),
    flush=True,
  )
  steps = [aot_report.evaluate]
  if _MODE.value == "train":
    steps.insert(0, aot_report.train)
  reports = []
  for step in steps:
    reports.append(step(program, target))
    lines = reports[-1].lines(target.num_chips, kernels=_KERNELS.value)
    print(*lines, sep="\n", flush=True)
  if _JSON.value:
    print(
      json.dumps(
        {
          "experiment": config.name,
          "topology": target.name,
          "chips": target.num_chips,
          "usable": target.usable,
          "puzzle_ids": sizes.num_puzzle_ids,
          "table_share": share // target.num_chips,
          "remat": program.model.remat,
          "unroll": program.model.unroll,
          "fused_attention": fused,
          "fits": all(report.fits for report in reports),
          "steps": {report.step: report.to_json() for report in reports},
        }
      ),
      flush=True,
    )
  for report in reports:
    if not report.fits:
      raise errors.UserError(_advice(program, target, report))


def _advice(program, target, report) -> str:
  """Says what does not fit, and what would help."""
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
    parts = 2 * config.train.microbatches
    if size % (parts * target.num_chips) == 0:
      ways.append(f"--config.train.microbatches={parts}")
  if size // 2 >= target.num_chips:
    ways.append(f"--config.{group}.batch_size={size // 2}")
  return (
    f"the {report.step} step does not fit {target.name}: it needs"
    f" {report.total / 2**30:.1f} GiB of a chip's {target.usable / 2**30:.2f};"
    f" try {', or '.join(ways) or 'chips with more memory'}"
  )


if __name__ == "__main__":
  command_line.run(main)
