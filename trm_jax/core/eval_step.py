"""Solves a batch of puzzles and, in evaluation, scores the answers."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from . import losses, metrics, parallel, solve, solve_batch, types
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
  """

  questions: jax.Array
  labels: jax.Array
  answers: jax.Array
  halt_logits: jax.Array
  steps: jax.Array
  rows: jax.Array


@flax.struct.dataclass
class BatchResult:
  """Result of a batch; `solve_batch` defines the axis K.

  Attributes:
    sums: metric sums, [K] each; empty without losses.
    answers: [K, B, L] int32 tokens.
    halt_logits: [K, B] float32.
    last: the final answers.
  """

  sums: metrics.Sums
  answers: jax.Array
  halt_logits: jax.Array
  last: Answers


_FIXED = solve_batch.SolverConfig()

EvaluateBatch = Callable[[types.Weights, types.Batch, jax.Array], BatchResult]


def make_evaluate_batch(
  model: model_lib.TinyRecursiveModel,
  *,
  supervision_steps: int,
  answer_loss: str | None,
  halt_loss_weight: float = 0.5,
  solver: solve_batch.SolverConfig = _FIXED,
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
    seen, steps = solve_batch.solve_batch(
      model,
      weights,
      batch,
      rows,
      supervision_steps=supervision_steps,
      solver=solver,
      observe=observe,
      mesh=mesh,
    )

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
    )
    return BatchResult(
      sums=jax.vmap(sum_rows)(seen["values"], steps)
      if "values" in seen
      else {},
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
