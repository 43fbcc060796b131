"""Solves a batch of puzzles and, in evaluation, scores the answers."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from . import (
  losses,
  metrics,
  parallel,
  solve,
  solve_batch,
  types,
  variations,
)
from . import model as model_lib


@flax.struct.dataclass
class Answers:
  """Questions and final answers of a batch, replicated on every device.

  Attributes:
    questions: [B, L] uint8 tokens.
    labels: [B, L] int32 or `types.IGNORED_LABEL`.
    answers: [B, L] uint8 tokens.
    halt_logits: [B] float32.
    steps: [B] int32, supervision steps taken.
    rows: [B] bool, False for padding.
    attempts: with rollouts, the results of all attempts, [K, B, ...]:
      {"answers": uint8, "halt_logits": float32, "steps": int32}; else None.
  """

  questions: jax.Array
  labels: jax.Array
  answers: jax.Array
  halt_logits: jax.Array
  steps: jax.Array
  rows: jax.Array
  attempts: dict[str, jax.Array] | None = None


@flax.struct.dataclass
class BatchResult:
  """Result of a batch; `solve_batch` defines the axis K.

  Attributes:
    sums: metric sums, [K] each; empty without losses. With rollouts also those
      of `ROLLOUT_SUMS`, [R, K] each.
    answers: [K, B, L] int32 tokens.
    halt_logits: [K, B] float32.
    last: the final answers.
  """

  sums: metrics.Sums
  answers: jax.Array
  halt_logits: jax.Array
  last: Answers


# Sums of `solve_batch.RolloutTable` over rows with labels: right answers
# chosen, puzzles with any right answer, and supervision steps.
ROLLOUT_SUMS = ("rollouts_chosen", "rollouts_any", "rollouts_steps")

_FIXED = solve_batch.SolverConfig()

EvaluateBatch = Callable[[types.Weights, types.Batch, jax.Array], BatchResult]


def make_evaluate_batch(
  model: model_lib.Model,
  *,
  supervision_steps: int,
  answer_loss: str | None,
  halt_loss_weight: float = 0.5,
  solver: solve_batch.SolverConfig = _FIXED,
  symmetries: variations.Symmetries | None = None,
  report_steps: tuple[int, ...] = (),
  mesh: Mesh | None = None,
) -> EvaluateBatch:
  """Returns a pure function that solves a batch and scores it.

  The function's arguments are the weights, a batch, and [B] bool that is False
  for padding rows.

  Args:
    model: the module.
    supervision_steps: of each puzzle; with adaptive halting at most.
    answer_loss: name in `losses.ANSWER_LOSSES`; None to compute no losses and
      no metrics, for puzzles without labels.
    halt_loss_weight: as for `losses.supervision_loss`.
    solver: how puzzles are solved.
    symmetries: as for `solve_batch.solve_batch`, and
    report_steps: likewise.
    mesh: as for `puzzle_embedding.lookup`.
  """

  def observe(output: types.Output, puzzles: types.Batch) -> dict[str, Any]:
    seen: dict[str, Any] = {
      "answers": solve.answers_of(output),
      "halt_logits": output.halt_logits,
    }
    if answer_loss is None:
      return seen
    row_losses = losses.supervision_loss(
      output,
      puzzles.labels,
      answer_loss=answer_loss,
      halt_loss_weight=halt_loss_weight,
    )
    values = metrics.row_values(output, puzzles.labels, row_losses)
    return {"values": values, **seen}

  def evaluate_batch(weights, batch, rows):
    solved = solve_batch.solve_batch(
      model,
      weights,
      batch,
      rows,
      supervision_steps=supervision_steps,
      solver=solver,
      observe=observe,
      symmetries=symmetries,
      report_steps=report_steps,
      mesh=mesh,
    )
    seen, steps = solved.seen, solved.steps

    def sum_rows(values, steps):
      return metrics.sum_rows(
        values, batch.labels, steps=steps, counted=rows, rows=rows
      )

    last = Answers(
      questions=batch.inputs.astype(jnp.uint8),
      labels=batch.labels,
      answers=seen["answers"][-1].astype(jnp.uint8),
      halt_logits=seen["halt_logits"][-1],
      steps=steps[-1],
      rows=rows,
      attempts=None
      if solved.attempts is None
      else {
        "answers": solved.attempts["answers"].astype(jnp.uint8),
        "halt_logits": solved.attempts["halt_logits"],
        "steps": solved.attempts["steps"],
      },
    )
    sums = {}
    if "values" in seen:
      sums = jax.vmap(sum_rows)(seen["values"], steps)
    if solved.table is not None:
      known = jnp.any(batch.labels != types.IGNORED_LABEL, axis=-1) & rows
      leaves = solved.table.chosen, solved.table.any_, solved.table.steps
      for name, leaf in zip(ROLLOUT_SUMS, leaves, strict=True):
        sums[name] = jnp.sum(jnp.where(known[None, None], leaf, 0.0), axis=-1)
    return BatchResult(
      sums=sums,
      answers=seen["answers"],
      halt_logits=seen["halt_logits"],
      last=last,
    )

  return evaluate_batch


def result_shardings(mesh: Mesh) -> BatchResult:
  """Returns the shardings of a result: only [K, B] arrays are split."""
  everywhere: Any = NamedSharding(mesh, parallel.COPIES)
  by_row: Any = NamedSharding(mesh, PartitionSpec(None, parallel.DATA))
  return BatchResult(
    sums=everywhere, answers=by_row, halt_logits=by_row, last=everywhere
  )
