"""The trials of a table: known by their row and seed, not by their number."""

import json

import optuna

from launch.sweeps import study as study_lib
from launch.sweeps import table_plan


class TableStudy(study_lib.Study):
  """Rows may be asked for in any order, and added later."""

  def __init__(
    self,
    plan: table_plan.TablePlan,
    *,
    storage: optuna.storages.BaseStorage,
    name: str,
    must_exist: bool = False,
  ):
    """Opens the study of a name, or makes it; as Study.

    Raises:
      UserError: as Study; also if a row that was trained is no more what it
        was.
    """
    super().__init__(plan, storage=storage, name=name, must_exist=must_exist)
    self.table_plan = plan
    # What failed before is tried again, once for each time the command is
    # typed: other rows may have taken days, and stay.
    self._given_up = {
      t.number for t in self.trials() if t.state == study_lib.FAILED
    }
    for trial in self._kept():
      row, _ = table_plan.row_and_seed(trial.params)
      if row in plan.rows:
        noted = json.loads(trial.user_attrs[study_lib.IDENTITY])
        study_lib.check_same(noted, plan.row_identity(row), name)

  def asked_for(self) -> list[optuna.trial.FrozenTrial]:
    """Returns the trials of the rows and seeds that are asked for."""
    points = self.table_plan.sweep.rows
    drawn = [trial for trial in self._kept() if trial.params in points]
    # A worker that is killed may leave a trial that has not yet become a row.
    empty = [t for t in self.trials() if not t.params]
    return drawn + empty[: len(points) - len(drawn)]

  def draw(self, trial: optuna.trial.Trial) -> None:
    """Makes a new trial the next row that has none."""
    if trial.params:
      return
    taken = [kept.params for kept in self._kept()]
    point = next(p for p in self.table_plan.sweep.rows if p not in taken)
    row, seed = table_plan.row_and_seed(point)
    identity = self.table_plan.row_identity(row)
    trial.set_user_attr(study_lib.IDENTITY, json.dumps(identity))
    trial.suggest_int(row, seed, seed)

  def by_row_and_seed(
    self,
  ) -> dict[tuple[str, int], list[optuna.trial.FrozenTrial]]:
    """Returns the trials of each row and seed, the one that counts last."""
    found: dict[tuple[str, int], list[optuna.trial.FrozenTrial]] = {}
    for trial in self.trials():
      if trial.params:
        key = table_plan.row_and_seed(trial.params)
        found.setdefault(key, []).append(trial)
    return found

  def _kept(self) -> list[optuna.trial.FrozenTrial]:
    return [
      trial
      for trial in self.trials()
      if trial.params and trial.number not in self._given_up
    ]
