"""When a run is to end, and why."""

import os
import signal

import pytest

from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import preemption


@pytest.fixture(name="now")
def _now(monkeypatch):
  """The clock, to be set: a list of one number, in seconds."""
  clock = [1000.0]
  monkeypatch.setattr(preemption.time, "monotonic", lambda: clock[0])
  return clock


def test_nothing_ends_a_run_by_itself(now):
  stop, mesh = preemption.PreemptionSignal(), mesh_lib.make_mesh()
  assert not stop.now(mesh)
  now[0] += 1e9
  assert not stop.now(mesh)


def test_the_limit_is_in_minutes(now):
  stop, mesh = (
    preemption.PreemptionSignal(time_limit_minutes=1.5),
    mesh_lib.make_mesh(),
  )
  now[0] += 89.9
  assert not stop.now(mesh)
  now[0] += 0.2
  assert stop.now(mesh)
  assert stop.reason == "config.train.time_limit_minutes"


def test_a_signal_ends_it_for_good_and_is_the_reason_even_when_time_is_up(now):
  stop, mesh = (
    preemption.PreemptionSignal(time_limit_minutes=1),
    mesh_lib.make_mesh(),
  )
  before = signal.getsignal(signal.SIGTERM)
  try:
    stop.install()
    assert not stop.now(mesh)
    os.kill(os.getpid(), signal.SIGTERM)
    now[0] += 61
    assert stop.now(mesh)
    assert stop.now(mesh)
    assert stop.reason == "SIGTERM"
  finally:
    signal.signal(signal.SIGTERM, before)
