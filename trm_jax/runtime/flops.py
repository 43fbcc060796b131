"""FLOPs of matrix products, counted by hand; a multiply-add counts as 2.

Only the recursive network's own products are counted: not what the backward
pass recomputes, and neither embedding nor heads, which are below 1 %. Divided
by a chip's peak rate, this is the floor of a step's time (docs/performance.md).
"""

from trm_jax import config as config_lib
from trm_jax.core import model as model_lib
from trm_jax.core import network, recursion, registry


def network_flops(model: model_lib.TinyRecursiveModel) -> float:
  """Counts one network call for one puzzle."""
  return sum(_products(model))


def _products(model: model_lib.TinyRecursiveModel) -> tuple[float, float]:
  """Counts the products with weights, and of tokens with tokens."""
  config, length = model.network_config, model.total_len
  return (
    network.weight_flops(config, length=length, size=model.hidden_size),
    network.token_flops(config, length=length, size=model.hidden_size),
  )


def train_flops(
  config: config_lib.Config, model: model_lib.TinyRecursiveModel
) -> float:
  """Counts a supervision step of training over all slots."""
  calls = network_calls(config.model)[1]
  weights, tokens = _products(model)
  # Frozen weights need no gradient; both operands of attention's products do.
  backward = (1 if config.train.freeze_network else 2) * weights + 2 * tokens
  return config.train.batch_size * (
    forward_calls(config) * (weights + tokens) + calls * backward
  )


def forward_passes(train: config_lib.TrainConfig) -> int:
  """Counts the forward passes of an optimizer step.

  One, another to look ahead, and one for each of several starts.
  """
  starts = train.num_starts if train.num_starts > 1 else 0
  return 1 + (train.halt_rule == "halt_over_continue") + starts


def forward_calls(config: config_lib.Config) -> int:
  """Counts the forward network calls of a supervision step of training."""
  return forward_passes(config.train) * sum(network_calls(config.model))


def evaluate_flops(
  config: config_lib.Config, model: model_lib.TinyRecursiveModel
) -> float:
  """Counts the evaluation of a batch, over all supervision steps."""
  return (
    config.eval.batch_size
    * config.eval.supervision_steps
    * sum(network_calls(config.model))
    * network_flops(model)
  )


def network_calls(model: config_lib.ModelConfig) -> tuple[int, int]:
  """Counts a supervision step's network calls: without and with gradient."""
  recurrence = registry.get(
    recursion.RECURRENCES, model.recursion_type, kind="recurrence"
  )
  answers = recurrence.answer_calls
  cycle = model.latent_updates + answers
  with_gradient = (model.gradient_updates or model.latent_updates) + answers
  return cycle * model.recursion_cycles - with_gradient, with_gradient
