"""Training and evaluation do not depend on the number of devices."""

import functools
import json

import jax
import numpy as np
import pytest

from experiments import arc
from tests import tiny
from trm_jax import config as config_lib
from trm_jax import train
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh, metric_writer, program

STEPS = 5


def _config(name):
  config = {"arc": lambda: arc.get_config("smoke"), "sudoku": tiny.config_dict}[
    name
  ]()
  config.model.compute_dtype = "float32"
  config.model.num_layers = config.model.recursion_cycles = 2
  config.optimizer.warmup_steps = 0
  config.train.num_steps = STEPS
  config.train.max_supervision_steps = 3  # slots are refilled on the way
  config.eval.every_steps = 0
  config.eval.supervision_steps = 2
  config.log.every_steps = 1
  return config_lib.from_config_dict(config)


@pytest.fixture(name="outcome", scope="module")
def _outcome(tmp_path_factory):
  """outcome(task, devices): all that a run leaves, on the host."""

  @functools.cache
  def outcome(name, num_devices):
    workdir = str(tmp_path_factory.mktemp(f"{name}_{num_devices}"))
    config, make_mesh = _config(name), mesh.make_mesh
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(mesh, "make_mesh", lambda: make_mesh(num_devices))
      report = train.train(config, workdir)
      run = program.load(config)
    assert run.program.mesh.size == num_devices
    with checkpoints_lib.Checkpoints(workdir) as checkpoints:
      state = checkpoints.restore(STEPS, run.program.abstract_state())
    for split in (state.puzzle_table, state.carry.latents.z):
      assert len(split.addressable_shards) == num_devices
      assert (
        split.addressable_shards[0].data.shape[0] * num_devices
        == (split.shape[0])
      )
    state = jax.device_get(state)
    rows = run.task.num_puzzle_ids
    assert not np.any(state.puzzle_table[rows:])
    state = state.replace(puzzle_table=state.puzzle_table[:rows])
    metrics = {
      (row.pop("group"), row["step"]): row
      for row in metric_writer.read_metrics(workdir)
    }
    for row in metrics.values():
      row.pop("slot_steps_per_second", None)
      row |= {name: np.nan for name, value in row.items() if value is None}
    folder = arc_evaluation.folder(workdir, STEPS)
    path = folder / arc_evaluation.SUBMISSION_FILE
    submission = json.loads(path.read_text()) if path.exists() else None
    # Not the latents, in which differences of rounding grow tenfold a step.
    state = state.replace(carry=state.carry.replace(latents=None))
    return (state, report.means, metrics), submission

  return outcome


@pytest.mark.parametrize(
  "num_devices",
  [2, 4, 8],
)
@pytest.mark.slow  # the fast set has a step on 8 devices in train_step_test.py
@pytest.mark.parametrize("name", ["sudoku", "arc"])
def test_any_number_of_devices_gives_the_same(outcome, name, num_devices):
  numbers, submission = outcome(name, num_devices)
  expected, expected_submission = outcome(name, 1)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    numbers,
    expected,
  )
  assert submission == expected_submission
  assert (submission is not None) == (name == "arc")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sudoku", "arc"])
def test_the_table_has_learned(outcome, name):
  (state, *_), _ = outcome(name, 1)
  assert np.any(state.puzzle_table)
