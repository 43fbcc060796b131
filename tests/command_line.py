"""The command line in a process of its own, as people type it."""

import importlib.metadata
import os
import pathlib
import subprocess
import sys

# JAX 0.10 has an older code generator, too, which takes half the time.
_HAS_OLDER = importlib.metadata.version("jaxlib").startswith("0.10.")
# Tests compile far longer than they compute.
COMPILES_FAST = "--xla_backend_optimization_level=0" + (
  " --xla_cpu_use_fusion_emitters=false" if _HAS_OLDER else ""
)
# Options of `compile`, for tests of what the compiler makes.
AS_USERS_COMPILE = {"xla_cpu_use_fusion_emitters": True} if _HAS_OLDER else {}

_ROOT = pathlib.Path(__file__).parent.parent


def start(
  *arguments, config="experiments/quickstart.py", compiles_fast=False
) -> subprocess.Popen:
  """Starts main in a process of its own, on one CPU device.

  Args:
    *arguments: Flags.
    config: The experiment.
    compiles_fast: Whether to compile without optimizing; for a step or two.
  """
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  if compiles_fast:
    environment["XLA_FLAGS"] = COMPILES_FAST
  return subprocess.Popen(
    [sys.executable, "-m", "trm_jax.main", f"--config={config}", *arguments],
    cwd=_ROOT,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def run(*arguments, **options) -> subprocess.CompletedProcess:
  """Runs main to its end; arguments as for `start`."""
  with start(*arguments, **options) as process:
    output, errors = process.communicate()
  return subprocess.CompletedProcess(
    process.args, process.returncode, output, errors
  )


def error_of(*arguments, **options) -> str:
  """The one line of an error; there is nothing else."""
  result = run(*arguments, **options)
  assert result.returncode == 1, result.stderr
  lines = [
    line for line in result.stderr.splitlines() if line.startswith("error: ")
  ]
  assert len(lines) == 1, result.stderr
  assert result.stderr.splitlines()[-1] == lines[0]
  assert "Traceback" not in result.stderr + result.stdout
  assert "exact_accuracy=" not in result.stdout
  return lines[0]
