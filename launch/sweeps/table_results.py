"""What became of the rows of a table."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import optuna
from etils import epath

from launch.sweeps import study as study_lib
from launch.sweeps import table_plan, table_study
from trm_jax.runtime import metric_writer

COMPLETE, UNFINISHED, FAILED, NOT_RUN = (
  "complete",
  "unfinished",
  "failed",
  "not run",
)
_STATES = {
  study_lib.COMPLETE: COMPLETE,
  study_lib.RUNNING: UNFINISHED,
  study_lib.FAILED: FAILED,
}


@dataclasses.dataclass(frozen=True)
class Run:
  """A row, trained with a seed."""

  seed: int
  state: str  # of the four above
  accuracy: float | None  # in %, of a run that is complete
  curve: Mapping[int, float]  # supervision step -> accuracy in %
  step: int  # supervision steps done
  hours: float
  reason: str  # why it failed

  @property
  def latest(self) -> float | None:
    """Of the last evaluation, in %."""
    return self.curve[max(self.curve)] if self.curve else None


@dataclasses.dataclass(frozen=True)
class RowResult:
  """A row with all its seeds."""

  name: str
  row: table_plan.Row
  runs: Sequence[Run]  # by seed; empty if the row was never asked for

  @property
  def accuracies(self) -> list[float]:
    """In %, of the runs that are complete."""
    return [run.accuracy for run in self.runs if run.accuracy is not None]

  @property
  def has_begun(self) -> bool:
    """Whether any run has."""
    return any(run.state != NOT_RUN for run in self.runs)

  @property
  def is_complete(self) -> bool:
    """Whether every run has a result."""
    return bool(self.runs) and len(self.accuracies) == len(self.runs)

  @property
  def mean(self) -> float:
    """Of the accuracies, in %."""
    return statistics.fmean(self.accuracies)


def of(study: table_study.TableStudy, workdir: epath.Path) -> list[RowResult]:
  """Returns the rows of the table, in its order.

  Args:
    study: with the trials.
    workdir: of the sweep.
  """
  plan = study.table_plan
  trials = study.by_row_and_seed()
  keys = {*trials, *map(table_plan.row_and_seed, plan.sweep.rows)}
  return [
    RowResult(
      name=name,
      row=row,
      runs=[
        _run(plan, {name: seed}, trials.get((name, seed), []), workdir)
        for seed in sorted(seed for key, seed in keys if key == name)
      ],
    )
    for name, row in plan.rows.items()
  ]


def _run(
  plan: table_plan.TablePlan,
  point: Mapping[str, int],
  trials: Sequence[optuna.trial.FrozenTrial],
  workdir: epath.Path,
) -> Run:
  """Returns a run; of several trials the last one counts."""
  _, seed = table_plan.row_and_seed(point)
  if not trials:
    return Run(seed, NOT_RUN, None, {}, 0, 0.0, "")
  trial = trials[-1]
  minutes = [t.user_attrs.get(study_lib.MINUTES, 0.0) for t in trials]
  return Run(
    seed=seed,
    state=_STATES[trial.state],
    accuracy=None if trial.value is None else 100 * trial.value,
    curve={s: 100 * v for s, v in sorted(trial.intermediate_values.items())},
    step=plan.last_step(point)
    if trial.state == study_lib.COMPLETE
    else _steps_done(workdir / plan.folder_name(trial.number, point)),
    hours=sum(minutes) / 60,
    reason=trial.user_attrs.get(study_lib.REASON, ""),
  )


def _steps_done(workdir: epath.Path) -> int:
  rows = metric_writer.read_metrics(str(workdir))
  return max((row["step"] for row in rows), default=0)
