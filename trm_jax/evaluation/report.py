"""Evaluation results: metrics, scores of the answers, the printed table."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from trm_jax.core import choices, eval_step, metrics, types
from trm_jax.data import task as task_lib
from trm_jax.evaluation import attempts as attempts_lib
from trm_jax.evaluation import voting


@dataclasses.dataclass(frozen=True)
class ScoreSummary:
  """Scores that need the answers themselves, beyond exact accuracy.

  Attributes:
    metrics: Name -> value, e.g. "pass@2".
    score: Name of the metric by which checkpoints are compared.
    lines: Lines to print below the metrics.
    task_results: The votes on each ARC task; () for other puzzles.
  """

  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  score: str = "exact_accuracy"
  lines: tuple[str, ...] = ()
  task_results: tuple[voting.TaskResult, ...] = ()


@dataclasses.dataclass(frozen=True)
class EvalResult:
  """The result of an evaluation.

  Metrics have K entries: one per supervision step; with rollouts one per number
  of rollouts; with adaptive halting a single one.

  Attributes:
    num_puzzles: Number of puzzles evaluated.
    means: Metric name -> values, float64 [K]; see `metrics.divide`.
    seconds: Wall time.
    first_batch: This process's part of the first batch.
    first_answers: Answers to the first batch, int32 [K, B, L], on the devices.
    axis: What the entries count: 'steps', 'rollouts' or 'adaptive'.
    numbers: The K numbers of the axis: 1, 2, ...; with 'adaptive' the maximum
      number of steps.
    summary: Scores beyond the metrics.
    attempts: Accuracy by steps and attempts, with rollouts.
  """

  num_puzzles: int
  means: Mapping[str, np.ndarray]
  seconds: float
  first_batch: Mapping[str, np.ndarray]
  first_answers: jax.Array
  axis: str
  numbers: tuple[int, ...]
  summary: ScoreSummary = dataclasses.field(default_factory=ScoreSummary)
  attempts: attempts_lib.AttemptTable | None = None

  @property
  def final(self) -> dict[str, float]:
    """The metrics of the last entry and those of the summary."""
    return self.after(self.numbers[-1]) | dict(self.summary.metrics)

  @property
  def score(self) -> float:
    """The value by which checkpoints are compared."""
    return self.final[self.summary.score]

  def warned(self, warnings: Iterable[str]) -> "EvalResult":
    """Returns the result with warnings about its validity added."""
    lines = (f"WARNING: {warning}" for warning in warnings)
    summary = dataclasses.replace(
      self.summary, lines=(*self.summary.lines, *lines)
    )
    return dataclasses.replace(self, summary=summary)

  def after(self, number: int) -> dict[str, float]:
    """Returns the metrics of one of `numbers`."""
    entry = self.numbers.index(number)
    return {name: float(values[entry]) for name, values in self.means.items()}

  def shown(self, steps: Iterable[int]) -> tuple[int, ...]:
    """Returns the numbers that a table shows; `steps` if the axis is steps."""
    if self.axis == "steps":
      return tuple(steps)
    last = self.numbers[-1]
    return tuple(n for n in self.numbers if n == last or n & (n - 1) == 0)


class Scorer:
  """Sums the metrics of an evaluation; subclasses also score the answers.

  Attributes:
    first_batch: The batch to start with; above 0 in a resumed evaluation.
    sums: Metric sums of all batches so far.
  """

  def __init__(self):
    """Starts at the first batch."""
    self.first_batch = 0
    self.sums: dict[str, np.ndarray] = {}

  def observe(
    self,
    number: int,
    sums: Mapping[str, np.ndarray],
    answers: eval_step.Answers,
  ) -> None:
    """Adds batch `number`; called for every batch from `first_batch` on."""
    del number, answers
    self.sums = metrics.add(self.sums, sums)

  def progress(self) -> str:
    """Returns interim scores for the progress line, or ""."""
    if not self.sums.get("count", np.zeros(1))[-1]:
      return ""
    means = metrics.divide(self.sums)
    return (
      f"exact {100 * means['exact_accuracy'][-1]:.1f} %, mean ACT steps"
      f" {means['steps'][-1]:.1f}, halt acc."
      f" {100 * means['halt_accuracy'][-1]:.1f} %"
    )

  def summary(self) -> ScoreSummary:
    """Returns the scores; called after the last batch."""
    return ScoreSummary()


class RulesScorer(Scorer):
  """Counts the answers that are valid by the rules, whatever the label.

  With rollouts also what the rules would choose.
  """

  def __init__(self, rules: task_lib.Rules):
    """Starts the count for the task with these rules."""
    super().__init__()
    self._rules = rules
    self._num_valid = 0
    # With rollouts: puzzles with a valid attempt, with a label, and those of
    # them that are right if the rules choose.
    self._num_any = self._num_known = self._num_exact = 0
    self._num_attempts = 0

  def observe(
    self,
    number: int,
    sums: Mapping[str, np.ndarray],
    answers: eval_step.Answers,
  ) -> None:
    """As `Scorer.observe`."""
    super().observe(number, sums, answers)
    rows = np.asarray(answers.rows)
    valid = self._rules.is_valid(
      np.asarray(answers.questions)[rows], np.asarray(answers.answers)[rows]
    )
    self._num_valid += int(valid.sum())
    if answers.attempts is not None:
      self._observe_attempts(answers, rows)

  def _observe_attempts(
    self, answers: eval_step.Answers, rows: np.ndarray
  ) -> None:
    assert answers.attempts is not None
    made = np.asarray(answers.attempts["answers"])[:, rows]
    logits = np.asarray(answers.attempts["halt_logits"])[:, rows]
    labels = np.asarray(answers.labels)[rows]
    valid = valid_attempts(
      self._rules, np.asarray(answers.questions)[rows], made
    )
    chosen = made[choices.by_rules(valid, logits), np.arange(len(labels))]
    known = labels != types.IGNORED_LABEL
    exact = ((chosen == labels) | ~known).all(axis=1) & known.any(axis=1)
    self._num_attempts = len(made)
    self._num_any += int(valid.any(axis=0).sum())
    self._num_known += int(known.any(axis=1).sum())
    self._num_exact += int(exact.sum())

  def summary(self) -> ScoreSummary:
    """As `Scorer.summary`."""
    total = float(self.sums["rows"][-1])
    share = self._num_valid / total
    scores = {"valid_accuracy": share}
    lines = [f"{share:.2%} are a {self._rules.what}"]
    if self._num_attempts:
      scores["any_valid"] = self._num_any / total
      lines.append(
        f"with the rules: of {self._num_attempts} attempts, any is a"
        f" {self._rules.what}:"
        f" {attempts_lib.Share.of(self._num_any, total)!s}"
      )
    if self._num_known:
      scores["with_rules"] = self._num_exact / self._num_known
      exact = attempts_lib.Share.of(self._num_exact, self._num_known)
      lines.append(f"with the rules: exact if they choose: {exact!s}")
    return ScoreSummary(metrics=scores, lines=tuple(lines))


def valid_attempts(
  rules: task_lib.Rules, questions: np.ndarray, answers: np.ndarray
) -> np.ndarray:
  """Returns which attempts are valid.

  Args:
    rules: Rules of the game.
    questions: uint8 [b, L].
    answers: uint8 [K, b, L].

  Returns:
    bool [K, b].
  """
  return np.stack([rules.is_valid(questions, made) for made in answers])


# --- text --------------------------------------------------------------------

_HEADS = {
  "steps": "accuracy by number of supervision steps",
  "rollouts": "accuracy by number of rollouts",
  "adaptive": "accuracy with adaptive halting, by maximum number of steps",
}


def format_head(result: EvalResult) -> str:
  """Returns a line that says what was evaluated and how."""
  return (
    f"{result.num_puzzles:,} puzzles in {result.seconds:.1f} s;"
    f" {_HEADS[result.axis]}:"
  )


def format_report(result: EvalResult, steps: Iterable[int]) -> str:
  """Returns a table of the metrics and the lines of the summary.

  Args:
    result: The result of an evaluation.
    steps: Supervision steps to show if all puzzles take all steps.
  """
  name = "rollouts" if result.axis == "rollouts" else "steps"
  lines = [f"{name:>8}  exact    cells    halt acc. answer loss"]
  for number in result.shown(steps):
    after = result.after(number)
    if not after["count"]:
      lines.append(f"{number:8d}  the correct answers are not known")
      continue
    lines.append(
      f"{number:8d} {after['exact_accuracy']:7.2%}"
      f" {after['cell_accuracy']:8.2%} {after['halt_accuracy']:8.2%}"
      f" {after['answer_loss']:11.4f}"
    )
  if result.axis == "adaptive" and result.final["count"]:
    lines.append(f"  mean ACT steps {result.final['steps']:.2f}")
  table = result.attempts.lines() if result.attempts else ()
  return "\n".join(
    [*lines, *table, *(f"  {line}" for line in result.summary.lines)]
  )
