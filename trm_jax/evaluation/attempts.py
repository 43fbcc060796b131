"""Accuracy of rollouts by supervision steps and number of attempts."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from trm_jax import config as config_lib
from trm_jax.core import eval_step
from trm_jax.runtime import flops

_NORMAL_95 = 1.959964  # standard deviations of a two-sided 95 % interval


def wilson_interval(successes: float, total: float) -> tuple[float, float]:
  """Returns the 95 % Wilson score interval of a share, (0, 1) without data."""
  if not total:
    return 0.0, 1.0
  share, z2 = successes / total, _NORMAL_95**2
  middle = share + z2 / (2 * total)
  spread = _NORMAL_95 * np.sqrt(
    share * (1 - share) / total + z2 / (4 * total**2)
  )
  scale = 1 + z2 / total
  return (
    max(0.0, float((middle - spread) / scale)),
    min(1.0, float((middle + spread) / scale)),
  )


@dataclasses.dataclass(frozen=True)
class Share:
  """A share of puzzles with its 95 % interval.

  Attributes:
    value: From 0 to 1.
    low: Lower bound.
    high: Upper bound.
  """

  value: float
  low: float
  high: float

  @classmethod
  def of(cls, successes: float, total: float) -> "Share":
    """Returns the share of successes among a total above 0."""
    return cls(successes / total, *wilson_interval(successes, total))

  def __str__(self) -> str:
    return f"{self.value:7.2%} [{self.low:.2%}, {self.high:.2%}]"


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table.

  Attributes:
    steps: Supervision steps of each attempt, at most.
    attempts: Attempts at each puzzle.
    chosen: Puzzles whose chosen answer is right.
    any_: Puzzles with any right answer.
    calls: Network calls per puzzle.
  """

  steps: int
  attempts: int
  chosen: Share
  any_: Share
  calls: float


@dataclasses.dataclass(frozen=True)
class AttemptTable:
  """Accuracy by supervision steps and number of attempts.

  Attributes:
    steps: Numbers of supervision steps, R.
    attempts: Numbers of attempts, K.
    num_puzzles: Puzzles whose correct answer is known.
    chosen: Puzzles whose chosen answer is right, [R, K].
    any_: Puzzles with any right answer, [R, K].
    calls: Network calls per puzzle, [R, K].
    choice: How an attempt is chosen.
  """

  steps: tuple[int, ...]
  attempts: tuple[int, ...]
  num_puzzles: int
  chosen: np.ndarray
  any_: np.ndarray
  calls: np.ndarray
  choice: str

  @classmethod
  def of(
    cls, sums: Mapping[str, np.ndarray], config: config_lib.Config
  ) -> "AttemptTable | None":
    """Builds the table; None if no correct answer is known.

    Args:
      sums: Metric sums of an evaluation with rollouts.
      config: Its settings.
    """
    count = int(np.asarray(sums["count"])[-1])
    if not count:
      return None
    settings = config.eval
    chosen, any_, steps = (sums[name] for name in eval_step.ROLLOUT_SUMS)
    num_rows, num_attempts = chosen.shape
    choice = settings.rollout_selection
    return cls(
      steps=settings.report_steps[-num_rows:],
      attempts=tuple(range(1, num_attempts + 1))
      if num_attempts == settings.rollouts
      else (settings.rollouts,),
      num_puzzles=count,
      chosen=chosen,
      any_=any_,
      calls=steps / count * sum(flops.network_calls(config.model)),
      choice="confidence" if choice == "rules" else choice,
    )

  def rows(self) -> Iterator[Row]:
    """Yields rows for powers of two attempts and all."""
    last = self.attempts[-1]
    for r, steps in enumerate(self.steps):
      for k, attempts in enumerate(self.attempts):
        if attempts == last or attempts & (attempts - 1) == 0:
          yield Row(
            steps=steps,
            attempts=attempts,
            chosen=Share.of(self.chosen[r, k], self.num_puzzles),
            any_=Share.of(self.any_[r, k], self.num_puzzles),
            calls=float(self.calls[r, k]),
          )

  def lines(self) -> Iterator[str]:
    """Yields the table as text."""
    yield (
      f"exact by steps and attempts, chosen by {self.choice}; 95 % intervals"
    )
    yield (
      f"{'steps':>6} {'attempts':>8}  {'chosen':<24} {'any correct':<24}"
      f" {'calls/puzzle':>12}"
    )
    for row in self.rows():
      yield (
        f"{row.steps:6d} {row.attempts:8d}  {row.chosen!s:<24}"
        f" {row.any_!s:<24} {row.calls:12,.0f}"
      )
