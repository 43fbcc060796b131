"""What a step costs: products of matrices, by hand, a multiply-add as 2.

Only the network's own products are counted: not what is recomputed for the
backward pass, and neither embedding nor heads, which are under 1 %. With the
matrix rate of a chip this is the floor of a step's time (docs/performance.md).
"""

from trm_jax import config as config_lib
from trm_jax.core import layers, recursion


def network_flops(model: config_lib.ModelConfig, length: int) -> float:
  """Counts one call of the network for one puzzle of S = `length` tokens."""
  return _linear_flops(model, length) + _attention_flops(model, length)


def _linear_flops(model: config_lib.ModelConfig, length: int) -> float:
  """Counts the products with weights."""
  size = model.hidden_size

  def swiglu(over, times):
    width = layers.swiglu_width(
      over, expansion=model.mlp_expansion, multiple=model.mlp_multiple
    )
    return 2 * 3 * over * width * times

  if model.token_mixing == "mlp":
    mixing = swiglu(length, size)
  else:
    mixing = 2 * 4 * size * size * length
  return model.num_layers * (mixing + swiglu(size, length))


def _attention_flops(model: config_lib.ModelConfig, length: int) -> float:
  """Counts the products of tokens with tokens."""
  if model.token_mixing == "mlp":
    return 0.0
  return model.num_layers * 2 * 2 * length * length * model.hidden_size


def train_flops(config: config_lib.Config, seq_len: int) -> float:
  """Counts a supervision step of training, of all slots; L = `seq_len`."""
  calls = network_calls(config.model)[1]
  length = config.model.num_prefix_tokens + seq_len
  linear = _linear_flops(config.model, length)
  attention = _attention_flops(config.model, length)
  # Frozen weights need no gradient; the two sides of attention do.
  backward = (1 if config.train.frozen_network else 2) * linear + 2 * attention
  return config.train.batch_size * (
    forward_calls(config) * (linear + attention) + calls * backward
  )


def forward_passes(train: config_lib.TrainConfig) -> int:
  """Counts the forward passes of an optimizer step: 2 if it looks ahead."""
  return 2 if train.halt_rule == "halt_over_continue" else 1


def forward_calls(config: config_lib.Config) -> int:
  """Counts the network calls forward of a supervision step of training."""
  return forward_passes(config.train) * sum(network_calls(config.model))


def evaluate_flops(config: config_lib.Config, seq_len: int) -> float:
  """Counts the evaluation of a batch, all its supervision steps."""
  return (
    config.eval.batch_size
    * config.eval.supervision_steps
    * sum(network_calls(config.model))
    * network_flops(config.model, config.model.num_prefix_tokens + seq_len)
  )


def network_calls(model: config_lib.ModelConfig) -> tuple[int, int]:
  """Counts a supervision step's network calls: without and with gradient."""
  answers = recursion.RECURRENCES[model.recurrence].answer_calls
  cycle = model.latent_updates + answers
  with_gradient = (model.gradient_updates or model.latent_updates) + answers
  return cycle * model.recursion_cycles - with_gradient, with_gradient
