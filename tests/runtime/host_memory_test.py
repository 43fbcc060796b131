"""Freed memory is used again instead of asked for again."""

import os
import platform
import subprocess
import sys

import pytest

from trm_jax.runtime import host_memory

# Takes and frees 200 MB in another thread, twice; prints whether freed memory
# is kept, and how many pages the second time had to be given.
_PROGRAM = """
import resource, threading
from trm_jax.runtime import host_memory
kept = host_memory.tune_malloc()
import numpy as np

def use():
  np.ones(200 * 2**20, np.uint8)

def faults():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  thread = threading.Thread(target=use)
  thread.start()
  thread.join()
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(int(kept), faults())
"""
_PAGES = 200 * 2**20 // os.sysconf("SC_PAGESIZE")


def _run(**variables):
  environment = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
  }
  result = subprocess.run(
    [sys.executable, "-c", _PROGRAM],
    env=environment | {"JAX_PLATFORMS": "cpu"} | variables,
    capture_output=True,
    text=True,
    check=True,
  )
  kept, faults = map(int, result.stdout.split())
  return bool(kept), faults


def test_what_is_freed_is_there_for_the_next_step():
  kept, faults = _run()
  assert kept == (platform.libc_ver()[0] == "glibc")
  assert not kept or faults < _PAGES / 100


def test_the_users_own_settings_are_left_alone():
  kept, _ = _run(MALLOC_ARENA_MAX="4")
  assert not kept


@pytest.mark.parametrize("platforms", ["cuda", "tpu", "cuda,cpu"])
def test_an_accelerators_host_is_left_alone(platforms):
  kept, _ = _run(JAX_PLATFORMS=platforms)
  assert not kept


def test_an_accelerator_is_found_by_its_device(monkeypatch):
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  monkeypatch.setattr(host_memory.glob, "glob", lambda path: [])
  assert host_memory._is_alone()
  monkeypatch.setattr(
    host_memory.glob,
    "glob",
    lambda path: ["/dev/nvidia0"] if "nvidia" in path else [],
  )
  assert not host_memory._is_alone()
