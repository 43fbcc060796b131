"""Compiling for TPUs that are not there, as people type it."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import arc, maze, sudoku
from launch import aot_collectives, aot_sizes, aot_slices
from trm_jax import config as config_lib
from trm_jax import errors, sharding
from trm_jax.data import tasks

ROOT = pathlib.Path(__file__).parent.parent
P = jax.sharding.PartitionSpec


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
  assert "batch_size 6 does not divide over 4 devices; choose 4 or 8" in (
    _error_of("--config.train.batch_size=6")
  )
  assert "did you mean config.model.remat?" in (
    _error_of("--config.model.remt=full")
  )


# --- slices ----------------------------------------------------------------


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("v5e", "v5e has no slice ''; choose one of 1x1, 2x2"),
    ("v5e:3x7", "v5e has no slice '3x7'"),
    ("v5p:4x8", "v5p has no slice '4x8'; choose one of 2x2x1"),
    ("h100:8", "there is no TPU 'h100'; choose one of v4, v5e"),
  ],
)
def test_slices_that_do_not_exist(name, expected):
  with pytest.raises(errors.UserError, match=expected):
    aot_slices.parse(name)


def test_a_slice_knows_its_chips_and_the_next():
  chosen = aot_slices.parse("v5p:2x2x4")
  assert chosen.num_chips == 16
  assert [s.num_chips for s in chosen.larger()] == [32, 64, 128, 256]
  assert aot_slices.parse("v5e:4x8").hbm == 16


def test_without_libtpu(monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
  with pytest.raises(errors.UserError, match=r"pip install '\.\[tpu\]'"):
    aot_slices.parse("v5e:2x2").devices()


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


# --- collectives -----------------------------------------------------------

_MODULE = """HloModule made_up, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%part_1 (p: f32[2,8]) -> f32[8,8] {
  ROOT %g1 = f32[8,8]{1,0:T(8,128)} all-gather(%p), x={chain_id="0"}
}

%part_2 (p: f32[2,8]) -> f32[8,8] {
  ROOT %g2 = f32[8,8]{1,0:T(8,128)} all-gather(%p), x={chain_id="0"}
}

%condition (s: (s32[], f32[4])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[] compare(%i, %three), direction=LT
}

%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %kernel = f32[4] custom-call(%x), backend_config={"sizes": {"a": {
"block": 512
}}, metadata={op_name="all-reduce(of no kind"}
  %r = (bf16[4]{0:T(256)(2,1)}, /*index=1*/f32[]{:T(128)}) all-reduce(%x, %y)
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %start = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), dimensions={0}
  %done = f32[8]{0} all-gather-done(%start)
  %f1 = f32[8,8] fusion(%x), kind=kLoop, calls=%part_1
  %f2 = f32[8,8] fusion(%x), kind=kLoop, calls=%part_2
  %scatter = f32[3,5]{1,0} reduce-scatter(%x), dimensions={0}, to_apply=%sum
  %while = (s32[], f32[4]) while(%t), condition=%condition, body=%body
}
"""


def test_collectives_of_a_made_up_module():
  found = aot_collectives.find(_MODULE, num_devices=4)
  assert sorted((c.kind, c.num_bytes, c.times) for c in found) == [
    ("all-gather", 8 * 4, 1),  # started and done
    ("all-gather", 64 * 4, 1),  # in two parts
    ("all-reduce", 4 * 2 + 4, 3),  # in a loop, behind a kernel
    ("reduce-scatter", 4 * 15 * 4, 1),
  ]


def test_a_collective_in_a_loop_of_unknown_length_is_no_guess():
  endless = _MODULE.replace("direction=LT", "direction=NE")
  with pytest.raises(ValueError, match="unknown length"):
    aot_collectives.find(endless, num_devices=4)


def test_collectives_of_a_compiled_module():
  """A sum over the devices in two loops, one in the other."""
  mesh = sharding.make_mesh(4)

  def summed(x):
    def inner(x, _):
      return jnp.tanh(x + jax.lax.psum(x, sharding.DATA)), None

    def outer(x, _):
      return jax.lax.scan(inner, x, None, length=5)[0], None

    return jax.lax.scan(outer, x, None, length=3)[0]

  compiled = (
    jax.jit(
      jax.shard_map(summed, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    )
    .lower(np.zeros((8, 6), np.float32))
    .compile()
  )
  (found,) = aot_collectives.find(compiled.as_text(), num_devices=4)
  assert (found.kind, found.num_bytes, found.times) == ("all-reduce", 48, 15)
  assert found.total == 48 * 15
