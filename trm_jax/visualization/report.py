"""Writes one HTML file about an evaluation; it needs no server or network.

The page is the template report.html.jinja, which escapes all that it is given.
"""

import dataclasses
import functools
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jinja2
import numpy as np
from etils import epath

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import files, kind
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.evaluation import evaluate, vote_log, voting
from trm_jax.evaluation import report as report_lib
from trm_jax.inference import outputs
from trm_jax.runtime import (
  experiment,
  metric_writer,
  preemption,
  processes,
  restore,
)
from trm_jax.visualization import (
  animation,
  calibration,
  grid_image,
  plots,
  report_images,
  report_puzzles,
)

REPORT_FILE = "report.html"
_WARNING = "WARNING: "  # begins such a line; see `report.Report.warned`
_METRIC_NAMES = {"valid_accuracy": "valid by the rules"}
_OUTCOMES = (
  "solved within two attempts",
  "partly solved",
  "correct answer outvoted",
  "no vote for the correct answer",
  "no known solution",
)
_MAX_TASKS, _MAX_INPUTS = 2, 2  # shown: tasks of an outcome, inputs of a task


@dataclasses.dataclass(frozen=True)
class Facts:
  """What was evaluated, and on what.

  Attributes:
    workdir: Folder of the training.
    step: Training step of the weights.
    checkpoint: Folder of the checkpoint.
    num_parameters: Number of parameters without the puzzle embeddings.
    table_shape: Shape of the puzzle embedding table.
    device: Device that solved the puzzles.
    versions: Package -> version.
  """

  workdir: str
  step: int
  checkpoint: str
  num_parameters: int
  table_shape: tuple[int, ...]
  device: str
  versions: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class TaskVotes:
  """An ARC task and the votes on it."""

  task: arc_tasks.ArcTask
  result: voting.TaskResult

  @property
  def outcome(self) -> str:
    """One of `_OUTCOMES`."""
    solved, partly, outvoted, none, unknown = _OUTCOMES
    if not self.result.known:
      return unknown
    share = self.result.solved_within(2)
    if share > 0:
      return solved if share == 1 else partly
    has_votes = any(one.rank is not None for one in self.result.inputs)
    return outvoted if has_votes else none


def write(
  config: config_lib.Config,
  workdir: str,
  output: str = "",
  stop: preemption.Stop | None = None,
) -> report_lib.Report:
  """Evaluates a workdir's checkpoint and writes a page about it.

  Args:
    config: As for `evaluate.restore_and_evaluate`.
    workdir: Folder of the training.
    output: File to write, in an existing folder; by default report.html in the
      workdir.
    stop: As for `evaluate.evaluate`.

  Returns:
    The evaluation, which is printed as well.

  Raises:
    UserError: as for `evaluate.restore_and_evaluate`, or if the file cannot be
      written; where possible before any work is done.
    Stopped: if it is to end early; nothing is written.
  """
  if jax.process_count() > 1:
    raise errors.UserError(
      "--mode=report runs in a single process; it reuses the votes of an"
      " evaluation by several processes if config.eval is the same"
    )
  path = _output_path(workdir, output)
  collector = report_puzzles.Collector()
  found = evaluate.restore_and_evaluate(config, workdir, stop, collector.add)
  run, trained = found.run, found.trained
  page = render(
    config,
    found.report,
    _facts(workdir, trained, run),
    stats=collector.stats,
    puzzles=report_puzzles.select(run, trained, collector),
    votes=_read_votes(run, workdir, trained.step),
    rows=metric_writer.read_metrics(workdir),
  )
  with files.writing(path) as file:
    # A name from the command line may hold a byte that is not UTF-8.
    file.write(page.encode(errors="replace"))
  processes.tell(f"report: {path}")
  return found.report


def _output_path(workdir: str, output: str) -> epath.Path:
  """Returns where to write the page, checked before any work."""
  if not output:
    return files.folder(workdir) / REPORT_FILE
  if outputs.is_standard(output):
    raise errors.UserError(
      "--output is '-', but a report cannot be printed: name a file, or omit"
      f" --output to write {REPORT_FILE} into the workdir"
    )
  return files.folder(outputs.place_for(output, hint="name a file"))


def render(
  config: config_lib.Config,
  report: report_lib.Report,
  facts: Facts,
  *,
  stats: calibration.AnswerStats,
  puzzles: report_puzzles.Selection,
  votes: Sequence[TaskVotes],
  rows: Sequence[Mapping[str, Any]],
) -> str:
  """Renders the page; sections without content are left out.

  Args:
    config: Config of the evaluation.
    report: Its metrics.
    facts: What was evaluated.
    stats: Results of the puzzles that were solved in this process.
    puzzles: Some of these puzzles.
    votes: The tasks of ARC.
    rows: Rows of metrics.jsonl.
  """
  lines = report.verdict.lines
  rated = stats.rated
  categories = puzzles.categories.values()
  outcomes: dict[str, list[TaskVotes]] = {name: [] for name in _OUTCOMES}
  for one in votes:
    outcomes[one.outcome].append(one)
  return _template().render(
    config=config,
    report=report,
    facts=facts,
    settings={
      name: repr(value) for name, value in config_lib.flatten(config).items()
    },
    names=_METRIC_NAMES,
    tiles=_tiles(report),
    warnings=[line for line in lines if line.startswith(_WARNING)],
    lines=[line for line in lines if not line.startswith(_WARNING)],
    metrics_table=_metrics_table(config, report),
    accuracy_chart=_accuracy_chart(report),
    stats=stats,
    rated=rated,
    threshold=calibration.THRESHOLD,
    confusion=calibration.confusion(rated),
    bins=(bins := calibration.reliability(rated)),
    reliability_chart=report_images.chart(
      lambda theme: plots.reliability(bins, theme),
      alt="Bar chart of accuracy by confidence; the table lists the values.",
      caption="Where confidence is calibrated, bars end at the dashed line",
    )
    if len(rated.exact)
    else None,
    step_counts=list(
      zip(*np.unique(stats.steps, return_counts=True), strict=True)
    ),
    median_steps=math.ceil(np.median(stats.steps)),
    steps_chart=_steps_chart(stats.steps),
    puzzles=puzzles,
    legend=report_images.legend(
      shown.trace for some in categories for shown in some
    ),
    outcomes={name: some for name, some in outcomes.items() if some},
    max_tasks=_MAX_TASKS,
    max_inputs=_MAX_INPUTS,
    training_charts=[
      report_images.chart(
        functools.partial(plots.training, rows, what),
        alt=f"Curves of {what} by training step.",
        caption=f"{what.capitalize()} in training and evaluation",
      )
      for what in ("loss", "accuracy")
      if plots.has_curves(rows, what)
    ],
  )


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("trm_jax.visualization", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    "percent": _percent,
    "number": _number,
    "whole_percent": grid_image.percent,
    "count": _count,
    "sentence": lambda text: text[:1].upper() + text[1:],
  }
  environment.globals |= {
    "figures": report_images.figures,
    "attempts": _attempts,
    "describe": animation.describe,
    "gif": report_images.gif,
    "still": report_images.still,
  }
  return environment.get_template(REPORT_FILE + ".jinja")


def _percent(share: float, digits: int = 2) -> str:
  return f"{share:.{digits}%}" if math.isfinite(share) else "unknown"


def _number(value: float, digits: int = 0) -> str:
  return f"{value:,.{digits}f}" if math.isfinite(value) else "unknown"


def _count(number: int, noun: str) -> str:
  """Returns e.g. "1 step" or "2 steps"."""
  return f"{number:,} {noun}{'s' * (number != 1)}"


def _tiles(report: report_lib.Report) -> list[tuple[str, str]]:
  """Returns the values and names of the main metrics."""
  final = report.final
  extra = [
    (_percent(value), _METRIC_NAMES.get(name, name))
    for name, value in report.verdict.metrics.items()
    if name in ("valid_accuracy", "pass@1", "pass@2")
  ]
  return [
    (_percent(final["exact_accuracy"]), "exact accuracy"),
    *extra,
    (_percent(final["cell_accuracy"]), "cell accuracy"),
    (_number(final["steps"], 2), "mean steps"),
    (_number(report.num_puzzles), "puzzles"),
  ]


def _metrics_table(
  config: config_lib.Config, report: report_lib.Report
) -> list[dict[str, Any]]:
  """Returns the metrics of each row of the accuracy table."""
  rows = []
  for number in report.shown(config.eval.report_steps):
    metrics = report.after(number)
    if not math.isfinite(metrics["exact_accuracy"]):
      metrics["answer_loss"] = math.nan  # a sum over no cell, not a loss of 0
    rows.append({"number": number, **metrics})
  return rows


def _accuracy_chart(report: report_lib.Report) -> report_images.Chart | None:
  exact = report.means["exact_accuracy"]
  if len(report.numbers) < 2 or not np.isfinite(exact).all():
    return None
  counted = "rollouts" if report.axis == "rollouts" else "supervision steps"
  return report_images.chart(
    lambda theme: plots.accuracy(report, theme),
    alt=f"Curves of accuracy by number of {counted}: exact accuracy is"
    f" {exact[0]:.1%} at {report.numbers[0]} and {exact[-1]:.1%} at"
    f" {report.numbers[-1]}.",
    caption=f"Accuracy by number of {counted}",
  )


def _steps_chart(steps: np.ndarray) -> report_images.Chart | None:
  if len(np.unique(steps)) < 2:
    return None
  return report_images.chart(
    lambda theme: plots.steps_used(steps, theme),
    alt="Bar chart of puzzles by supervision steps used, from"
    f" {steps.min()} to {steps.max()}; the table lists the values.",
    caption="Puzzles by supervision steps used",
  )


def _attempts(
  pair: arc_tasks.Pair, result: voting.InputResult
) -> list[report_images.Figure]:
  """Draws a test input of ARC and the attempts at it, if there are any."""
  leaders = result.leaders[: voting.NUM_ATTEMPTS]
  if not leaders:
    return []
  trace = animation.AnswerTrace(
    look=kind.ARC_LOOK,
    question=arc_grids.encode(pair.input),
    answers=np.stack(
      [_encode(grid) for grid in result.attempts[: len(leaders)]]
    ),
    confidence=np.array([mean for _, mean in leaders]),
    solution=None if pair.output is None else arc_grids.encode(pair.output),
  )
  return report_images.figures(
    trace,
    titles=[
      f"attempt {place}, {_count(votes, 'vote')}"
      for place, (votes, _) in enumerate(leaders, 1)
    ],
  )


def _encode(grid: voting.Grid) -> np.ndarray:
  """Encodes a grid, possibly empty, as tokens, [900]."""
  shape = (len(grid), len(grid[0]) if grid else 0)
  return arc_grids.encode(np.array(grid, np.uint8).reshape(shape))


def _facts(
  workdir: str, trained: restore.Trained, run: experiment.Experiment
) -> Facts:
  weights = trained.weights
  device = jax.devices()[0]
  packages = ("jax", "flax", "numpy")
  return Facts(
    workdir=str(files.folder(workdir)),
    step=trained.step,
    checkpoint=str(trained.path),
    num_parameters=sum(leaf.size for leaf in jax.tree.leaves(weights.params)),
    # The table may be padded to divide evenly over the devices.
    table_shape=(run.sizes.num_puzzle_ids, weights.puzzle_table.shape[1]),
    device=f"{run.mesh.size} x {device.device_kind} ({device.platform})",
    versions={
      "trm_jax": trm_jax.__version__,
      **{name: importlib.metadata.version(name) for name in packages},
      "Python": platform.python_version(),
    },
  )


def _read_votes(
  run: experiment.Experiment, workdir: str, step: int
) -> list[TaskVotes]:
  """Reads the votes that the evaluation has just logged, if any."""
  if run.task.ballot is None:
    return []
  settings = run.config.eval
  folder = arc_evaluation.folder(
    workdir,
    step,
    tasks=settings.tasks,
    variants=settings.variants,
    solver=run.solving().label,
  )
  tasks = {task.name: task for task in run.task.ballot.tasks}
  text = (folder / arc_evaluation.LOG_FILE).read_text()
  return [
    TaskVotes(task=tasks[result.name], result=result)
    for result in _parse_log(text.splitlines()[1:])  # without the header
  ]


def _parse_log(lines: Iterable[str]) -> Iterable[voting.TaskResult]:
  for line in lines:
    yield from vote_log.Entry.from_json(json.loads(line)["content"]).results
