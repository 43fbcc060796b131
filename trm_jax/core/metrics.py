"""Metrics as masked sums with their counts; divided only at the end.

Sums over rows add up over batches, devices and hosts, so a metric never
depends on how the rows were split.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from . import losses, types

Sums = dict[str, jax.Array]

# Summed over every row of the mask, and divided by `rows`.
_PER_ROW = ("answer_loss", "halt_loss", "continue_loss", "loss")
# Summed over the counted rows only, and divided by `count`.
_PER_COUNT = ("exact_accuracy", "cell_accuracy", "halt_accuracy", "steps")
# Of training only: summed over the puzzles in their first supervision step, and
# divided by `first_step_count`.
_PER_FIRST_STEP = ("exact_accuracy", "cell_accuracy")
_FIRST_STEP = "first_step_"


def row_values(
  output: types.Output, labels: jax.Array, row_losses: losses.RowLosses
) -> dict[str, jax.Array]:
  """Computes the metrics of each row, except for its steps.

  Args:
    output: of the model.
    labels: [B, L] int32 or IGNORED_LABEL.
    row_losses: of the same output.

  Returns:
    float32 [B] each.
  """
  known = labels != types.IGNORED_LABEL
  num_labels = jnp.sum(known, axis=-1)
  correct, exact = losses.sequence_is_correct(output.logits, labels)
  values = {
    "exact_accuracy": exact,
    "cell_accuracy": jnp.sum(correct, axis=-1) / jnp.maximum(num_labels, 1),
    "halt_accuracy": (output.halt_logits >= 0) == exact,
    "answer_loss": row_losses.answer,
    "halt_loss": row_losses.halt,
    "continue_loss": row_losses.continue_,
    "loss": row_losses.total,
  }
  return {name: value.astype(jnp.float32) for name, value in values.items()}


def sum_rows(
  values: Mapping[str, jax.Array],
  labels: jax.Array,
  *,
  steps: jax.Array,
  counted: jax.Array,
  rows: jax.Array,
) -> Sums:
  """Sums the metrics of rows.

  Args:
    values: of `row_values`, [B] each.
    labels: [B, L] int32 or IGNORED_LABEL.
    steps: [B] int32, supervision steps so far.
    counted: [B] bool, rows whose accuracy counts: those that halt now
      (training) or all (evaluation); rows without labels never do.
    rows: [B] bool, rows whose loss counts: all but padding.

  Returns:
    float32 scalars: `rows`, `count` and the sums.
  """
  counted &= jnp.any(labels != types.IGNORED_LABEL, axis=-1)
  values = {**values, "steps": steps.astype(jnp.float32)}
  # `where`, not a product: a NaN in a padding row must not spread, one in a
  # real row must.
  sums = {
    name: jnp.sum(jnp.where(mask, values[name], 0.0))
    for names, mask in ((_PER_COUNT, counted), (_PER_ROW, rows))
    for name in names
  }
  sums["count"] = jnp.sum(counted.astype(jnp.float32))
  sums["rows"] = jnp.sum(rows.astype(jnp.float32))
  return sums


def first_step_sums(
  values: Mapping[str, jax.Array], labels: jax.Array, *, steps: jax.Array
) -> Sums:
  """Sums the accuracy of puzzles in their first supervision step.

  Their answers are of weights that have not been trained on them since they
  took their slot. The accuracy of puzzles that halt is of weights that have
  been, in up to as many consecutive steps as a puzzle may take.

  Args:
    values: of `row_values`, [B] each.
    labels: [B, L] int32 or IGNORED_LABEL.
    steps: [B] int32, supervision steps including this one.

  Returns:
    float32 scalars: `first_step_count` and the sums.
  """
  first = (steps == 1) & jnp.any(labels != types.IGNORED_LABEL, axis=-1)
  sums = {
    _FIRST_STEP + name: jnp.sum(jnp.where(first, values[name], 0.0))
    for name in _PER_FIRST_STEP
  }
  sums[_FIRST_STEP + "count"] = jnp.sum(first.astype(jnp.float32))
  return sums


def row_sums(
  output: types.Output,
  labels: jax.Array,
  row_losses: losses.RowLosses,
  *,
  steps: jax.Array,
  counted: jax.Array,
  rows: jax.Array,
) -> Sums:
  """Sums one training step's metrics: `sum_rows` and `first_step_sums`."""
  values = row_values(output, labels, row_losses)
  sums = sum_rows(values, labels, steps=steps, counted=counted, rows=rows)
  return sums | first_step_sums(values, labels, steps=steps)


def add(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict:
  """Adds two sums on the host, in float64; names of either are kept."""
  return {
    name: np.asarray(a.get(name, 0.0), np.float64)
    + np.asarray(b.get(name, 0.0), np.float64)
    for name in {**a, **b}
  }


def divide(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Turns sums into means.

  Args:
    sums: of `row_sums`, scalars or arrays (e.g. one entry per supervision
      step).

  Returns:
    The means, and the counts unchanged. A mean over no rows is NaN: there is
    no accuracy before a puzzle has halted.
  """
  with np.errstate(invalid="ignore", divide="ignore"):
    means = {
      name: np.asarray(sums[name], np.float64) / np.asarray(sums["rows"])
      for name in _PER_ROW
    }
    means.update(
      {
        name: np.asarray(sums[name], np.float64) / np.asarray(sums["count"])
        for name in _PER_COUNT
      }
    )
    for name in _PER_FIRST_STEP if _FIRST_STEP + "count" in sums else ():
      means[_FIRST_STEP + name] = np.asarray(
        sums[_FIRST_STEP + name], np.float64
      ) / np.asarray(sums[_FIRST_STEP + "count"])
  counts = (name for name in ("count", _FIRST_STEP + "count") if name in sums)
  return means | {name: np.asarray(sums[name]) for name in counts}
