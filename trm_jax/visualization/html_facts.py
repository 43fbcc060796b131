"""The report's head and end: what was evaluated, and how well in a line."""

import dataclasses
from collections.abc import Mapping

from trm_jax import config as config_lib
from trm_jax.evaluation import report as report_lib
from trm_jax.visualization import html_parts
from trm_jax.visualization.html_parts import Html, element

NAMES = {
  "exact_accuracy": "puzzles right",
  "cell_accuracy": "cells right",
  "halt_accuracy": "belief right",
  "valid_accuracy": "valid by the rules",
}

_WARNING = "WARNING: "  # begins such a line; see `report.EvalResult.warned`


@dataclasses.dataclass(frozen=True)
class Facts:
  """What was evaluated, for the page's head and its end."""

  workdir: str
  step: int  # supervision step of the weights
  checkpoint: str  # its folder
  num_parameters: int  # without the puzzle table
  table_shape: tuple[int, ...]  # of the puzzle table
  device: str  # that solved the puzzles
  versions: Mapping[str, str]  # of what solved them


def head(
  config: config_lib.Config, report: report_lib.EvalResult, facts: Facts
) -> Html:
  """Names what was evaluated, its main numbers, and reasons to doubt them."""
  tiles = [
    (html_parts.percent(report.final["exact_accuracy"]), "puzzles right")
  ]
  tiles += [
    (html_parts.percent(value), NAMES.get(name, name))
    for name, value in report.summary.metrics.items()
    if name in ("valid_accuracy", "pass@1", "pass@2")
  ]
  tiles += [
    (html_parts.percent(report.final["cell_accuracy"]), "cells right"),
    (html_parts.number(report.final["steps"], 2), "steps on average"),
    (f"{report.num_puzzles:,}", "puzzles"),
  ]
  warnings, _ = lines(report)
  return html_parts.join(
    [
      element("h1", f"Evaluation of {config.name}"),
      element(
        "p",
        f"Step {facts.step:,} of {facts.workdir}, task {config.data.task}:"
        f" {solver_in_words(config)}",
        class_="soft",
      ),
      *(
        element("p", warning, class_="warning", role="alert")
        for warning in warnings
      ),
      element(
        "div",
        *(
          element("div", element("b", value), name, class_="tile")
          for value, name in tiles
        ),
        class_="tiles",
      ),
    ]
  )


def lines(report: report_lib.EvalResult) -> tuple[list[str], list[str]]:
  """Returns the summary's warnings and its other lines."""
  warnings = [
    line for line in report.summary.lines if line.startswith(_WARNING)
  ]
  return warnings, [
    line for line in report.summary.lines if line not in warnings
  ]


def solver_in_words(config: config_lib.Config) -> str:
  """Says how the puzzles were solved."""
  settings = config.eval
  steps = f"{settings.supervision_steps} supervision steps"
  if settings.solver == "adaptive":
    return (
      "each puzzle until its confidence reaches"
      f" {settings.halt_threshold:g}, at most {steps}"
    )
  if settings.solver == "rollouts":
    return (
      f"{settings.rollouts} attempts of {steps} at each puzzle, with noise of"
      f" standard deviation {settings.noise:g}; the answer is chosen by"
      f" {settings.choice}"
    )
  return f"{steps} for each puzzle"


def evaluated(
  config: config_lib.Config, report: report_lib.EvalResult, facts: Facts
) -> tuple[str, Html]:
  """Says what was evaluated how, with all settings folded."""
  rows, width = facts.table_shape
  told = {
    "experiment": config.name,
    "task": config.data.task,
    "data": config.data.source or "the task's own",
    "checkpoint": facts.checkpoint,
    "trained for": f"{facts.step:,} supervision steps",
    "solved with": solver_in_words(config),
    "puzzles": f"{report.num_puzzles:,}",
    "time": f"{report.seconds:,.1f} seconds",
    "parameters": f"{facts.num_parameters:,}",
    "puzzle table": f"{rows:,} x {width}",
    "device": facts.device,
    "versions": ", ".join(
      f"{name} {version}" for name, version in facts.versions.items()
    ),
  }
  settings = config_lib.flatten(config).items()
  return html_parts.section(
    "What was evaluated",
    html_parts.table(["", ""], told.items(), class_="plain"),
    element(
      "details",
      element("summary", "All settings"),
      html_parts.table(
        ["setting", "value"],
        [(f"config.{name}", repr(value)) for name, value in settings],
        class_="plain",
      ),
    ),
  )
