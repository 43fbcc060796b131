"""What kind of device a program is for; some choices follow from it."""

import dataclasses
import re

import jax


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of device."""

  platform: str = "cpu"  # 'cpu', 'gpu' or 'tpu'
  # Of NVIDIA's GPUs, e.g. 9.0 of an H100; 0 of all others.
  cuda_capability: float = 0.0


def of(device: jax.Device) -> Chip:
  """Returns the kind of a device, which need not be there."""
  capability = str(getattr(device, "compute_capability", ""))
  # AMD's GPUs have names here, such as gfx942.
  is_cuda = device.platform == "gpu" and re.fullmatch(r"\d+\.\d+", capability)
  return Chip(device.platform, float(capability) if is_cuda else 0.0)
