"""Sweep files: searches over settings, and the tables of a paper."""

import copy
import dataclasses
import hashlib
import itertools
import os
import re
import runpy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import ml_collections
from optuna import distributions, pruners, samplers

from trm_jax import config as config_lib
from trm_jax import errors

Point = Mapping[str, Any]

# Settings that may change while a sweep is incomplete: they affect no result.
_FREE = (
  *("checkpoint.", "data.cache_dir", "data.source", "log.", "name"),
  "train.time_limit_minutes",
)


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A search over settings; get_sweep() of a sweep file returns one.

  Attributes:
    space: setting -> Optuna distribution, e.g. {"optimizer.learning_rate":
      FloatDistribution(1e-4, 1e-2, log=True)}.
    sampler: One of optuna.samplers (each worker draws with a seed of its own);
      None trains a grid, all combinations of CategoricalDistributions.
    num_trials: Number of trials with a sampler; may be raised later.
    metric: Metric of an evaluation, see metrics.jsonl.
    direction: "maximize" or "minimize".
    pruner: Optuna pruner that sees every evaluation but the last.
    fixed: Settings of all trials that differ from the experiment's.
    one_at_a_time: Without a sampler, vary one setting at a time instead of a
      grid: the first choices together, then each other choice among them.
    shown: Further metrics for the table of results.
  """

  space: Mapping[str, distributions.BaseDistribution]
  sampler: samplers.BaseSampler | None = None
  num_trials: int = 0
  metric: str = "exact_accuracy"
  direction: Literal["maximize", "minimize"] = "maximize"
  pruner: pruners.BasePruner | None = None
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  one_at_a_time: bool = False
  shown: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of a paper; get_sweep() may return it instead of a Sweep.

  Attributes:
    title: Title of the table, with its source.
    experiment: Experiment, as --config names it; the rows are its variants.
    get_config: get_config() of the experiment.
    rows: Variant -> the row's text in the paper and its accuracy in %, None
      where the paper ran out of memory.
    variant: Further variants of every row, e.g. "quickstart".
  """

  title: str
  experiment: str
  get_config: Callable[[str], ml_collections.ConfigDict]
  rows: Mapping[str, tuple[str, float | None]]
  variant: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
  """A search or a table with all that a worker needs, every setting checked.

  Attributes:
    sweep: The search; the space of a table is its rows and seeds.
    points: Key of a trial -> its settings; empty if a sampler draws them.
    flags: Returns the training flags of a trial, without its workdir.
    digests: Name -> digest of what must not change while it is incomplete.
    num_steps: Supervision steps of a training; 0 for a table.
    table: The table, or None for a search.
  """

  sweep: Sweep
  points: Mapping[str, Point]
  flags: Callable[[Point], list[str]]
  digests: Mapping[str, str]
  num_steps: int = 0
  table: Table | None = None

  def folder(self, point: Point) -> str:
    """Returns the name of a trial's folder: a retry finds its checkpoint."""
    if self.table is not None:
      return f"{point['row']}_seed{point['seed']}"
    return _digest(sorted(point.items()))


def plan_search(
  sweep: Sweep,
  *,
  experiment: str,
  config: ml_collections.ConfigDict,
  overrides: Mapping[str, Any],
) -> Plan:
  """Plans a search; raises UserError if a setting is wrong.

  Args:
    sweep: The search, from the sweep file.
    experiment: Experiment, as --config names it.
    config: The experiment with the overrides.
    overrides: setting -> value from the command line; they take precedence
      over those that the sweep file fixes.
  """
  is_grid = sweep.sampler is None
  shared = {**sweep.fixed, **overrides}
  samples: dict[str, Sequence[Any]] = {}
  for knob, drawn in sweep.space.items():
    if not isinstance(drawn, distributions.BaseDistribution):
      raise errors.UserError(
        f"{knob} is {drawn!r}; it must be one of optuna.distributions"
      )
    if knob in shared:
      raise errors.UserError(f"config.{knob} is both varied and fixed")
    if isinstance(drawn, distributions.CategoricalDistribution):
      samples[knob] = drawn.choices
    elif is_grid:
      raise errors.UserError(
        f"{knob} is {drawn!r}, which a grid cannot enumerate; use a"
        " CategoricalDistribution, or one of optuna.samplers"
      )
    else:
      samples[knob] = (vars(drawn)["low"], vars(drawn)["high"])
  if is_grid == (sweep.num_trials > 0):
    raise errors.UserError("num_trials is needed with a sampler, and only then")
  if sweep.one_at_a_time and not is_grid:
    raise errors.UserError("one_at_a_time has no use for a sampler")
  if sweep.one_at_a_time:
    first = {knob: values[0] for knob, values in samples.items()}
    grid = [first] + [
      {**first, knob: value}
      for knob, values in samples.items()
      for value in values[1:]
    ]
  else:
    combinations = itertools.product(*samples.values())
    grid = [dict(zip(samples, values, strict=True)) for values in combinations]
  for point in grid:
    _configured(config, {**shared, **point})
  base = _configured(config, shared)
  pruner = sweep.pruner and (type(sweep.pruner), vars(sweep.pruner))
  asked: tuple[Any, ...] = (
    *(sweep.space, sweep.metric, sweep.direction, type(sweep.sampler)),
    *([sweep.one_at_a_time] if sweep.one_at_a_time else []),
  )
  return Plan(
    sweep,
    points={
      str(i): point
      for i, point in enumerate(grid if is_grid else [{}] * sweep.num_trials)
    },
    flags=lambda point: [
      f"--config={experiment}",
      *(f"--config.{k}={v}" for k, v in {**shared, **point}.items()),
    ],
    digests={"sweep": _digest((asked, pruner, _comparable(base)))},
    num_steps=base.train.num_steps,
  )


def plan_table(
  table: Table,
  *,
  names: Sequence[str],
  seeds: Sequence[int],
  overrides: Sequence[str],
  changed: Callable[[config_lib.Config], config_lib.Config],
) -> Plan:
  """Plans rows of a table; raises UserError if one or a setting is wrong.

  Args:
    table: The table, from the sweep file.
    names: Rows to train.
    seeds: Seeds of each row; all rows have the first before any has the second.
    overrides: Flags --config.group.knob=value that change all rows.
    changed: Returns a row's settings with the overrides applied.
  """
  variants = {name: f"{name},{table.variant}".strip(",") for name in table.rows}
  digests = {}
  for name in names:
    if name not in table.rows:
      raise errors.UserError(
        f"--rows: the table has no row {name!r}; it has {', '.join(table.rows)}"
      )
    try:
      shipped = config_lib.from_config_dict(table.get_config(variants[name]))
      digests[f"row {name}"] = _digest(_comparable(changed(shipped)))
    except errors.UserError as error:
      raise errors.UserError(f"row {name}: {error}") from error
  space = {
    "row": distributions.CategoricalDistribution(tuple(table.rows)),
    "seed": distributions.IntDistribution(0, 2**31 - 1),
  }
  points = [{"row": name, "seed": seed} for seed in seeds for name in names]
  return Plan(
    Sweep(space),
    points={f"{point['row']} {point['seed']}": point for point in points},
    flags=lambda point: [
      f"--config={table.experiment}:{variants[point['row']]}",
      *overrides,
      f"--config.seed={point['seed']}",
    ],
    digests=digests,
    table=table,
  )


def load(named: str) -> Sweep | Table:
  """Returns what get_sweep() of a Python file returns.

  Args:
    named: FILE or FILE:TEXT, as --sweep names it; get_sweep gets the text.

  Raises:
    UserError: There is no such file or function, or it fails.
  """
  path, _, text = named.partition(":")
  if not os.path.isfile(path):
    raise errors.UserError(
      f"--sweep: there is no file {path!r}; see experiments/sweeps/"
    )
  try:
    get_sweep = runpy.run_path(path).get("get_sweep")
    sweep = get_sweep(*([text] if text else [])) if get_sweep else None
  except Exception as error:  # the file is Python and may raise anything
    raise errors.UserError(
      f"--sweep: {path}: {type(error).__name__}: {errors.first_line(error)}"
    ) from error
  if not isinstance(sweep, Sweep | Table):
    raise errors.UserError(
      f"--sweep: {path} has no function get_sweep that returns a Sweep or a"
      " Table of launch.sweep_spec"
    )
  return sweep


def _configured(
  config: ml_collections.ConfigDict, settings: Point
) -> config_lib.Config:
  """Returns the checked settings."""
  changed = copy.deepcopy(config.to_dict())
  for knob, value in settings.items():
    group, _, name = knob.rpartition(".")
    (changed.setdefault(group, {}) if group else changed)[name] = value
  return config_lib.from_config_dict(ml_collections.ConfigDict(changed))


def _comparable(config: config_lib.Config) -> dict[str, Any]:
  """Returns the settings that must agree for results to be comparable."""
  flat = config_lib.flatten(config)
  return {k: v for k, v in flat.items() if not k.startswith(_FREE)}


def _digest(value: Any) -> str:
  text = re.sub(" at 0x[0-9a-f]+", "", repr(value))  # of Optuna's pruners
  return hashlib.sha256(text.encode()).hexdigest()[:12]
