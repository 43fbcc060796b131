"""A batch of test puzzles solved and compared with the answers, pure."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trm_jax import judge, losses, metrics, sharding, solve, types
from trm_jax.models import trm


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
  mesh: Mesh | None = None,
) -> EvaluateBatch:
  """Returns a pure function that solves a batch and compares it.

  Its arguments: the weights, a batch, and [B] bool that is False for padding
  rows. Every puzzle has all steps. `mesh` as for `puzzle_embedding.lookup`.
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
      mesh=mesh,
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
