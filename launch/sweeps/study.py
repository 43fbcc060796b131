"""The trials of a sweep in Optuna's database."""

import contextlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping

import numpy as np
import optuna
import sqlalchemy as sa

from launch.sweeps import plan as plan_lib
from launch.sweeps import search
from trm_jax import errors

RUNNING = optuna.trial.TrialState.RUNNING
COMPLETE = optuna.trial.TrialState.COMPLETE
PRUNED = optuna.trial.TrialState.PRUNED
FAILED = optuna.trial.TrialState.FAIL

# What is noted of a trial beside its settings and evaluations.
MINUTES, REASON, IS_PRUNED = "minutes", "reason", "is_pruned"
IDENTITY = "identity"  # noted of a study, or of a row
_MOST_DIFFERENCES = 5  # told at once
_SQLITE_WAIT_SECONDS = 60

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Study:
  """A sweep's trials."""

  def __init__(
    self,
    plan: plan_lib.Plan,
    *,
    storage: optuna.storages.BaseStorage,
    name: str,
    must_exist: bool = False,
  ):
    """Opens the study of a name, or makes it.

    Args:
      plan: of the sweep.
      storage: of `open_storage`, or one in memory.
      name: of the study in the storage.
      must_exist: whether it may not be made.

    Raises:
      UserError: there is one of this name that is another sweep, or there is
        none where there must be one.
    """
    names = [study.study_name for study in storage.get_all_studies()]
    if must_exist and name not in names:
      raise errors.UserError(f"there is no sweep {name!r} in the database yet")
    self.plan = plan
    self._storage = storage
    self._name = name
    self._study = optuna.create_study(
      storage=storage,
      study_name=name,
      direction=plan.sweep.direction,
      pruner=_pruner(plan.sweep.pruner),
      load_if_exists=True,
    )
    noted = self._study.user_attrs.get(IDENTITY)
    if noted is None:
      self._study.set_user_attr(IDENTITY, json.dumps(plan.identity()))
    else:
      check_same(json.loads(noted), plan.identity(), name)

  def trials(self) -> list[optuna.trial.FrozenTrial]:
    """Returns all trials, in the order of their numbers."""
    return self._study.get_trials(deepcopy=False)

  def asked_for(self) -> list[optuna.trial.FrozenTrial]:
    """Returns the trials that this call of the sweep is about."""
    return self.trials()

  def unfinished(self) -> list[int]:
    """Returns the numbers of the trials that began and have not ended."""
    return [t.number for t in self.asked_for() if t.state == RUNNING]

  def reported_steps(self, number: int) -> set[int]:
    """Returns the steps of the evaluations that are known of a trial."""
    return set(self.trials()[number].intermediate_values)

  def is_full(self) -> bool:
    """Tells whether all trials have begun."""
    return len(self.asked_for()) >= self.plan.sweep.size

  def begin(self) -> optuna.trial.Trial:
    """Adds a trial and draws its settings.

    Only one worker at a time may do this, and what the number says is drawn:
    a sweep that was killed draws what it would have drawn.
    """
    self._study.sampler = _sampler(self.plan.sweep, len(self.trials()))
    trial = self._study.ask()
    self.draw(trial)
    return trial

  def resume(self, number: int) -> optuna.trial.Trial:
    """Returns a trial that began; what was not yet drawn is drawn."""
    self._study.sampler = _sampler(self.plan.sweep, number)
    study_id = self._storage.get_study_id_from_name(self._name)
    trial = optuna.trial.Trial(
      self._study,
      self._storage.get_trial_id_from_study_id_trial_number(study_id, number),
    )
    self.draw(trial)
    return trial

  def end(
    self,
    trial: optuna.trial.Trial,
    state: optuna.trial.TrialState,
    *,
    value: float | None = None,
    reason: str = "",
  ) -> None:
    """Writes down how a trial ended.

    Args:
      trial: that runs.
      state: COMPLETE, PRUNED or FAILED.
      value: of the metric; of COMPLETE only.
      reason: why it failed.
    """
    if reason:
      trial.set_user_attr(REASON, reason)
    self._study.tell(trial, value, state)

  def best(self) -> optuna.trial.FrozenTrial | None:
    """Returns the best of the trials that were trained to their end."""
    if any(trial.state == COMPLETE for trial in self.trials()):
      return self._study.best_trial
    return None

  def draw(self, trial: optuna.trial.Trial) -> None:
    """Gives a trial its settings, or those that it lacks."""
    for knob, values in self.plan.sweep.ranges(trial.number).items():
      match values:
        case search.Choice():
          trial.suggest_categorical(knob, values.values)
        case search.Integers():
          trial.suggest_int(knob, values.low, values.high)
        case search.LogUniform():
          trial.suggest_float(knob, values.low, values.high, log=True)
        case search.Uniform():
          trial.suggest_float(knob, values.low, values.high)


class _Listed(optuna.samplers.BaseSampler):
  """Trial k gets the k-th point: for these Optuna has nothing to draw."""

  def __init__(self, points: list[dict[str, search.Value]]):
    self._points = points

  def infer_relative_search_space(self, study, trial):
    return {}

  def sample_relative(self, study, trial, search_space):
    return {}

  def sample_independent(self, study, trial, param_name, param_distribution):
    return self._points[trial.number][param_name]


def _sampler(sweep: search.Sweep, number: int) -> optuna.samplers.BaseSampler:
  """Returns what draws trial `number`; its seed is a function of the number.

  A sampler that lived as long as its process would begin anew, with the same
  draws, in every worker and after every kill.
  """
  if sweep.points is not None:
    return _Listed(sweep.points)
  seed = int(np.random.SeedSequence([sweep.seed, number]).generate_state(1)[0])
  if sweep.sampler == "random":
    return optuna.samplers.RandomSampler(seed=seed)
  return optuna.samplers.TPESampler(seed=seed)


def _pruner(
  rule: search.Median | search.Halving | None,
) -> optuna.pruners.BasePruner:
  match rule:
    case search.Median():
      return optuna.pruners.MedianPruner(
        n_startup_trials=rule.first_trials, n_warmup_steps=rule.first_step
      )
    case search.Halving():
      return optuna.pruners.SuccessiveHalvingPruner(
        min_resource=rule.first_step, reduction_factor=rule.factor
      )
  return optuna.pruners.NopPruner()


def check_same(
  before: Mapping[str, str], now: Mapping[str, str], name: str
) -> None:
  """Raises UserError that names what is no more as it was."""
  different = [
    f"{key} was {before.get(key, 'not there')}, is {now.get(key, 'not there')}"
    for key in sorted({*before, *now})
    if before.get(key) != now.get(key)
  ]
  if different:
    more = len(different) - _MOST_DIFFERENCES
    raise errors.UserError(
      f"the sweep {name} began as another one:"
      f" {'; '.join(different[:_MOST_DIFFERENCES])}"
      + (f"; and {more} more" if more > 0 else "")
      + ". Put that back, or name another --workdir"
    )


def open_storage(url: str) -> optuna.storages.RDBStorage:
  """Opens a database; its tables are made if they are not there.

  Args:
    url: SQLAlchemy's, e.g. sqlite:///sweep.db or
      postgresql+psycopg://USER:PASSWORD@HOST/DATABASE.

  Raises:
    UserError: it is no such URL, a package is missing, or nobody answers.
  """
  with telling_of_database(url):
    options = (
      {"connect_args": {"timeout": _SQLITE_WAIT_SECONDS}}
      if _parsed(url).get_backend_name() == "sqlite"
      else {"pool_pre_ping": True}
    )
    return optuna.storages.RDBStorage(url, engine_kwargs=options)


def shown(url: str) -> str:
  """Returns the URL without its password."""
  return _parsed(url).render_as_string(hide_password=True)


def _parsed(url: str) -> sa.URL:
  try:
    return sa.make_url(url)
  except (sa.exc.ArgumentError, ValueError):
    # Without the URL, which may hold a password.
    raise errors.UserError(
      "--storage is not the URL of a database; it looks like"
      " sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    ) from None


@contextlib.contextmanager
def telling_of_database(url: str) -> Iterator[None]:
  """Turns what a database's libraries raise into one line."""
  try:
    yield
  except (ImportError, sa.exc.NoSuchModuleError) as error:
    reason = _without_password(url, errors.first_line(error.__cause__ or error))
    raise errors.UserError(
      f"no package for the database {shown(url)} is installed ({reason});"
      " for postgresql+psycopg://... it is: pip install 'psycopg[binary]'"
    ) from None
  except (
    sa.exc.SQLAlchemyError,
    optuna.exceptions.StorageInternalError,
  ) as error:
    reason = _without_password(url, errors.first_line(error.__cause__ or error))
    raise errors.UserError(
      f"the database {shown(url)} does not do what it is asked: {reason}; once"
      " it does, the same command goes on"
    ) from None


def _without_password(url: str, text: str) -> str:
  password = _parsed(url).password
  for form in {str(password), urllib.parse.quote(str(password), safe="")}:
    text = text.replace(form, "***") if password else text
  return text
