"""What an evaluation found."""

import dataclasses
from collections.abc import Iterable, Mapping

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What only the answers themselves can tell, beyond being the label.

  Attributes:
    metrics: Name -> value, e.g. "pass@2".
    score: The metric by which checkpoints are compared.
    lines: For the terminal.
  """

  metrics: Mapping[str, float]
  score: str
  lines: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Report:
  """An evaluation: metrics of all puzzles.

  Of K entries: one after each supervision step; with rollouts one for each
  number of them; with adaptive halting a single one.
  """

  num_puzzles: int
  means: Mapping[str, np.ndarray]  # name -> [K], as `metrics.divide`
  seconds: float
  first_batch: Mapping[str, np.ndarray]  # of this host
  first_answers: jax.Array  # [K, B, L] to the first batch, on the devices
  axis: str  # what is counted: 'steps', 'rollouts' or 'adaptive'
  numbers: tuple[int, ...]  # K, of the axis: 1, 2, ...; the most steps
  verdict: Verdict = Verdict(metrics={}, score="exact_accuracy")

  @property
  def final(self) -> dict[str, float]:
    """The metrics of the last entry, the verdict's included."""
    return self.after(self.numbers[-1]) | dict(self.verdict.metrics)

  @property
  def score(self) -> float:
    """The number by which checkpoints are compared."""
    return self.final[self.verdict.score]

  def warned(self, warnings: Iterable[str]) -> "Report":
    """Returns the report with reasons to doubt it."""
    lines = (f"WARNING: {warning}" for warning in warnings)
    verdict = dataclasses.replace(
      self.verdict, lines=(*self.verdict.lines, *lines)
    )
    return dataclasses.replace(self, verdict=verdict)

  def after(self, number: int) -> dict[str, float]:
    """The metrics of one of `numbers`, e.g. after so many steps."""
    entry = self.numbers.index(number)
    return {name: float(values[entry]) for name, values in self.means.items()}

  def shown(self, steps: Iterable[int]) -> tuple[int, ...]:
    """The numbers that a table shows, of the steps those that are given."""
    if self.axis == "steps":
      return tuple(steps)
    last = self.numbers[-1]
    return tuple(n for n in self.numbers if n == last or n & (n - 1) == 0)


_HEADS = {
  "steps": "after so many supervision steps",
  "rollouts": "of the answer chosen among so many rollouts",
  "adaptive": "each puzzle until it was believed to be right, at most so many"
  " steps",
}


def format_report(report: Report, steps: Iterable[int]) -> str:
  """Returns a table of the metrics, and the verdict.

  Args:
    report: of an evaluation.
    steps: after which the metrics are shown, where all puzzles have all steps.
  """
  name = "rollouts" if report.axis == "rollouts" else "steps"
  lines = [f"{name:>8}  exact    cells    halt     answer loss"]
  for number in report.shown(steps):
    after = report.after(number)
    if not after["count"]:
      lines.append(f"{number:8d}  no right answers are known")
      continue
    lines.append(
      f"{number:8d} {after['exact_accuracy']:7.2%}"
      f" {after['cell_accuracy']:8.2%} {after['halt_accuracy']:8.2%}"
      f" {after['answer_loss']:11.4f}"
    )
  if report.axis == "adaptive" and report.final["count"]:
    lines.append(f"  {report.final['steps']:.2f} steps on average")
  return "\n".join([*lines, *(f"  {line}" for line in report.verdict.lines)])


def format_head(report: Report) -> str:
  """Says in a line what was evaluated how."""
  return (
    f"{report.num_puzzles:,} puzzles in {report.seconds:.1f} s; accuracy"
    f" {_HEADS[report.axis]}:"
  )
