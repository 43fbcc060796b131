"""The lines of the training log, and the metrics behind them."""

import numpy as np
import tiny

from trm_jax.core import train_step
from trm_jax.runtime import train_log


class _Written:
  """Keeps what a writer is handed."""

  def __init__(self):
    self.lines = []
    self.rows = []

  def line(self, text):
    self.lines.append(text)

  def scalars(self, step, group, values):
    self.rows.append((step, group, values))


def _sums(*, halted, fresh):
  """Of one step on 8 slots: halted puzzles are right, fresh ones half."""
  names = ("answer_loss", "halt_loss", "continue_loss", "loss")
  sums = dict.fromkeys((*names, *train_step.NORMS, "rows"), 8.0)
  names = ("exact_accuracy", "cell_accuracy", "halt_accuracy", "count")
  sums |= dict.fromkeys(names, halted) | {"steps": 3 * halted}
  sums |= {"first_step_cell_accuracy": fresh / 2, "first_step_count": fresh}
  sums["first_step_exact_accuracy"] = 0.0
  return {name: np.float32(value) for name, value in sums.items()}


def _log(*steps, tests=()):
  written = _Written()
  log = train_log.TrainLog(tiny.config(), written, lambda: "")
  for step, values in tests:
    log.note_test(step, values)
  for step, sums in enumerate(steps, 1):
    log.add(step, sums)
  log.flush()
  return written


def test_accuracies_in_training_are_named_for_what_they_are():
  written = _log(_sums(halted=2, fresh=4))
  (line,) = written.lines
  assert "| in-slot exact 100.0 % | mean ACT steps  3.0" in line
  assert line.endswith("| first-step cells  50.0 %")
  ((_, group, row),) = written.rows
  assert group == "train"
  assert row["in_slot_exact_accuracy"] == row["in_slot_cell_accuracy"] == 1
  assert row["first_step_exact_accuracy"] == 0
  assert row["first_step_cell_accuracy"] == 0.5
  assert "exact_accuracy" not in row


def test_what_no_puzzle_has_done_is_left_out():
  first, second = _log(_sums(halted=0, fresh=8), _sums(halted=8, fresh=0)).lines
  assert "no puzzle halted yet | first-step cells  50.0 %" in first
  assert "first-step" not in second


def test_the_newest_known_test_score_stays_in_the_line():
  arc = {"exact_accuracy": 0.5, "pass@2": 0.25}
  sudoku = {"exact_accuracy": 0.19, "valid_accuracy": 0.2}
  unknown = {"exact_accuracy": None}, {"exact_accuracy": float("nan")}
  sums = _sums(halted=1, fresh=1)
  assert "test" not in _log(sums).lines[0]
  for values, text in ((arc, "pass@2 25.0 %"), (sudoku, "exact 19.0 %")):
    tests = [(1, arc), (3, values), *((5, none) for none in unknown)]
    written = _log(sums, sums, tests=tests)
    for line in written.lines:
      assert line.endswith(f" | test {text} (step 3)")
