"""The words of a sweep file: what is varied, how, and what counts."""

import dataclasses
import itertools
import math
from collections.abc import Mapping
from typing import Any, Literal

from trm_jax import errors

# What a setting may be that the database keeps: JSON's single values.
Value = bool | int | float | str


@dataclasses.dataclass(frozen=True)
class Uniform:
  """Any number from `low` to `high`."""

  low: float
  high: float

  def __post_init__(self):
    _check_ends(self)

  @property
  def samples(self) -> tuple[Value, ...]:
    """Values by which to check what a setting may be."""
    return (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class LogUniform:
  """Any number from `low` to `high`, each factor as likely as another."""

  low: float  # above 0
  high: float

  def __post_init__(self):
    _check_ends(self)
    if self.low <= 0:
      raise errors.UserError(f"{self}: `low` must be above 0")

  @property
  def samples(self) -> tuple[Value, ...]:
    """Values by which to check what a setting may be."""
    return (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Integers:
  """Any whole number from `low` to `high`, both included."""

  low: int
  high: int

  def __post_init__(self):
    _check_ends(self)
    if not all(type(end) is int for end in (self.low, self.high)):
      raise errors.UserError(f"{self}: both ends must be whole numbers")

  @property
  def samples(self) -> tuple[Value, ...]:
    """Values by which to check what a setting may be."""
    return (self.low, self.high)


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of `values`: numbers, texts, True or False."""

  values: tuple[Value, ...]

  def __post_init__(self):
    if not isinstance(self.values, tuple | list) or not self.values:
      raise errors.UserError(
        f"{self}: name at least one value, e.g. Choice((0.1, 1.0))"
      )
    for value in self.values:
      check_value(value, str(self))
    if len(set(self.values)) < len(self.values):
      raise errors.UserError(f"{self}: a value stands there twice")

  @property
  def samples(self) -> tuple[Value, ...]:
    """Values by which to check what a setting may be."""
    return tuple(self.values)


Range = Uniform | LogUniform | Integers | Choice


@dataclasses.dataclass(frozen=True)
class Median:
  """Prunes a trial that is worse than the median of those that ended."""

  first_trials: int = 5  # so many must have ended before any is pruned
  first_step: int = 0  # never pruned before this supervision step

  def __post_init__(self):
    if self.first_trials < 0 or self.first_step < 0:
      raise errors.UserError(f"{self}: neither may be below 0")


@dataclasses.dataclass(frozen=True)
class Halving:
  """Successive halving: of `factor` trials one goes on, again and again."""

  first_step: int  # supervision steps before the first cut
  factor: int = 4  # the next cut comes after this many times the steps

  def __post_init__(self):
    if self.first_step < 1 or self.factor < 2:
      raise errors.UserError(
        f"{self}: `first_step` must be at least 1 and `factor` at least 2"
      )


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A search over settings; what get_sweep() of a sweep file returns."""

  # Setting -> range, e.g. {"optimizer.learning_rate": LogUniform(1e-4, 1e-2)}.
  space: Mapping[str, Range] = dataclasses.field(default_factory=dict)
  # Instead of a space: the settings of each trial, as they are.
  rows: tuple[Mapping[str, Value], ...] = ()
  sampler: str = "grid"  # 'grid' (all choices), 'random' or 'tpe'
  num_trials: int = 0  # of 'random' and 'tpe'; may be raised later
  metric: str = "exact_accuracy"  # of an evaluation, see metrics.jsonl
  direction: Literal["maximize", "minimize"] = "maximize"
  seed: int = 0  # of the sampler; every trial trains with config.seed
  pruner: Median | Halving | None = None
  # Settings that all trials share and the experiment has not.
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name in ("space", "fixed"):
      if not isinstance(getattr(self, name), Mapping):
        raise errors.UserError(f"{name} must be a dict of settings")
    self._check_words()
    self._check_points()
    both = sorted(self.knobs & set(self.fixed))
    if both:
      raise errors.UserError(f"{both[0]} is both varied and fixed")

  def _check_words(self) -> None:
    for name, known in (
      ("sampler", ("grid", "random", "tpe")),
      ("direction", ("maximize", "minimize")),
    ):
      value = getattr(self, name)
      if value not in known:
        raise errors.UserError(
          f"{name} is {value!r}; choose one of {', '.join(known)}"
        )
    if not isinstance(self.pruner, Median | Halving | None):
      raise errors.UserError(
        f"pruner is {self.pruner!r}; it must be search.Median(...),"
        " search.Halving(...) or None"
      )
    if type(self.seed) is not int or self.seed < 0:
      raise errors.UserError(
        f"seed is {self.seed!r}; it must be a whole number from 0"
      )

  def _check_points(self) -> None:
    if bool(self.space) == bool(self.rows):
      raise errors.UserError(
        "the search is empty: name a `space` or `rows`"
        if not self.space
        else "name a `space` or `rows`, not both"
      )
    for knob, values in self.space.items():
      if not isinstance(values, Range):
        raise errors.UserError(
          f"{knob} is {values!r}; it must be a Uniform, LogUniform, Integers"
          " or Choice of launch.sweeps.search"
        )
      if self.sampler == "grid" and not isinstance(values, Choice):
        raise errors.UserError(
          f"{knob} is a {type(values).__name__}, of which a grid cannot have"
          " all values; use Choice, or the sampler 'random' or 'tpe'"
        )
    for number, row in enumerate(self.rows):
      if not isinstance(row, Mapping):
        raise errors.UserError(f"row {number} is not a dict of settings")
      for knob, value in row.items():
        check_value(value, f"row {number}, {knob}")
    sampled = self.points is None
    if sampled and (type(self.num_trials) is not int or self.num_trials < 1):
      raise errors.UserError(
        f"num_trials is {self.num_trials!r}; the sampler {self.sampler!r}"
        " needs at least 1"
      )
    if not sampled and self.num_trials:
      raise errors.UserError(
        "num_trials is of the samplers 'random' and 'tpe'; a grid and rows"
        " have as many trials as they have"
      )

  @property
  def knobs(self) -> frozenset[str]:
    """The settings that are varied."""
    return frozenset(self.space).union(*self.rows)

  @property
  def points(self) -> list[dict[str, Value]] | None:
    """The settings of all trials, or None where a sampler draws them."""
    if self.rows:
      return [dict(row) for row in self.rows]
    if self.sampler != "grid":
      return None
    values = [choice.samples for choice in self.space.values()]
    return [
      dict(zip(self.space, point, strict=True))
      for point in itertools.product(*values)
    ]

  @property
  def size(self) -> int:
    """How many trials there are."""
    return self.num_trials if self.points is None else len(self.points)

  def ranges(self, number: int) -> dict[str, Range]:
    """Returns what trial `number` draws from."""
    if self.rows:
      return {knob: self._column(knob) for knob in self.rows[number]}
    return dict(self.space)

  def _column(self, knob: str) -> Choice:
    values = [row[knob] for row in self.rows if knob in row]
    return Choice(tuple(dict.fromkeys(values)))


def check_value(value: Any, where: str) -> None:
  """Raises UserError unless the database can keep the value."""
  if not isinstance(value, Value):
    raise errors.UserError(
      f"{where}: {value!r} is no number, text, True or False"
    )
  if isinstance(value, float) and not math.isfinite(value):
    raise errors.UserError(f"{where}: {value} is not finite")


def _check_ends(ends: Uniform | LogUniform | Integers) -> None:
  for end in (ends.low, ends.high):
    if isinstance(end, bool) or not isinstance(end, int | float):
      raise errors.UserError(f"{ends}: {end!r} is not a number")
  if not -math.inf < ends.low < ends.high < math.inf:
    raise errors.UserError(f"{ends}: `low` must be below `high`")
