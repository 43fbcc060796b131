"""What a sweep file declares, and the training command of each trial."""

import copy
import dataclasses
import hashlib
import importlib.util
import itertools
import json
import math
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import ml_collections
import optuna
from optuna import distributions, pruners

from trm_jax import config as config_lib
from trm_jax import errors

Value = bool | int | float | str
Point = Mapping[str, Value]

# Settings that change neither a trial's result nor its comparison with others.
_FREE = ("name", "data.source", "data.cache_dir", "train.time_limit_minutes")
_FREE_GROUPS = ("checkpoint.", "log.")

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
# Queues a trial again whose worker was stopped or killed.
RETRY = optuna.storages.RetryHeartbeatStaleTrialCallback(
  inherit_intermediate_values=True
)


def point_of(trial: optuna.trial.FrozenTrial) -> Point:
  """Returns a trial's settings, as far as they are queued or drawn."""
  return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A search over settings; get_sweep() of a sweep file returns one.

  Attributes:
    space: setting -> Optuna distribution, e.g. {"optimizer.learning_rate":
      FloatDistribution(1e-4, 1e-2, log=True)}.
    rows: Instead of a space, the settings of each trial.
    sampler: "grid" (all combinations of CategoricalDistributions), "random" or
      "tpe".
    num_trials: Number of trials with "random" and "tpe"; may be raised later.
    metric: Metric of an evaluation, see metrics.jsonl.
    direction: "maximize" or "minimize".
    seed: Seed of the sampler. Every trial trains with config.seed.
    pruner: Optuna pruner that sees every evaluation but the last.
    fixed: Settings of all trials that differ from the experiment's.
  """

  space: Mapping[str, distributions.BaseDistribution] = dataclasses.field(
    default_factory=dict
  )
  rows: Sequence[Point] = ()
  sampler: str = "grid"
  num_trials: int = 0
  metric: str = "exact_accuracy"
  direction: Literal["maximize", "minimize"] = "maximize"
  seed: int = 0
  pruner: pruners.BasePruner | None = None
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for problem in self._problems():
      raise errors.UserError(problem)

  def _problems(self) -> Iterator[str]:
    """Yields what is wrong, most basic mistakes first."""
    for name, known in (
      ("sampler", ("grid", "random", "tpe")),
      ("direction", ("maximize", "minimize")),
    ):
      if getattr(self, name) not in known:
        yield (
          f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}"
        )
    if not isinstance(self.pruner, pruners.BasePruner | None):
      yield f"pruner is {self.pruner!r}; it must be one of optuna.pruners"
    if bool(self.space) == bool(self.rows):
      yield "name either a `space` or `rows` to search"
    for knob, values in self.space.items():
      if not isinstance(values, distributions.BaseDistribution):
        yield f"{knob} is {values!r}; it must be one of optuna.distributions"
      if isinstance(values, distributions.CategoricalDistribution):
        if len(set(values.choices)) < len(values.choices):
          yield f"{knob} has a choice twice: {values!r}"
      elif self.sampler == "grid":
        yield (
          f"{knob} is {values!r}, which a grid cannot enumerate; use a"
          " CategoricalDistribution, or the sampler 'random' or 'tpe'"
        )
    for knob, value in itertools.chain(
      *(row.items() for row in self.rows),
      ((k, v) for k, d in self.space.items() for v in _samples(d)),
    ):
      if not isinstance(value, Value) or value in (math.inf, -math.inf):
        yield f"{knob}: {value!r} is no finite number, text, True or False"
    if self.points is None and self.num_trials < 1:
      yield f"the sampler {self.sampler!r} needs num_trials of at least 1"
    if self.points is not None and self.num_trials:
      yield "num_trials is fixed by a grid or rows; leave it out"
    for knob in self.knobs:
      if knob in self.fixed:
        yield f"{knob} is both varied and fixed"

  @property
  def knobs(self) -> list[str]:
    """The settings that are varied, in the order of the file."""
    return list(dict.fromkeys([*self.space, *itertools.chain(*self.rows)]))

  @property
  def points(self) -> list[Point] | None:
    """The settings of all trials; None if a sampler draws them."""
    if self.rows:
      return list(self.rows)
    if self.sampler != "grid":
      return None
    choices = itertools.product(*map(_samples, self.space.values()))
    return [dict(zip(self.space, values, strict=True)) for values in choices]


def _samples(values: distributions.BaseDistribution) -> Sequence[Any]:
  """Returns values by which to check what a setting may be."""
  if isinstance(values, distributions.CategoricalDistribution):
    return values.choices
  return (values.low, values.high)  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Trial:
  """How to train a point.

  Attributes:
    flags: Flags of the training, without its workdir.
    num_steps: Number of supervision steps.
    folder: Name of the folder that its workdir is.
  """

  flags: list[str]
  num_steps: int
  folder: str


@dataclasses.dataclass(frozen=True)
class Plan:
  """A sweep with all that a worker needs, every setting checked.

  Attributes:
    sweep: What is varied.
    space: setting -> distribution.
    trial: Returns how to train a point.
    flags: Flags of this command that name the sweep, but for --sweep.
    identity: Group -> name -> value of all that must not change if the sweep
      is to be resumed.
  """

  sweep: Sweep
  space: Mapping[str, distributions.BaseDistribution]
  trial: Callable[[Point], Trial]
  flags: list[str]
  identity: Mapping[str, Mapping[str, str]]


def plan(
  sweep: Sweep,
  *,
  experiment: str,
  config: ml_collections.ConfigDict,
  overrides: Mapping[str, Any],
) -> Plan:
  """Plans a search, with every setting checked before a trial starts.

  Args:
    sweep: The search, from the sweep file.
    experiment: Experiment, as --config names it.
    config: The experiment with the overrides.
    overrides: setting -> value from the command line; they take precedence
      over those that the sweep file fixes.

  Raises:
    UserError: A setting is misspelt, impossible, or given twice.
  """
  for knob in overrides:
    if knob in sweep.knobs:
      raise errors.UserError(f"--config.{knob}: the sweep varies it")
  shared = {**sweep.fixed, **overrides}
  values = config.to_dict()
  for point in sweep.points or ():
    _configured(values, {**shared, **point})
  for knob, drawn in sweep.space.items():
    for value in _samples(drawn):
      _configured(values, {**shared, knob: value})
  base = _configured(values, shared)

  def trial(point: Point) -> Trial:
    text = json.dumps(dict(point), sort_keys=True)
    return Trial(
      flags=[f"--config={experiment}", *as_flags({**shared, **point})],
      num_steps=int(point.get("train.num_steps", base.train.num_steps)),
      folder=hashlib.sha256(text.encode()).hexdigest()[:12],
    )

  columns = {
    knob: dict.fromkeys(row[knob] for row in sweep.rows if knob in row)
    for knob in sweep.knobs
  }
  return Plan(
    sweep,
    space=sweep.space
    or {
      knob: distributions.CategoricalDistribution(tuple(values))
      for knob, values in columns.items()
    },
    trial=trial,
    flags=[f"--config={experiment}", *as_flags(overrides)],
    identity={"sweep": _identity(sweep, base)},
  )


def _identity(sweep: Sweep, base: config_lib.Config) -> dict[str, str]:
  found = {
    f"config.{knob}": repr(value)
    for knob, value in comparable(base).items()
    if knob not in sweep.knobs
  }
  for name in ("sampler", "metric", "direction", "seed"):
    found[name] = repr(getattr(sweep, name))
  if sweep.pruner is not None:  # Optuna's have no repr
    text = f"{type(sweep.pruner).__name__} {vars(sweep.pruner)}"
    found["pruner"] = re.sub(" at 0x[0-9a-f]+", "", text)
  found |= {f"space {knob}": repr(d) for knob, d in sweep.space.items()}
  return found | {f"row {i}": repr(row) for i, row in enumerate(sweep.rows)}


def _configured(
  values: Mapping[str, Any], settings: Mapping[str, Any]
) -> config_lib.Config:
  """Returns the checked settings."""
  changed = copy.deepcopy(dict(values))
  for knob, value in settings.items():
    group, _, name = knob.rpartition(".")
    (changed.setdefault(group, {}) if group else changed)[name] = value
  try:
    return config_lib.from_config_dict(ml_collections.ConfigDict(changed))
  except errors.UserError as error:
    raise errors.UserError(f"the sweep: {error}") from error


def as_flags(settings: Mapping[str, Any]) -> list[str]:
  """Returns the settings as flags."""
  return [f"--config.{knob}={value}" for knob, value in settings.items()]


def comparable(config: config_lib.Config) -> dict[str, Any]:
  """Returns the settings that must agree for results to be comparable."""
  flat = config_lib.flatten(config)
  return {knob: value for knob, value in flat.items() if not is_free(knob)}


def is_free(knob: str) -> bool:
  """Returns whether a setting may change while a sweep is not complete."""
  return knob in _FREE or knob.startswith(_FREE_GROUPS)


def load(named: str) -> Any:
  """Returns what get_sweep() of a Python file returns.

  Args:
    named: FILE or FILE:TEXT, as --sweep names it; get_sweep gets the text.

  Raises:
    UserError: There is no such file or function, or it fails.
  """
  path, _, text = named.partition(":")
  if not os.path.isfile(path):
    raise errors.UserError(
      f"--sweep: there is no file {path}; see experiments/sweeps/"
    )
  spec = importlib.util.spec_from_file_location("sweep_file", path)
  if spec is None or spec.loader is None:
    raise errors.UserError(f"--sweep: {path} is not a Python file (.py)")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    if not callable(getattr(module, "get_sweep", None)):
      raise errors.UserError("the file has no function get_sweep")
    return module.get_sweep(*([text] if text else []))
  except errors.UserError as error:
    raise errors.UserError(f"--sweep: {path}: {error}") from error
  except Exception as error:  # the file is Python and may raise anything
    raise errors.UserError(
      f"--sweep: {path}: {type(error).__name__}: {errors.first_line(error)}"
    ) from error
