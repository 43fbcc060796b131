import types

import jax
import pytest

from trm_jax.runtime import devices as devices_lib
from trm_jax.runtime import host_memory

_CPU_INFO = """processor\t: 0
model name\t: a CPU
flags\t\t: fpu vme avx512_vnni {} amx_int8
bugs\t\t: spectre_v1
"""


@pytest.fixture
def cpu_info(monkeypatch, tmp_path):
  """Where the system tells what the CPU can do; nothing so far."""
  path = tmp_path / "cpuinfo"
  monkeypatch.setattr(devices_lib, "_CPU_INFO", path)
  return path


def _device(platform, capability=None):
  device = types.SimpleNamespace(platform=platform)
  if capability:
    device.compute_capability = capability
  return device


@pytest.mark.usefixtures("cpu_info")
@pytest.mark.parametrize(
  ("platform", "capability", "expected"),
  [
    ("gpu", "9.0", devices_lib.Chip("gpu", 9.0)),
    ("gpu", "gfx942", devices_lib.Chip("gpu")),
    ("tpu", None, devices_lib.Chip("tpu")),
    ("cpu", None, devices_lib.Chip("cpu")),
  ],
)
def test_a_chip_is_known_by_its_device(platform, capability, expected):
  assert devices_lib.detect_chip(_device(platform, capability)) == expected


@pytest.mark.parametrize(
  ("feature", "expected"),
  [("amx_bf16", True), ("avx512_bf16", True), ("amx_fp16", False)],
)
def test_a_cpu_is_known_by_its_features(cpu_info, feature, expected):
  cpu_info.write_text(_CPU_INFO.format(feature))
  assert devices_lib.detect_chip(_device("cpu")).cpu_has_bfloat16 is expected
  assert not devices_lib.detect_chip(_device("tpu")).cpu_has_bfloat16


@pytest.mark.parametrize(
  ("stats", "expected"), [({"bytes_limit": 123}, 123), ({}, 0), (None, 0)]
)
def test_memory_of_a_device_is_what_jax_may_use(stats, expected):
  device = _device("gpu")
  device.memory_stats = lambda: stats
  assert devices_lib.device_memory(device) == expected


def test_memory_of_a_device_that_is_not_there():
  def fail():
    raise jax.errors.JaxRuntimeError("UNIMPLEMENTED")

  device = _device("tpu")
  device.memory_stats = fail
  assert devices_lib.device_memory(device) == 0


def test_memory_of_a_cpu_is_half_of_what_a_process_may_have(monkeypatch):
  devices = jax.device_count("cpu")
  monkeypatch.setattr(host_memory, "process_limit", lambda: 80_000 * devices)
  assert devices_lib.device_memory(jax.devices()[0]) == 40_000
