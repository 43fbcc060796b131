"""A data set through the solver: accuracy after each supervision step."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from trm_jax import config as config_lib
from trm_jax.core import eval_step, metrics, types
from trm_jax.data import loader
from trm_jax.data import task as task_lib
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.evaluation import report as report_lib
from trm_jax.evaluation import scorer
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import preemption, processes, restore
from trm_jax.runtime import program as program_lib

PROGRESS_SECONDS = 10.0

# What the entries of a report count, by the solver.
_AXES = {"fixed": "steps", "adaptive": "adaptive", "rollouts": "rollouts"}

Watch = Callable[[eval_step.Answers], None]


def evaluate(
  evaluate_batch: eval_step.EvaluateBatch,
  weights: types.Weights,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
  *,
  num_puzzles: int,
  judged_by: scorer.Judge,
  axis: str = "steps",
  numbers: tuple[int, ...] | None = None,
  stop: preemption.Stop | None = None,
  watch: Watch | None = None,
) -> report_lib.Report:
  """Evaluates weights on a data set, with progress.

  Args:
    evaluate_batch: of `evaluate_step`, jitted.
    weights: in training the averaged ones.
    batches: of this host, from the judge's first batch on, with a `mask` that
      is False for padding rows.
    mesh: of all devices.
    num_puzzles: of the whole data set, for the progress line.
    judged_by: sees the answers.
    axis: what the entries of the metrics are, as `Report.axis`.
    numbers: as `Report.numbers`; by default 1, 2, ...
    stop: asked before each batch, if given.
    watch: called with each batch's answers, if given.

  Returns:
    The report.

  Raises:
    Stopped: it is to end early; an ARC evaluation keeps its votes.
  """
  start = last_line = time.monotonic()
  totals = dict(judged_by.sums)
  done_before = int(totals["rows"][-1]) if totals else 0
  pending: tuple[int, eval_step.BatchResult] | None = None
  first: tuple[Mapping[str, np.ndarray], jax.Array] | None = None

  def collect(number, result):
    nonlocal last_line, totals
    sums = jax.device_get(result.sums)
    if judged_by.see(number, sums, result.last):
      totals = metrics.add(totals, sums)
    if watch:
      watch(result.last)
    now = time.monotonic()
    done = int(totals["rows"][-1])
    if done < num_puzzles and now - last_line > PROGRESS_SECONDS:
      last_line = now
      left = (now - start) * (num_puzzles - done) / max(done - done_before, 1)
      processes.note(
        f"  evaluated {done}/{num_puzzles} puzzles, {left:.0f} s left"
        f"{judged_by.progress()}"
      )

  for number, host_batch in enumerate(batches, judged_by.first_batch):
    if stop and stop.now(mesh):
      raise preemption.Stopped(f"{stop.reason} ended the evaluation")
    result = evaluate_batch(
      weights,
      mesh_lib.put_batch(host_batch, mesh),
      mesh_lib.put_rows(host_batch["mask"], mesh),
    )
    # One batch behind, so that the device computes while the host adds.
    if pending is not None:
      collect(*pending)
    pending = number, result
    first = first or (host_batch, result.answers)
  if pending is None or first is None:
    raise ValueError("the data set to evaluate has no batch")
  collect(*pending)
  num_entries = len(totals["rows"])
  return report_lib.Report(
    num_puzzles=int(totals["rows"][-1]),
    means=metrics.divide(totals),
    seconds=time.monotonic() - start,
    first_batch=first[0],
    first_answers=first[1],
    axis=axis,
    numbers=numbers or tuple(range(1, num_entries + 1)),
    verdict=judged_by.verdict(),
  )


class Evaluator:
  """Evaluates weights on a task's test puzzles, compiled once."""

  def __init__(
    self,
    program: program_lib.Program,
    task: task_lib.Task,
    workdir: str,
    learned_before: Sequence[str] = (),
    *,
    stop: preemption.Stop | None = None,
    watch: Watch | None = None,
  ):
    """Sets up the evaluation; warns on stderr of what its weights have seen.

    Args:
      program: of the run.
      task: of the run.
      workdir: where votes and submissions are written, if there are any.
      learned_before: marks of answers that the weights have seen beside those
        of the run's own training set; see `data.leaks`.
      stop: as for `evaluate`.
      watch: as for `evaluate`.
    """
    self._warnings = list(task.warnings)
    warning = task.leak([*task.learned, *learned_before])
    if warning and warning not in self._warnings:
      self._warnings.append(warning)
      processes.note(f"WARNING: {warning}")
    self._program = program
    self._task = task
    self._workdir = workdir
    self._stop = stop
    self._watch = watch
    self._puzzles = program.test_puzzles(task)
    self._batch_size = program.eval_batch_size(task)
    self._evaluate_batch = program.evaluate_batch()

  def __call__(self, weights: types.Weights, step: int) -> report_lib.Report:
    """Evaluates the weights of supervision step `step`."""
    judged_by = self._judge(weights, step)
    batches = loader.eval_batches(
      self._puzzles,
      batch_size=self._batch_size,
      shard=(jax.process_index(), jax.process_count()),
      first_batch=judged_by.first_batch,
    )
    settings = self._program.config.eval
    is_adaptive = settings.solver == "adaptive"
    report = evaluate(
      self._evaluate_batch,
      weights,
      batches,
      self._program.mesh,
      num_puzzles=self._puzzles.num_examples,
      judged_by=judged_by,
      axis=_AXES[settings.solver],
      numbers=(settings.supervision_steps,) if is_adaptive else None,
      stop=self._stop,
      watch=self._watch,
    )
    return report.warned(self._warnings)

  def _judge(self, weights: types.Weights, step: int) -> scorer.Judge:
    task = self._task
    if task.ballot is not None:
      return arc_evaluation.Election(
        self._program,
        task,
        self._puzzles,
        self._workdir,
        weights,
        step,
      )
    if task.rules is not None:
      return scorer.RulesJudge(task.rules.is_valid, task.rules.what)
    return scorer.NoJudge()


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """A checkpoint, and what was found about it."""

  program: program_lib.Program
  task: task_lib.Task
  trained: restore.Trained
  report: report_lib.Report


def restore_and_evaluate(
  config: config_lib.Config,
  workdir: str,
  stop: preemption.Stop | None = None,
  watch: Watch | None = None,
) -> Evaluation:
  """Evaluates a workdir's checkpoint on the settings' test puzzles.

  Args:
    config: `eval.checkpoint` says which; `model` must be the checkpoint's.
    workdir: of a training.
    stop: as for `evaluate`.
    watch: as for `evaluate`.

  Returns:
    What was found; the report is printed, too.

  Raises:
    UserError: no checkpoint, or one of another network.
    Stopped: as `evaluate`.
  """
  program, task = program_lib.load(config)
  program_lib.announce_task(task)
  trained = restore.averaged_weights(program, task, workdir)
  processes.tell(f"evaluating {trained.path}")
  evaluator = Evaluator(
    program, task, workdir, trained.learned, stop=stop, watch=watch
  )
  try:
    report = evaluator(trained.weights, trained.step)
  except preemption.Stopped as stopped:
    goes_on = "goes on with it" if task.ballot else "begins it anew"
    raise preemption.Stopped(
      f"{stopped}; the same command {goes_on}"
    ) from stopped
  processes.tell(
    f"{report_lib.format_head(report)}\n"
    + report_lib.format_report(report, config.eval.report_steps)
  )
  return Evaluation(program=program, task=task, trained=trained, report=report)


def evaluate_workdir(
  config: config_lib.Config,
  workdir: str,
  stop: preemption.Stop | None = None,
) -> report_lib.Report:
  """Returns the report alone; see `restore_and_evaluate`."""
  return restore_and_evaluate(config, workdir, stop).report
