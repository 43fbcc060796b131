"""Evaluation of weights on a task's test puzzles."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
from jax.sharding import Mesh

from trm_jax import config as config_lib
from trm_jax.core import eval_step, metrics, types
from trm_jax.data import loader, tasks
from trm_jax.data import task as task_lib
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.evaluation import attempts as attempts_lib
from trm_jax.evaluation import report as report_lib
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import preemption, processes, restore
from trm_jax.runtime import program as program_lib
from trm_jax.terminal import progress

Observe = Callable[[eval_step.Answers], None]


def solve_batches(
  evaluate_batch: eval_step.EvaluateBatch,
  weights: types.Weights,
  batches: Iterable[loader.Batch],
  mesh: Mesh,
) -> Iterator[tuple[loader.Batch, eval_step.BatchResult]]:
  """Yields each batch of this process with the result over all processes.

  The next batch is dispatched first, so that the devices compute while the host
  handles a result. Arguments as for `evaluate`.
  """
  pending: tuple[loader.Batch, eval_step.BatchResult] | None = None
  for batch in batches:
    result = evaluate_batch(
      weights,
      mesh_lib.put_batch(batch, mesh),
      mesh_lib.put_rows(batch["mask"], mesh),
    )
    if pending is not None:
      yield pending
    pending = batch, result
  if pending is not None:
    yield pending


def evaluate(
  evaluate_batch: eval_step.EvaluateBatch,
  weights: types.Weights,
  batches: Iterable[loader.Batch],
  mesh: Mesh,
  *,
  num_puzzles: int,
  scorer: report_lib.Scorer,
  stop: preemption.PreemptionSignal | None = None,
  observe: Observe | None = None,
) -> report_lib.EvalResult:
  """Evaluates weights on a data set and logs progress.

  The axis of the result is 'steps'.

  Args:
    evaluate_batch: As returned by `Program.evaluate_batch`.
    weights: The weights; in training the averaged ones.
    batches: As returned by `loader.eval_batches`, from the scorer's first one.
    mesh: All devices.
    num_puzzles: Number of puzzles in the data set, for the progress line.
    scorer: Adds up the metrics and scores the answers.
    stop: Asked before each batch.
    observe: Called with the answers to each batch.

  Raises:
    Stopped: it was interrupted; an ARC evaluation keeps its votes.
  """
  start = time.monotonic()
  done = int(scorer.sums["rows"][-1]) if scorer.sums else 0
  first: tuple[loader.Batch, jax.Array] | None = None
  if stop:
    batches = _until_stopped(batches, stop, mesh)
  solved = solve_batches(evaluate_batch, weights, batches, mesh)
  with progress.Progress(
    "puzzles", num_puzzles, done=done, active=processes.is_first()
  ) as shown:
    for number, (batch, result) in enumerate(solved, scorer.first_batch):
      first = first or (batch, result.answers)
      scorer.observe(number, jax.device_get(result.sums), result.last)
      if observe:
        observe(result.last)
      shown.update(int(scorer.sums["rows"][-1]), scorer.progress())
  if first is None:
    raise ValueError("the data set to evaluate has no batch")
  rows = scorer.sums["rows"]
  return report_lib.EvalResult(
    num_puzzles=int(rows[-1]),
    means=metrics.divide(scorer.sums),
    seconds=time.monotonic() - start,
    first_batch=first[0],
    first_answers=first[1],
    axis="steps",
    numbers=tuple(range(1, len(rows) + 1)),
    summary=scorer.summary(),
  )


def _until_stopped(
  batches: Iterable[loader.Batch], stop: preemption.PreemptionSignal, mesh: Mesh
) -> Iterator[loader.Batch]:
  for batch in batches:
    if stop.now(mesh):
      raise preemption.Preempted(f"{stop.reason} ended the evaluation")
    yield batch


class Evaluator:
  """Evaluates weights on a task's test puzzles; compiles once."""

  def __init__(
    self,
    program: program_lib.Program,
    task: task_lib.Task,
    workdir: str,
    learned_before: Sequence[str] = (),
    *,
    stop: preemption.PreemptionSignal | None = None,
    observe: Observe | None = None,
  ):
    """Sets up the evaluation and warns on stderr of contamination.

    Args:
      program: Program of the run.
      task: Task of the run.
      workdir: Folder for votes and submissions, if there are any.
      learned_before: Marks of the answers seen by an earlier run that the
        weights come from; see `data.arc.leakage`.
      stop: As for `evaluate`.
      observe: As for `evaluate`.
    """
    self._task = task
    self._program = program
    self._puzzles = program.test_puzzles(task)
    self._batch_size = program.eval_batch_size(task)
    self._evaluate_batch = program.evaluate_batch(task.look)
    self._workdir = workdir
    self._stop = stop
    self._observe = observe
    self._warnings = list(self._task.warnings)
    warning = self._task.leak([*self._task.learned, *learned_before])
    if warning and warning not in self._warnings:
      self._warnings.append(warning)
      processes.log_once(f"WARNING: {warning}")

  def __call__(
    self, weights: types.Weights, step: int
  ) -> report_lib.EvalResult:
    """Evaluates the weights after supervision step `step` of training."""
    scorer = self._scorer(weights, step)
    batches = loader.eval_batches(
      self._puzzles,
      batch_size=self._batch_size,
      shard=(jax.process_index(), jax.process_count()),
      first_batch=scorer.first_batch,
    )
    result = evaluate(
      self._evaluate_batch,
      weights,
      batches,
      self._program.mesh,
      num_puzzles=self._puzzles.num_examples,
      scorer=scorer,
      stop=self._stop,
      observe=self._observe,
    ).warned(self._warnings)
    settings = self._program.config.eval
    if settings.solver == "fixed":
      return result
    numbers = result.numbers
    table = None
    if settings.solver == "adaptive":
      numbers = (settings.supervision_steps,)
    else:
      numbers = numbers if len(numbers) > 1 else (settings.rollouts,)
      table = attempts_lib.AttemptTable.of(scorer.sums, self._program.config)
    return dataclasses.replace(
      result, axis=settings.solver, numbers=numbers, attempts=table
    )

  def _scorer(self, weights: types.Weights, step: int) -> report_lib.Scorer:
    if self._task.augmentation_table is not None:
      config, solver = self._program.config, self._program.solver_config()
      return arc_evaluation.ArcEvaluator(
        self._task.augmentation_table,
        self._puzzles,
        weights,
        config=config,
        solver=solver,
        batch_size=self._batch_size,
        place=arc_evaluation.folder(
          self._workdir,
          step,
          max_tasks=config.eval.max_tasks,
          max_augmentations=config.eval.max_augmentations,
          solver=solver.label,
        ),
      )
    rules = self._task.rules
    if self._program.config.eval.solver == "rollouts" and rules is None:
      rules = tasks.rules(self._program.config.data)
    if rules is not None:
      return report_lib.RulesScorer(rules)
    return report_lib.Scorer()


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """A checkpoint and its evaluation.

  Attributes:
    program: Program of the evaluation.
    task: Task of the evaluation.
    trained: The weights and where they come from.
    report: The result.
  """

  program: program_lib.Program
  task: task_lib.Task
  trained: restore.RestoredWeights
  report: report_lib.EvalResult


def restore_and_evaluate(
  config: config_lib.Config,
  workdir: str,
  stop: preemption.PreemptionSignal | None = None,
  observe: Observe | None = None,
) -> Evaluation:
  """Evaluates a workdir's checkpoint and prints the result.

  Args:
    config: `eval.checkpoint` selects the checkpoint; `model` must match it.
    workdir: Folder of a training run.
    stop: As for `evaluate`.
    observe: As for `evaluate`.

  Raises:
    UserError: there is no checkpoint, or it is of another network.
    Stopped: as `evaluate`.
  """
  program, task = program_lib.load(config)
  program_lib.announce_task(task)
  trained = restore.ema_weights(program, task, workdir)
  processes.print_once(f"evaluating {trained.path}")
  evaluator = Evaluator(
    program, task, workdir, trained.learned, stop=stop, observe=observe
  )
  try:
    result = evaluator(trained.weights, trained.step)
  except preemption.Preempted as stopped:
    does = "resumes it" if task.augmentation_table else "begins it anew"
    raise preemption.Preempted(
      f"{stopped}; the same command {does}"
    ) from stopped
  processes.print_once(
    f"{report_lib.format_head(result)}\n"
    + report_lib.format_report(result, config.eval.report_steps)
  )
  processes.log_once(
    f"next: --mode=report --workdir={workdir} draws this evaluation,"
    " --mode=predict solves puzzles of your own"
  )
  return Evaluation(program=program, task=task, trained=trained, report=result)


def evaluate_workdir(
  config: config_lib.Config,
  workdir: str,
  stop: preemption.PreemptionSignal | None = None,
) -> report_lib.EvalResult:
  """Returns only the result of `restore_and_evaluate`."""
  return restore_and_evaluate(config, workdir, stop).report
