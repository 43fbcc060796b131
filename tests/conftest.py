"""Every test sees eight CPU devices and no implicit rank promotion."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
  # Tests compile far longer than they compute.
  " --xla_backend_optimization_level=0"
)

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
# On accelerators float32 products would otherwise run in lower precision.
jax.config.update("jax_default_matmul_precision", "highest")
