"""A data set through the solver: accuracy after each supervision step."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from trm_jax import (
  losses,
  metrics,
  puzzle_embedding,
  sharding,
  solve,
  train_state,
  types,
)
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


EvaluateBatch = Callable[
  [Any, jax.Array, types.Latents, types.Batch, jax.Array], BatchResult
]


def make_evaluate_batch(
  model: trm.TinyRecursiveModel,
  *,
  supervision_steps: int,
  answer_loss: str,
  halt_loss_weight: float,
) -> EvaluateBatch:
  """Returns a pure function that solves a batch and compares it.

  Its arguments: parameters, puzzle table, initial latents, a Batch, and
  [B] bool that is False for padding rows. Every puzzle has all steps.
  """

  def evaluate_batch(params, puzzle_table, initial_latents, batch, rows):
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
      params,
      initial_latents,
      batch.inputs,
      puzzle_embedding.lookup(puzzle_table, batch.puzzle_ids),
      supervision_steps=supervision_steps,
      observe=observe,
    )

  return evaluate_batch


def evaluate(
  evaluate_batch: EvaluateBatch,
  state: train_state.TrainState,
  batches: Iterable[dict[str, np.ndarray]],
  mesh: Mesh,
  *,
  num_puzzles: int,
) -> Report:
  """Evaluates the averaged weights on a data set, with progress.

  Args:
    evaluate_batch: of `make_evaluate_batch`, jitted.
    state: its EMA weights and table are evaluated.
    batches: of this host, with a `mask` that is False for padding rows.
    mesh: of all devices.
    num_puzzles: of the whole data set, for the progress line.

  Returns:
    The report.
  """
  start = last_line = time.monotonic()
  totals: dict[str, np.ndarray] = {}
  pending: metrics.Sums | None = None

  def collect(sums):
    nonlocal last_line, totals
    totals = metrics.add(totals, jax.device_get(sums))
    now = time.monotonic()
    if now - last_line > PROGRESS_SECONDS:
      last_line = now
      done = int(totals["rows"][-1])
      left = (now - start) * (num_puzzles - done) / max(done, 1)
      print(
        f"  evaluated {done}/{num_puzzles} puzzles, {left:.0f} s left",
        file=sys.stderr,
        flush=True,
      )

  for host_batch in batches:
    result = evaluate_batch(
      state.ema_params,
      state.puzzle_table,
      state.initial_latents,
      sharding.put_batch(host_batch, mesh),
      sharding.put_rows(host_batch["mask"], mesh),
    )
    # One batch behind, so that the device computes while the host adds.
    if pending is not None:
      collect(pending)
    pending = result.sums
  if pending is None:
    raise ValueError("the data set to evaluate has no batch")
  collect(pending)
  return Report(
    num_puzzles=int(totals["rows"][-1]),
    means=metrics.divide(totals),
    seconds=time.monotonic() - start,
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
