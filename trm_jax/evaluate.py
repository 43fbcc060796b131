"""A data set through the solver: accuracy after each supervision step."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from trm_jax import config as config_lib
from trm_jax import (
  election,
  experiment,
  judge,
  losses,
  metrics,
  restore,
  sharding,
  solve,
  types,
)
from trm_jax import report as report_lib
from trm_jax.data import loader
from trm_jax.models import trm

PROGRESS_SECONDS = 10.0


@flax.struct.dataclass
class BatchResult:
  """What was answered after each of K supervision steps."""

  sums: metrics.Sums  # [K] each
  answers: jax.Array  # [K, B, L] int32 tokens
  last: judge.Answers  # after the last step


EvaluateBatch = Callable[[types.Weights, types.Batch, jax.Array], BatchResult]


def make_evaluate_batch(
  model: trm.TinyRecursiveModel,
  *,
  supervision_steps: int,
  answer_loss: str,
  halt_loss_weight: float,
) -> EvaluateBatch:
  """Returns a pure function that solves a batch and compares it.

  Its arguments: the weights, a batch, and [B] bool that is False for padding
  rows. Every puzzle has all steps.
  """

  def evaluate_batch(weights, batch, rows):
    def observe(output, number):
      row_losses = losses.supervision_loss(
        output,
        batch.labels,
        answer_loss=answer_loss,
        halt_loss_weight=halt_loss_weight,
      )
      sums = metrics.row_sums(
        output,
        batch.labels,
        row_losses,
        steps=jnp.full(rows.shape, number),
        counted=rows,
        rows=rows,
      )
      answers = jnp.argmax(output.logits, axis=-1).astype(jnp.int32)
      return sums, answers, output.halt_logits

    sums, answers, halt_logits = solve.solve_fixed(
      model,
      weights,
      batch.inputs,
      batch.puzzle_ids,
      supervision_steps=supervision_steps,
      observe=observe,
    )
    last = judge.Answers(
      questions=batch.inputs.astype(jnp.uint8),
      answers=answers[-1].astype(jnp.uint8),
      halt_logits=halt_logits[-1],
      rows=rows,
    )
    return BatchResult(sums=sums, answers=answers, last=last)

  return evaluate_batch


def result_shardings(mesh: Mesh) -> BatchResult:
  """Says where a result belongs: only the answers' history is split."""
  everywhere: Any = sharding.replicated(mesh)
  by_row: Any = sharding.split(mesh, axis=1)
  return BatchResult(sums=everywhere, answers=by_row, last=everywhere)


def evaluate(
  evaluate_batch: EvaluateBatch,
  weights: types.Weights,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
  *,
  num_puzzles: int,
  judged_by: judge.Judge,
) -> report_lib.Report:
  """Evaluates weights on a data set, with progress.

  Args:
    evaluate_batch: of `make_evaluate_batch`, jitted.
    weights: in training the averaged ones.
    batches: of this host, from the judge's first batch on, with a `mask` that
      is False for padding rows.
    mesh: of all devices.
    num_puzzles: of the whole data set, for the progress line.
    judged_by: sees the answers.

  Returns:
    The report.
  """
  start = last_line = time.monotonic()
  totals = dict(judged_by.sums)
  done_before = int(totals["rows"][-1]) if totals else 0
  pending: tuple[int, BatchResult] | None = None
  first: tuple[Mapping[str, np.ndarray], jax.Array] | None = None

  def collect(number, result):
    nonlocal last_line, totals
    sums = jax.device_get(result.sums)
    if judged_by.see(number, sums, result.last):
      totals = metrics.add(totals, sums)
    now = time.monotonic()
    done = int(totals["rows"][-1])
    if done < num_puzzles and now - last_line > PROGRESS_SECONDS:
      last_line = now
      left = (now - start) * (num_puzzles - done) / max(done - done_before, 1)
      print(
        f"  evaluated {done}/{num_puzzles} puzzles, {left:.0f} s left"
        f"{judged_by.progress()}",
        file=sys.stderr,
        flush=True,
      )

  for number, host_batch in enumerate(batches, judged_by.first_batch):
    result = evaluate_batch(
      weights,
      sharding.put_batch(host_batch, mesh),
      sharding.put_rows(host_batch["mask"], mesh),
    )
    # One batch behind, so that the device computes while the host adds.
    if pending is not None:
      collect(*pending)
    pending = number, result
    first = first or (host_batch, result.answers)
  if pending is None or first is None:
    raise ValueError("the data set to evaluate has no batch")
  collect(*pending)
  return report_lib.Report(
    num_puzzles=int(totals["rows"][-1]),
    means=metrics.divide(totals),
    seconds=time.monotonic() - start,
    first_batch=first[0],
    first_answers=first[1],
    verdict=judged_by.verdict(),
  )


class Evaluator:
  """Evaluates weights on a task's test puzzles, compiled once."""

  def __init__(
    self,
    run: experiment.Experiment,
    workdir: str,
    learned_before: Sequence[str] = (),
  ):
    """Sets up the evaluation; warns on stderr of what its weights have seen.

    Args:
      run: the experiment.
      workdir: where votes and submissions are written, if there are any.
      learned_before: marks of answers that the weights have seen beside those
        of the run's own training set; see `data.leaks`.
    """
    self._warnings = list(run.task.warnings)
    warning = run.task.leak([*run.task.learned, *learned_before])
    if warning and warning not in self._warnings:
      self._warnings.append(warning)
      if jax.process_index() == 0:
        print(f"WARNING: {warning}", file=sys.stderr, flush=True)
    self._run = run
    self._workdir = workdir
    self._puzzles = run.test_puzzles()
    self._evaluate_batch = jax.jit(
      make_evaluate_batch(
        run.model,
        supervision_steps=run.config.eval.supervision_steps,
        answer_loss=run.config.train.answer_loss,
        halt_loss_weight=run.config.train.halt_loss_weight,
      ),
      out_shardings=result_shardings(run.mesh),
    )

  def __call__(self, weights: types.Weights, step: int) -> report_lib.Report:
    """Evaluates the weights of supervision step `step`."""
    judged_by = self._judge(weights, step)
    batches = loader.eval_batches(
      self._puzzles,
      batch_size=self._run.config.eval.batch_size,
      shard=(jax.process_index(), jax.process_count()),
      first_batch=judged_by.first_batch,
    )
    report = evaluate(
      self._evaluate_batch,
      weights,
      batches,
      self._run.mesh,
      num_puzzles=self._puzzles.num_examples,
      judged_by=judged_by,
    )
    return report.warned(self._warnings)

  def _judge(self, weights: types.Weights, step: int) -> judge.Judge:
    task = self._run.task
    if task.ballot is not None:
      return election.Election(
        self._run, self._puzzles, self._workdir, weights, step
      )
    if task.rules is not None:
      return judge.RulesJudge(task.rules.is_valid, task.rules.what)
    return judge.NoJudge()


def evaluate_workdir(
  config: config_lib.Config, workdir: str
) -> report_lib.Report:
  """Evaluates a workdir's checkpoint on the settings' test puzzles.

  Args:
    config: `eval.checkpoint` says which; `model` must be the checkpoint's.
    workdir: of a training.

  Returns:
    The report, which is printed, too.

  Raises:
    UserError: no checkpoint, or one of another network.
  """
  run = experiment.build(config)
  run.announce_task()
  trained = restore.averaged_weights(run, workdir)
  print(f"evaluating {trained.path}", flush=True)
  evaluator = Evaluator(run, workdir, trained.learned)
  report = evaluator(trained.weights, trained.step)
  print(
    f"{report.num_puzzles:,} puzzles in {report.seconds:.1f} s; accuracy after"
    " so many supervision steps:\n"
    + report_lib.format_report(report, config.eval.report_steps),
    flush=True,
  )
  return report
