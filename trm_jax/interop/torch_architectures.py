"""The networks of the official code."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from trm_jax import errors

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
AS_WIDE_AS_VECTOR = 0  # of puzzle_emb_len: as many tokens as a vector fills


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
    also_fixed: other settings with only one value, whatever a file says.
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
  also_fixed={"puzzle_emb_len": AS_WIDE_AS_VECTOR},
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
    "puzzle_emb_len": AS_WIDE_AS_VECTOR,
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
