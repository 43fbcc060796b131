"""Runs on one device, for which they compile faster than for eight."""

import pytest

from trm_jax.runtime import mesh


@pytest.fixture(scope="module")
def make_mesh():
  """The function that runs make their mesh with, as it was."""
  return mesh.make_mesh


@pytest.fixture(scope="module")
def one_device(make_mesh):
  """Runs of this module use one device unless told otherwise."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh, "make_mesh", lambda count=1: make_mesh(count))
    yield
