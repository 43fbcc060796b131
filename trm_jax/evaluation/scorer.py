"""Looking at an evaluation's answers themselves, batch by batch."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from trm_jax.core import eval_step
from trm_jax.evaluation import report


class Judge(Protocol):
  """Sees all batches of an evaluation in order, and gives a verdict."""

  @property
  def first_batch(self) -> int:
    """The batch to begin with; not 0 when an evaluation goes on."""

  @property
  def sums(self) -> Mapping[str, np.ndarray]:
    """Metric sums of the batches that were counted before."""

  def see(
    self, batch: int, sums: Mapping[str, np.ndarray], answers: eval_step.Answers
  ) -> bool:
    """Takes batch number `batch`, and says whether its sums are to be added.

    They are not where they are in `self.sums` already.
    """

  def progress(self) -> str:
    """Returns what is known so far in a few words, or nothing."""

  def verdict(self) -> report.Verdict:
    """Returns the verdict, when all batches were seen."""


class NoJudge:
  """Looks at nothing."""

  first_batch = 0
  sums: Mapping[str, np.ndarray] = {}

  def see(self, *_) -> bool:
    """As `Judge.see`."""
    return True

  def progress(self) -> str:
    """As `Judge.progress`."""
    return ""

  def verdict(self) -> report.Verdict:
    """As `Judge.verdict`."""
    return report.Verdict(metrics={}, score="exact_accuracy")


class RulesJudge(NoJudge):
  """Counts the answers that the rules allow, whatever the label says."""

  def __init__(
    self, is_valid: Callable[[np.ndarray, np.ndarray], np.ndarray], what: str
  ):
    """Sets up the count.

    Args:
      is_valid: Tells of questions and answers, uint8 [b, L] each, which answers
        are right: bool [b].
      what: A right answer in words, e.g. "valid shortest path".
    """
    self._is_valid = is_valid
    self._what = what
    self._valid = 0
    self._rows = 0

  def see(self, _batch, _sums, answers: eval_step.Answers) -> bool:
    """As `Judge.see`."""
    rows = np.asarray(answers.rows)
    valid = self._is_valid(
      np.asarray(answers.questions)[rows], np.asarray(answers.answers)[rows]
    )
    self._valid += int(valid.sum())
    self._rows += int(rows.sum())
    return True

  def verdict(self) -> report.Verdict:
    """As `Judge.verdict`."""
    share = self._valid / self._rows
    return report.Verdict(
      metrics={"valid_accuracy": share},
      score="exact_accuracy",
      lines=(f"{share:.2%} are a {self._what}",),
    )
