"""Data types of a supervision step.

Shape letters, used everywhere: B batch (slots), L grid tokens, P prefix tokens,
S = P + L, D hidden size, V vocabulary, E size of a puzzle vector.
"""

from typing import Any

import flax.struct
import jax

IGNORED_LABEL = -100  # a cell without label: ignored by losses and metrics


@flax.struct.dataclass
class Latents:
  """The state of the recursion (paper, section 4).

  Attributes:
    y: [B, S, D], the current answer.
    z: [B, S, D], the reasoning that led to it; [B, S, n, D] or None for some
      recurrences other than TRM's.
  """

  y: jax.Array
  z: jax.Array | None = None


@flax.struct.dataclass
class Batch:
  """Puzzles as tokens.

  Attributes:
    inputs: [B, L] int32, the questions.
    labels: [B, L] int32, the solutions, or `IGNORED_LABEL`.
    puzzle_ids: [B] int32, rows of the puzzle table.
  """

  inputs: jax.Array
  labels: jax.Array
  puzzle_ids: jax.Array


@flax.struct.dataclass
class Output:
  """Output of one supervision step.

  Attributes:
    latents: after the recursion, detached.
    logits: [B, L, V] of the answer, in the compute dtype.
    halt_logits: [B] float32; their sigmoid is the confidence that the answer is
      right.
    continue_logits: [B] float32; used by the rule halt_over_continue only.
  """

  latents: Latents
  logits: jax.Array
  halt_logits: jax.Array
  continue_logits: jax.Array


@flax.struct.dataclass
class Carry:
  """State of the slots between supervision steps.

  Attributes:
    latents: [B, S, D]; with several starts z is [B, K, S, D].
    batch: the puzzle in each slot.
    steps: [B] int32, supervision steps of this puzzle so far.
    halted: [B] bool, whether the slot is free for a new puzzle.
    alive: [B, K] bool, which starts go on; None with one start.
  """

  latents: Latents
  batch: Batch
  steps: jax.Array
  halted: jax.Array
  alive: jax.Array | None = None


@flax.struct.dataclass
class Weights:
  """Weights needed to solve puzzles.

  Attributes:
    params: of the model; in evaluation the averaged ones.
    puzzle_table: [N, E] float32.
    initial_latents: [D] each (z as for `Latents`), float32; constants.
  """

  params: Any
  puzzle_table: jax.Array
  initial_latents: Latents
