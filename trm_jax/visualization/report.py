"""Writes one HTML file about an evaluation; it needs no server or network.

The page is the template report.html.jinja, which escapes all that it is given.
"""

import base64
import functools
import importlib.metadata
import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jinja2
import numpy as np
from etils import epath
from PIL import Image

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import files
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import load as arc_load
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import evaluate, voting
from trm_jax.evaluation import report as report_lib
from trm_jax.inference import outputs
from trm_jax.runtime import metric_writer, preemption, processes, restore
from trm_jax.runtime import program as program_lib
from trm_jax.visualization import (
  animation,
  calibration,
  grid_image,
  plots,
  report_puzzles,
)

REPORT_FILE = "report.html"
_WARNING = "WARNING: "  # begins such a line; see `report.EvalResult.warned`
_MAX_STEPS = 5  # answers shown per puzzle
_OUTCOMES = (
  "solved within two attempts",
  "partly solved",
  "correct answer outvoted",
  "no vote for the correct answer",
  "no known solution",
)

TaskVotes = tuple[arc_tasks.ArcTask, voting.TaskResult]


def write(
  config: config_lib.Config,
  workdir: str,
  output: str = "",
  stop: preemption.PreemptionSignal | None = None,
) -> report_lib.EvalResult:
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
  files.check_writable(path)
  collector = report_puzzles.Collector()
  found = evaluate.restore_and_evaluate(
    config, workdir, stop, collector.observe
  )
  program, task, trained = found.program, found.task, found.trained
  page = render(
    config,
    found.report,
    workdir=str(files.folder(workdir)),
    step=trained.step,
    setup=_setup(trained, program),
    stats=collector.stats,
    puzzles=report_puzzles.select(program, task, trained, collector),
    votes=_votes(task, found.report),
    rows=metric_writer.read_metrics(workdir),
  )
  with files.writing(path) as file:
    # A name from the command line may hold a byte that is not UTF-8.
    file.write(page.encode(errors="replace"))
  processes.print_once(f"report: {path}")
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
  report: report_lib.EvalResult,
  *,
  workdir: str,
  step: int,
  setup: Mapping[str, str],
  stats: calibration.AnswerStats,
  puzzles: report_puzzles.Selection,
  votes: Sequence[TaskVotes],
  rows: Sequence[Mapping[str, Any]],
) -> str:
  """Renders the page; sections without content are left out.

  Args:
    config: Config of the evaluation.
    report: Its metrics.
    workdir: Folder of the training.
    step: Training step of the weights.
    setup: Name -> value, e.g. of the device and the versions.
    stats: Results of the puzzles that were solved in this process.
    puzzles: Some of these puzzles.
    votes: The tasks of ARC.
    rows: Rows of metrics.jsonl.
  """
  lines = report.summary.lines
  rated = stats.rated
  bins = calibration.reliability(rated)
  outcomes: dict[str, list[TaskVotes]] = {name: [] for name in _OUTCOMES}
  for task, result in votes:
    outcomes[_outcome(result)].append((task, result))
  return _template().render(
    config=config,
    settings=config_lib.flatten(config),
    report=report,
    workdir=workdir,
    step=step,
    setup=setup,
    warnings=[line for line in lines if line.startswith(_WARNING)],
    lines=[line for line in lines if not line.startswith(_WARNING)],
    stats=stats,
    rated=rated,
    threshold=calibration.THRESHOLD,
    confusion=calibration.confusion(rated),
    bins=bins,
    step_counts=dict(
      zip(*np.unique(stats.steps, return_counts=True), strict=True)
    ),
    median_steps=math.ceil(np.median(stats.steps)),
    puzzles=puzzles,
    outcomes={name: some for name, some in outcomes.items() if some},
    plot_accuracy=functools.partial(plots.accuracy, report),
    plot_attempts=functools.partial(plots.attempts, report.attempts),
    plot_reliability=functools.partial(plots.reliability, bins),
    plot_steps=functools.partial(plots.steps_used, stats.steps),
    training_plots={
      what: functools.partial(plots.training, rows, what)
      for what in ("loss", "accuracy")
      if plots.has_curves(rows, what)
    },
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
    "percent": lambda share, digits=2: _known(share, f".{digits}%"),
    "number": lambda value, digits=0: _known(value, f",.{digits}f"),
    "whole_percent": grid_image.percent,
    "count": _count,
    "sentence": lambda text: text[:1].upper() + text[1:],
    "png": animation.png,
    "data_uri": _data_uri,
  }
  environment.tests["finite"] = math.isfinite
  environment.globals |= {
    "LIGHT": plots.LIGHT,
    "DARK": plots.DARK,
    "panels": _panels,
    "attempts": _attempts,
    "draw_key_steps": _draw_key_steps,
    "gif": animation.gif,
    "legend": animation.legend,
    "describe": animation.describe,
  }
  return environment.get_template(REPORT_FILE + ".jinja")


def _known(value: float, style: str) -> str:
  return format(value, style) if math.isfinite(value) else "unknown"


def _count(number: int, noun: str) -> str:
  """Returns e.g. "1 step" or "2 steps"."""
  return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _data_uri(content: bytes, media_type: str) -> str:
  return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _draw_key_steps(trace: animation.AnswerTrace) -> Image.Image:
  return animation.draw_steps(trace, trace.key_steps(_MAX_STEPS))


def _panels(
  trace: animation.AnswerTrace, *, titles: Sequence[str] | None = None
) -> list[tuple[grid_image.Panel, str]]:
  """Draws the question, answers and any known solution of a puzzle.

  Args:
    trace: The puzzle.
    titles: Titles of all its answers; None for the key steps, each compared
      with the one before.

  Returns:
    Panels, each with its alt text.
  """
  steps = trace.key_steps(_MAX_STEPS)
  if titles is not None:
    steps = tuple(range(1, len(titles) + 1))
  question, answers, solution = animation.draw_panels(
    trace, steps, titles=titles, compare=titles is None
  )
  alts = [
    f"{answer.title}: {animation.describe(trace, step)}"
    for step, answer in zip(steps, answers, strict=True)
  ]
  return [
    (question, question.title),
    *zip(answers, alts, strict=True),
    *([(solution, solution.title)] if solution else []),
  ]


def _attempts(
  pair: arc_tasks.Pair, result: voting.InputResult
) -> list[tuple[grid_image.Panel, str]]:
  """Draws a test input of ARC and the attempts at it, if there are any."""
  leaders = result.leaders[: voting.NUM_ATTEMPTS]
  if not leaders:
    return []
  grids = [
    # A grid may have no cells.
    np.array(grid, np.uint8).reshape(len(grid), len(grid[0]) if grid else 0)
    for grid in result.attempts[: len(leaders)]
  ]
  trace = animation.AnswerTrace(
    look=arc_load.LOOK,
    question=arc_grids.encode(pair.input),
    answers=np.stack([arc_grids.encode(grid) for grid in grids]),
    confidence=np.array([mean for _, mean in leaders]),
    solution=None if pair.output is None else arc_grids.encode(pair.output),
  )
  return _panels(
    trace,
    titles=[
      f"attempt {place}, {_count(votes, 'vote')}"
      for place, (votes, _) in enumerate(leaders, 1)
    ],
  )


def _outcome(result: voting.TaskResult) -> str:
  """Returns one of `_OUTCOMES`."""
  solved, partly, outvoted, none, unknown = _OUTCOMES
  if not result.known:
    return unknown
  share = result.solved_within(voting.NUM_ATTEMPTS)
  if share > 0:
    return solved if share == 1 else partly
  has_votes = any(one.rank is not None for one in result.inputs)
  return outvoted if has_votes else none


def _setup(
  trained: restore.RestoredWeights, program: program_lib.Program
) -> dict[str, str]:
  weights = trained.weights
  num_parameters = sum(leaf.size for leaf in jax.tree.leaves(weights.params))
  device = jax.devices()[0]
  versions = {"trm_jax": trm_jax.__version__}
  for name in ("jax", "flax", "numpy"):
    versions[name] = importlib.metadata.version(name)
  versions["Python"] = platform.python_version()
  # The table may be padded to divide evenly over the devices.
  shape = (program.sizes.num_puzzle_ids, weights.puzzle_table.shape[1])
  return {
    "checkpoint": str(trained.path),
    "parameters": f"{num_parameters:,}",
    "puzzle embeddings": f"{shape[0]:,} x {shape[1]}",
    "device": f"{program.mesh.size} x {device.device_kind} ({device.platform})",
    "versions": ", ".join(f"{name} {v}" for name, v in versions.items()),
  }


def _votes(
  task: task_lib.Task, report: report_lib.EvalResult
) -> list[TaskVotes]:
  """Returns the tasks of ARC with the votes of the evaluation, if any."""
  table = task.augmentation_table
  tasks = {each.name: each for each in table.tasks} if table else {}
  return [
    (tasks[result.name], result) for result in report.summary.task_results
  ]
