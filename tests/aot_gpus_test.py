"""GPUs that are not there: their description, their steps, whether they fit."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import pytest
import tiny

from launch import aot_gpus, aot_report, aot_slices
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.runtime import mesh, program

ROOT = pathlib.Path(__file__).parent.parent
SIZES = program.Sizes(vocab_size=6, seq_len=16, num_puzzle_ids=1)
H200 = aot_gpus.Machine("h200", 2)

# --- the description ---------------------------------------------------------


def _fields(kind: str) -> dict[str, str]:
  text = aot_gpus.GPUS[kind].target_config()
  assert text.count("{") == text.count("}") == 4
  pairs = re.findall(r"(\w+): (\S+|\"[^\"]*\")", text)
  return dict(pairs)


@pytest.mark.parametrize(
  ("kind", "expected"),
  [
    (
      "a100",
      {
        "core_count": "108",
        "memory_bandwidth": "2039000000000",
        "l2_cache_size": "41943040",
        "shared_memory_per_core": "167936",
        "shared_memory_per_block_optin": "166912",
        "threads_per_core_limit": "2048",
        "feature_extension": "NONE",
        "clock_rate_ghz": "1.41",
      },
    ),
    (
      "h100",
      {
        "core_count": "132",
        "memory_bandwidth": "3350000000000",
        "l2_cache_size": "52428800",
        "shared_memory_per_core": "233472",
        "shared_memory_per_block_optin": "232448",
        "feature_extension": "ACCELERATED_FEATURES",
      },
    ),
    ("h200", {"memory_bandwidth": "4800000000000", "fpus_per_core": "128"}),
    (
      "rtx4090",
      {
        "core_count": "128",
        "l2_cache_size": "75497472",
        "shared_memory_per_block_optin": "101376",
        "threads_per_core_limit": "1536",
        "feature_extension": "NONE",
      },
    ),
  ],
)
def test_xla_is_told_what_a_gpu_is(kind, expected):
  fields = _fields(kind)
  assert expected.items() <= fields.items()
  memory = aot_gpus.GPUS[kind].memory * 2**30
  assert int(fields["device_memory_size"]) == int(memory)
  assert fields["platform_name"] == '"CUDA"'


@pytest.mark.parametrize(
  ("kind", "capability"),
  [("a100", (8, 0)), ("h100", (9, 0)), ("h200", (9, 0)), ("rtx4090", (8, 9))],
)
def test_xla_is_told_versions(kind, capability):
  text = aot_gpus.GPUS[kind].target_config()
  major, minor = capability
  assert re.search(
    rf"cuda_compute_capability {{\s+major: {major}\s+minor: {minor}\s", text
  )
  assert "dnn_version_info { major: 9 minor: 10 patch: 0 }" in text
  assert "runtime_version { major: 13 minor: 0 patch: 0 }" in text


# --- devices -----------------------------------------------------------------


@pytest.fixture(name="with_plugin")
def _with_plugin(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


def test_devices_of_a_machine(monkeypatch, with_plugin):
  asked = {}

  def describe(**options):
    asked.update(options)
    return types.SimpleNamespace(devices=["a", "b"])

  monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", describe)
  assert H200.devices() == ["a", "b"]
  assert asked == {
    "platform": "cuda",
    "topology": "1x1x2",
    "target_config": aot_gpus.GPUS["h200"].target_config(),
  }


@pytest.mark.parametrize(
  "error", [jax.errors.JaxRuntimeError, NotImplementedError, ValueError]
)
def test_what_the_plugin_says_is_one_line(monkeypatch, with_plugin, error):
  def describe(**_):
    raise error("INVALID: no such\nfield")

  monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", describe)
  with pytest.raises(errors.UserError) as caught:
    H200.devices()
  assert str(caught.value) == (
    "JAX's plugin for CUDA cannot compile for h200:2: INVALID: no such"
  )


def _no_package(name):
  raise ModuleNotFoundError(name)


@pytest.mark.parametrize("find_spec", [lambda _: None, _no_package])
def test_without_the_plugin(monkeypatch, find_spec):
  monkeypatch.setattr("importlib.util.find_spec", find_spec)
  with pytest.raises(errors.UserError, match=r"pip install '\.\[cuda\]'"):
    H200.devices()


# --- reports -----------------------------------------------------------------


@pytest.mark.parametrize("token_mixing", ["mlp", "attention"])
@pytest.mark.parametrize("step", [aot_report.train, aot_report.evaluate])
def test_kernels_have_the_products_of_the_network(
  monkeypatch, step, token_mixing
):
  """On the CPU, whose compiler fuses and loops as well."""
  monkeypatch.setattr(aot_gpus.Machine, "platform", "cpu")
  config = tiny.config_dict()
  config.model.token_mixing = token_mixing
  config.model.hidden_size = 64
  config.model.latent_updates = 3
  built = program.build(
    config_lib.from_config_dict(config), SIZES, mesh.make_mesh(2)
  )
  report = step(built, H200)
  # Those of the heads are counted in the kernels only.
  found = 2 * sum(kernel.total_flops for kernel in report.kernels)
  assert 1 < found / report.model_flops < 1.002
  assert report.fits
  read = report.to_json()
  assert read["traffic_bytes"] == sum(k.total_bytes for k in report.kernels)
  assert read["least_seconds"] == pytest.approx(
    sum(
      max(k.total_bytes / 4.8e12, k.total_flops / 989.4e12)
      for k in report.kernels
    )
  )
  assert not {"kernels", "gpu"} & set(read)


_MODULE = """HloModule made_up

ENTRY %main (x: f32[1000]) -> f32[1000] {
  %x = f32[1000]{0} parameter(0)
  ROOT %y = f32[1000]{0} negate(%x), metadata={op_name="jit(f)/a/b/c/neg"}
}
"""


@dataclasses.dataclass
class _Compiler:
  """Stands in for a step and its compiler, at each of their stages."""

  temporaries: int
  platforms: tuple[str, ...] = ()

  def trace(self, *_):
    return self

  def lower(self, *, lowering_platforms):
    self.platforms = lowering_platforms
    return self

  def compile(self):
    return self

  def memory_analysis(self):
    return types.SimpleNamespace(
      argument_size_in_bytes=10**7,
      output_size_in_bytes=10**6,
      alias_size_in_bytes=10**6,
      temp_size_in_bytes=self.temporaries,
      generated_code_size_in_bytes=0,
    )

  def cost_analysis(self):
    return None  # as for GPUs

  def as_text(self):
    return _MODULE


def _report(step, target, temporaries):
  compiler = _Compiler(temporaries)

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


GIB = 2**30


def test_a_step_fits_if_its_sum_is_what_jax_takes_of_a_gpu():
  rest = 10**7
  usable = int(0.75 * 139.81 * GIB)
  report = _report(aot_report.train, H200, usable - rest)
  assert (report.total, report.usable, report.fits) == (usable, usable, True)
  report = _report(aot_report.train, H200, usable - rest + 1)
  assert not report.fits  # though it compiled
  assert not report.to_json()["fits"]
  assert "left" not in "\n".join(report.lines(2))


def test_of_tpus_the_compiler_says_what_is_too_much():
  tpu = aot_slices.Slice("v5e", "2x2")
  assert _report(aot_report.train, tpu, 100 * GIB).fits
  # But for what lies there beside the step.
  assert not _report(aot_report.evaluate, tpu, 100 * GIB).fits
  assert _report(aot_report.evaluate, tpu, GIB).fits


def test_lines_of_a_gpu():
  report = _report(aot_report.train, H200, GIB)
  # As if the network's products took half of the time.
  least = 8000 / 4.8e12
  report = dataclasses.replace(report, model_flops=least * 989.4e12)
  lines = list(report.lines(2, kernels=2))
  assert lines[-4] == (
    "  device memory traffic of a step: 0.0 GB per chip, of 1 kernels"
  )
  assert lines[-3] == (
    "  the least seconds of a step: 1.67e-09 at 4.8 TB/s and 989 TFLOP/s;"
    " products 0, everything else 1.67e-09; at most 50% of the bfloat16 rate"
  )
  assert lines[-2].split(": ")[1] == "times, GB, ms at least, TFLOP"
  assert lines[-1].split() == ["1", *["0.000"] * 3, "negate", "b/c/neg"]
  assert not any("XLA's own count" in line for line in lines)
  assert list(report.lines(2)) == lines[:-2]
  assert report.to_json()["xla_flops"] is None


# --- all of it ---------------------------------------------------------------

_ON_CPU = """
import jax
from launch import aot, aot_gpus
from trm_jax.runtime import command_line
aot_gpus.Machine.platform = "cpu"
aot_gpus.Machine.devices = lambda self: jax.devices()[: self.num_chips]
command_line.run(aot.main)
"""


def _run_on_cpu(*arguments):
  """Runs launch.aot with the CPU's devices and compiler as a GPU's."""
  return subprocess.run(
    [
      *(sys.executable, "-c", _ON_CPU, "--config=experiments/arc.py:smoke"),
      *("--config.model.latent_updates=1", *arguments),
    ],
    cwd=ROOT,
    env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_command_reports_gpus():
  result = _run_on_cpu(
    "--topology=h100:2", "--num_puzzle_ids=10", "--kernels=3", "--json"
  )
  assert result.returncode == 0, result.stderr
  assert result.stderr == ""
  first, *lines, last = result.stdout.splitlines()
  assert "h100:2: 2 chips of 79.11 GiB, 59.33 usable" in first
  # There is room for all that the backward pass needs.
  assert first.endswith("remat none, unrolled")
  heads = [n for n, line in enumerate(lines) if "costliest kernels" in line]
  assert len(heads) == 2
  for head in heads:
    costs = [float(line.split()[2]) for line in lines[head + 1 : head + 4]]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] > 0
  found = json.loads(last)
  assert (found["remat"], found["unroll"]) == ("none", True)
  for step in found["steps"].values():
    assert step["traffic_bytes"] > 0
    assert step["least_seconds"] >= 0.999 * step["traffic_bytes"] / 3.35e12


def test_the_command_says_what_helps_gpus():
  result = _run_on_cpu("--topology=rtx4090:2", "--num_puzzle_ids=600000000")
  assert result.returncode == 1, result.stderr
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: the train step does not fit rtx4090:2: ")
  assert "of a chip's 17.74; try --topology=rtx4090:4 (2 per chip), or" in line
