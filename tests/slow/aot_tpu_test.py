"""Compiling for TPUs with libtpu, which needs no TPU (extra aot)."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

from experiments import arc
from launch import aot_report, aot_targets
from tests import collectives
from trm_jax import config as config_lib
from trm_jax.runtime import mesh, program

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(aot_targets.__file__).parent.parent
ROWS, WIDTH = 1_000_000, 128  # a vector per row of the chip's memory
SETTINGS = {
  "model.hidden_size": 64,  # one head of the published size
  "model.compute_dtype": "bfloat16",
  "model.latent_updates": 2,
  "model.puzzle_embed_dim": WIDTH,
}


def _run(*arguments) -> subprocess.CompletedProcess:
  """Runs launch.aot in a process of its own, for four chips."""
  return subprocess.run(
    [
      *(sys.executable, "-m", "launch.aot", "--topology=v5e:2x2", "--json"),
      *("--config=experiments/arc.py:smoke", *arguments),
    ],
    cwd=ROOT,
    env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
    capture_output=True,
    text=True,
    check=False,
  )


def test_both_steps_compile_for_a_slice_and_fit():
  result = _run(
    f"--num_puzzle_ids={ROWS}",
    *(f"--config.{name}={value}" for name, value in SETTINGS.items()),
  )
  assert result.returncode == 0, result.stderr
  assert result.stderr == ""  # no noise of a missing TPU
  assert "4 chips of 16 GiB, 15.75 usable" in result.stdout
  found = json.loads(result.stdout.splitlines()[-1])
  assert found["fits"]
  assert found["fused_attention"]
  assert found["table_share"] == ROWS // 4
  share = ROWS // 4 * WIDTH * 4
  for name in ("train", "evaluate"):
    step = found["steps"][name]
    assert step["memory"]["share of the puzzle table"] == share
    # It is not copied.
    assert step["memory"]["temporaries"] < share / 2
    assert step["memory"]["results"] < share / 2
    assert step["total"] < found["usable"]


def test_what_does_not_fit_is_an_error_that_says_what_would_help():
  result = _run("--num_puzzle_ids=600000000", "--mode=evaluate")
  assert result.returncode == 1, result.stderr
  found = json.loads(result.stdout.splitlines()[-1])
  assert not found["fits"]
  assert found["steps"]["evaluate"]["total"] > found["usable"]
  (line,) = result.stderr.splitlines()
  assert line.startswith("error: the evaluate step does not fit v5e:2x2: ")
  assert "of a chip's 15.75" in line
  assert "try --topology=v5e:2x4 (1 per chip), or" in line
  assert "--config.eval.batch_size=4" in line


def test_no_collective_carries_the_puzzle_table():
  target = aot_targets.parse("v5e:2x2")
  config = arc.get_config("smoke")
  config.update_from_flattened_dict(SETTINGS)
  built = program.build(
    config_lib.from_config_dict(config),
    program.DataSpec(vocab_size=12, seq_len=900, num_puzzle_ids=ROWS),
    mesh.mesh_of(target.devices()),
    memory_bytes=target.usable,
  )
  size = 8
  state, batch = built.abstract_state(), built.abstract_batch(size)
  rows = jax.ShapeDtypeStruct((size,), bool, sharding=batch.puzzle_ids.sharding)
  # The precision of the other tests is none of the kernels'.
  with jax.default_matmul_precision("default"):
    training, evaluation = (
      aot_report.compile_step(*step, target=target).as_text()
      for step in (
        (built.train_step(), state, batch),
        (built.evaluate_batch(), state.ema_weights, batch, rows),
      )
    )
  for text in (training, evaluation):
    assert 0 < max(collectives.sizes(text)) < ROWS // 4 * WIDTH * 4 / 100
  # The gradients travel once, in float32 though products are in bfloat16.
  parameters = 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))
  summed = collectives.all_reduced_floats(training)
  assert parameters <= summed < 1.01 * parameters
