"""Checks of single settings; each error names the knob and what it may be."""

import math

from trm_jax import errors


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
  """Raises UserError unless `value` is one of `choices`."""
  if value not in choices:
    raise errors.UserError(
      f"config.{name} is {value!r}; choose one of {', '.join(choices)}"
    )


def between(name: str, value: float, least: float, most: float) -> None:
  """Raises UserError unless least <= value <= most."""
  if not least <= value <= most:  # NaN, too, is refused
    raise errors.UserError(
      f"config.{name} is {value}; it must lie between {least} and {most}"
    )


def at_least(name: str, value: float, least: float) -> None:
  """Raises UserError unless value is finite and >= least."""
  if not least <= value < math.inf:
    raise errors.UserError(
      f"config.{name} is {value}; it must be at least {least}"
    )


def positive(name: str, value: float) -> None:
  """Raises UserError unless value is finite and > 0."""
  if not 0 < value < math.inf:
    raise errors.UserError(f"config.{name} is {value}; it must be above 0")


def decay(name: str, value: float) -> None:
  """Raises UserError unless 0 <= value < 1."""
  if not 0 <= value < 1:
    raise errors.UserError(
      f"config.{name} is {value}; it must be at least 0 and below 1"
    )
