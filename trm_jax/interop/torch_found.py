"""An official checkpoint as it was found, and whether it fits an experiment."""

import dataclasses
from collections.abc import Mapping, Set
from typing import Any

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.interop import (
  torch_config,
  torch_fit,
  torch_kinds,
  torch_names,
  torch_settings,
  torch_shapes,
  torch_shown,
  torch_source,
  torch_state_dict,
)
from trm_jax.runtime import program

_MAX_TOLD = 10  # differences in one message
# Of another kind of network, all else is another, too: this is enough.
_OF_KIND = ("model.recurrence", "model.separate_networks")


@dataclasses.dataclass(frozen=True)
class Found:
  """What an official checkpoint holds."""

  source: torch_source.Source
  state_dict: Mapping[str, np.ndarray]  # by names without prefix
  taken: str  # of what there was, in words
  arch: Mapping[str, Any] | None  # the network's settings, if they are there
  arch_from: str  # what they stand in


def read(source: str) -> Found:
  """Reads a checkpoint and what lies beside it; raises as its parts do."""
  located = torch_source.locate(source)
  tree = located.tree()
  state_dict, taken = torch_state_dict.find(tree, where=str(located.weights))
  arch, arch_from = torch_config.find(tree), "its own settings"
  if located.config is not None:
    arch, arch_from = torch_config.read(located.config), torch_config.FILE
  return Found(located, state_dict, taken, arch, arch_from)


def check(
  found: Found,
  config: config_lib.Config,
  sizes: program.Sizes,
  *,
  rows_of: str,
  overridden: Set[str],
) -> None:
  """Raises UserError that names what does not fit, if anything does not.

  Args:
    found: the checkpoint.
    config: the experiment.
    sizes: of its puzzles.
    rows_of: what says how many rows the puzzle table has.
    overridden: settings said on the command line.
  """
  model = config.model
  torch_kinds.of(model.recurrence, separate_networks=model.separate_networks)
  in_weights = torch_fit.differences(
    found.state_dict, config, sizes, rows_of=rows_of
  )
  in_settings, unsaid = [], ""
  if found.arch is not None:
    in_settings = _in_settings(found.arch, found.state_dict, config)
  else:
    wanted = torch_shapes.expected(model, sizes)
    unsaid = torch_settings.unsaid(
      overridden,
      torch_shapes.seen(found.state_dict, wanted).kind,
      has_heads=model.token_mixing == "attention",
    )
  if not (in_weights or in_settings or unsaid):
    return
  # What stands in both is told once.
  told = {difference.setting for difference in in_settings} - {""}
  in_weights = [d for d in in_weights if d.setting not in told]
  # Settings first: of tensors, any number may differ.
  sentences = [(d, f"in {found.arch_from} {d.text}") for d in in_settings]
  sentences += [(d, d.text) for d in in_weights]
  of_kind = [text for d, text in sentences if d.setting in _OF_KIND]
  texts = (of_kind or [text for _, text in sentences])[:_MAX_TOLD]
  if len(texts) < len(sentences):
    texts.append(f"and {len(sentences) - len(texts):,} more")
  flags = " ".join(d.flag for d in (*in_weights, *in_settings) if d.flag)
  if flags:
    texts.append(f"as it was trained: {flags}")
  if unsaid:
    texts.append(
      f"no {torch_config.FILE} lies beside it, and weights do not show how they"
      f" are to be applied: {unsaid}"
    )
  raise errors.UserError(
    f"{found.source.weights} does not fit the experiment: {'; '.join(texts)}"
  )


def _in_settings(
  arch: Mapping[str, Any],
  state_dict: Mapping[str, np.ndarray],
  config: config_lib.Config,
) -> list[torch_settings.Difference]:
  """Compares the settings of a file with ours, and with its latents."""
  found = torch_settings.differences(arch, config)
  latents, updates = torch_names.num_latents(state_dict), arch.get("L_cycles")
  if not latents or not isinstance(updates, int) or updates == latents:
    return found
  # No setting of ours has latents that are never updated.
  rest = [d for d in found if d.setting != "model.latent_updates"]
  text = (
    f"arch.L_cycles is {torch_shown.shown(updates)} with {latents} latents,"
    " here each update has a latent of its own"
  )
  return [*rest, torch_settings.Difference(text)]
