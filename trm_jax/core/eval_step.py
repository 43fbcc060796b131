"""A batch of test puzzles solved and compared with the answers, pure."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trm_jax.core import losses, metrics, parallel, solve, types
from trm_jax.core import model as model_lib


@flax.struct.dataclass
class Answers:
  """What was asked and answered, over all hosts; on each of them."""

  questions: jax.Array  # [B, L] uint8 tokens
  labels: jax.Array  # [B, L] int32, or types.IGNORED_LABEL
  answers: jax.Array  # [B, L] uint8 tokens, those that were given in the end
  halt_logits: jax.Array  # [B] float32
  steps: jax.Array  # [B] int32, supervision steps that it took
  rows: jax.Array  # [B] bool, False for padding


@flax.struct.dataclass
class BatchResult:
  """What was answered, K times: see `report.EvalResult`."""

  sums: metrics.Sums  # [K] each
  answers: jax.Array  # [K, B, L] int32 tokens
  halt_logits: jax.Array  # [K, B] float32
  last: Answers  # the last of them


_FIXED = solve.Solving()

EvaluateBatch = Callable[[types.Weights, types.Batch, jax.Array], BatchResult]


def make_evaluate_batch(
  model: model_lib.TinyRecursiveModel,
  *,
  supervision_steps: int,
  answer_loss: str,
  halt_loss_weight: float,
  solving: solve.Solving = _FIXED,
  mesh: Mesh | None = None,
) -> EvaluateBatch:
  """Returns a pure function that solves a batch and compares it.

  Its arguments: the weights, a batch, and [B] bool that is False for padding
  rows. `supervision_steps` are all puzzles' or, with adaptive halting, the
  most that one may take. `mesh` as for `puzzle_embedding.lookup`.
  """

  def see(output: types.Output, puzzles: types.Batch) -> dict[str, Any]:
    row_losses = losses.supervision_loss(
      output,
      puzzles.labels,
      answer_loss=answer_loss,
      halt_loss_weight=halt_loss_weight,
    )
    return {
      "values": metrics.row_values(output, puzzles.labels, row_losses),
      "answers": solve.answers_of(output),
      "halt_logits": output.halt_logits,
    }

  def evaluate_batch(weights, batch, rows):
    seen, steps = solve.solve_batch(
      model,
      weights,
      batch,
      rows,
      supervision_steps=supervision_steps,
      solving=solving,
      see=see,
      mesh=mesh,
    )

    def add_up(values, steps):
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
      sums=jax.vmap(add_up)(seen["values"], steps),
      answers=seen["answers"],
      halt_logits=seen["halt_logits"],
      last=last,
    )

  return evaluate_batch


def result_shardings(mesh: Mesh) -> BatchResult:
  """Says where a result belongs: only the answers' history is split."""
  everywhere: Any = NamedSharding(mesh, parallel.COPIES)
  by_row: Any = NamedSharding(mesh, PartitionSpec(None, parallel.DATA))
  return BatchResult(
    sums=everywhere, answers=by_row, halt_logits=by_row, last=everywhere
  )
