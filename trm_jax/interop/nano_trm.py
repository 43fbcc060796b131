"""Checkpoints of nano-trm: TRM's network, named otherwise.

They are Lightning's: the settings are "hyper_parameters". The halting head has
no row for continue.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from trm_jax.core import model as model_lib

_NETWORK, _OFFICIAL_NETWORK = "lenet.", "L_level."
_NAMES = {
  "z_H_init": "H_init",
  "z_L_init": "L_init",
  "input_embedding.embedding_weight": "embed_tokens.embedding_weight",
}
_SETTINGS = {
  "num_layers": "L_layers",
  "N_supervision": "halt_max_steps",
  "ffn_expansion": "expansion",
  "puzzle_emb_dim": "puzzle_emb_ndim",
  "use_mlp": "mlp_t",
  "use_mlp_t": "mlp_t",
}
_OF_TRAINING = frozenset({
  "N_supervision_val", "batch_size", "halt_exploration_prob", "learning_rate",
  "learning_rate_emb", "lr_min_ratio", "max_grid_size", "max_steps",
  "num_puzzles", "output_dir", "pad_value", "seq_len", "use_muon",
  "use_sigreg", "vocab_size", "warmup_steps", "weight_decay",
})  # fmt: skip


def official_name(name: str) -> str:
  """Returns the official name of a tensor; names of others as they are."""
  if name.startswith(_NETWORK):
    return _OFFICIAL_NETWORK + name.removeprefix(_NETWORK)
  return _NAMES.get(name, name)


def with_continue_row(
  state_dict: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Returns a state dict whose halting head has a row for continue.

  A missing one gets the official initial values, which are those of networks
  that are trained without it.
  """
  result = dict(state_dict)
  for name, value in (
    ("q_head.weight", 0.0),
    ("q_head.bias", model_lib.HALT_BIAS),
  ):
    head = result.get(name)
    if head is not None and head.ndim and len(head) == 1:
      result[name] = np.concatenate([head, np.full_like(head, value)])
  return result


def has_settings(settings: Mapping[str, Any]) -> bool:
  """Tells whether settings are nano-trm's."""
  return "ffn_expansion" in settings


def official_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns its settings by official name; its own switches if they are on.

  A rotation by row and column, which is not official, stays "pos_emb_type".
  """
  arch = {
    _SETTINGS.get(name, name): value
    for name, value in settings.items()
    if name not in _OF_TRAINING
    and (value or not str(name).startswith(("use_", "attn_", "pos_")))
  }
  rotation = settings.get("pos_emb_type", "1d")
  if rotation == "1d":
    arch.pop("pos_emb_type", None)
  return {
    "mlp_t": False,
    **arch,
    "name": "nano_trm.trm@TRMModule",
    "pos_encodings": "rope" if rotation else "none",
  }
