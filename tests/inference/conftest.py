"""A saved run that the tests of prediction share."""

import pytest
import saved_run
import tiny

from trm_jax.runtime import program

STEP = 7


@pytest.fixture(scope="session", name="tiny_run")
def _tiny_run(tmp_path_factory):
  """The tiny experiment, and a workdir with a checkpoint of random weights."""
  run = program.load(tiny.config())
  folder = tmp_path_factory.mktemp("tiny_run")
  return run, str(saved_run.save(run, folder, {STEP: 0.5}))
