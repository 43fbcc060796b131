"""Every test sees eight CPU devices and no implicit rank promotion."""

import atexit
import gc
import os
import shutil
import sys
import tempfile

import command_line

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=8 "
  + command_line.COMPILES_FAST
)
# Compiled programs are kept for as long as the tests run, and not in the user's
# own folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  _COMPILED = tempfile.mkdtemp(prefix="trm_jax_tests_")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
  atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)
  # Most compile in less than the second from which on JAX keeps programs, and
  # many tests compile the same ones.
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest

from trm_jax.runtime import mesh

jax.config.update("jax_numpy_rank_promotion", "raise")
# On accelerators float32 products would otherwise run in lower precision.
jax.config.update("jax_default_matmul_precision", "highest")

# Tracing makes millions of objects, and the collector walks them again and
# again, for a twentieth of the tests' time.
gc.set_threshold(200_000, 50, 100)


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
  """Leaves out the pictures at the end of a training in this process.

  Drawing takes longer than training the tests' networks; main_test.py runs the
  whole program in a process of its own and looks at its pictures.
  """
  train = sys.modules.get("trm_jax.train")
  if train is not None:
    monkeypatch.setattr(train._Loop, "_draw", lambda *_: None)


# Files that take minutes, most of them in few tests: begun last, one of them
# would keep one worker busy when the others have nothing left.
_FIRST = (
  "two_processes_test.py",
  "ablations_test.py",
  "kills_test.py",
  "recurrence_run_test.py",
)


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.name not in _FIRST)


@pytest.fixture(scope="module")
def make_mesh():
  """The function that runs make their mesh with, unchanged."""
  return mesh.make_mesh


@pytest.fixture(scope="module")
def one_device(make_mesh):
  """Runs of the module use one device by default: they compile faster."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(mesh, "make_mesh", lambda count=1: make_mesh(count))
    yield
