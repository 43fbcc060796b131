"""Whether a step fits, with this CPU's devices and compiler as the target's."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import types

import command_line
import jax
import pytest

from launch import aot_report, aot_targets
from tests import tiny
from trm_jax import config as config_lib
from trm_jax.runtime import flops, mesh, program

ROOT = pathlib.Path(aot_targets.__file__).parent.parent
SIZES = program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=1)
GIB = 2**30

# --- reports -----------------------------------------------------------------

H200, TPU = aot_targets.Target("h200", "2"), aot_targets.Target("v5e", "2x2")


@dataclasses.dataclass
class _Compiler:
  """A step and its compiler, at each of their stages."""

  temporaries: int
  error: str = ""
  platforms: tuple[str, ...] = ()

  def trace(self, *_):
    return self

  def lower(self, *, lowering_platforms):
    self.platforms = lowering_platforms
    return self

  def compile(self):
    if self.error:
      raise jax.errors.JaxRuntimeError(self.error)
    return self

  def memory_analysis(self):
    return types.SimpleNamespace(
      argument_size_in_bytes=10**7,
      output_size_in_bytes=10**6,
      alias_size_in_bytes=10**6,
      temp_size_in_bytes=self.temporaries,
      generated_code_size_in_bytes=0,
    )


def _report(step, target, *compiled) -> aot_report.Report:
  compiler = _Compiler(*compiled)

  class Program(program.Program):
    def train_step(self):
      return compiler

    def evaluate_batch(self):
      return compiler

  built = program.build(tiny.config(), SIZES, mesh.make_mesh(2))
  fields = {f.name: getattr(built, f.name) for f in dataclasses.fields(built)}
  report = step(Program(**fields), target)
  assert compiler.platforms == (target.platform,)
  return report


def test_a_step_fits_gpus_if_the_sum_is_what_jax_reserves():
  usable = int(0.75 * 139.81 * GIB)
  report = _report(aot_report.train, H200, usable - 10**7)
  assert (report.total, report.usable, report.fits) == (usable, usable, True)
  report = _report(aot_report.train, H200, usable - 10**7 + 1)
  assert not report.fits  # though it compiled
  assert "left" not in "\n".join(report.lines(2))


def test_libtpu_says_what_is_too_much_but_knows_of_the_step_alone():
  assert _report(aot_report.train, TPU, 100 * GIB).fits
  assert not _report(aot_report.evaluate, TPU, 100 * GIB).fits
  assert _report(aot_report.evaluate, TPU, GIB).fits


@pytest.mark.parametrize(
  "error",
  [
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 18.50G of"
    " 15.75G hbm. Exceeded hbm capacity by 2.75G.",
    "Program allocation (18.50G) exceeds available HBM",
  ],
)
def test_libtpu_s_account_is_the_total(error):
  report = _report(aot_report.train, TPU, 0, error)
  assert not report.fits
  assert report.total == 18.5 * GIB


def test_other_errors_of_a_compiler_are_raised():
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    _report(aot_report.train, TPU, 0, "INTERNAL: Used too long")


@pytest.mark.parametrize("step", [aot_report.train, aot_report.evaluate])
def test_memory_is_that_of_the_state_and_of_the_compiled_step(
  monkeypatch, step
):
  monkeypatch.setattr(aot_targets.Target, "platform", "cpu")
  built = program.build(tiny.config(), SIZES, mesh.make_mesh(2))
  report = step(built, H200)
  parameters = jax.tree.leaves(built.abstract_state().params)
  num_bytes = 4 * sum(leaf.size for leaf in parameters)
  assert report.memory["EMA parameters"] == num_bytes
  # Of two rows each of two devices holds one.
  assert report.memory["share of the puzzle table"] == 16 * 4
  # Half of the batch of 8: two grids and an id.
  assert report.memory["batch"] == 4 * (16 + 16 + 1) * 4
  # The number of the step; in evaluation, which rows are examples.
  assert report.memory["padding"] == 4
  assert report.memory["temporaries"] > 0
  count = (
    flops.train_flops if step is aot_report.train else flops.evaluate_flops
  )
  assert report.model_flops == count(built.config, built.model)


# --- advice ------------------------------------------------------------------


@pytest.mark.parametrize(
  ("step", "settings", "expected"),
  [
    (
      "train",
      {"remat": "none"},
      "--topology=h200:4 (2 per chip), or --config.model.remat=full, or"
      " --config.train.batch_size=4",
    ),
    (
      "train",
      {"remat": "full"},
      "--topology=h200:4 (2 per chip), or"
      " --config.train.gradient_accumulation_steps=2, or"
      " --config.train.batch_size=4",
    ),
    (
      "evaluate",
      {},
      "--topology=h200:4 (2 per chip), or --config.eval.batch_size=4",
    ),
  ],
)
def test_advice(step, settings, expected):
  config = tiny.config_dict()
  config.model.update(settings)
  built = program.build(
    config_lib.from_config_dict(config), SIZES, mesh.make_mesh(2)
  )
  report = aot_report.Report(
    step=step,
    batch_size=8,
    compile_seconds=1.0,
    memory={},
    usable=H200.usable,
    total=200 * GIB,
    fits=False,
    model_flops=1.0,
  )
  assert aot_report.advice(built, H200, report) == (
    f"the {step} step does not fit h200:2: it needs 200.0 GiB of a chip's"
    f" 104.86; try {expected}"
  )


# --- as people type it -------------------------------------------------------

_ON_CPU = """
import jax
from launch import aot, aot_targets
from trm_jax.runtime import command_line
aot_targets.Target.platform = "cpu"
aot_targets.Target.devices = lambda self: jax.devices()[: self.num_chips]
command_line.run(aot.main)
"""
_SMALL = (
  "--config.model.latent_updates=1",
  "--config.model.recursion_cycles=1",
  "--config.model.num_layers=1",
)


def _run(*arguments) -> subprocess.CompletedProcess:
  return subprocess.run(
    [
      *(sys.executable, "-c", _ON_CPU, "--config=experiments/arc.py:smoke"),
      *_SMALL,
      *arguments,
    ],
    cwd=ROOT,
    env=os.environ
    | {
      "XLA_FLAGS": "--xla_force_host_platform_device_count=2 "
      + command_line.COMPILES_FAST
    },
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_the_command_says_that_it_fits():
  result = _run("--topology=h100:2", "--num_puzzle_ids=10", "--json")
  assert result.returncode == 0, result.stderr
  assert result.stderr == ""
  first, *lines, last = result.stdout.splitlines()
  assert "h100:2: 2 chips of 79.11 GiB, 59.33 usable" in first
  assert "puzzle table of 10 rows, 5 per chip" in first
  # The memory is the target's: there is room to keep all activations.
  assert first.endswith("remat none, unrolled")
  assert sum(" left" in line for line in lines) == 2
  found = json.loads(last)
  assert (found["remat"], found["unroll"]) == ("none", True)
  assert found["fits"]
  assert list(found["steps"]) == ["train", "evaluate"]
  for step in found["steps"].values():
    assert 0 < step["total"] == sum(step["memory"].values())


def test_the_command_fails_if_it_does_not_fit():
  result = _run(
    "--topology=rtx4090:2", "--num_puzzle_ids=600000000", "--mode=evaluate"
  )
  assert result.returncode == 1, result.stderr
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: the evaluate step does not fit rtx4090:2: ")
  assert "of a chip's 17.74; try --topology=rtx4090:4 (2 per chip), or" in line


def test_a_mistake_is_one_line():
  result = _run("--topology=h200:2", "--config.model.remt=full")
  assert result.returncode == 1, result.stderr
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: ")
  assert "did you mean config.model.remat?" in line
