r"""Compiles an experiment for TPUs that are not there; does it fit?

  python -m launch.aot --config=experiments/arc.py --topology=v5e:4x8

needs no TPU and no data, only libtpu: pip install '.[tpu]'. It compiles the
very steps that a run on this slice compiles, the training step and the
evaluation step (--mode=evaluate: this one only), and prints for each what a
chip holds, computes and exchanges with others. Settings are those of
`python -m trm_jax.main`, so that one sees before a machine is paid for what
--config.train.batch_size or --config.model.remat would cost there.

The exit status is 0 if all fits. If not, it is 1, and the last line says what
would help. --json prints one JSON object at the end. For data that are neither
public nor in a folder, --num_puzzle_ids gives the rows of the puzzle table.
"""

import json
import os
from collections.abc import Sequence

from absl import flags

from trm_jax import command_line, errors
from trm_jax import config as config_lib

_TOPOLOGY = flags.DEFINE_string(
  "topology", "v5e:4x8", "The slice, e.g. v5e:4x8, v5p:2x2x2 or v6e:2x4."
)
_MODE = flags.DEFINE_enum(
  "mode", "train", ["train", "evaluate"], "'evaluate' leaves training out."
)
_NUM_PUZZLE_IDS = flags.DEFINE_integer(
  "num_puzzle_ids", None, "Rows of the puzzle table, where not known."
)
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object at the end.")


def main(argv: Sequence[str]) -> None:
  """Compiles, prints, and raises UserError if it does not fit."""
  command_line.expect_no_words(argv)
  config = command_line.config()
  # Not the TPU of this machine, if it has one: somebody may train on it.
  os.environ["JAX_PLATFORMS"] = "cpu"
  # Imported late: a mistake in the flags is told before JAX starts.
  from launch import aot_report, aot_sizes, aot_slices
  from trm_jax import program as program_lib
  from trm_jax import sharding
  from trm_jax.models import attention

  slice_ = aot_slices.parse(_TOPOLOGY.value)
  sizes = aot_sizes.of_data(config.data, _NUM_PUZZLE_IDS.value)
  program = program_lib.build(config, sizes, sharding.mesh_of(slice_.devices()))
  fused = isinstance(program.model.attend, attention.Splash)
  share = sharding.num_rows(sizes.num_puzzle_ids, program.mesh)
  print(
    f"{config.name} on {slice_.name}: {slice_.num_chips} chips of"
    f" {slice_.hbm} GiB, {slice_.usable / aot_slices.GIB:.2f} usable; puzzle"
    " table of"
    f" {sizes.num_puzzle_ids:,} rows, {share // slice_.num_chips:,} per chip"
    + ("; fused attention" if fused else ""),
    flush=True,
  )
  steps = [aot_report.evaluate]
  if _MODE.value == "train":
    steps.insert(0, aot_report.train)
  reports = []
  for step in steps:
    reports.append(step(program, usable=slice_.usable))
    print(*reports[-1].lines(slice_.num_chips), sep="\n", flush=True)
  if _JSON.value:
    print(
      json.dumps(
        {
          "experiment": config.name,
          "topology": slice_.name,
          "chips": slice_.num_chips,
          "usable": slice_.usable,
          "puzzle_ids": sizes.num_puzzle_ids,
          "table_share": share // slice_.num_chips,
          "fused_attention": fused,
          "fits": all(report.fits for report in reports),
          "steps": {report.step: report.to_json() for report in reports},
        }
      ),
      flush=True,
    )
  for report in reports:
    if not report.fits:
      raise errors.UserError(_advice(config, slice_, report))


def _advice(config: config_lib.Config, slice_, report) -> str:
  """Says what does not fit, and what would help."""
  group = "train" if report.step == "train" else "eval"
  size = report.batch_size
  ways = [
    f"--topology={larger.name} ({size // larger.num_chips} per chip)"
    for larger in slice_.larger()
    if size % larger.num_chips == 0
  ][:1]
  if report.step == "train" and config.model.remat != "full":
    ways.append(
      "--config.model.remat=full"
      + (" --config.model.unroll=False" if config.model.unroll else "")
    )
  elif report.step == "train":
    parts = 2 * config.train.microbatches
    if size % (parts * slice_.num_chips) == 0:
      ways.append(f"--config.train.microbatches={parts}")
  if size // 2 >= slice_.num_chips:
    ways.append(f"--config.{group}.batch_size={size // 2}")
  return (
    f"the {report.step} step does not fit {slice_.name}: it needs"
    f" {report.total / 2**30:.1f} GiB of a chip's {slice_.usable / 2**30:.2f};"
    f" try {', or '.join(ways) or 'chips with more memory'}"
  )


if __name__ == "__main__":
  command_line.run(main)
