"""What travels between the functions of a supervision step.

Shape letters, everywhere: B batch (slots), L grid tokens, P prefix tokens,
S = P + L, D hidden size, V vocabulary, E width of a puzzle vector.
"""

from typing import Any

import flax.struct
import jax

IGNORED_LABEL = -100  # a cell without a label; counts in no loss or metric


@flax.struct.dataclass
class Latents:
  """The state of the recursion (paper, section 4)."""

  y: jax.Array  # [B, S, D] the current answer
  # [B, S, D] the reasoning that led to it. Of other recurrences than TRM's:
  # [B, S, n, D], or None.
  z: jax.Array | None = None


@flax.struct.dataclass
class Batch:
  """Puzzles as tokens."""

  inputs: jax.Array  # [B, L] int32, the question
  labels: jax.Array  # [B, L] int32, the solution, or IGNORED_LABEL
  puzzle_ids: jax.Array  # [B] int32, rows of the puzzle table


@flax.struct.dataclass
class Output:
  """What one supervision step says about its latents."""

  latents: Latents  # after the recursion, detached
  logits: jax.Array  # [B, L, V] of the answer, in the compute dtype
  halt_logits: jax.Array  # [B] float32; sigmoid = confidence of being right
  continue_logits: jax.Array  # [B] float32; used by halt_over_continue only


@flax.struct.dataclass
class Carry:
  """What the slots hold between supervision steps."""

  latents: Latents  # [B, S, D]
  batch: Batch  # the puzzle in each slot
  steps: jax.Array  # [B] int32, supervision steps this puzzle has had
  halted: jax.Array  # [B] bool, the slot is free for a new puzzle


@flax.struct.dataclass
class Weights:
  """All that solving a puzzle needs."""

  params: Any  # of the model; in evaluation the averaged ones
  puzzle_table: jax.Array  # [N, E] float32
  initial_latents: Latents  # [D] each (z as above), float32; constants
