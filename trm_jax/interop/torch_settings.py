"""The settings of official networks, in their names and in ours.

all_config.yaml, which the official code writes beside its checkpoints, has what
weights cannot show: how often the network is applied, its heads, its dtype.
arch.name says which network it is; so do the weights, by the networks
("levels") and initial latents they have. What a file does not name has the
official default of its network.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import yaml
from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.interop import nano_trm, torch_architectures, torch_reader

FILE = "all_config.yaml"

_MAX_BYTES = 2**16  # of the file; the official one has about a thousand
_MAX_NESTED = 20  # levels in the file
_MAX_DEPTH = 3  # of dicts around the network's settings

# Ours by official name. The number of layers has two official names, see
# `Architecture.layers`. The first four are not official settings.
SETTINGS: Mapping[str, str] = {
  "recurrence": "model.recursion_type",
  "separate_networks": "model.separate_networks",
  "mlp_gate": "model.mlp_gate",
  "gradient_updates": "model.gradient_updates",
  "H_cycles": "model.recursion_cycles",
  "L_cycles": "model.latent_updates",
  "hidden_size": "model.hidden_size",
  "num_heads": "model.num_heads",
  "expansion": "model.mlp_expansion",
  "mlp_t": "model.token_mixing",
  "pos_encodings": "model.position_encoding",
  "rope_theta": "model.rope_theta",
  "rms_norm_eps": "model.rms_norm_eps",
  "puzzle_emb_ndim": "model.puzzle_embed_dim",
  "puzzle_emb_len": "model.num_prefix_tokens",
  "forward_dtype": "model.compute_dtype",
  "halt_max_steps": "train.max_supervision_steps",
  "no_ACT_continue": "train.halt_rule",
}
_OF_ATTENTION = ("num_heads", "rope_theta")
# Read by the official code, but no answer depends on them.
_OF_TRAINING = frozenset({
  "name", "loss", "halt_exploration_prob", "act_enabled", "batch_size",
  "seq_len", "vocab_size", "num_puzzle_identifiers",
})  # fmt: skip
_NOT_OFFICIAL = ("recurrence", "separate_networks", "mlp_gate")
# Values that a message may propose for a shell, besides numbers.
_WORDS = frozenset({
  "attention", "bfloat16", "direct", "float32", "halt", "halt_over_continue",
  "latent_per_update", "learned", "mlp", "none", "rope", "silu",
  "single_latent", "two_latents", "CHARACTERS", "ROWS", "COLUMNS",
  "n", "T", "H",
})  # fmt: skip
_LOSSES = {
  "stablemax": "stablemax_cross_entropy",
  "softmax": "softmax_cross_entropy",
}


def read(path: epath.Path) -> Mapping[str, Any]:
  """Reads the network's settings from all_config.yaml.

  Raises:
    UserError: it cannot be read, or has no settings of a network.
  """
  with (
    errors.user_error_context(f"cannot read {path}"),
    path.open("rb") as file,
  ):
    content = file.read(_MAX_BYTES + 1)
  if len(content) > _MAX_BYTES:
    raise errors.UserError(f"{path} is too long for a settings file")
  try:
    settings = find(_load_yaml(content))
  except Exception as error:  # whatever meaningless bytes lead to
    raise errors.UserError(
      f"{path} is not plain YAML: {errors.first_line(error)}"
    ) from error
  if settings is None:
    raise errors.UserError(
      f"{path} has no settings of a network: no section with H_cycles and"
      " L_cycles, or with H_cycles and H_layers"
    )
  return settings


def _load_yaml(content: bytes) -> Any:
  depth = 0
  for event in yaml.parse(content, yaml.SafeLoader):
    # A few hundred bytes with aliases of aliases are gigabytes as text.
    if isinstance(event, yaml.AliasEvent):
      raise ValueError("it has aliases; write their values out")
    depth += isinstance(event, yaml.CollectionStartEvent)
    depth -= isinstance(event, yaml.CollectionEndEvent)
    # Each level takes longer than the last one.
    if depth > _MAX_NESTED:
      raise ValueError(f"it is nested more than {_MAX_NESTED} levels deep")
  return yaml.safe_load(content)


def find(tree: Any) -> Mapping[str, Any] | None:
  """Returns the dict in a tree that holds the network's settings, if any."""
  found = _find(tree)
  if found is not None and nano_trm.has_settings(found):
    return nano_trm.official_settings(found)
  return found


def _find(tree: Any) -> Mapping[str, Any] | None:
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


def is_official(arch: Mapping[str, Any]) -> bool:
  """Tells whether settings name a network as the official code does."""
  name = arch.get("name")
  return isinstance(name, str) and "@" in name


def unread(arch: Mapping[str, Any]) -> dict[str, Any]:
  """Returns settings that may change the network and are not read here.

  Args:
    arch: as `find` returns them.
  """
  known = {*SETTINGS, "L_layers", "H_layers", *_OF_TRAINING}
  known -= {*_NOT_OFFICIAL}
  return {str(name): arch[name] for name in arch if name not in known}


def named(arch: Mapping[str, Any]) -> torch_architectures.Architecture:
  """Returns the network that settings name; TRM if they name none.

  Args:
    arch: as `find` returns them.

  Raises:
    UserError: it is unknown, or a setting is neither a number nor a word.
  """
  for name in ("name", "L_layers", "H_layers", *SETTINGS):
    if not torch_reader.is_short(arch.get(name)):
      raise errors.UserError(
        f"arch.{name} is {torch_reader.quoted(arch[name])}, neither a number"
        " nor a word"
      )
  name = arch.get("name", torch_architectures.TRM.name)
  module = str(name).split("@")[0].rpartition(".")[2]
  for architecture in torch_architectures.ARCHITECTURES:
    if module in architecture.modules:
      return architecture
  raise errors.UserError(
    f"arch.name is {torch_reader.quoted(name)}, an unknown network"
  )


def values(
  architecture: torch_architectures.Architecture,
  arch: Mapping[str, Any],
  *,
  subject: str = "arch.name",
  shown: Collection[str] = (),
) -> dict[str, tuple[Any, str]]:
  """Returns our settings of an official network.

  Args:
    architecture: the network.
    arch: its settings by official name, or some of them.
    subject: what shows that it is this network; begins a sentence.
    shown: our settings that are known otherwise; what `arch` does not say of
      them is not its default.

  Returns:
    Of each of our settings the value (None if ours cannot have it) and a
    sentence that says where it is from.
  """
  fixed = architecture.fixed
  defaults = {
    name: value
    for name, value in architecture.defaults.items()
    if SETTINGS[name] not in shown
  }
  full = {**defaults, **arch, **fixed}
  found: dict[str, tuple[Any, str]] = {}
  for name, ours in SETTINGS.items():
    if name not in full or (
      full.get("mlp_t") is True and name in _OF_ATTENTION
    ):
      continue
    value = _to_ours(name, full[name], full)
    if name in fixed:
      text = f"{subject} is {architecture.title} with {ours.split('.')[1]}"
      found[ours] = value, f"{text} {value!r}"
    else:
      found[ours] = (
        value,
        _sentence(name, full[name], by_default=name not in arch),
      )
      if name == "halt_max_steps":  # officially, of an evaluation, too
        found["eval.supervision_steps"] = found[ours]
  layers = [name for name in architecture.layers if name in full]
  if layers:
    is_even = len({full[name] for name in layers}) == 1
    texts = [_sentence(name, full[name], by_default=False) for name in layers]
    value = full[layers[0]] if is_even else None
    found["model.num_layers"] = (
      value,
      texts[0] if is_even else " and ".join(texts),
    )
  return found


def _sentence(name: str, value: Any, *, by_default: bool) -> str:
  verb = "is by default" if by_default else "is"
  return f"arch.{name} {verb} {torch_reader.quoted(value)}"


@dataclasses.dataclass(frozen=True)
class Difference:
  """A mismatch between a checkpoint and the config.

  Attributes:
    text: a sentence that names both values.
    setting: ours that it concerns, as "model.num_layers"; "" if none.
    value: what the setting would have to be, or a word in capital letters or a
      letter for what the user must fill in; None if nothing fits.
  """

  text: str
  setting: str = ""
  value: Any = None

  @property
  def flag(self) -> str:
    """The flag that makes it fit; "" if there is none or it is not safe."""
    is_number = isinstance(self.value, int | float)
    if (is_number and math.isfinite(self.value)) or self.value in _WORDS:
      return f"--config.{self.setting}={self.value}"
    return ""


def differences(
  there: Mapping[str, tuple[Any, str]], config: config_lib.Config
) -> list[Difference]:
  """Compares settings, as `values` returns them, with the config."""
  here = config_lib.flatten(config)
  found = []
  for name, (value, text) in there.items():
    ours = here[name]
    if isinstance(value, str) and isinstance(ours, float):
      value = _number(value)
    if value == ours:
      continue
    if (
      name == "eval.supervision_steps"
      and there["train.max_supervision_steps"][0]
      == here["train.max_supervision_steps"]
    ):
      continue  # as many as the user likes
    is_proper = all(
      isinstance(value, kind) == isinstance(ours, kind) for kind in (bool, str)
    )
    found.append(
      Difference(
        f"{text}, but config.{name} is {ours!r}",
        name,
        value if is_proper else None,
      )
    )
  return found


def _number(text: str) -> float | str:
  """Parses a number that YAML takes for a string, as 1e-05."""
  try:
    return float(text)
  except ValueError:
    return text


def _to_ours(name: str, value: Any, arch: Mapping[str, Any]) -> Any:
  """Returns our value of an official setting."""
  if name == "mlp_t" and isinstance(value, bool):
    return "mlp" if value else "attention"
  if name == "no_ACT_continue" and isinstance(value, bool):
    return "halt" if value else "halt_over_continue"
  if name == "pos_encodings":
    is_rope = value == "rope" and not arch.get("mlp_t")
    return value if is_rope or value == "learned" else "none"
  if name == "puzzle_emb_len":
    width, size = arch.get("puzzle_emb_ndim", 0), arch.get("hidden_size")
    if width and value != torch_architectures.AS_WIDE_AS_VECTOR:
      return value
    if isinstance(width, int) and isinstance(size, int) and size > 0:
      return -(-width // size)
  return value


def ignored(
  architecture: torch_architectures.Architecture, config: config_lib.Config
) -> list[str]:
  """Returns settings, all of training, that the official code would ignore.

  They are not at its default; by official name.
  """
  here = config_lib.flatten(config)
  return [
    name
    for name in architecture.unread
    if _to_ours(name, architecture.defaults[name], {}) != here[SETTINGS[name]]
  ]


def to_yaml(config: config_lib.Config) -> bytes:
  """Returns all_config.yaml of the config, nested as the official code does.

  The official code counts epochs, we count steps: `epochs` is 0.

  Raises:
    UserError: the official code has no such network.
  """
  arch = _to_arch(config)
  impossible = differences(values(named(arch), arch), config)
  if impossible:
    raise errors.UserError(
      "weights cannot be exported, the official code has no such network:"
      f" {'; '.join(difference.text for difference in impossible)}"
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
    "freeze_weights": config.train.freeze_network,
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


def _to_arch(config: config_lib.Config) -> dict[str, Any]:
  """Returns the settings of the network by official name."""
  model = config.model
  architecture = torch_architectures.architecture_of(
    model.recursion_type, separate_networks=model.separate_networks
  )
  here = config_lib.flatten(config)
  arch = {name: here[ours] for name, ours in SETTINGS.items()}
  arch["mlp_t"] = model.token_mixing == "mlp"
  arch["no_ACT_continue"] = config.train.halt_rule == "halt"
  # As official files are, and what is needed to read ours again.
  omitted = {*architecture.fixed, *architecture.unread}
  omitted -= {*ignored(architecture, config)}
  return {
    "name": architecture.name,
    "halt_exploration_prob": config.train.exploration_prob,
    "loss": {
      "name": "losses@ACTLossHead",
      "loss_type": _LOSSES[config.train.answer_loss],
    },
    **{name: value for name, value in arch.items() if name not in omitted},
    **dict.fromkeys(architecture.layers, model.num_layers),
    **architecture.added,
  }
