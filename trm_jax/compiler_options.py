"""XLA's options for the compiled steps, all in one place.

They go to `jax.jit` with the program, so that nothing else in the process is
compiled otherwise. What they gain stands in docs/performance.md.
"""

import os

_CPU_FUSIONS = "xla_cpu_experimental_ynn_fusion_type"


def of(platform: str) -> dict[str, str]:
  """Returns the options for a kind of device, for `jax.jit`.

  An option that the user sets in XLA_FLAGS is left to the user.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
  """
  if platform != "cpu" or _CPU_FUSIONS in os.environ.get("XLA_FLAGS", ""):
    return {}
  # XLA hands products to a library (YNNPACK). By default it hands it sums, too,
  # with all that goes into them: a norm over the sequence comes with the whole
  # MLP before it, which that library computes much slower as one than XLA does
  # piece by piece.
  return {_CPU_FUSIONS: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
