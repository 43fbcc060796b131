"""One HTML file about an evaluation, which opens without server or network."""

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import files
from trm_jax.data import task as task_lib
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.evaluation import evaluate, vote_log, voting
from trm_jax.evaluation import report as report_lib
from trm_jax.inference import outputs
from trm_jax.runtime import metric_writer, preemption, processes, restore
from trm_jax.runtime import program as program_lib
from trm_jax.visualization import (
  exhibition,
  gallery,
  html_facts,
  html_numbers,
  html_parts,
  html_puzzles,
)

REPORT_FILE = "report.html"
_WITHOUT_NOISE = (
  "The steps are those of an attempt without noise that came to the answer."
)
# Of each kind are kept: of ARC's, many may be variants of one task.
_KEPT = 40


def write(
  config: config_lib.Config,
  workdir: str,
  output: str = "",
  stop: preemption.Stop | None = None,
) -> report_lib.Report:
  """Evaluates a workdir's checkpoint and writes a page about it.

  Args:
    config: as for `evaluate.restore_and_evaluate`.
    workdir: of a training.
    output: the file to write, in a folder that is there; by default report.html
      in the workdir.
    stop: as for `evaluate.evaluate`.

  Returns:
    The evaluation, which is printed, too.

  Raises:
    UserError: as for `evaluate.restore_and_evaluate`, or the file cannot be
      written; where it is clear by then, before any work is done.
    Stopped: it is to end early; nothing is written.
  """
  if jax.process_count() > 1:
    raise errors.UserError(
      "--mode=report is for a single process; the votes of an evaluation that"
      " several have made are used if config.eval is the same"
    )
  path = _place(workdir, output)
  seen = gallery.Gallery(keep=_KEPT)
  found = evaluate.restore_and_evaluate(config, workdir, stop, seen.see)
  program, task = found.program, found.task
  trained, report = found.trained, found.report
  kept = seen.seen
  page = assemble(
    config,
    report,
    _facts(workdir, trained, program),
    seen=kept,
    shown=exhibition.choose(
      program, task, trained, seen.exhibits, len(kept.steps)
    ),
    voted=_voted(program, task, workdir, trained.step),
    rows=metric_writer.read_metrics(workdir),
  )
  with files.writing(path) as file:
    # A name may have a byte in it that is no character.
    file.write(page.encode(errors="replace"))
  processes.tell(f"report: {path}")
  return report


def _place(workdir: str, output: str) -> epath.Path:
  """Returns where to write the page, checked before any work."""
  if not output:
    return files.folder(workdir) / REPORT_FILE
  if outputs.is_standard(output):
    raise errors.UserError(
      "--output is '-', but a report is not printed: name a file, or none for"
      f" {REPORT_FILE} in the workdir"
    )
  path = outputs.place_for(output, hint="name a file")
  return files.folder(path)


def assemble(
  config: config_lib.Config,
  report: report_lib.Report,
  facts: html_facts.Facts,
  *,
  seen: gallery.Seen,
  shown: exhibition.Exhibition,
  voted: Sequence[html_puzzles.Voted],
  rows: Sequence[Mapping[str, Any]],
) -> str:
  """Writes the page; sections of which nothing is known are left out.

  Args:
    config: of the evaluation.
    report: what it found.
    facts: what it was of.
    seen: the puzzles that were solved now.
    shown: some of them.
    voted: the tasks of ARC.
    rows: of metrics.jsonl.
  """
  num_puzzles = report.num_puzzles
  sections = [
    html_numbers.accuracy(config, report),
    html_numbers.belief(seen, num_puzzles),
  ]
  if len(set(seen.steps.tolist())) > 1:
    sections.append(html_numbers.steps_used(seen, num_puzzles))
  if shown.film is not None:
    sections.append(html_puzzles.film(shown.film))
  notes = html_numbers.coverage(len(seen.steps), num_puzzles)
  if report.axis == "rollouts":
    notes.append(html_parts.element("p", _WITHOUT_NOISE, class_="soft"))
  sections.append(html_puzzles.best_and_worst(shown.kinds, notes))
  if voted:
    sections.append(html_puzzles.votes(voted))
  sections += html_numbers.training(rows)
  sections.append(html_facts.evaluated(config, report, facts))
  return html_parts.page(
    f"{config.name}: evaluation of step {facts.step:,}",
    html_facts.head(config, report, facts),
    sections,
  )


def _facts(
  workdir: str, trained: restore.Trained, program: program_lib.Program
) -> html_facts.Facts:
  weights = trained.weights
  device = jax.devices()[0]
  packages = ("jax", "flax", "numpy")
  return html_facts.Facts(
    workdir=str(files.folder(workdir)),
    step=trained.step,
    checkpoint=str(trained.path),
    num_parameters=sum(leaf.size for leaf in jax.tree.leaves(weights.params)),
    # The table may have been padded to divide over the devices.
    table_shape=(program.sizes.num_puzzle_ids, weights.puzzle_table.shape[1]),
    device=f"{program.mesh.size} x {device.device_kind} ({device.platform})",
    versions={
      "trm_jax": trm_jax.__version__,
      **{name: importlib.metadata.version(name) for name in packages},
      "Python": platform.python_version(),
    },
  )


def _voted(
  program: program_lib.Program, task: task_lib.Task, workdir: str, step: int
) -> list[html_puzzles.Voted]:
  """Reads the votes that the evaluation has just counted, if any."""
  if task.ballot is None:
    return []
  settings = program.config.eval
  folder = arc_evaluation.folder(
    workdir,
    step,
    tasks=settings.tasks,
    variants=settings.variants,
    solver=program.solver_config().label,
  )
  tasks = {each.name: each for each in task.ballot.tasks}
  return [
    html_puzzles.Voted(task=tasks[result.name], result=result)
    for result in _read_votes(folder / arc_evaluation.LOG_FILE)
  ]


def _read_votes(path: epath.Path) -> list[voting.TaskResult]:
  """Returns all results of a log that is whole: `Election` has closed it."""
  _, *lines = path.read_text().splitlines()  # the first is the header
  entries = [
    vote_log.Entry.from_json(json.loads(line)["content"]) for line in lines
  ]
  return [result for entry in entries for result in entry.results]
