"""The networks of the official code, and which of ours each is.

Each has a module of its own there, which arch.name of all_config.yaml names.
Their weights tell them apart, too: by which levels (networks) and which initial
latents there are.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from trm_jax import errors

_NO_LENGTH = 0  # of prefix tokens: as many as a puzzle vector fills


@dataclasses.dataclass(frozen=True)
class Kind:
  """A network of the official code, and how its settings are to be read."""

  text: str  # what it is called, and an experiment that has it
  name: str  # arch.name, in the repository of TRM
  files: tuple[str, ...]  # its modules, here and in other repositories
  layers: tuple[str, ...]  # official settings that are our num_layers
  always: Mapping[str, Any]  # by official name, whatever its file says
  defaults: Mapping[str, Any]  # of what its file need not say
  unread: tuple[str, ...]  # what its code does not read, though it may be said
  added: Mapping[str, Any]  # what its code wants to be said besides
  usual: str  # what it was published with of what weights do not show


def _network(
  recurrence: str, *, separate_networks: bool = False
) -> dict[str, Any]:
  """Returns what no official setting says; the names are ours."""
  return {
    "recurrence": recurrence,
    "separate_networks": separate_networks,
    "mlp_gate": "silu",
  }


_DEFAULTS = {
  "rope_theta": 10000.0,
  "rms_norm_eps": 1e-5,
  "puzzle_emb_ndim": 0,
  "forward_dtype": "bfloat16",
  "mlp_t": False,
  "no_ACT_continue": True,
  # No official setting. It is written where it is not as officially.
  "gradient_updates": 0,
}
_OF_TRM = {"puzzle_emb_len": 16, **_DEFAULTS}

TRM = Kind(
  text="TRM (as experiments/sudoku.py)",
  name="recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
  files=("trm",),
  layers=("L_layers",),
  always=_network("two_latents"),
  defaults=_OF_TRM,
  unread=("gradient_updates",),
  added={"H_layers": 0},
  usual="n is 6 for Sudoku, 4 for Maze and ARC; T is 3, H is 8",
)
HRM = Kind(
  text="HRM (as experiments/hrm.py)",
  name="recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1",
  files=("hrm", "hrm_act_v1"),
  layers=("L_layers", "H_layers"),
  always={
    **_network("two_latents", separate_networks=True),
    "puzzle_emb_len": _NO_LENGTH,
  },
  defaults={**_DEFAULTS, "no_ACT_continue": False, "gradient_updates": 1},
  unread=("gradient_updates", "no_ACT_continue"),
  added={},
  usual="n and T are 2, H is 8",
)
SINGLE_LATENT = Kind(
  text="TRM with a single z (as experiments/ablations.py:single_latent)",
  name="recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel_ACTV1",
  files=("trm_singlez",),
  layers=("L_layers",),
  always=_network("single_latent"),
  defaults=_OF_TRM,
  unread=("gradient_updates",),
  added={"H_layers": 0},
  usual="n is 6, T is 3, H is 8",
)
LATENT_PER_UPDATE = Kind(
  text="TRM with multi-scale z (as experiments/ablations.py:multi_scale)",
  name="recursive_reasoning.trm_hier6@TinyRecursiveReasoningModel_ACTV1",
  files=("trm_hier6",),
  layers=("L_layers",),
  always=_network("latent_per_update"),
  defaults=_OF_TRM,
  unread=("gradient_updates",),
  added={"H_layers": 0},
  usual="n is 6, T is 3, H is 8",
)
DIRECT = Kind(
  text="direct prediction (as experiments/ablations.py:direct)",
  name="recursive_reasoning.transformers_baseline@Model_ACTV2",
  files=("transformers_baseline",),
  layers=("H_layers",),
  always={
    **_network("direct"),
    "puzzle_emb_len": _NO_LENGTH,
    "mlp_t": False,
    # One call, whatever H_cycles says; there is no L_cycles.
    "H_cycles": 1,
    "L_cycles": 1,
  },
  defaults={**_DEFAULTS, "no_ACT_continue": False},
  unread=("gradient_updates", "no_ACT_continue"),
  added={"H_cycles": 1},
  usual="H is 12",
)
KINDS = (TRM, HRM, SINGLE_LATENT, LATENT_PER_UPDATE, DIRECT)


def named(name: str) -> Kind | None:
  """Returns the network that an arch.name means, as 'folder.file@Class'."""
  file = name.split("@")[0].rpartition(".")[2]
  return next((kind for kind in KINDS if file in kind.files), None)


def of(recurrence: str, *, separate_networks: bool) -> Kind:
  """Returns the official network that is as ours with these settings.

  Raises:
    UserError: the official code has none.
  """
  ours = _network(recurrence, separate_networks=separate_networks)
  for kind in KINDS:
    if ours.items() <= kind.always.items():
      return kind
  raise errors.UserError(
    "the official code has no network with config.model.recurrence"
    f" {recurrence!r} and config.model.separate_networks {separate_networks}:"
    " weights of one can be neither"
    " imported nor exported"
  )
