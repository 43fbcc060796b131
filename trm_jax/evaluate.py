"""A data set through the solver: accuracy after each supervision step."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from trm_jax import (
  checkpointing,
  description,
  errors,
  experiment,
  losses,
  metrics,
  sharding,
  solve,
  types,
)
from trm_jax import config as config_lib
from trm_jax.data import loader
from trm_jax.models import trm

PROGRESS_SECONDS = 10.0


@flax.struct.dataclass
class BatchResult:
  """What was answered after each of K supervision steps."""

  sums: metrics.Sums  # [K] each
  answers: jax.Array  # [K, B, L] int32 tokens
  halt_logits: jax.Array  # [K, B] float32


@dataclasses.dataclass(frozen=True)
class Report:
  """An evaluation: metrics of all puzzles after each supervision step."""

  num_puzzles: int
  means: Mapping[str, np.ndarray]  # name -> [K], as `metrics.divide`
  seconds: float
  first_batch: Mapping[str, np.ndarray]  # of this host
  first_answers: jax.Array  # [K, B, L] to the first batch, on the devices

  @property
  def final(self) -> dict[str, float]:
    """The metrics after the last supervision step."""
    return self.after(len(self.means["exact_accuracy"]))

  def after(self, supervision_steps: int) -> dict[str, float]:
    """The metrics after so many supervision steps, counted from 1."""
    return {
      name: float(values[supervision_steps - 1])
      for name, values in self.means.items()
    }


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
      return BatchResult(
        sums=sums, answers=answers, halt_logits=output.halt_logits
      )

    return solve.solve_fixed(
      model,
      weights,
      batch.inputs,
      batch.puzzle_ids,
      supervision_steps=supervision_steps,
      observe=observe,
    )

  return evaluate_batch


def evaluate(
  evaluate_batch: EvaluateBatch,
  weights: types.Weights,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
  *,
  num_puzzles: int,
) -> Report:
  """Evaluates weights on a data set, with progress.

  Args:
    evaluate_batch: of `make_evaluate_batch`, jitted.
    weights: in training the averaged ones.
    batches: of this host, with a `mask` that is False for padding rows.
    mesh: of all devices.
    num_puzzles: of the whole data set, for the progress line.

  Returns:
    The report.
  """
  start = last_line = time.monotonic()
  totals: dict[str, np.ndarray] = {}
  pending: metrics.Sums | None = None
  first: tuple[Mapping[str, np.ndarray], jax.Array] | None = None

  def collect(sums):
    nonlocal last_line, totals
    totals = metrics.add(totals, jax.device_get(sums))
    now = time.monotonic()
    done = int(totals["rows"][-1])
    if done < num_puzzles and now - last_line > PROGRESS_SECONDS:
      last_line = now
      left = (now - start) * (num_puzzles - done) / max(done, 1)
      print(
        f"  evaluated {done}/{num_puzzles} puzzles, {left:.0f} s left",
        file=sys.stderr,
        flush=True,
      )

  for host_batch in batches:
    result = evaluate_batch(
      weights,
      sharding.put_batch(host_batch, mesh),
      sharding.put_rows(host_batch["mask"], mesh),
    )
    # One batch behind, so that the device computes while the host adds.
    if pending is not None:
      collect(pending)
    pending = result.sums
    first = first or (host_batch, result.answers)
  if pending is None or first is None:
    raise ValueError("the data set to evaluate has no batch")
  collect(pending)
  return Report(
    num_puzzles=int(totals["rows"][-1]),
    means=metrics.divide(totals),
    seconds=time.monotonic() - start,
    first_batch=first[0],
    first_answers=first[1],
  )


class Evaluator:
  """Evaluates weights on a task's test puzzles, compiled once."""

  def __init__(self, run: experiment.Experiment):
    self._config = run.config
    self._task = run.task
    self._mesh = run.mesh
    self._evaluate_batch = jax.jit(
      make_evaluate_batch(
        run.model,
        supervision_steps=run.config.eval.supervision_steps,
        answer_loss=run.config.train.answer_loss,
        halt_loss_weight=run.config.train.halt_loss_weight,
      )
    )

  def _batches(self) -> Iterator[dict[str, np.ndarray]]:
    return loader.eval_batches(
      self._task.test,
      batch_size=self._config.eval.batch_size,
      shard=(jax.process_index(), jax.process_count()),
    )

  def __call__(self, weights: types.Weights) -> Report:
    """Evaluates on every test puzzle."""
    return evaluate(
      self._evaluate_batch,
      weights,
      self._batches(),
      self._mesh,
      num_puzzles=self._task.test.num_examples,
    )


def format_report(report: Report, steps: Iterable[int]) -> str:
  """Returns a table of the metrics after each of `steps`."""
  lines = ["  steps   exact    cells    halt     answer loss"]
  for step in steps:
    after = report.after(step)
    lines.append(
      f"  {step:5d} {after['exact_accuracy']:8.2%}"
      f" {after['cell_accuracy']:8.2%} {after['halt_accuracy']:8.2%}"
      f" {after['answer_loss']:11.4f}"
    )
  return "\n".join(lines)


def evaluate_workdir(config: config_lib.Config, workdir: str) -> Report:
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
  with checkpointing.Checkpoints(workdir) as checkpoints:
    step = checkpoints.latest_step
    if step is not None and config.eval.checkpoint == "best":
      step = checkpoints.best_step
      if step is None:
        raise errors.UserError(
          f"no checkpoint in {workdir} was evaluated, so none is the best; use"
          " --config.eval.checkpoint=latest"
        )
    if step is None:
      raise errors.UserError(
        f"{workdir} holds no checkpoint yet; train first, or name another"
        " --workdir"
      )
    description.check_evaluation_fits(checkpoints.description(step), config)
    weights = checkpoints.restore_weights(
      step, run.abstract_state().averaged_weights
    )
    where = checkpoints.path(step)
  print(f"evaluating {where}", flush=True)
  report = Evaluator(run)(weights)
  print(
    f"{report.num_puzzles:,} puzzles in {report.seconds:.1f} s; accuracy after"
    " so many supervision steps:\n"
    + format_report(report, config.eval.report_steps),
    flush=True,
  )
  return report
