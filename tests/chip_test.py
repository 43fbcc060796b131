import types

import pytest

from trm_jax import chip

_CPU_INFO = """processor\t: 0
model name\t: a CPU
flags\t\t: fpu vme avx512_bf16 {} amx_int8
bugs\t\t: spectre_v1
"""


@pytest.fixture
def cpu_info(monkeypatch, tmp_path):
  """Where the system tells what the CPU can do; nothing so far."""
  path = tmp_path / "cpuinfo"
  monkeypatch.setattr(chip, "_CPU_INFO", path)
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
    ("gpu", "9.0", chip.Chip("gpu", 9.0)),
    ("gpu", "gfx942", chip.Chip("gpu")),
    ("tpu", None, chip.Chip("tpu")),
    ("cpu", None, chip.Chip("cpu")),
  ],
)
def test_a_chip_is_known_by_its_device(platform, capability, expected):
  assert chip.of(_device(platform, capability)) == expected


@pytest.mark.parametrize(
  ("feature", "expected"), [("amx_bf16", True), ("amx_fp16", False)]
)
def test_a_cpu_is_known_by_its_features(cpu_info, feature, expected):
  cpu_info.write_text(_CPU_INFO.format(feature))
  assert chip.of(_device("cpu")).has_cpu_tiles is expected
  assert not chip.of(_device("tpu")).has_cpu_tiles
