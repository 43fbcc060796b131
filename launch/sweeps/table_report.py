"""A paper's table beside ours: Markdown, a CSV, and a picture."""

import collections
import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

from etils import epath

from launch.sweeps import plan as plan_lib
from launch.sweeps import table as table_lib
from launch.sweeps import (
  table_picture,
  table_plan,
  table_results,
  table_study,
)
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import files

# Settings that change how fast or how often, and no result.
_HARMLESS = frozenset(
  (
    "eval.batch_size",
    "eval.every_steps",
    "model.attention_kernel",
    "model.gate_kernel",
    "model.remat",
    "train.microbatches",
  )
)
_HEADER = (
  "row",
  "in the paper",
  "paper's %",
  "ours %",
  "depth",
  "passes",
  "paper's parameters",
  "our parameters",
  "steps",
  "hours",
  "state",
)
_LEGEND = """\
%: puzzles solved entirely, of the test set. Paper's: as the paper says; OOM: it
ran out of memory. [in brackets]: the latest evaluation of a run that has not
ended, which is no result. ±: standard deviation over seeds. Depth: layers
passed through in a supervision step. Passes: forward passes per optimizer step.
Hours: of all seeds together.
"""


def write(study: table_study.TableStudy, workdir: epath.Path) -> str:
  """Writes results.md, results.csv and results.png.

  Args:
    study: of the table.
    workdir: of the sweep.

  Returns:
    What to print: the table, and where the files are.

  Raises:
    UserError: a file cannot be written.
  """
  results = table_results.of(study, workdir)
  text = markdown(study.table_plan.table, results)
  for name, content in (
    ("results.md", text.encode()),
    ("results.csv", _csv(results).encode()),
    ("results.png", table_picture.draw(results)),
  ):
    with files.writing(workdir / name) as file:
      file.write(content)
  return f"{text}\n{workdir}/results.md, results.csv and results.png"


def last_line(study: table_study.TableStudy, workdir: epath.Path) -> str:
  """Returns which rows have a result, and which.

  Args:
    study: of the table.
    workdir: of the sweep.

  Raises:
    UserError: none has.
  """
  results = table_results.of(study, workdir)
  found = [row for row in results if row.accuracies]
  if not found:
    raise errors.UserError("no row has a result yet; see the table above")
  complete = sum(row.is_complete for row in results)
  return f"{complete} of {len(results)} rows are complete: " + ", ".join(
    f"{row.name} exact_accuracy={row.mean / 100:.4f}" for row in found
  )


def markdown(
  table: table_lib.Table, results: Sequence[table_results.RowResult]
) -> str:
  """Returns the table, and below it what was run."""
  lines = [_HEADER, *map(_cells, results)]
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  lines.insert(1, tuple("-" * width for width in widths))
  text = "".join(
    f"| {' | '.join(map(str.ljust, line, widths))} |\n" for line in lines
  )
  failed = [
    f"\n{row.name} with seed {run.seed} failed: {run.reason}\n"
    for row in results
    for run in row.runs
    if run.reason
  ]
  begun = [row for row in results if row.has_begun] or results
  return "\n".join(
    [f"# {table.title}\n", text, _LEGEND, _puzzles(begun), _recipe(begun)]
  ) + "".join(failed)


# --- cells -----------------------------------------------------------------


def _cells(result: table_results.RowResult) -> tuple[str, ...]:
  from launch.sweeps import row_facts  # late: see there

  facts = row_facts.of(result.row.config)
  steps = dict.fromkeys(f"{run.step:,}" for run in result.runs)
  planned = f"{result.row.config.train.num_steps:,}"
  return (
    result.name,
    result.row.paper.text.replace("|", r"\|"),
    _of_paper(result.row.paper),
    _ours(result),
    str(facts.depth),
    str(facts.forward_passes),
    result.row.paper.parameters,
    f"{facts.parameters:,}",
    f"{'; '.join(steps) or 0} of {planned}",
    f"{sum(run.hours for run in result.runs):.2f}" if result.has_begun else "",
    _state(result),
  )


def _of_paper(row: table_lib.PaperRow) -> str:
  return "OOM" if row.accuracy is None else f"{row.accuracy:.1f}"


def _ours(result: table_results.RowResult) -> str:
  """Returns mean and spread of what is complete, else what there is."""
  values = result.accuracies
  if not values:
    latest = [run.latest for run in result.runs if run.latest is not None]
    return f"[{', '.join(f'{v:.1f}' for v in latest)}]" if latest else ""
  text = f"{result.mean:.1f}"
  if len(values) > 1:
    text += f" ± {statistics.stdev(values):.1f}"
  if not result.is_complete:
    return f"{text} ({len(values)} of {len(result.runs)} seeds)"
  return text if len(values) == 1 else f"{text} ({len(values)} seeds)"


def _state(result: table_results.RowResult) -> str:
  """Returns the state of all runs, or how many are in which."""
  counts = collections.Counter(run.state for run in result.runs)
  if len(counts) < 2:
    return next(iter(counts), table_results.NOT_RUN)
  return ", ".join(f"{count} {state}" for state, count in counts.items())


# --- what was run ----------------------------------------------------------


def _puzzles(results: Sequence[table_results.RowResult]) -> str:
  return "".join(
    f"Puzzles: {text}.\n"
    for text in dict.fromkeys(_tested(row.row.config) for row in results)
  )


def _tested(config: config_lib.Config) -> str:
  """Returns the task, where it is from, and how much of it is tested."""
  data = config.data
  tested = [f"{n:,}" for n in (data.num_test, config.eval.tasks) if n]
  task = data.task.replace("_", " ")
  if not data.task.startswith("generated"):
    task += f" from {data.source or 'the public download'}"
  return f"{task}; tested on {' and of these on '.join(tested) or 'all'}"


def _recipe(results: Sequence[table_results.RowResult]) -> str:
  """Says what of the settings is not the paper's, for which rows."""
  found: dict[tuple[str, str, str], list[str]] = {}
  for result in results:
    for difference in _differences(result.row):
      found.setdefault(difference, []).append(result.name)
  if not found:
    return f"The paper's recipe, as {results[0].row.experiment} has it.\n"
  told = [
    f"{knob}={now} instead of {before}"
    + ("" if len(names) == len(results) else f" ({', '.join(names)})")
    for (knob, now, before), names in found.items()
  ]
  return f"Not the paper's recipe: {'; '.join(told)}.\n"


def _differences(row: table_plan.Row) -> list[tuple[str, str, str]]:
  recipe = config_lib.flatten(row.recipe)
  return [
    (knob, _shown(value), _shown(recipe[knob]))
    for knob, value in config_lib.flatten(row.config).items()
    if value != recipe[knob]
    and not plan_lib.is_free(knob)
    and knob not in _HARMLESS
  ]


def _shown(value: Any) -> str:
  return f"{value}" or "''"


# --- CSV -------------------------------------------------------------------


def _csv(results: Sequence[table_results.RowResult]) -> str:
  """Returns a line for each run, and one for each row without any."""
  text = io.StringIO()
  lines = csv.writer(text)
  lines.writerow(
    [
      *("row", "seed", "state", "exact_accuracy", "latest_accuracy", "step"),
      *("num_steps", "hours", "paper_accuracy", "paper_parameters", "config"),
    ]
  )
  for result in results:
    paper, config = result.row.paper, result.row.config
    rest = [paper.accuracy, paper.parameters, result.row.experiment]
    for run in result.runs:
      lines.writerow(
        [
          *(result.name, run.seed, run.state, run.accuracy, run.latest),
          *(run.step, config.train.num_steps, f"{run.hours:.3f}", *rest),
        ]
      )
    if not result.runs:
      nothing = [result.name, "", table_results.NOT_RUN, "", "", 0]
      lines.writerow([*nothing, config.train.num_steps, "", *rest])
  return text.getvalue()
