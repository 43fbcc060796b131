"""When a run is to end, and why."""

import os
import signal

import pytest

from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import preemption

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


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


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGUSR1"])
def test_a_signal_ends_it_for_good_and_is_the_reason_even_when_time_is_up(
  now, name
):
  stop, mesh = (
    preemption.PreemptionSignal(time_limit_minutes=1),
    mesh_lib.make_mesh(),
  )
  before = {number: signal.getsignal(number) for number in SIGNALS}
  try:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop.install()
    assert not stop.now(mesh)
    os.kill(os.getpid(), signal.Signals[name])
    now[0] += 61
    assert stop.now(mesh)
    assert stop.now(mesh)
    assert stop.reason == name
    assert not stop.interrupted
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def test_under_nohup_a_closed_terminal_ends_nothing(now):
  stop, mesh = preemption.PreemptionSignal(), mesh_lib.make_mesh()
  before = {number: signal.getsignal(number) for number in SIGNALS}
  try:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop.install()
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.now(mesh)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
