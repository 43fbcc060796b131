"""What a row's network is: its depth, its passes, its size.

Imported late: it needs JAX, which must not open the accelerator of a trial.
"""

import dataclasses
import math

import jax

from trm_jax import config as config_lib
from trm_jax.core import train_state
from trm_jax.data import kind
from trm_jax.runtime import flops, model_factory

jax.config.update("jax_platforms", "cpu")


@dataclasses.dataclass(frozen=True)
class Facts:
  """What the paper's tables tell of a network beside its accuracy."""

  depth: int  # layers passed through in a supervision step: T (n + 1) layers
  forward_passes: int  # per optimizer step
  parameters: int  # trained, without the puzzle table


def of(config: config_lib.Config) -> Facts:
  """Returns the facts of a task whose size needs no data; allocates nothing."""
  calls = sum(flops.network_calls(config.model))
  return Facts(
    depth=calls * config.model.num_layers,
    forward_passes=flops.forward_passes(config.train),
    parameters=_num_parameters(config),
  )


def _num_parameters(config: config_lib.Config) -> int:
  look = kind.look_of(config.data, (), 0)
  model = model_factory.build_model(
    config.model,
    vocab_size=len(look.symbols),
    seq_len=look.rows * look.cols,
  )
  shapes = jax.eval_shape(
    lambda: train_state.init_params(
      model,
      jax.random.key(0),
      puzzle_vector_size=config.model.puzzle_vector_size,
    )
  )
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
