"""Confidence against correctness, on tables made by hand."""

import numpy as np

from trm_jax.visualization import calibration


def _stats(confidence, exact):
  count = len(confidence)
  return calibration.AnswerStats(
    confidence=np.array(confidence),
    steps=np.ones(count, np.int32),
    known=np.full(count, True),
    exact=np.array(exact, bool),
  )


def test_confusion_counts_confidence_against_correctness():
  stats = _stats([0.5, 0.9, 0.7, 0.49, 0.1, 1.0], [1, 1, 0, 1, 0, 1])
  assert calibration.confusion(stats).tolist() == [[3, 1], [1, 1]]


def test_reliability_of_an_empty_bin_is_unknown():
  stats = _stats([0.0, 0.24, 0.25, 1.0, 1.0], [0, 1, 1, 1, 0])
  bins = calibration.reliability(stats, num_bins=4)
  assert bins.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
  assert bins.counts.tolist() == [2, 1, 0, 2]
  np.testing.assert_allclose(bins.confidence, [0.12, 0.25, np.nan, 1.0])
  np.testing.assert_allclose(bins.accuracy, [0.5, 1.0, np.nan, 0.5])


def test_puzzles_without_solution_or_confidence_are_not_rated():
  stats = _stats([0.9, np.nan, np.nan, 0.2], [1, 1, 0, 0])
  stats.known[3] = False
  rated = stats.rated
  assert calibration.confusion(rated).tolist() == [[1, 0], [0, 0]]
  assert calibration.reliability(rated, num_bins=2).counts.tolist() == [0, 1]
