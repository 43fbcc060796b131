"""Every test sees eight CPU devices and no implicit rank promotion."""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
  # Tests compile far longer than they compute.
  " --xla_backend_optimization_level=0"
)
# Compiled programs are kept for as long as the tests run, and not in the user's
# own folder.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  _COMPILED = tempfile.mkdtemp(prefix="trm_jax_tests_")
  os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
  atexit.register(shutil.rmtree, _COMPILED, ignore_errors=True)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# On accelerators float32 products would otherwise run in lower precision.
jax.config.update("jax_default_matmul_precision", "highest")
