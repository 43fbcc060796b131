"""The training loop: restore, evaluate, save, next batch, step, log."""

import dataclasses
import functools
import math
import shutil
import signal

import jax
from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import (
  puzzle_embedding,
  train_state,
  types,
)
from trm_jax.data import files, identifiers
from trm_jax.data import task as task_lib
from trm_jax.evaluation import evaluate
from trm_jax.evaluation import report as report_lib
from trm_jax.runtime import (
  checkpoint_metadata,
  mesh,
  metric_writer,
  preemption,
  processes,
  restore,
  trackers,
  train_log,
  weights_folder,
)
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import program as program_lib
from trm_jax.terminal import interrupts


def train(
  config: config_lib.Config,
  workdir: str,
  stop: preemption.PreemptionSignal | None = None,
) -> report_lib.EvalResult:
  """Trains to `config.train.num_steps` steps, from where the workdir stands.

  Args:
    config: the experiment.
    workdir: folder of checkpoints, metrics and pictures; made if missing. All
      hosts must see it.
    stop: says when to end early.

  Returns:
    The evaluation after the last step.

  Raises:
    UserError: something only the user can put right, or a loss that is no
      longer finite.
    Stopped: it is to end early, and everything is saved.
  """
  weights_folder.refuse(workdir)
  program, task = program_lib.load(config)
  program_lib.check_state_fits(program)
  program_lib.announce_task(task)
  start = _start(program, task, workdir)
  processes.check_shared(files.folder(workdir))
  with checkpoints_lib.Checkpoints(workdir, config.checkpoint) as checkpoints:
    stop = stop or preemption.PreemptionSignal()
    loop = _Loop(program, task, workdir, checkpoints, start, stop)
    try:
      return loop.run()
    finally:
      interrupts.end_at_once()


def _start(
  program: program_lib.Program, task: task_lib.Task, workdir: str
) -> restore.RestoredWeights | None:
  """Reads the weights that a new run is to start with, if not new ones.

  Before the workdir is made: a mistake leaves no folder behind.
  """
  config = program.config
  other, adds = config.checkpoint.init_from, config.data.new_rows
  if not other and not adds:
    return None
  if processes.from_first(lambda: checkpoints_lib.has_checkpoint(workdir)):
    processes.print_once(
      f"{workdir} has a checkpoint to go on from; config.checkpoint.init_from"
      " has no effect"
    )
    return None
  if not other:
    raise errors.UserError(
      f"config.data.new_rows {adds!r} adds rows to a trained table: name the"
      " workdir of its run by config.checkpoint.init_from"
    )
  try:
    trained = restore.ema_weights(program, task, other, may_grow=bool(adds))
  except errors.UserError as error:
    raise errors.UserError(f"config.checkpoint.init_from: {error}") from error
  processes.print_once(f"starting from {trained.path}")
  return _with_new_rows(trained, task, adds) if adds else trained


def _with_new_rows(
  trained: restore.RestoredWeights, task: task_lib.Task, how: str
) -> restore.RestoredWeights:
  """Begins the rows of the puzzle table that the checkpoint does not have."""
  num_rows = task.num_puzzle_ids
  if trained.num_rows == num_rows:
    raise errors.UserError(
      f"config.data.new_rows {how!r}: there is nothing to add, all tasks of the"
      f" data have rows in the puzzle table of {trained.path}; to train those,"
      " set config.data.new_rows to ''"
    )
  processes.print_once(
    f"{num_rows - trained.num_rows:,} new rows after the puzzle table's"
    f" {trained.num_rows:,} begin as"
    f" {'the mean of those' if how == 'mean' else how}"
  )
  weights = types.Weights(
    params=trained.weights.params,
    puzzle_table=puzzle_embedding.begin(
      trained.weights.puzzle_table,
      first=trained.num_rows,
      num_rows=num_rows,
      how=how,
    ),
    initial_latents=trained.weights.initial_latents,
  )
  return dataclasses.replace(trained, weights=weights)


class _Loop:
  """One run from its first to its last step."""

  def __init__(
    self,
    program: program_lib.Program,
    task: task_lib.Task,
    workdir: str,
    checkpoints: checkpoints_lib.Checkpoints,
    start: restore.RestoredWeights | None,
    stop: preemption.PreemptionSignal,
  ):
    self._program = program
    self._task = task
    self._workdir = workdir
    self._checkpoints = checkpoints
    self._stop = stop
    self._fingerprint = task.train.fingerprint()
    self._learned_before = start.learned if start else ()
    self._state, self._first_step = self._first_state(start)
    self._writer = metric_writer.Writer(
      workdir,
      first_step=self._first_step,
      is_finished=self._first_step >= program.config.train.num_steps,
      active=processes.is_first(),
      config=program.config,
    )
    self._has_first_row = processes.from_first(
      lambda: metric_writer.has_row(workdir, self._first_step, "eval")
    )
    self._evaluator = evaluate.Evaluator(
      program, task, workdir, self._learned_before, stop=stop
    )
    self._log = train_log.TrainLog(
      program.config, self._writer, self._last_good
    )
    tested = metric_writer.last_row(workdir, "eval")
    if tested is not None:
      self._log.note_test(tested["step"], tested)

  def run(self) -> report_lib.EvalResult:
    config = self._program.config
    num_steps = max(config.train.num_steps, self._first_step)
    self._announce()
    train_step_fn = self._program.train_step()
    batches = self._program.train_batches(
      self._task, first_batch=self._first_step
    )
    report = None
    for step in range(self._first_step, num_steps + 1):
      is_new, is_last = step > self._first_step, step == num_steps
      # The run before this one may have been killed while it evaluated.
      lacks_row = is_new or not self._has_first_row
      evaluates = is_last or (
        step > 0 and lacks_row and _is_due(step, config.eval.every_steps)
      )
      stops = not is_last and self._stop.now(self._program.mesh)
      saves = is_new and (
        evaluates or stops or _is_due(step, config.checkpoint.every_steps)
      )
      if evaluates or saves:
        self._log.flush()  # raises before a bad state is kept
      if is_last or stops:
        self._log.write_rest()
      if saves:
        self._save(step)
      if stops:
        self._checkpoints.wait()
        where = self._checkpoints.path(step) if step else "nothing"
        raise preemption.Preempted(
          f"{self._stop.reason} ended the run after step {step} of {num_steps};"
          f" saved {where}; the same command goes on from there"
        )
      if evaluates:
        report = self._evaluate(step, lacks_row=lacks_row)
      if is_last:
        break
      batch = mesh.put_batch(next(batches), self._program.mesh)
      self._state, sums = train_step_fn(self._state, batch)
      self._log.add(step + 1, sums)
      if step == self._first_step:  # from now on there is something to lose
        interrupts.save_first(lambda: self._stop.request(signal.SIGINT))
    assert report is not None  # the last step is always evaluated
    self._finish(report, num_steps)
    return report

  def _first_state(
    self, start: restore.RestoredWeights | None
  ) -> tuple[train_state.TrainState, int]:
    """The newest whole checkpoint's state, or a new one."""

    def read(step):
      saved = self._checkpoints.metadata(step)
      restore.check_rows(saved, self._program.config, self._task, self._workdir)
      checkpoint_metadata.check_training_fits(
        saved, self._program.config, self._task, self._fingerprint
      )
      return saved, self._checkpoints.restore(
        step, self._program.abstract_state()
      )

    found = restore.newest(self._checkpoints, read)
    if found is None:
      self._write_identifiers()
      state = mesh.create_state(self._program.init, self._program.mesh)
      return state.with_weights(start.weights) if start else state, 0
    saved, state = found
    warning = checkpoint_metadata.other_random_settings(saved)
    if warning:
      processes.log_once(f"WARNING: {warning}")
    self._learned_before = tuple(saved.learned)
    return state, saved.next_batch

  def _write_identifiers(self) -> None:
    """Writes beside the checkpoints what the puzzle table's rows are."""
    path = restore.identifiers_path(self._workdir)
    names = self._task.identifiers
    processes.from_first(lambda: identifiers.write(path, names))

  def _announce(self) -> None:
    program, task, line = self._program, self._task, self._writer.line
    count = sum(p.size for p in jax.tree.leaves(self._state.params))
    line(
      f"{program.config.name}: {count:,} parameters, puzzle table"
      f" {task.num_puzzle_ids:,} x {program.config.model.puzzle_embed_dim},"
      f" {task.train.num_examples:,} training and"
      f" {task.test.num_examples:,} test puzzles,"
      f" {program.mesh.size} {jax.devices()[0].platform} device(s)"
    )
    if self._first_step:
      line(
        f"resuming from step {self._first_step}"
        f" ({self._checkpoints.path(self._first_step)})"
      )
    if self._first_step >= program.config.train.num_steps:
      line(
        f"Training is already complete ({self._first_step} of"
        f" {program.config.train.num_steps} steps)."
      )

  def _last_good(self) -> str:
    self._checkpoints.wait()  # for one that is still being written
    return self._checkpoints.last_good()

  def _evaluate(self, step: int, *, lacks_row: bool) -> report_lib.EvalResult:
    try:
      report = self._evaluator(self._state.ema_weights, step)
    except preemption.Preempted as stopped:
      raise preemption.Preempted(
        f"{stopped} of step {step}; {self._last_good()}; the same command goes"
        " on from there"
      ) from stopped
    if not math.isfinite(report.final["loss"]):
      raise errors.UserError(
        f"the evaluation's loss is {report.final['loss']} at step {step};"
        f" {self._last_good()}"
      )
    if lacks_row:
      if step > 0:
        self._checkpoints.note_score(step, report.score)
      self._writer.scalars(step, "eval", report.final)
    self._log.note_test(step, report.final)
    self._writer.line(
      f"step {step}: evaluation of {report_lib.format_head(report)}\n"
      + report_lib.format_report(report, self._program.config.eval.report_steps)
    )
    self._log.restart_clock()
    return report

  def _save(self, step: int) -> None:
    self._checkpoints.save(
      self._state,
      checkpoint_metadata.make_metadata(
        self._program.config,
        self._task,
        self._fingerprint,
        step,
        learned_before=self._learned_before,
      ),
      step=step,
    )

  def _finish(self, report: report_lib.EvalResult, step: int) -> None:
    self._checkpoints.wait()
    if interrupts.end_at_once():  # too late to be asked by the loop
      interrupts.end()
    line = self._writer.line
    folder = files.folder(self._workdir)
    latest = self._checkpoints.latest_step
    if latest is not None:
      line(f"checkpoint: {self._checkpoints.path(latest)}")
      best = self._checkpoints.best_step
      if best != latest and best is not None:
        line(f"best evaluation: {self._checkpoints.path(best)}")
    line(f"metrics: {folder / metric_writer.METRICS_FILE}")
    events = folder / trackers.TENSORBOARD_FOLDER
    if events.exists():
      line(
        f"TensorBoard: pip install tensorboard; tensorboard --logdir {events}"
      )
    self._writer.close()
    self._writer.result(step, report.final)
    if processes.is_first():
      self._draw(report)

  def _draw(self, report: report_lib.EvalResult) -> None:
    """Draws curves and an example; the run is finished if that fails, too."""
    folder = files.folder(self._workdir)
    for name, save in (
      ("curves", self._save_curves),
      ("example", functools.partial(self._save_example, report)),
    ):
      path = folder / f"{name}.png"
      try:
        save(path)
      except Exception as error:  # Matplotlib raises many kinds
        why = errors.reason(error)
        self._writer.line(f"WARNING: cannot draw {path}: {why}")
      else:
        self._writer.line(f"{name}: {path}")

  def _save_curves(self, path: epath.Path) -> None:
    # Imported late: Matplotlib is a fifth of all imports, and no step needs it.
    from trm_jax.visualization import plots

    plots.save_curves(metric_writer.read_metrics(self._workdir), path)

  def _save_example(
    self, report: report_lib.EvalResult, path: epath.Path
  ) -> None:
    from trm_jax.visualization import animation

    example = animation.pick(
      self._task.look,
      report.first_batch,
      mesh.local_rows(report.first_answers, axis=1),
      report.shown(self._program.config.eval.report_steps),
      axis=report.axis,
      numbers=report.numbers,
    )
    text = example.text(shutil.get_terminal_size().columns)
    if text:
      self._writer.line(text)
    with files.writing(path) as file:
      file.write(example.picture())


def _is_due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0
