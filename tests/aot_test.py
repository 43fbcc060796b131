"""Compiling for chips that are not there, as people type it."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import arc, maze, sudoku
from launch import aot_gpus, aot_sizes, aot_slices, aot_targets
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import tasks

ROOT = pathlib.Path(__file__).parent.parent


def _run(*arguments, config="experiments/arc.py:smoke"):
  """Runs launch.aot in a process of its own, for four chips."""
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  return subprocess.run(
    [
      *(sys.executable, "-m", "launch.aot", "--topology=v5e:2x2"),
      *(f"--config={config}", *arguments),
    ],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )


def _error_of(*arguments, **options) -> str:
  result = _run(*arguments, **options)
  assert result.returncode == 1, result.stderr
  assert "Traceback" not in result.stderr
  assert result.stderr.startswith("error: "), result.stderr
  assert len(result.stderr.splitlines()) == 1
  return result.stderr


def test_both_steps_compile_for_a_slice_and_fit():
  rows, width = 1_000_000, 128  # a vector per row of the chip's memory
  result = _run(
    f"--num_puzzle_ids={rows}",
    "--config.model.hidden_size=64",  # as published, a head's size
    "--config.model.compute_dtype=bfloat16",
    "--config.model.latent_updates=2",
    f"--config.model.puzzle_vector_size={width}",
    "--json",
  )
  assert result.returncode == 0, result.stderr
  assert result.stderr == ""  # no noise of a missing TPU
  assert "4 chips of 16 GiB, 15.75 usable" in result.stdout
  assert "left" in result.stdout
  found = json.loads(result.stdout.splitlines()[-1])
  assert found["fits"]
  assert found["fused_attention"]
  assert found["table_share"] == rows // 4
  share = rows // 4 * width * 4
  for name in ("train", "evaluate"):
    step = found["steps"][name]
    assert step["memory"]["share of the puzzle table"] == share
    # The table neither travels nor is copied.
    assert 0 < step["largest_collective"] < share / 100
    assert step["memory"]["temporaries"] < share / 2
    assert step["memory"]["results"] < share / 2
    assert step["total"] < found["usable"]
  # The gradients travel once, in float32 though products are in bfloat16; and
  # the rows of a batch of 8.
  parameters = found["steps"]["train"]["memory"]["parameters"]
  traffic = found["steps"]["train"]["collectives"]
  assert 0.99 * parameters < traffic["all-reduce"] < 1.01 * parameters + 4096
  assert sum(traffic.values()) < 1.01 * parameters + 20 * width * 4 * 8


def test_what_does_not_fit_is_told_with_what_would_help():
  result = _run("--num_puzzle_ids=600000000", "--mode=evaluate", "--json")
  assert result.returncode == 1, result.stderr
  found = json.loads(result.stdout.splitlines()[-1])
  assert not found["fits"]
  assert found["steps"]["evaluate"]["total"] > found["usable"]
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: the evaluate step does not fit v5e:2x2: ")
  assert "of a chip's 15.75" in line
  assert "try --topology=v5e:2x4 (1 per chip), or" in line
  assert "--config.eval.batch_size=4" in line


def test_mistakes_are_one_line():
  assert "h200 or rtx4090 with 1, 2, 4 or 8" in _error_of("--topology=h200:3")
  assert "choose GPUs, e.g. --topology=h200:1" in _error_of("--kernels=3")
  assert "batch_size 6 does not divide over 4 devices; choose 4 or 8" in (
    _error_of("--config.train.batch_size=6")
  )
  assert "did you mean config.model.remat?" in (
    _error_of("--config.model.remt=full")
  )


# --- slices and GPUs ---------------------------------------------------------


@pytest.mark.parametrize(
  "name",
  ["v5e", "v5e:", "v5e:3x7", "v5p:4x8", "h200", "h200:3", "h200:1x1", "b7:1"],
)
def test_what_does_not_exist(name):
  with pytest.raises(errors.UserError) as caught:
    aot_targets.parse(name)
  assert str(caught.value) == (
    f"--topology={name}: there is no such TPU slice and no such number of GPUs;"
    " choose v4 or v5p with 2x2x1, 2x2x2, 2x2x4, 2x4x4, 4x4x4, 4x4x8 or 4x8x8;"
    " v5e or v6e with 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16 or 16x16; a100, h100,"
    " h200 or rtx4090 with 1, 2, 4 or 8, e.g. --topology=v5e:4x8 or"
    " --topology=h200:1"
  )


def test_a_slice_knows_its_chips_and_the_next():
  chosen = aot_targets.parse("v5p:2x2x4")
  assert isinstance(chosen, aot_slices.Slice)
  assert (chosen.name, chosen.platform) == ("v5p:2x2x4", "tpu")
  assert chosen.num_chips == 16
  assert [s.num_chips for s in chosen.larger()] == [32, 64, 128, 256]
  assert aot_targets.parse("v5e:4x8").hbm == 16


def test_a_machine_knows_its_gpus_and_the_next():
  chosen = aot_targets.parse("rtx4090:2")
  assert isinstance(chosen, aot_gpus.Machine)
  assert (chosen.name, chosen.platform) == ("rtx4090:2", "cuda")
  assert (chosen.num_chips, chosen.hbm) == (2, 23.65)
  assert [m.name for m in chosen.larger()] == ["rtx4090:4", "rtx4090:8"]
  assert aot_targets.parse("rtx4090:8").larger() == []
  assert chosen.usable == int(0.75 * 23.65 * 2**30)


def test_without_libtpu(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
  with pytest.raises(errors.UserError, match=r"pip install '\.\[tpu\]'"):
    aot_slices.Slice("v5e", "2x2").devices()


# --- sizes -----------------------------------------------------------------


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
  expected = aot_sizes.of_data(_data(public), None)
  data = _data(public, **generated, num_train=1, num_test=1)
  task = tasks.load(data)
  assert expected.vocab_size == task.vocab_size
  assert expected.seq_len == task.seq_len
  assert expected.num_puzzle_ids == task.num_puzzle_ids == 1
  assert aot_sizes.of_data(data, None) == expected


def test_rows_are_known_for_the_experiments_as_they_are():
  sizes = aot_sizes.of_data(_data(arc.get_config()), None)
  assert (sizes.vocab_size, sizes.seq_len) == (12, 900)
  assert sizes.num_puzzle_ids == 876_406
  second = aot_sizes.of_data(_data(arc.get_config("2")), None)
  assert second.num_puzzle_ids == 1_191_730


@pytest.mark.parametrize(
  "change",
  [
    {"num_variants": 999},
    {"subsets": ("training",), "test_subset": "training"},
    {"seed": 1},
    {"augmentation": "none"},
    {"identifiers": "rows.json"},
  ],
)
def test_rows_are_not_guessed(change):
  data = _data(arc.get_config(), **change)
  with pytest.raises(errors.UserError, match="--num_puzzle_ids=N"):
    aot_sizes.of_data(data, None)
  assert aot_sizes.of_data(data, 1234).num_puzzle_ids == 1234
