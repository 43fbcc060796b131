"""XLA's options for the compiled steps, all in one place.

They go to `jax.jit` with the program, so that nothing else in the process is
compiled otherwise. What they gain stands in docs/performance.md.
"""

import os

from trm_jax import chip as chip_lib

# XLA hands products to a library (YNNPACK). By default it hands it sums, too,
# with all that goes into them: a norm over the sequence comes with the whole
# MLP before it, which that library computes much slower as one than XLA does
# piece by piece.
_CPU = {
  "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}
# XLA computes with vectors of 256 bits, since wider ones slow down the clock of
# older CPUs. Those that multiply bfloat16 are newer, have 512 bits, and in
# bfloat16 are busy with rounding.
_CPU_IN_BFLOAT16 = {"xla_cpu_prefer_vector_width": "512"}


def of(chip: chip_lib.Chip, dtype: str) -> dict[str, str]:
  """Returns the options for a kind of device, for `jax.jit`.

  An option that the user sets in XLA_FLAGS is left to the user.

  Args:
    chip: the kind of device.
    dtype: 'float32' or 'bfloat16', of the network's products.
  """
  options = dict(_CPU) if chip.platform == "cpu" else {}
  if dtype == "bfloat16" and chip.cpu_has_bfloat16:
    options |= _CPU_IN_BFLOAT16
  of_the_user = os.environ.get("XLA_FLAGS", "")
  return {
    name: value for name, value in options.items() if name not in of_the_user
  }
