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
from trm_jax.interop import torch_reader

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
_LAYERS = "model.num_layers"
_OF_ATTENTION = ("num_heads", "rope_theta")
# Settings that weights do not show, and their letters in messages.
_HIDDEN = {
  "model.latent_updates": "n",
  "model.recursion_cycles": "T",
  "model.num_heads": "H",  # of attention
}
# Values a message may propose for a shell, besides numbers.
_WORDS = frozenset({
  "attention", "bfloat16", "direct", "float32", "halt", "halt_over_continue",
  "latent_per_update", "learned", "mlp", "none", "rope", "silu",
  "single_latent", "two_latents",
})  # fmt: skip
_LOSSES = {
  "stablemax": "stablemax_cross_entropy",
  "softmax": "softmax_cross_entropy",
}

_DEFAULTS = {
  "rope_theta": 10000.0,
  "rms_norm_eps": 1e-5,
  "puzzle_emb_ndim": 0,
  "forward_dtype": "bfloat16",
  "mlp_t": False,
}
_TRM_DEFAULTS = _DEFAULTS | {
  "puzzle_emb_len": 16,
  "no_ACT_continue": True,
  # Written to a file only if it is not this.
  "gradient_updates": 0,
}
_AS_WIDE_AS_VECTOR = 0  # of puzzle_emb_len: as many tokens as a vector fills


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A network of the official code.

  Attributes:
    title: what it is called, and an experiment that trains it.
    modules: its module in TRM's repository, then in others.
    published: published values of what weights do not show.
    recurrence: ours.
    separate_networks: ours.
    class_name: in its module.
    layers: official settings that are our num_layers.
    also_fixed: settings with only one value, whatever a file says, by official
      name; `fixed` has all.
    defaults: of settings that a file may omit.
    unread: settings that its code ignores.
    added: settings that its code requires in a file besides ours.
  """

  title: str
  modules: tuple[str, ...]
  published: str
  recurrence: str = "two_latents"
  separate_networks: bool = False
  class_name: str = "TinyRecursiveReasoningModel_ACTV1"
  layers: tuple[str, ...] = ("L_layers",)
  also_fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  defaults: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: _TRM_DEFAULTS
  )
  unread: tuple[str, ...] = ("gradient_updates",)
  added: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {"H_layers": 0}
  )

  @property
  def name(self) -> str:
    """Value of arch.name, in the repository of TRM."""
    return f"recursive_reasoning.{self.modules[0]}@{self.class_name}"

  @property
  def fixed(self) -> dict[str, Any]:
    """Settings with only one value, by official name."""
    return {
      "recurrence": self.recurrence,
      "separate_networks": self.separate_networks,
      "mlp_gate": "silu",
      **self.also_fixed,
    }


TRM = Architecture(
  title="TRM (as experiments/sudoku.py)",
  modules=("trm",),
  published="n is 6 for Sudoku, 4 for Maze and ARC; T is 3, H is 8",
)
HRM = Architecture(
  title="HRM (as experiments/hrm.py)",
  modules=("hrm", "hrm_act_v1"),
  published="n and T are 2, H is 8",
  separate_networks=True,
  class_name="HierarchicalReasoningModel_ACTV1",
  layers=("L_layers", "H_layers"),
  also_fixed={"puzzle_emb_len": _AS_WIDE_AS_VECTOR},
  defaults=_DEFAULTS | {"no_ACT_continue": False, "gradient_updates": 1},
  unread=("gradient_updates", "no_ACT_continue"),
  added={},
)
SINGLE_LATENT = Architecture(
  title="TRM with a single z (as experiments/ablations.py:single_latent)",
  modules=("trm_singlez",),
  published="n is 6, T is 3, H is 8",
  recurrence="single_latent",
)
LATENT_PER_UPDATE = Architecture(
  title="TRM with multi-scale z (as experiments/ablations.py:multi_scale)",
  modules=("trm_hier6",),
  published="n is 6, T is 3, H is 8",
  recurrence="latent_per_update",
)
DIRECT = Architecture(
  title="direct prediction (as experiments/ablations.py:direct)",
  modules=("transformers_baseline",),
  published="H is 12",
  recurrence="direct",
  class_name="Model_ACTV2",
  layers=("H_layers",),
  also_fixed={
    "puzzle_emb_len": _AS_WIDE_AS_VECTOR,
    "mlp_t": False,
    # One call, whatever H_cycles says; there is no L_cycles.
    "H_cycles": 1,
    "L_cycles": 1,
  },
  defaults=_DEFAULTS | {"no_ACT_continue": False, "gradient_updates": 0},
  unread=("gradient_updates", "no_ACT_continue"),
  added={"H_cycles": 1},
)
ARCHITECTURES = (TRM, HRM, SINGLE_LATENT, LATENT_PER_UPDATE, DIRECT)


def architecture_of(
  recurrence: str, *, separate_networks: bool
) -> Architecture:
  """Returns the official network with these settings of ours.

  Raises:
    UserError: the official code has none.
  """
  for one in ARCHITECTURES:
    if (one.recurrence, one.separate_networks) == (
      recurrence,
      separate_networks,
    ):
      return one
  raise errors.UserError(
    "weights cannot be imported or exported: the official code has no network"
    f" with config.model.recursion_type {recurrence!r} and"
    f" config.model.separate_networks {separate_networks}"
  )


@dataclasses.dataclass(frozen=True)
class Difference:
  """A mismatch between a checkpoint and the config.

  Attributes:
    text: a sentence that names both values.
    setting: ours that it concerns, as "model.num_layers"; "" if none.
    value: what the setting would have to be; None if nothing fits.
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


def differences(
  arch: Mapping[str, Any], config: config_lib.Config
) -> list[Difference]:
  """Compares a network's settings, as `read` returns them, with the config."""
  odd = [
    Difference(
      f"arch.{name} is {torch_reader.quoted(arch[name])}, neither a number nor"
      " a word"
    )
    for name in ("name", "L_layers", "H_layers", *SETTINGS)
    if not torch_reader.is_short(arch.get(name))
  ]
  if odd:
    return odd
  name = arch.get("name", TRM.name)
  module = str(name).split("@")[0].rpartition(".")[2]
  found = [one for one in ARCHITECTURES if module in one.modules]
  if not found:
    text = f"arch.name is {torch_reader.quoted(name)}, an unknown network"
    return [Difference(text)]
  return compare(found[0], arch, config, subject="arch.name")


def compare(
  architecture: Architecture,
  arch: Mapping[str, Any],
  config: config_lib.Config,
  *,
  subject: str,
) -> list[Difference]:
  """Compares the settings of an official network with the config.

  Args:
    architecture: the network.
    arch: its settings by official name, or some of them.
    config: ours.
    subject: what shows that it is this network; begins a sentence.
  """
  here = config_lib.flatten(config)
  fixed = architecture.fixed
  size = config.model.hidden_size
  full = {"hidden_size": size, **architecture.defaults, **arch, **fixed}
  settings = {**SETTINGS, **dict.fromkeys(architecture.layers, _LAYERS)}
  layers = [full[name] for name in architecture.layers if name in full]
  is_uneven = any(number != layers[0] for number in layers)  # ours cannot be
  found = []
  for name in sorted(settings, key=lambda name: name not in fixed):
    ours = settings[name]
    if name not in full or (name in _OF_ATTENTION and full["mlp_t"] is True):
      continue
    there = _to_ours(name, full[name], full)
    if isinstance(there, str) and isinstance(here[ours], float):
      there = _number(there)
    if there == here[ours]:
      continue
    if name in fixed:
      text = f"{subject} is {architecture.title} with {ours.split('.')[1]}"
      text += f" {there!r}"
    else:
      verb = "is" if name in arch else "is by default"
      text = f"arch.{name} {verb} {torch_reader.quoted(full[name])}"
    text += f", but config.{ours} is {here[ours]!r}"
    is_proper = isinstance(there, bool) == isinstance(here[ours], bool)
    if name in architecture.layers and is_uneven:
      is_proper = False
    found.append(Difference(text, ours, there if is_proper else None))
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
  if name == "puzzle_emb_len" and value == _AS_WIDE_AS_VECTOR:
    width, size = arch.get("puzzle_emb_ndim", 0), arch.get("hidden_size")
    if isinstance(width, int) and isinstance(size, int) and size > 0:
      return -(-width // size)
  return value


def missing_flags(
  overridden: Collection[str], architecture: Architecture, *, has_heads: bool
) -> str:
  """Returns what to type without all_config.yaml; "" if all of it was.

  Args:
    overridden: settings given on the command line.
    architecture: the official network.
    has_heads: whether it has attention.
  """
  # Direct prediction is one call; of multi-scale z weights show n.
  known = {SETTINGS[name] for name in architecture.fixed}
  if architecture is LATENT_PER_UPDATE:
    known.add("model.latent_updates")
  flags = [
    f"--config.{name}={letter}"
    for name, letter in _HIDDEN.items()
    if name not in known | set(overridden) and (has_heads or letter != "H")
  ]
  if not flags:
    return ""
  return (
    f"pass {' '.join(flags)} as in training (published:"
    f" {architecture.published})"
  )


def ignored(architecture: Architecture, config: config_lib.Config) -> list[str]:
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
  impossible = differences(arch, config)
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
  architecture = architecture_of(
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
