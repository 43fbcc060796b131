"""TPU slices and GPUs without the hardware; sizes of data without the data."""

import re
import types

import jax
import pytest

from experiments import arc, maze, sudoku
from launch import aot_targets
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import tasks


@pytest.mark.parametrize(
  "name",
  ["v5e", "v5e:", "v5e:3x7", "v5p:4x8", "h200", "h200:3", "h200:1x1", "b7:1"],
)
def test_an_unknown_target_is_an_error_that_lists_all(name):
  with pytest.raises(errors.UserError) as caught:
    aot_targets.parse(name)
  assert str(caught.value) == (
    f"--topology={name} is unknown; choose v4 or v5p with 2x2x1, 2x2x2, 2x2x4,"
    " 2x4x4, 4x4x4, 4x4x8 or 4x8x8; v5e or v6e with 1x1, 2x2, 2x4, 4x4, 4x8,"
    " 8x8, 8x16 or 16x16; a100, h100, h200 or rtx4090 with 1, 2, 4 or 8, e.g."
    " --topology=v5e:4x8 or --topology=h200:1"
  )


def test_a_slice_knows_its_chips_and_the_larger_ones():
  target = aot_targets.parse("v5p:2x2x4")
  assert (target.name, target.platform) == ("v5p:2x2x4", "tpu")
  assert (target.num_chips, target.chip.memory) == (16, 95)
  assert target.usable == int(95.74 * 2**30)
  assert [each.num_chips for each in target.larger()] == [32, 64, 128, 256]


def test_a_machine_knows_its_gpus_and_the_larger_ones():
  target = aot_targets.parse("rtx4090:2")
  assert (target.name, target.platform) == ("rtx4090:2", "cuda")
  assert (target.num_chips, target.chip.memory) == (2, 23.65)
  assert target.usable == int(0.75 * 23.65 * 2**30)
  assert [each.name for each in target.larger()] == ["rtx4090:4", "rtx4090:8"]
  assert aot_targets.parse("rtx4090:8").larger() == []


# --- compilers ---------------------------------------------------------------


@pytest.mark.parametrize(
  ("kind", "expected"),
  [
    (
      "a100",
      "major: 8 minor: 0 feature_extension: NONE core_count: 108"
      " fpus_per_core: 64 clock_rate_ghz: 1.41 device_memory_size: 85094039552"
      " memory_bandwidth: 2039000000000 l2_cache_size: 41943040"
      " shared_memory_per_core: 167936 shared_memory_per_block: 49152"
      " shared_memory_per_block_optin: 166912",
    ),
    (
      "h200",
      "major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES"
      " core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98"
      " device_memory_size: 150119844413 memory_bandwidth: 4800000000000"
      " l2_cache_size: 52428800 shared_memory_per_core: 233472"
      " shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448",
    ),
    (
      "rtx4090",
      "major: 8 minor: 9 feature_extension: NONE core_count: 128"
      " fpus_per_core: 128 clock_rate_ghz: 2.52 device_memory_size: 25393994137"
      " memory_bandwidth: 1008000000000 l2_cache_size: 75497472"
      " shared_memory_per_core: 102400 shared_memory_per_block: 49152"
      " shared_memory_per_block_optin: 101376",
    ),
  ],
)
def test_xla_s_description_of_a_gpu(kind, expected):
  text = aot_targets.GPUS[kind].target_config()
  assert text.count("{") == text.count("}") == 4
  assert expected in re.sub(r"[\s{}]+", " ", text)
  assert "dnn_version_info { major: 9 minor: 10 patch: 0 }" in text
  assert "runtime_version { major: 13 minor: 0 patch: 0 }" in text


@pytest.fixture(name="is_installed")
def _is_installed(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: name)


@pytest.fixture(name="describe")
def _describe(monkeypatch, is_installed):
  """What the compiler was asked to describe; it answers with two devices."""
  asked = {}

  def describe(**options):
    asked.update(options)
    return types.SimpleNamespace(devices=["a", "b"])

  monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", describe)
  return asked


def test_gpus_are_described_to_the_cuda_plugin(describe):
  assert aot_targets.parse("h200:2").devices() == ["a", "b"]
  assert describe == {
    "platform": "cuda",
    "topology": "1x1x2",
    "target_config": aot_targets.GPUS["h200"].target_config(),
  }


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("v4:2x2x1", {"chip_config_name": "megacore"}),
    ("v5e:2x2", {"chip_config_name": "default"}),
    (
      "v5e:1x1",
      {"chip_config_name": "default", "chips_per_host_bounds": (1, 1, 1)},
    ),
  ],
)
def test_slices_are_described_to_libtpu(describe, monkeypatch, name, options):
  for variable in aot_targets._LIBTPU_ENVIRONMENT:
    monkeypatch.setenv(variable, "mine")  # is kept, and put back afterwards
  aot_targets.parse(name).devices()
  assert describe == {"platform": "tpu", "topology_name": name, **options}


@pytest.mark.parametrize(
  "error", [jax.errors.JaxRuntimeError, NotImplementedError, ValueError]
)
def test_an_error_of_the_compiler_is_one_line(monkeypatch, is_installed, error):
  def describe(**_):
    raise error("INVALID: no such\nfield")

  monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", describe)
  with pytest.raises(errors.UserError) as caught:
    aot_targets.parse("h200:2").devices()
  assert str(caught.value) == (
    "JAX's CUDA plugin cannot compile for h200:2: INVALID: no such"
  )


def _no_package(name):
  raise ModuleNotFoundError(name)


@pytest.mark.parametrize("find_spec", [lambda _: None, _no_package])
@pytest.mark.parametrize(
  ("name", "extra"), [("h200:2", "cuda"), ("v5e:2x2", "aot")]
)
def test_a_missing_compiler_is_named(monkeypatch, find_spec, name, extra):
  monkeypatch.setattr("importlib.util.find_spec", find_spec)
  with pytest.raises(errors.UserError, match=rf"install '\.\[{extra}\]'"):
    aot_targets.parse(name).devices()


# --- sizes of the data -------------------------------------------------------


def _data(config, **changes) -> config_lib.DataConfig:
  with config.unlocked():
    config.data.update(changes)
  return config_lib.from_config_dict(config).data


@pytest.mark.parametrize(
  ("public", "generated"),
  [
    (sudoku.get_config(), {"task": "generated_sudoku"}),
    (maze.get_config(), {"task": "generated_maze"}),
  ],
  ids=["sudoku", "maze"],
)
def test_public_sizes_are_those_of_the_generated_task(public, generated):
  expected = aot_targets.data_sizes(_data(public), None)
  data = _data(public, **generated, num_train=1, num_test=1)
  task = tasks.load(data)
  assert expected.vocab_size == task.vocab_size
  assert expected.seq_len == task.seq_len
  assert expected.num_puzzle_ids == task.num_puzzle_ids == 1
  assert aot_targets.data_sizes(data, None) == expected


def test_rows_are_known_for_the_experiments_as_they_are():
  sizes = aot_targets.data_sizes(_data(arc.get_config()), None)
  assert (sizes.vocab_size, sizes.seq_len) == (12, 900)
  assert sizes.num_puzzle_ids == 876_406
  second = aot_targets.data_sizes(_data(arc.get_config("2")), None)
  assert second.num_puzzle_ids == 1_191_730


@pytest.mark.parametrize(
  "change",
  [
    {"num_augmentations": 999},
    {"subsets": ("training",), "test_subset": "training"},
    {"seed": 1},
    {"augmentation": "none"},
    {"identifiers": "rows.json"},
  ],
)
def test_rows_are_not_guessed(change):
  data = _data(arc.get_config(), **change)
  with pytest.raises(errors.UserError, match="--num_puzzle_ids=N"):
    aot_targets.data_sizes(data, None)
  assert aot_targets.data_sizes(data, 1234).num_puzzle_ids == 1234
