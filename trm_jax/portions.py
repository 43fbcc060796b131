"""Puzzles of any number through a solver: so many at a time, and progress."""

import time

import numpy as np

from trm_jax import errors, failures, hosts, program
from trm_jax import solver as solver_lib

_SECONDS = 10.0  # between two lines of progress


class Portions:
  """Solves one portion after the other and tells on stderr how far it is.

  Attributes:
    size: Puzzles to solve at a time so that no slot of the solver is idle.
  """

  def __init__(
    self, solver: solver_lib.Solver, what: str, total: int | None = None
  ):
    """Starts the clock.

    Args:
      solver: The trained network.
      what: is solved, e.g. "puzzles".
      total: how many there are, if that is known.
    """
    self.size = program.puzzles_at_a_time(solver.config.eval)
    self._solver = solver
    self._what = what
    self._of = "" if total is None else f" of {total:,}"
    self._count = 0
    self._start = self._last = time.monotonic()

  def solve(
    self, tokens: np.ndarray, rows: np.ndarray | None = None
  ) -> solver_lib.Solved:
    """Solves a portion, as `Solver.solve_tokens`.

    Raises:
      UserError: if there is not enough memory for so many at a time.
    """
    try:
      solved = self._solver.solve_tokens(tokens, rows)
    except Exception as error:
      if not failures.is_trouble(error):
        raise
      raise errors.UserError(
        f"the {self._what} cannot be solved {self.size:,} at a time; lower"
        f" config.eval.batch_size ({failures.reason(error)})"
      ) from error
    self._count += len(tokens)
    now = time.monotonic()
    if now - self._last > _SECONDS:
      self._last = now
      rate = self._count / (now - self._start)
      hosts.note(
        f"{self._count:,}{self._of} {self._what} solved, {rate:,.1f} per second"
      )
    return solved
