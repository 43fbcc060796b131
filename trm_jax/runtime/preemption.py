"""Stopping early without loss: signals, preemption, a time limit."""

import functools
import signal
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from trm_jax.runtime import mesh as mesh_lib

# Why a run stops: _NO, _TIME, or the number of a signal, from 1 to 64. Of what
# several hosts ask, the largest counts.
_NO, _TIME = 0, 1000
# A scheduler's end of a job, a closed terminal, and SLURM's warning.
_SIGNALS = ("SIGTERM", "SIGHUP", "SIGUSR1")


class Preempted(Exception):  # noqa: N818  # not an error: the exit status is 0
  """The run was asked to stop and has saved its state."""


class PreemptionSignal:
  """Whether the run should stop now; all hosts agree at the same step."""

  def __init__(self, time_limit_minutes: float = 0.0):
    """Starts the clock.

    Args:
      time_limit_minutes: time limit from now on; 0 for none.
    """
    self.limit(time_limit_minutes)
    self._signal = _NO
    self._asked: jax.Array | None = None
    self._agreed = _NO

  def limit(self, time_limit_minutes: float) -> None:
    """Sets the time limit in minutes from now on; 0 for none."""
    self._end = (
      time.monotonic() + 60.0 * time_limit_minutes
      if time_limit_minutes
      else None
    )

  def install(self) -> None:
    """Handles signals; call after `processes.join`, which installs its own.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    """
    for name in _SIGNALS:
      number = getattr(signal, name, None)  # Windows has SIGTERM only
      if number and signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda received, _: self.request(received))

  def request(self, number: int = signal.SIGTERM) -> None:
    """Requests a stop, as the signal does."""
    self._signal = self._signal or int(number)

  @property
  def reason(self) -> str:
    """Why the run stops, once `now` returned True."""
    if self._agreed == _TIME:
      return "config.train.time_limit_minutes"
    return signal.Signals(self._agreed).name

  @property
  def interrupted(self) -> bool:
    """Whether the run stops because of Ctrl-C, once `now` returned True."""
    return self._agreed == signal.SIGINT

  def now(self, mesh: Mesh) -> bool:
    """Returns whether to stop; all hosts must call it equally often.

    One host stops all. What they ask in one call is answered in the next, so
    that no device waits for the answer.
    """
    if jax.process_count() == 1:
      self._agreed = self._agreed or self._wanted()
      return bool(self._agreed)
    if self._asked is not None:
      self._agreed = self._agreed or int(self._asked)
    mine = np.full(jax.local_device_count(), self._wanted(), np.int32)
    self._asked = _largest(mesh)(mesh_lib.put_rows(mine, mesh))
    return bool(self._agreed)

  def _wanted(self) -> int:
    if self._signal:
      return self._signal
    late = self._end is not None and time.monotonic() >= self._end
    return _TIME if late else _NO


@functools.cache
def _largest(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
  """Returns the jitted maximum over all hosts' entries."""
  return jax.jit(jnp.max, out_shardings=mesh_lib.replicated(mesh))
