"""Which rows of a table are trained, and the command of each."""

import dataclasses
import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from launch.sweeps import plan as plan_lib
from launch.sweeps import search
from launch.sweeps import table as table_lib
from trm_jax import config as config_lib
from trm_jax import errors

_SEED = "seed"


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the table, as it is trained here."""

  paper: table_lib.PaperRow
  experiment: str  # as --config names it
  recipe: config_lib.Config  # the paper's
  config: config_lib.Config  # what is trained, but for its seed
  overrides: Mapping[str, Any]  # setting -> value, from the command line


@dataclasses.dataclass(frozen=True)
class TablePlan:
  """A table; a trial's point is {row: seed}."""

  table: table_lib.Table
  rows: Mapping[str, Row]  # all that the table has, in its order
  sweep: search.Sweep  # what is asked for

  def arguments(
    self, point: Mapping[str, Any], workdir: os.PathLike | str
  ) -> list[str]:
    """Returns what the command line of a trial has behind the program."""
    name, seed = row_and_seed(point)
    row = self.rows[name]
    return [
      f"--config={row.experiment}",
      f"--workdir={workdir}",
      *_flags({**row.overrides, _SEED: seed}),
    ]

  def sweep_arguments(self, sweep_file: str) -> list[str]:
    """Returns what a worker's command line says of the plan."""
    asked = [row_and_seed(point) for point in self.sweep.rows]
    names, seeds = (dict.fromkeys(part) for part in zip(*asked, strict=True))
    overrides: dict[str, Any] = {}
    for row in self.rows.values():
      overrides.update(row.overrides)
    return [
      f"--sweep={sweep_file}",
      f"--rows={','.join(names)}",
      f"--seeds={','.join(map(str, seeds))}",
      *_flags(overrides),
    ]

  def last_step(self, point: Mapping[str, Any]) -> int:
    """Returns the step at which a trial ends."""
    name, _ = row_and_seed(point)
    return self.rows[name].config.train.num_steps

  def title(self, number: int, point: Mapping[str, Any]) -> str:
    """Returns how people are told of a trial."""
    if not point:
      return f"trial {number}"  # which has not yet become a row
    name, seed = row_and_seed(point)
    return f"{name} with seed {seed}"

  def describe(self, point: Mapping[str, Any]) -> str:
    """Returns what a trial trains."""
    name, _ = row_and_seed(point)
    return self.rows[name].experiment

  def folder_name(self, number: int, point: Mapping[str, Any]) -> str:
    """Returns the name of a trial's folder, which is that of the row."""
    del number
    name, seed = row_and_seed(point)
    return f"{name}_seed{seed}"

  def identity(self) -> dict[str, str]:
    """Returns name -> value of what all rows must agree on."""
    return {
      "table": self.table.title,
      "experiment": self.table.experiment,
      "variant": repr(self.table.words),
    }

  def row_identity(self, name: str) -> dict[str, str]:
    """Returns setting -> value of all that must stay if a row is to stay."""
    return {
      f"{name}: config.{knob}": repr(value)
      for knob, value in config_lib.flatten(self.rows[name].config).items()
      if not plan_lib.is_free(knob)
    }


def row_and_seed(point: Mapping[str, Any]) -> tuple[str, int]:
  """Returns what a trial is of."""
  ((name, seed),) = point.items()
  return name, seed


def make(
  table: table_lib.Table,
  *,
  names: Sequence[str] | None,
  seeds: Sequence[int],
  changed: Callable[[config_lib.Config], config_lib.Config],
) -> TablePlan:
  """Makes a plan; the settings of all rows asked for are checked.

  Args:
    table: of the sweep file.
    names: the rows that are asked for; None for all.
    seeds: that each of them is trained with. All rows have the first before
      any has the second.
    changed: makes the command line's changes in a row's settings.

  Raises:
    UserError: a row is not in the table, or asked for twice; a setting is
      misspelt or impossible.
  """
  for name in names or ():
    if name not in table.rows:
      close = difflib.get_close_matches(name, table.rows, n=1)
      raise errors.UserError(
        f"--rows: the table has no row {name!r}"
        + (f", did you mean {close[0]!r}?" if close else "")
        + f"; it has {', '.join(table.rows)}"
      )
  asked = table.rows if names is None else names
  for flag, values in (("rows", asked), ("seeds", seeds)):
    if not values:
      raise errors.UserError(f"--{flag} is empty; name one, or leave it out")
    if len(set(values)) < len(values):
      raise errors.UserError(f"--{flag}: one stands there twice")
  return TablePlan(
    table=table,
    rows={
      name: _row(table, name, changed, name in asked) for name in table.rows
    },
    sweep=search.Sweep(
      rows=tuple({name: seed} for seed in seeds for name in asked)
    ),
  )


def _row(
  table: table_lib.Table,
  name: str,
  changed: Callable[[config_lib.Config], config_lib.Config],
  is_asked: bool,
) -> Row:
  # Imported late: it brings JAX, which other sweeps do without here.
  from trm_jax.runtime import program

  variant = ",".join([name, table.words] if table.words else [name])
  try:
    shipped = config = config_lib.from_config_dict(table.get_config(variant))
    config = changed(shipped)
    program.check_names(config)
  except (errors.UserError, ValueError) as error:
    if is_asked:
      raise errors.UserError(f"row {name}: {error}") from error
    config = shipped  # it is not trained, only listed
  before, after = config_lib.flatten(shipped), config_lib.flatten(config)
  if after[_SEED] != before[_SEED]:
    raise errors.UserError(
      "--config.seed: a table is trained with one or more --seeds, e.g."
      f" --seeds={after[_SEED]}"
    )
  return Row(
    paper=table.rows[name],
    experiment=f"{table.experiment}:{variant}",
    recipe=config_lib.from_config_dict(table.get_config(name)),
    config=config,
    overrides={k: v for k, v in after.items() if v != before[k]},
  )


def _flags(settings: Mapping[str, Any]) -> list[str]:
  return [f"--config.{knob}={value}" for knob, value in settings.items()]
