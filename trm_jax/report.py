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
  """An evaluation: metrics of all puzzles after each supervision step."""

  num_puzzles: int
  means: Mapping[str, np.ndarray]  # name -> [K], as `metrics.divide`
  seconds: float
  first_batch: Mapping[str, np.ndarray]  # of this host
  first_answers: jax.Array  # [K, B, L] to the first batch, on the devices
  verdict: Verdict = Verdict(metrics={}, score="exact_accuracy")

  @property
  def final(self) -> dict[str, float]:
    """The metrics after the last supervision step, the verdict's included."""
    last = self.after(len(self.means["exact_accuracy"]))
    return last | dict(self.verdict.metrics)

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

  def after(self, supervision_steps: int) -> dict[str, float]:
    """The metrics after so many supervision steps, counted from 1."""
    return {
      name: float(values[supervision_steps - 1])
      for name, values in self.means.items()
    }


def format_report(report: Report, steps: Iterable[int]) -> str:
  """Returns a table of the metrics after each of `steps`, and the verdict."""
  lines = ["  steps   exact    cells    halt     answer loss"]
  for step in steps:
    after = report.after(step)
    lines.append(
      f"  {step:5d} {after['exact_accuracy']:8.2%}"
      f" {after['cell_accuracy']:8.2%} {after['halt_accuracy']:8.2%}"
      f" {after['answer_loss']:11.4f}"
    )
  return "\n".join([*lines, *(f"  {line}" for line in report.verdict.lines)])
