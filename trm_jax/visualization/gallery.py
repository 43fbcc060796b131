"""Answers kept of an evaluation: how sure of each, and a few of them whole.

An ARC evaluation has hundreds of thousands of answers: of most only a few
numbers are kept.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from trm_jax.core import eval_step, types
from trm_jax.data import puzzle_set

BELIEVED = 0.5  # confidence from which on an answer is believed to be right


@dataclasses.dataclass(frozen=True)
class Exhibit:
  """One puzzle and its answer."""

  number: int  # among those seen, from 0
  question: np.ndarray  # [L] tokens
  answer: np.ndarray  # [L] tokens
  solution: np.ndarray | None  # [L] tokens, `NO_LABEL` where it is not known
  confidence: float  # that the answer is right, 0..1
  steps: int  # supervision steps that it took


@dataclasses.dataclass(frozen=True)
class Seen:
  """What is known of each of N puzzles."""

  confidence: np.ndarray  # [N] float64; NaN of a training that diverged
  steps: np.ndarray  # [N] int32, supervision steps that it took
  known: np.ndarray  # [N] bool, whether there is a solution
  exact: np.ndarray  # [N] bool, whether the answer is the solution

  @property
  def judged(self) -> "Seen":
    """Those with a solution, and a confidence that is a number."""
    rows = self.known & ~np.isnan(self.confidence)
    return Seen(
      **{
        field.name: getattr(self, field.name)[rows]
        for field in dataclasses.fields(self)
      }
    )


@dataclasses.dataclass(frozen=True)
class Bins:
  """Answers by their confidence, in parts of equal width from 0 to 1."""

  edges: np.ndarray  # [bins + 1]
  counts: np.ndarray  # [bins] int
  confidence: np.ndarray  # [bins] the mean, NaN where there is none
  accuracy: np.ndarray  # [bins] the share of right ones, NaN likewise


class Gallery:
  """Sees the answers of an evaluation, batch by batch, in order."""

  def __init__(self, *, keep: int):
    """Opens it.

    Args:
      keep: how many puzzles of each kind are kept whole.
    """
    self._keep = keep
    self._seen: list[Seen] = []
    self._num_seen = 0
    self._surest_right: list[Exhibit] = []
    self._surest_wrong: list[Exhibit] = []
    self._unsurest_right: list[Exhibit] = []
    self._surest_unknown: list[Exhibit] = []

  def observe(self, answers: eval_step.Answers) -> None:
    """Takes a batch; for `evaluate.Evaluator`'s `observe`."""
    rows = np.asarray(answers.rows)
    labels = np.asarray(answers.labels)[rows]
    tokens = np.asarray(answers.answers)[rows]
    has_label = labels != types.IGNORED_LABEL
    known = has_label.any(-1)
    seen = Seen(
      confidence=_sigmoid(np.asarray(answers.halt_logits)[rows]),
      steps=np.asarray(answers.steps)[rows],
      known=known,
      exact=((tokens == labels) | ~has_label).all(-1) & known,
    )
    self._seen.append(seen)
    questions = np.asarray(answers.questions)[rows]
    solutions = np.where(has_label, labels, puzzle_set.NO_LABEL)

    def exhibit(row):
      return Exhibit(
        number=self._num_seen + row,
        question=questions[row],
        answer=tokens[row],
        solution=solutions[row].astype(np.uint8) if known[row] else None,
        confidence=float(seen.confidence[row]),
        steps=int(seen.steps[row]),
      )

    def add(kept, among, sign):
      order = np.argsort(sign * seen.confidence, kind="stable")
      first = order[among[order]][: self._keep]
      # A stable sort: among equals, the first seen comes first.
      found = sorted(
        kept + [exhibit(row) for row in first.tolist()],
        key=lambda shown: sign * shown.confidence,
      )
      return found[: self._keep]

    wrong = known & ~seen.exact
    self._surest_right = add(self._surest_right, seen.exact, -1)
    self._surest_wrong = add(self._surest_wrong, wrong, -1)
    self._unsurest_right = add(self._unsurest_right, seen.exact, 1)
    self._surest_unknown = add(self._surest_unknown, ~known, -1)
    self._num_seen += len(known)

  @property
  def seen(self) -> Seen:
    """What is known of all puzzles seen so far."""
    return Seen(
      **{
        field.name: np.concatenate(
          [getattr(part, field.name) for part in self._seen]
        )
        for field in dataclasses.fields(Seen)
      }
    )

  @property
  def exhibits(self) -> dict[str, Sequence[Exhibit]]:
    """What they have in common -> puzzles; kinds without any are left out."""
    kinds = {
      "Most confident, and right": self._surest_right,
      "Most confident, yet wrong": self._surest_wrong,
      "Least confident, yet right": self._unsurest_right,
      "Most confident, solution not known": self._surest_unknown,
    }
    return {name: kept for name, kept in kinds.items() if kept}


def confusion(seen: Seen) -> np.ndarray:
  """Counts belief against truth.

  Args:
    seen: puzzles with a solution and a confidence: `Seen.judged`.

  Returns:
    Int [2, 2]: believed to be right or not, and right or not.
  """
  believed = seen.confidence >= BELIEVED
  return np.array(
    [
      [int((rows & seen.exact).sum()), int((rows & ~seen.exact).sum())]
      for rows in (believed, ~believed)
    ]
  )


def reliability(seen: Seen, *, bins: int = 10) -> Bins:
  """Compares confidence with the share of answers that are right.

  Args:
    seen: puzzles with a solution and a confidence: `Seen.judged`.
    bins: number of parts.
  """
  edges = np.linspace(0, 1, bins + 1)
  place = np.clip(np.digitize(seen.confidence, edges) - 1, 0, bins - 1)
  counts = np.bincount(place, minlength=bins)

  def mean(values):
    sums = np.bincount(place, weights=values, minlength=bins)
    with np.errstate(invalid="ignore"):
      return np.where(counts > 0, sums / counts, np.nan)

  return Bins(
    edges=edges,
    counts=counts,
    confidence=mean(seen.confidence),
    accuracy=mean(seen.exact),
  )


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  with np.errstate(over="ignore"):  # exp is inf, the result 0
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
