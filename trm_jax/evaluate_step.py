"""A batch of test puzzles solved and compared with the answers, pure."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from trm_jax import choice as choice_lib
from trm_jax import judge, losses, metrics, sharding, solve, types
from trm_jax.models import trm


@dataclasses.dataclass(frozen=True)
class Solving:
  """How puzzles are solved; `config.eval` has the same words."""

  solver: str = "fixed"  # 'adaptive' or 'rollouts'
  slots: int = 1  # worked on at a time, with 'adaptive' and 'rollouts'
  halt_threshold: float = 0.5  # adaptive
  rollouts: int = 1
  noise: float = 0.0  # rollouts
  seed: int = 0  # of the noise
  choice: str = "confidence"  # rollouts: or 'vote'

  @property
  def label(self) -> str:
    """What tells evaluations of other solvers apart; "" for fixed steps."""
    return {
      "fixed": "",
      "adaptive": f"adaptive_{self.halt_threshold:g}",
      "rollouts": f"rollouts_{self.rollouts}_{self.noise:g}_{self.choice}",
    }[self.solver]


@flax.struct.dataclass
class BatchResult:
  """What was answered, K times: see `report.Report`."""

  sums: metrics.Sums  # [K] each
  answers: jax.Array  # [K, B, L] int32 tokens
  halt_logits: jax.Array  # [K, B] float32
  last: judge.Answers  # the last of them


EvaluateBatch = Callable[[types.Weights, types.Batch, jax.Array], BatchResult]


@flax.struct.dataclass
class _Seen:
  """What is kept of an output."""

  values: dict[str, jax.Array]  # of `metrics.row_values`, [B] each
  answers: jax.Array  # [B, L] int32 tokens
  halt_logits: jax.Array  # [B] float32


def make_evaluate_batch(
  model: trm.TinyRecursiveModel,
  *,
  supervision_steps: int,
  answer_loss: str,
  halt_loss_weight: float,
  solving: Solving = Solving(),
  mesh: Mesh | None = None,
) -> EvaluateBatch:
  """Returns a pure function that solves a batch and compares it.

  Its arguments: the weights, a batch, and [B] bool that is False for padding
  rows. `supervision_steps` are all puzzles' or, with adaptive halting, the
  most that one may take. `mesh` as for `puzzle_embedding.lookup`.
  """

  def see(output: types.Output, labels: jax.Array) -> _Seen:
    row_losses = losses.supervision_loss(
      output,
      labels,
      answer_loss=answer_loss,
      halt_loss_weight=halt_loss_weight,
    )
    return _Seen(
      values=metrics.row_values(output, labels, row_losses),
      answers=jnp.argmax(output.logits, axis=-1).astype(jnp.int32),
      halt_logits=output.halt_logits,
    )

  def fixed(weights, batch, rows):
    seen = solve.solve_fixed(
      model,
      weights,
      batch.inputs,
      batch.puzzle_ids,
      supervision_steps=supervision_steps,
      mesh=mesh,
      observe=lambda output, _: see(output, batch.labels),
    )
    numbers = jnp.arange(1, supervision_steps + 1)[:, None]
    return seen, jnp.broadcast_to(numbers, seen.halt_logits.shape)

  def adaptive(weights, batch, rows):
    seen, steps = solve.solve_adaptive(
      model,
      weights,
      batch,
      rows,
      slots=solving.slots,
      threshold=solving.halt_threshold,
      max_supervision_steps=supervision_steps,
      mesh=mesh,
      observe=lambda output, puzzles: see(output, puzzles.labels),
    )
    return jax.tree.map(lambda leaf: leaf[None], (seen, steps))

  def rollouts(weights, batch, rows):
    seen = solve.solve_rollouts(
      model,
      weights,
      batch.inputs,
      batch.puzzle_ids,
      rollouts=solving.rollouts,
      noise=solving.noise,
      seed=solving.seed,
      supervision_steps=supervision_steps,
      at_a_time=max(1, solving.slots // rows.shape[0]),
      mesh=mesh,
      observe=lambda output: see(output, batch.labels),
    )
    chosen = choice_lib.choose(solving.choice, seen.answers, seen.halt_logits)

    def take(leaf):
      at = chosen.reshape(*chosen.shape, *[1] * (leaf.ndim - 2))
      return jnp.take_along_axis(leaf, at, axis=0)

    steps = jnp.full(chosen.shape, supervision_steps)
    return jax.tree.map(take, seen), steps

  solve_batch = {"fixed": fixed, "adaptive": adaptive, "rollouts": rollouts}[
    solving.solver
  ]

  def evaluate_batch(weights, batch, rows):
    seen, steps = solve_batch(weights, batch, rows)

    def add_up(values, steps):
      return metrics.sum_rows(
        values, batch.labels, steps=steps, counted=rows, rows=rows
      )

    last = judge.Answers(
      questions=batch.inputs.astype(jnp.uint8),
      labels=batch.labels,
      answers=seen.answers[-1].astype(jnp.uint8),
      halt_logits=seen.halt_logits[-1],
      steps=steps[-1],
      rows=rows,
    )
    return BatchResult(
      sums=jax.vmap(add_up)(seen.values, steps),
      answers=seen.answers,
      halt_logits=seen.halt_logits,
      last=last,
    )

  return evaluate_batch


def result_shardings(mesh: Mesh) -> BatchResult:
  """Says where a result belongs: only the answers' history is split."""
  everywhere: Any = sharding.replicated(mesh)
  by_row: Any = sharding.split(mesh, axis=1)
  return BatchResult(
    sums=everywhere, answers=by_row, halt_logits=by_row, last=everywhere
  )
