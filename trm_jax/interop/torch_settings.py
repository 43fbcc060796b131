"""What the settings of an official network mean in ours, and what differs.

What a file does not name has the official default of its kind of network.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from trm_jax import config as config_lib
from trm_jax.interop import torch_kinds, torch_shown

# By official name: ours. Of the number of layers there are two, see `Kind`.
SETTINGS: Mapping[str, str] = {
  "recurrence": "model.recurrence",
  "separate_networks": "model.separate_networks",
  "mlp_gate": "model.mlp_gate",
  "gradient_updates": "model.gradient_updates",
  "H_cycles": "model.recursion_cycles",
  "L_cycles": "model.latent_updates",
  "hidden_size": "model.hidden_size",
  "num_heads": "model.num_heads",
  "expansion": "model.mlp_expansion",
  "mlp_t": "model.token_mixing",
  "pos_encodings": "model.positions",
  "rope_theta": "model.rope_base",
  "rms_norm_eps": "model.norm_epsilon",
  "puzzle_emb_ndim": "model.puzzle_vector_size",
  "puzzle_emb_len": "model.num_prefix_tokens",
  "forward_dtype": "model.compute_dtype",
  "halt_max_steps": "train.max_supervision_steps",
  "no_ACT_continue": "train.halt_rule",
}
_LAYERS = "model.num_layers"
_OF_ATTENTION = ("num_heads", "rope_theta")
# Besides numbers, what may be proposed to be typed into a shell.
_WORDS = frozenset(
  (
    "False",
    "True",
    "attention",
    "bfloat16",
    "direct",
    "float32",
    "halt",
    "halt_over_continue",
    "latent_per_update",
    "learned",
    "mlp",
    "none",
    "rope",
    "silu",
    "single_latent",
    "two_latents",
  )
)
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


def differences(
  arch: Mapping[str, Any], config: config_lib.Config
) -> list[Difference]:
  """Compares the settings of a file, as `read` returns them, with ours."""
  odd = [
    Difference(
      f"arch.{official} is {torch_shown.shown(arch[official])}, neither a"
      " number nor a word"
    )
    for official in ("name", "L_layers", "H_layers", *SETTINGS)
    if not torch_shown.is_short(arch.get(official))
  ]
  if odd:
    return odd
  name = arch.get("name", torch_kinds.TRM.name)
  kind = torch_kinds.named(str(name))
  if kind is None:
    text = f"arch.name is {torch_shown.shown(name)}, another kind of network"
    return [Difference(text)]
  return [
    *always(kind, arch, config, it_is="arch.name is that of"),
    *_other_layers(kind, arch, config),
    *_other_settings(kind, arch, config),
  ]


def always(
  kind: torch_kinds.Kind,
  arch: Mapping[str, Any],
  config: config_lib.Config,
  *,
  it_is: str,
) -> Iterator[Difference]:
  """Yields what our settings have otherwise than a kind of network ever has.

  Args:
    kind: of network.
    arch: its settings, or of them puzzle_emb_ndim and hidden_size.
    config: ours.
    it_is: begins the texts; the kind's follows.
  """
  here = config_lib.flatten(config)
  sizes = {"hidden_size": config.model.hidden_size, **kind.defaults, **arch}
  for official, value in kind.always.items():
    ours = SETTINGS[official]
    there = _translated(official, value, sizes)
    if there != here[ours]:
      knob = ours.rpartition(".")[2]
      yield Difference(
        f"{it_is} {kind.text}, whose {knob} is {there!r}, config.{ours} is"
        f" {here[ours]!r}",
        ours,
        str(there) if isinstance(there, bool) else there,
      )


def unread(kind: torch_kinds.Kind, config: config_lib.Config) -> list[str]:
  """Returns what of ours the official code has otherwise and does not read.

  Such settings, by official name, are of training alone.
  """
  here = config_lib.flatten(config)
  return [
    official
    for official in kind.unread
    if _translated(official, kind.defaults[official], {})
    != here[SETTINGS[official]]
  ]


def _other_layers(
  kind: torch_kinds.Kind, arch: Mapping[str, Any], config: config_lib.Config
) -> Iterator[Difference]:
  """Yields how the number of layers differs, if it does."""
  here = config.model.num_layers
  said = {name: arch[name] for name in kind.layers if name in arch}
  text = " and ".join(
    f"arch.{name} is {torch_shown.shown(value)}" for name, value in said.items()
  )
  values = list(said.values())
  if any(value != values[0] for value in values):
    yield Difference(f"{text}, config.{_LAYERS} is of both networks")
  elif values and values[0] != here:
    text += f", config.{_LAYERS} is {here!r}"
    yield Difference(text, _LAYERS, values[0])


def _other_settings(
  kind: torch_kinds.Kind, arch: Mapping[str, Any], config: config_lib.Config
) -> Iterator[Difference]:
  """Yields what differs of the settings that may be so or so."""
  here = config_lib.flatten(config)
  full = {**kind.defaults, **arch, **kind.always}
  for official, ours in SETTINGS.items():
    if official not in full or official in kind.always:
      continue  # nothing is said of it, or all
    if official in _OF_ATTENTION and full["mlp_t"] is True:
      continue
    there = _translated(official, full[official], full)
    if isinstance(there, str) and isinstance(here[ours], float):
      there = _number(there)
    if there != here[ours]:
      said = "is" if official in arch else "is by default"
      value = torch_shown.shown(full[official])
      text = f"arch.{official} {said} {value}, config.{ours} is {here[ours]!r}"
      yield Difference(text, ours, there)


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


def unsaid(
  overridden: Collection[str], kind: torch_kinds.Kind, *, has_heads: bool
) -> str:
  """Returns what to type of what nothing tells; "" if all of it was said.

  Args:
    overridden: settings said on the command line.
    kind: of network.
    has_heads: whether the network has attention.
  """
  # Direct prediction is one call; of multi-scale z weights show how many.
  shown = {SETTINGS[official] for official in kind.always}
  if kind is torch_kinds.LATENT_PER_UPDATE:
    shown.add("model.latent_updates")
  flags = [
    f"--config.{name}={letter}"
    for name, letter in _HIDDEN.items()
    if name not in shown | set(overridden) and (has_heads or letter != "H")
  ]
  if not flags:
    return ""
  return f"type {' '.join(flags)} as it was trained (officially: {kind.usual})"
