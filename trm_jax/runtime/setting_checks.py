"""Checks of settings by what `core` and the tasks define.

`config` checks single settings; it does not know the registries.
"""

from collections.abc import Mapping
from typing import Any

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import (
  choices,
  losses,
  network,
  optim,
  recursion,
  rollouts,
  solve_batch,
  variations,
)
from trm_jax.core.kernels import swiglu
from trm_jax.data import tasks
from trm_jax.runtime import trackers

# Settings that name an entry of a registry of `core`.
_NAMED: Mapping[str, Mapping[str, Any]] = {
  "model.token_mixing": network.TOKEN_MIXERS,
  "model.mlp_gate": swiglu.GATES,
  "model.recursion_type": recursion.RECURRENCES,
  "optimizer.name": optim.OPTIMIZERS,
  "train.answer_loss": losses.ANSWER_LOSSES,
  "eval.rollout_variation": variations.VARIATIONS,
  "eval.rollout_halting": dict.fromkeys(rollouts.HALTING),
  "eval.rollout_selection": {**choices.CHOICES, solve_batch.RULES: None},
}


def check_names(config: config_lib.Config) -> None:
  """Checks the settings that name an entry of a registry.

  Raises:
    UserError: there is no such entry, a second network has no use, or there are
      no rules to choose by.
  """
  values = config_lib.flatten(config)
  for name, entries in _NAMED.items():
    config_lib.one_of(name, values[name], tuple(entries))
  for name in config.log.trackers:
    config_lib.one_of("log.trackers", name, tuple(trackers.TRACKERS))
  symbol_mixers = ("none", *network.SYMBOL_MIXERS)
  config_lib.one_of(
    "model.symbol_mixing", config.model.symbol_mixing, symbol_mixers
  )
  name = config.model.recursion_type
  recurrence = recursion.RECURRENCES[name]
  if config.model.separate_networks and not recurrence.answer_calls:
    raise errors.UserError(
      f"config.model.recursion_type {name!r} has no use for a second"
      " network; set"
      " config.model.separate_networks to False"
    )
  _check_step(config, name, recurrence)
  _check_rollouts(config)


def _check_step(
  config: config_lib.Config, name: str, recurrence: recursion.Recurrence
) -> None:
  """Checks settings of the training step; see `check_names`."""
  shape = recurrence.z_shape(config.model.latent_updates, 1)
  if config.train.num_starts > 1 and shape is None:
    raise errors.UserError(
      "config.train.num_starts gives each start a z of its own, which"
      f" config.model.recursion_type {name!r} does not have; set it to 1"
    )
  if config.train.depth_curriculum and shape is not None and len(shape) > 1:
    raise errors.UserError(
      "config.train.depth_curriculum varies the number of updates, and"
      f" config.model.recursion_type {name!r} has a z for each; set it to False"
    )
  if config.model.mlp_gate == "conv" and config.model.token_mixing == "mlp":
    raise errors.UserError(
      "config.model.mlp_gate 'conv' convolves over the tokens, which"
      " token_mixing 'mlp' mixes by an MLP; choose token_mixing 'attention'"
    )


def _check_rollouts(config: config_lib.Config) -> None:
  """Checks how attempts are chosen; see `check_names`."""
  settings = config.eval
  if settings.solver != "rollouts":
    return
  choice = settings.rollout_selection
  if choice == "first" and settings.rollout_halting == "never":
    raise errors.UserError(
      "config.eval.rollout_selection 'first' selects the attempt that halts"
      " first: set config.eval.rollout_halting to 'attempt'"
    )
  if choice == solve_batch.RULES and tasks.rules(config.data) is None:
    raise errors.UserError(
      f"config.eval.rollout_selection 'rules' needs a game with rules; the task"
      f" {config.data.task!r} has none: choose another one"
    )
