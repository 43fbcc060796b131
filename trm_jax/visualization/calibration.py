"""Statistics of confidence: how often it agrees with correctness."""

from typing import NamedTuple

import numpy as np

THRESHOLD = 0.5  # confidence from which an answer counts as predicted correct


class AnswerStats(NamedTuple):
  """Results of N puzzles.

  Attributes:
    confidence: Probability of a correct answer by the halt head, float64 [N];
      NaN after diverged training.
    steps: Supervision steps used, int32 [N].
    known: Whether the puzzle has a known solution, bool [N].
    exact: Whether the answer equals the solution, bool [N].
  """

  confidence: np.ndarray
  steps: np.ndarray
  known: np.ndarray
  exact: np.ndarray

  @property
  def rated(self) -> "AnswerStats":
    """The puzzles with a known solution and a confidence that is not NaN."""
    rows = self.known & ~np.isnan(self.confidence)
    return AnswerStats(*(values[rows] for values in self))


class Bins(NamedTuple):
  """Answers binned by confidence, in B bins of equal width.

  Attributes:
    edges: Bounds of the bins, from 0 to 1, [B + 1].
    counts: Answers per bin, int [B].
    confidence: Mean confidence per bin, [B]; NaN in an empty bin.
    accuracy: Share of correct answers per bin, [B]; NaN in an empty bin.
  """

  edges: np.ndarray
  counts: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray


def confusion(stats: AnswerStats) -> np.ndarray:
  """Counts predicted against actual correctness.

  Args:
    stats: Rated puzzles, see `AnswerStats.rated`.

  Returns:
    Int [2, 2]: confidence of at least `THRESHOLD` or below, by correct or
    incorrect.
  """
  confident = stats.confidence >= THRESHOLD
  return np.array(
    [
      [(rows & stats.exact).sum(), (rows & ~stats.exact).sum()]
      for rows in (confident, ~confident)
    ]
  )


def reliability(stats: AnswerStats, *, num_bins: int = 10) -> Bins:
  """Computes the accuracy in each bin of confidence.

  Args:
    stats: Rated puzzles, see `AnswerStats.rated`.
    num_bins: B.
  """
  edges = np.linspace(0, 1, num_bins + 1)
  places = np.clip(np.digitize(stats.confidence, edges) - 1, 0, num_bins - 1)
  counts = np.bincount(places, minlength=num_bins)

  def mean(values):
    sums = np.bincount(places, weights=values, minlength=num_bins)
    with np.errstate(invalid="ignore"):
      return np.where(counts > 0, sums / counts, np.nan)

  return Bins(
    edges=edges,
    counts=counts,
    confidence=mean(stats.confidence),
    accuracy=mean(stats.exact),
  )
