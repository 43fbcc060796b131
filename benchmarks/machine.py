"""Describes the machine and the versions of a measurement.

python -m benchmarks.machine

prints them as one JSON line.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shlex
import sys

import jax
import jaxlib

# Packages with a platform's runtime that are not JAX itself.
_PLUGINS = {
  "gpu": ("jax-cuda13-plugin", "jax-cuda12-plugin", "jax-rocm7-plugin"),
  "tpu": ("libtpu",),
}


def fields() -> dict[str, str | int | None]:
  """Returns the fields about the machine, part of every measurement.

  Initializes the devices: on a GPU JAX then reserves most of the memory.
  """
  devices = jax.devices()
  return {
    "platform": devices[0].platform,
    "device": devices[0].device_kind,
    "num_devices": len(devices),
    "cpu": _cpu(),
    "cores": _cores(),
    "python": platform.python_version(),
    "jax": jax.__version__,
    "jaxlib": jaxlib.__version__,
    "plugin": _plugin(devices[0].platform),
    "xla_flags": os.environ.get("XLA_FLAGS", "").strip(),
  }


def command() -> str:
  """Returns the command line of this process."""
  main = sys.modules["__main__"].__spec__
  started = ["-m", main.name] if main else sys.argv[:1]
  return shlex.join(["python", *started, *sys.argv[1:]])


def _cpu() -> str:
  """Returns the model's name."""
  listed = pathlib.Path("/proc/cpuinfo")  # on Linux
  text = listed.read_text() if listed.exists() else ""
  found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
  name = found.group(1) if found else platform.processor()
  return name or platform.machine()


def _cores() -> int | None:
  """Returns how many cores this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count()


def _plugin(platform_name: str) -> str | None:
  """Returns name and version of the plugin in use; None if there is none."""
  for name in _PLUGINS.get(platform_name, ()):
    try:
      return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
      continue
  return None


if __name__ == "__main__":
  print(json.dumps(fields()))
