"""all_config.yaml, which the official code writes beside its checkpoints.

It has what weights cannot show: how often the network is applied, its heads,
its arithmetic. What it does not name has the official default.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import yaml
from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors, failures
from trm_jax.interop import torch_shown

FILE = "all_config.yaml"

_MAX_BYTES = 2**16  # the official file has about a thousand
_MAX_NESTED = 20  # levels of it
_MAX_DEPTH = 3  # of dicts around the network's settings
# By official name: ours, and the official default, if there is one.
_SETTINGS: Mapping[str, tuple[str, Any]] = {
  "H_cycles": ("model.recursion_cycles", None),
  "L_cycles": ("model.latent_updates", None),
  "L_layers": ("model.num_layers", None),
  "hidden_size": ("model.hidden_size", None),
  "num_heads": ("model.num_heads", None),
  "expansion": ("model.mlp_expansion", None),
  "mlp_t": ("model.token_mixing", False),
  "pos_encodings": ("model.positions", None),
  "rope_theta": ("model.rope_base", 10000.0),
  "rms_norm_eps": ("model.norm_epsilon", 1e-5),
  "puzzle_emb_ndim": ("model.puzzle_vector_size", 0),
  "puzzle_emb_len": ("model.num_prefix_tokens", 16),
  "forward_dtype": ("model.compute_dtype", "bfloat16"),
  "halt_max_steps": ("train.max_supervision_steps", None),
  "no_ACT_continue": ("train.halt_rule", True),
}
_OF_ATTENTION = ("num_heads", "rope_theta")
# Besides numbers, what may be proposed to be typed into a shell.
_WORDS = frozenset(
  (
    "attention",
    "bfloat16",
    "float32",
    "halt",
    "halt_over_continue",
    "learned",
    "mlp",
    "none",
    "rope",
  )
)
_LOSSES = {
  "stablemax": "stablemax_cross_entropy",
  "softmax": "softmax_cross_entropy",
}
_ARCHITECTURE = "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1"
_FILE_OF_TRM = "trm"  # others, as trm_singlez, have the same tensors
# What cannot be seen from weights and decides what they mean; how it is called.
_HIDDEN = {
  "model.latent_updates": "n",
  "model.recursion_cycles": "T",
  "model.num_heads": "H",  # of attention
}


@dataclasses.dataclass(frozen=True)
class Difference:
  """Something of a checkpoint that is not as the settings have it."""

  text: str  # a sentence that names both
  setting: str = ""  # of ours, if it is one that can be said otherwise
  value: Any = None  # what it would have to be

  @property
  def flag(self) -> str:
    """What to type for it to fit; "" if the file has nothing that could."""
    is_number = type(self.value) in (int, float) and math.isfinite(self.value)
    if not self.setting or not (is_number or self.value in _WORDS):
      return ""
    return f"--config.{self.setting}={self.value}"


def read(path: epath.Path) -> Mapping[str, Any]:
  """Reads all_config.yaml.

  Raises:
    UserError: it cannot be read, or has no settings of a network.
  """
  with failures.told(f"cannot read {path}"), path.open("rb") as file:
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
      f"{path} has no settings of a network: nowhere H_cycles and L_cycles"
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
      if "H_cycles" in settings and "L_cycles" in settings:
        return settings
    level = [value for inner in dicts.values() for value in inner.values()]
  return None


def differences(
  arch: Mapping[str, Any], config: config_lib.Config
) -> list[Difference]:
  """Compares the settings of a file, as `read` returns them, with ours."""
  odd = [
    Difference(
      f"arch.{official} is {torch_shown.shown(arch[official])}, neither a"
      " number nor a word"
    )
    for official in ("name", *_SETTINGS)
    if not torch_shown.is_short(arch.get(official))
  ]
  if odd:
    return odd
  name = arch.get("name", _ARCHITECTURE)
  if str(name).split("@")[0].rpartition(".")[2] != _FILE_OF_TRM:
    text = f"arch.name is {torch_shown.shown(name)}, another kind of network"
    return [Difference(text)]
  here = config_lib.flatten(config)
  found = []
  for official, (ours, default) in _SETTINGS.items():
    if official not in arch and default is None:
      continue  # nothing is said of it
    if official in _OF_ATTENTION and arch.get("mlp_t") is True:
      continue
    there = _translated(official, arch.get(official, default), arch)
    if isinstance(there, str) and isinstance(here[ours], float):
      there = _number(there)
    if there != here[ours]:
      said = "is" if official in arch else "is by default"
      value = torch_shown.shown(arch.get(official, default))
      text = f"arch.{official} {said} {value}, config.{ours} is {here[ours]!r}"
      found.append(Difference(text, ours, there))
  return found


def _number(text: str) -> float | str:
  """Returns the number that a text is: to YAML, 1e-05 is one."""
  try:
    return float(text)
  except ValueError:
    return text


def _translated(official: str, value: Any, arch: Mapping[str, Any]) -> Any:
  """Returns our value of an official setting."""
  if official == "mlp_t" and isinstance(value, bool):
    return "mlp" if value else "attention"
  if official == "no_ACT_continue" and isinstance(value, bool):
    return "halt" if value else "halt_over_continue"
  if official == "pos_encodings":
    is_rope = value == "rope" and not arch.get("mlp_t")
    return value if is_rope or value == "learned" else "none"
  if official == "puzzle_emb_len" and value == 0:
    # As many as a puzzle vector fills.
    width, size = arch.get("puzzle_emb_ndim", 0), arch.get("hidden_size")
    if isinstance(width, int) and isinstance(size, int) and size > 0:
      return -(-width // size)
  return value


def unsaid(overridden: Collection[str], *, has_heads: bool) -> str:
  """Returns what to type of what nothing tells; "" if all of it was said.

  Args:
    overridden: settings said on the command line.
    has_heads: whether the network has attention.
  """
  flags = [
    f"--config.{name}={letter}"
    for name, letter in _HIDDEN.items()
    if name not in overridden and (has_heads or letter != "H")
  ]
  if not flags:
    return ""
  return (
    f"type {' '.join(flags)} as it was trained (officially: n is 6"
    " for Sudoku, 4 for Maze and ARC; T is 3, H is 8)"
  )


def written(config: config_lib.Config) -> bytes:
  """Returns all_config.yaml for our settings, as the official code nests it.

  The official code counts epochs, we count steps: `epochs` is 0.
  """
  here = config_lib.flatten(config)
  arch: dict[str, Any] = {
    "name": _ARCHITECTURE,
    "H_layers": 0,
    "halt_exploration_prob": config.train.exploration_prob,
  }
  arch["loss"] = {
    "name": "losses@ACTLossHead",
    "loss_type": _LOSSES[config.train.answer_loss],
  }
  arch |= {official: here[ours] for official, (ours, _) in _SETTINGS.items()}
  arch["mlp_t"] = config.model.token_mixing == "mlp"
  arch["no_ACT_continue"] = config.train.halt_rule == "halt"
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
