"""all_config.yaml, which the official code writes beside its checkpoints.

It has what weights cannot show: how often the network is applied, its heads,
its arithmetic.
"""

from collections.abc import Mapping
from typing import Any

import yaml
from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.interop import torch_kinds, torch_settings

FILE = "all_config.yaml"

_MAX_BYTES = 2**16  # the official file has about a thousand
_MAX_NESTED = 20  # levels of it
_MAX_DEPTH = 3  # of dicts around the network's settings
_LOSSES = {
  "stablemax": "stablemax_cross_entropy",
  "softmax": "softmax_cross_entropy",
}


def read(path: epath.Path) -> Mapping[str, Any]:
  """Reads all_config.yaml.

  Raises:
    UserError: it cannot be read, or has no settings of a network.
  """
  with errors.told(f"cannot read {path}"), path.open("rb") as file:
    content = file.read(_MAX_BYTES + 1)
  if len(content) > _MAX_BYTES:
    raise errors.UserError(f"{path} is too long for a list of settings")
  try:
    settings = find(_loaded(content))
  except Exception as error:  # whatever bytes without a meaning lead to
    raise errors.UserError(
      f"{path} is not plain YAML: {errors.first_line(error)}"
    ) from error
  if settings is None:
    raise errors.UserError(
      f"{path} has no settings of a network: nowhere H_cycles and L_cycles, or"
      " H_cycles and H_layers"
    )
  return settings


def _loaded(content: bytes) -> Any:
  depth = 0
  for event in yaml.parse(content, yaml.SafeLoader):
    # A few hundred bytes with aliases of aliases are gigabytes as text.
    if isinstance(event, yaml.AliasEvent):
      raise ValueError("it has aliases, whose values have to be written out")
    depth += isinstance(event, yaml.CollectionStartEvent)
    depth -= isinstance(event, yaml.CollectionEndEvent)
    # Each level takes longer than the last one.
    if depth > _MAX_NESTED:
      raise ValueError(f"more than {_MAX_NESTED} levels in each other")
  return yaml.safe_load(content)


def find(tree: Any) -> Mapping[str, Any] | None:
  """Returns the dict in a tree that holds the network's settings, if any."""
  level = [tree]
  for _ in range(_MAX_DEPTH):
    # Each once: a dict may hold another, or itself, any number of times.
    dicts = {id(value): value for value in level if isinstance(value, dict)}
    for settings in dicts.values():
      if "H_cycles" in settings and (
        "L_cycles" in settings or "H_layers" in settings
      ):
        return settings
    level = [value for inner in dicts.values() for value in inner.values()]
  return None


def written(config: config_lib.Config) -> bytes:
  """Returns all_config.yaml for our settings, as the official code nests it.

  The official code counts epochs, we count steps: `epochs` is 0. It does not
  read `gradient_updates`, nor with HRM and direct prediction `no_ACT_continue`:
  they are there if they are not as officially.

  Raises:
    UserError: the official code has no such network.
  """
  arch = _arch(config)
  impossible = torch_settings.differences(arch, config)
  if impossible:
    raise errors.UserError(
      "the official code has no such network and its weights cannot be"
      f" exported: {'; '.join(difference.text for difference in impossible)}"
    )
  optimizer = config.optimizer
  settings = {
    "arch": arch,
    "beta1": optimizer.beta1,
    "beta2": optimizer.beta2,
    "data_paths": [],
    "ema": optimizer.ema_decay > 0,
    "ema_rate": optimizer.ema_decay,
    "epochs": 0,
    "evaluators": [],
    "freeze_weights": config.train.frozen_network,
    "global_batch_size": config.train.batch_size,
    "lr": optimizer.learning_rate,
    "lr_min_ratio": optimizer.min_learning_rate_ratio,
    "lr_warmup_steps": optimizer.warmup_steps,
    "project_name": "trm_jax",
    "puzzle_emb_lr": optimizer.puzzle_learning_rate,
    "puzzle_emb_weight_decay": optimizer.puzzle_weight_decay,
    "run_name": config.name,
    "seed": config.seed,
    "weight_decay": optimizer.weight_decay,
  }
  return yaml.safe_dump(settings).encode()


def _arch(config: config_lib.Config) -> dict[str, Any]:
  """Returns the settings of the network, by official name."""
  model = config.model
  kind = torch_kinds.of(
    model.recurrence, separate_networks=model.separate_networks
  )
  here = config_lib.flatten(config)
  arch = {name: here[ours] for name, ours in torch_settings.SETTINGS.items()}
  arch["mlp_t"] = model.token_mixing == "mlp"
  arch["no_ACT_continue"] = config.train.halt_rule == "halt"
  # As official files are, but for what is needed to read ours again.
  left_out = {*kind.always, *kind.unread} - {
    *torch_settings.unread(kind, config)
  }
  return {
    "name": kind.name,
    "halt_exploration_prob": config.train.exploration_prob,
    "loss": {
      "name": "losses@ACTLossHead",
      "loss_type": _LOSSES[config.train.answer_loss],
    },
    **{name: value for name, value in arch.items() if name not in left_out},
    **dict.fromkeys(kind.layers, model.num_layers),
    **kind.added,
  }
