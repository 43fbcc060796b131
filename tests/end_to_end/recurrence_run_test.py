"""Whole runs of networks whose latents are others than TRM's."""

import functools

import jax
import numpy as np
import pytest
import tiny

import trm_jax
from trm_jax import config as config_lib
from trm_jax import train
from trm_jax.data.sudoku import generator as sudoku_generator
from trm_jax.interop import stablehlo
from trm_jax.runtime import checkpoint_metadata, preemption, program
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh as mesh_lib

RECURRENCES = {
  "hrm": {
    "model.separate_networks": True,
    "model.gradient_updates": 1,
    "train.halt_rule": "halt_over_continue",
  },
  "single_latent": {"model.recursion_type": "single_latent"},
  "latent_per_update": {"model.recursion_type": "latent_per_update"},
  "direct": {"model.recursion_type": "direct"},
}


def _config(name):
  base = config_lib.from_config_dict(tiny.config_dict())
  return config_lib.changed(
    base,
    {"model.latent_updates": 2, "model.recursion_cycles": 2}
    | RECURRENCES[name],
  )


class _StopAtStep2(preemption.PreemptionSignal):
  """Is asked to end before the third step."""

  def __init__(self):
    super().__init__()
    self._asked = 0

  def now(self, mesh):
    self._asked += 1
    if self._asked == 3:
      self.request()
    return super().now(mesh)


@pytest.fixture(
  scope="module",
  params=[
    "single_latent",
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in ("hrm", "latent_per_update", "direct")
    ),
  ],
)
def run(request, tmp_path_factory):
  """(name, workdir) of a run that was never stopped, on one device."""
  workdir = tmp_path_factory.mktemp(request.param)
  make_mesh = mesh_lib.make_mesh
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh_lib, "make_mesh", lambda: make_mesh(1))
    train.train(_config(request.param), str(workdir))
  return request.param, workdir


def _last_state(name, workdir):
  built = program.load(_config(name))
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    assert checkpoints.latest_step == 4
    return jax.device_get(
      checkpoints.restore(4, built.program.abstract_state())
    )


@pytest.mark.slow
def test_continued_on_other_devices_is_as_never_stopped(run, tmp_path):
  name, workdir = run
  make_mesh = mesh_lib.make_mesh
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh_lib, "make_mesh", lambda: make_mesh(1))
    with pytest.raises(preemption.Preempted):
      train.train(_config(name), str(tmp_path), _StopAtStep2())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh_lib, "make_mesh", lambda: make_mesh(2))
    train.train(_config(name), str(tmp_path))
  expected, actual = (_last_state(name, w) for w in (workdir, tmp_path))
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5),
    actual,
    expected,
  )


@functools.cache
def _inputs():
  _, test = sudoku_generator.generate_split(
    2, 5, box_rows=2, box_cols=2, num_clues=6, seed=3
  )
  return test.inputs


@pytest.mark.parametrize("solver", ["fixed", "adaptive", "rollouts"])
def test_its_weights_solve(run, solver):
  _, workdir = run
  loaded = trm_jax.load(str(workdir), solver=solver)
  solved = loaded.solve_tokens(_inputs())
  assert solved.answers.shape == (5, 16)
  assert np.isfinite(solved.confidence).all()


@pytest.mark.slow
def test_noise_makes_its_attempts_differ(run):
  _, workdir = run
  quiet, loud = (
    trm_jax.load(
      str(workdir), solver="rollouts", rollouts=4, noise=noise
    ).solve_tokens(_inputs())
    for noise in (0.0, 3.0)
  )
  assert not np.array_equal(quiet.confidence, loud.confidence)


def test_it_is_exported(run, tmp_path):
  _, workdir = run
  solver = trm_jax.load(str(workdir))
  stablehlo.export_solver(solver, str(tmp_path / "exported"))
  assert (tmp_path / "exported").is_dir()


def test_another_networks_weights_are_refused_by_name(run):
  name, workdir = run
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    saved = checkpoints.metadata(4)
  other = "single_latent" if name != "single_latent" else "hrm"
  built = program.load(_config(other))
  with pytest.raises(trm_jax.errors.UserError) as refused:
    checkpoint_metadata.check_network_fits(
      saved, built.program.config, built.task.look.symbols
    )
  # Which calls had gradients does not matter to whoever only evaluates.
  own = config_lib.changed(_config(name), {"model.gradient_updates": 2})
  checkpoint_metadata.check_network_fits(saved, own, built.task.look.symbols)
  changed = {*RECURRENCES[name], *RECURRENCES[other]}
  for knob in changed & {"model.recursion_type", "model.separate_networks"}:
    assert knob in str(refused.value)
