"""What the trials of a sweep share, and the command of each."""

import copy
import dataclasses
import importlib.util
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import ml_collections

from launch.sweeps import search
from launch.sweeps import table as table_lib
from trm_jax import config as config_lib
from trm_jax import errors

# Settings that change neither a trial's result nor its comparison with others.
_FREE = ("name", "data.source", "data.cache_dir", "train.max_minutes")
_FREE_GROUPS = ("checkpoint.", "log.")


class Plan(Protocol):
  """What study and workers know of trials; a point is what one has drawn."""

  @property
  def sweep(self) -> search.Sweep:
    """What is drawn."""

  def arguments(
    self, point: Mapping[str, Any], workdir: os.PathLike | str
  ) -> list[str]:
    """Returns what the command line of a trial has behind the program."""

  def last_step(self, point: Mapping[str, Any]) -> int:
    """Returns the step at which a trial ends."""

  def title(self, number: int, point: Mapping[str, Any]) -> str:
    """Returns how people are told of a trial."""

  def describe(self, point: Mapping[str, Any]) -> str:
    """Returns what a trial trains."""

  def folder_name(self, number: int, point: Mapping[str, Any]) -> str:
    """Returns the name of a trial's folder."""

  def sweep_arguments(self, sweep_file: str) -> list[str]:
    """Returns what a worker's command line says of the plan."""

  def identity(self) -> dict[str, str]:
    """Returns name -> value of all that must stay if a sweep is to go on."""


@dataclasses.dataclass(frozen=True)
class SearchPlan:
  """A sweep of an experiment."""

  sweep: search.Sweep
  experiment: str  # as --config names it
  overrides: Mapping[str, Any]  # setting -> value, from the command line
  config: config_lib.Config  # the experiment with all that trials share

  def arguments(
    self, point: Mapping[str, Any], workdir: os.PathLike | str
  ) -> list[str]:
    """Returns what the command line of a trial has behind the program.

    Args:
      point: setting -> value, what this trial has for itself.
      workdir: of the trial.
    """
    settings = {**self.sweep.fixed, **self.overrides, **point}
    return [
      f"--config={self.experiment}",
      f"--workdir={workdir}",
      *(f"--config.{knob}={value}" for knob, value in settings.items()),
    ]

  def title(self, number: int, point: Mapping[str, Any]) -> str:
    """Returns how people are told of a trial."""
    del point
    return f"trial {number}"

  def describe(self, point: Mapping[str, Any]) -> str:
    """Returns what a trial trains."""
    return " ".join(f"{knob}={value}" for knob, value in point.items())

  def folder_name(self, number: int, point: Mapping[str, Any]) -> str:
    """Returns the name of a trial's folder."""
    del point
    return f"trial_{number:04d}"

  def sweep_arguments(self, sweep_file: str) -> list[str]:
    """Returns what a worker's command line says of the plan."""
    return [
      f"--config={self.experiment}",
      f"--sweep={sweep_file}",
      *(f"--config.{knob}={value}" for knob, value in self.overrides.items()),
    ]

  def last_step(self, point: Mapping[str, Any]) -> int:
    """Returns the step at which a trial ends."""
    return int(point.get("train.num_steps", self.config.train.num_steps))

  def identity(self) -> dict[str, str]:
    """Returns name -> value of all that must stay if a sweep is to go on.

    How many trials a sampler draws may change: none depends on how many
    follow.
    """
    varied = self.sweep.knobs
    named = {
      f"config.{knob}": repr(value)
      for knob, value in config_lib.flatten(self.config).items()
      if not is_free(knob) and knob not in varied
    }
    for name in ("sampler", "metric", "direction", "seed", "pruner"):
      named[name] = repr(getattr(self.sweep, name))
    for knob, values in self.sweep.space.items():
      named[f"space {knob}"] = repr(values)
    for number, row in enumerate(self.sweep.rows):
      named[f"row {number}"] = repr(dict(row))
    return named


def is_free(knob: str) -> bool:
  """Tells whether a setting may change while a sweep goes on."""
  return knob in _FREE or knob.startswith(_FREE_GROUPS)


def make(
  sweep: search.Sweep,
  *,
  experiment: str,
  config: ml_collections.ConfigDict,
  overrides: Mapping[str, Any],
) -> SearchPlan:
  """Makes a plan, with every setting checked before a trial starts.

  Args:
    sweep: of the sweep file.
    experiment: as --config names it.
    config: the experiment with the overrides.
    overrides: setting -> value of the command line; they go before those that
      the sweep file fixes.

  Raises:
    UserError: a setting is misspelt, impossible, or said twice.
  """
  for knob in overrides:
    if knob in sweep.knobs:
      raise errors.UserError(
        f"--config.{knob}: the sweep varies it; leave it out"
      )
  shared = {**sweep.fixed, **overrides}
  values = config.to_dict()
  for point in sweep.points or ():
    _configured(values, {**shared, **point})
  for knob, drawn in sweep.space.items():
    for value in drawn.samples:
      _configured(values, {**shared, knob: value})
  return SearchPlan(
    sweep=sweep,
    experiment=experiment,
    overrides=overrides,
    config=_configured(values, shared),
  )


def _configured(
  values: Mapping[str, Any], settings: Mapping[str, Any]
) -> config_lib.Config:
  """Returns the checked settings."""
  changed = copy.deepcopy(dict(values))
  for knob, value in settings.items():
    *groups, name = knob.split(".")
    group = changed
    for part in groups:
      group = group.setdefault(part, {})
      if not isinstance(group, dict):
        raise errors.UserError(f"the sweep: there is no setting {knob}")
    group[name] = value
  try:
    return config_lib.from_config_dict(ml_collections.ConfigDict(changed))
  except errors.UserError as error:
    raise errors.UserError(f"the sweep: {error}") from error


def load_sweep(named: str) -> search.Sweep | table_lib.Table:
  """Returns what get_sweep() of a Python file returns.

  Args:
    named: the file, as --sweep names it. What stands behind a colon, as in
      experiments/sweeps/table1.py:quickstart, is get_sweep's argument.

  Raises:
    UserError: there is no such file or function, or it does not run.
  """
  path, _, words = named.partition(":")
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
    sweep = module.get_sweep(*([words] if words else []))
  except errors.UserError as error:
    raise errors.UserError(f"--sweep: {path}: {error}") from error
  except Exception as error:  # the file is Python and may raise anything
    raise errors.UserError(
      f"--sweep: {path}: {type(error).__name__}: {errors.first_line(error)}"
    ) from error
  if not isinstance(sweep, search.Sweep | table_lib.Table):
    raise errors.UserError(
      f"--sweep: {path}: get_sweep() returned {type(sweep).__name__}, neither a"
      " launch.sweeps.search.Sweep nor a launch.sweeps.table.Table"
    )
  return sweep


def default_name(named: str) -> str:
  """Returns the name of a sweep, by what --sweep names."""
  path, _, words = named.partition(":")
  return "_".join([pathlib.Path(path).stem, *filter(None, words.split(","))])
