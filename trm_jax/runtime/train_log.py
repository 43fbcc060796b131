"""Metrics of the training steps: read one step late, written in lines."""

import math
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import metrics, train_step
from trm_jax.runtime import metric_writer

# Accuracies of puzzles that halt, which the weights have been trained on in up
# to max_supervision_steps consecutive steps: no measure of generalization.
_IN_SLOT = ("exact_accuracy", "cell_accuracy", "halt_accuracy")
# Scores of an evaluation, the first that it has is shown: name -> text.
_TEST = {"pass@2": "pass@2", "exact_accuracy": "exact"}


class TrainLog:
  """Reads metrics one step late, so that the device never waits."""

  def __init__(
    self,
    config: config_lib.Config,
    out: metric_writer.Writer,
    last_good: Callable[[], str],
  ):
    """Starts the clock.

    Args:
      config: of the run.
      out: where lines and metrics go.
      last_good: says where the last checkpoint is.
    """
    self._config = config
    self._last_good = last_good
    self._writer = out
    self._pending: tuple[int, metrics.Sums] | None = None
    self._sums: dict[str, np.ndarray] = {}
    self._steps = 0  # summed since the last line
    self._read_step = 0
    self._compiled = False  # the first call compiles before it returns
    self._test = ""  # the newest score on test puzzles
    self.restart_clock()

  def restart_clock(self) -> None:
    """Leaves out what was not training from the rates."""
    self._start = time.monotonic()
    self._timed = 0

  def add(self, step: int, sums: metrics.Sums) -> None:
    """Takes the sums of a step just dispatched; reads those before it."""
    previous, self._pending = self._pending, (step, sums)
    if previous is not None:
      self._read(*previous)
    elif not self._compiled:
      self.restart_clock()
      self._compiled = True

  def note_test(self, step: int, values: Mapping[str, float | None]) -> None:
    """Shows the score of an evaluation in all later lines.

    Args:
      step: of the weights.
      values: metrics of the evaluation, as in metrics.jsonl; None and NaN are
        unknown.
    """
    for name, text in _TEST.items():
      score = values.get(name)
      if score is not None and math.isfinite(score):
        self._test = f" | test {text} {100 * score:.1f} % (step {step})"
        return

  def flush(self) -> None:
    """Waits for the step in flight and reads it."""
    if self._pending is not None:
      previous, self._pending = self._pending, None
      self._read(*previous)

  def write_rest(self) -> None:
    """Writes what was read since the last line."""
    if self._steps:
      self._write(self._read_step)

  def _read(self, step: int, device_sums: metrics.Sums) -> None:
    sums = jax.device_get(device_sums)
    for name in ("loss", *train_step.NORMS):
      if not math.isfinite(sums[name]):
        raise errors.UserError(
          f"the {name} is {sums[name]} at step {step}; {self._last_good()};"
          " try a lower config.optimizer.learning_rate or a longer"
          " config.optimizer.warmup_steps"
        )
    self._sums = metrics.add(self._sums, sums)
    self._steps += 1
    self._timed += 1
    self._read_step = step
    if step % self._config.log.every_steps == 0:
      self._write(step)

  def _write(self, step: int) -> None:
    seconds = (time.monotonic() - self._start) / max(self._timed, 1)
    means = {k: float(v) for k, v in metrics.divide(self._sums).items()}
    for name in train_step.NORMS:
      means[name] = float(self._sums[name]) / self._steps
    means["slot_steps_per_second"] = self._config.train.batch_size / seconds
    self._sums, self._steps = {}, 0
    left = (self._config.train.num_steps - step) * seconds
    for name in _IN_SLOT:
      means[f"in_slot_{name}"] = means.pop(name)
    exact, cells = (
      means["in_slot_exact_accuracy"],
      means["first_step_cell_accuracy"],
    )
    halted = (
      f"in-slot exact {100 * exact:5.1f} %"
      f" | mean ACT steps {means['steps']:4.1f}"
      if math.isfinite(exact)
      else "no puzzle halted yet"
    )
    first = (
      f" | first-step cells {100 * cells:5.1f} %"
      if math.isfinite(cells)
      else ""
    )
    self._writer.line(
      f"step {step}/{self._config.train.num_steps}"
      f" | {means['slot_steps_per_second']:.0f} slot-steps/s"
      f" | {metric_writer.format_seconds(left)} left"
      f" | answer loss {means['answer_loss']:.4f}"
      f" | halt loss {means['halt_loss']:.4f} | {halted}{first}{self._test}"
    )
    self._writer.scalars(step, "train", means)
    self.restart_clock()
