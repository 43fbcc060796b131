"""Whether a checkpoint fits the config, and the flags that make it fit.

What a checkpoint says of its network is compared at once: its settings, if
there are any, then what names and shapes of its tensors show, then every tensor
with the network that all of this makes.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import layers
from trm_jax.data import tasks
from trm_jax.interop import (
  torch_architectures,
  torch_names,
  torch_reader,
  torch_settings,
)
from trm_jax.interop.torch_settings import Difference
from trm_jax.runtime import mesh as mesh_lib
from trm_jax.runtime import program

_DTYPES = ("float32", "bfloat16", "float16")  # float32 holds all their bits
# Of a network whose tensors are compared.
_LIMITS = {
  "model.hidden_size": 2**16,
  "model.num_layers": 100,
  "model.latent_updates": 100,
}
_MAX_DIFFERENCES = 10  # in one message
# If one of these differs, all else does: they are enough for a message.
_ARCHITECTURE = ("model.recursion_type", "model.separate_networks")
_PREFIX_TOKENS = 16  # officially, where fewer would do
# Of SwiGLU's inner width; officially the first, with an expansion of 4.
_MULTIPLES = (256, 128, 64, 32, 16, 8, 1)
# What weights alone do not show: a letter for what the user must know, else the
# usual value, which is proposed unless the config has it.
_HIDDEN: Mapping[str, int | str] = {
  "model.latent_updates": "n",
  "model.recursion_cycles": "T",
  "model.num_heads": "H",
  "model.position_encoding": "rope",
  "model.num_prefix_tokens": _PREFIX_TOKENS,
}
_OF_ATTENTION = ("model.num_heads", "model.position_encoding")
# What a shape follows from, by part of a tensor's name.
_REASONS = {
  "embed_tokens": "the vocabulary of config.data.task {task!r}",
  "lm_head": "the vocabulary of config.data.task {task!r}",
  "mlp_t": "config.model.mlp_expansion and config.model.mlp_multiple",
  "mlp": "config.model.mlp_expansion and config.model.mlp_multiple",
  "self_attn": "config.model.num_heads",
  "puzzle_emb": "the rows that {rows_from} lists; it is the table of another"
  " data set",
}


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What is compared with the config.

  Attributes:
    state_dict: arrays by official name.
    arch: settings by official name; None if there are none.
    arch_from: where they are from.
    rows_from: what lists the rows of the puzzle table.
  """

  state_dict: Mapping[str, np.ndarray]
  arch: Mapping[str, Any] | None = None
  arch_from: str = ""
  rows_from: str = ""


def check(
  checkpoint: Checkpoint,
  config: config_lib.Config,
  sizes: program.DataSpec,
  *,
  given: Collection[str],
  where: str,
  others: Collection[str] = (),
) -> None:
  """Raises UserError that names the differences, if there are any.

  Args:
    checkpoint: the checkpoint.
    config: the settings.
    sizes: of the config's puzzles; vocab_size and seq_len are 0 if unknown.
    given: our settings that the user gave.
    where: the checkpoint, for messages.
    others: other reasons against the checkpoint.
  """
  found = [*map(Difference, others), *differences(checkpoint, config, sizes)]
  missing = _missing(checkpoint, config, sizes, given)
  if not found and not missing:
    return
  chosen = [d for d in found if d.setting in _ARCHITECTURE] or found
  chosen = chosen[:_MAX_DIFFERENCES]
  texts = [difference.text for difference in chosen if difference.text]
  if len(chosen) < len(found):
    texts.append(f"and {len(found) - len(chosen):,} more")
  flags = [d.flag for d in (*found, *missing) if d.flag]
  if flags:
    texts.append(f"to match its training, pass {' '.join(flags)}")
  if missing:
    names = ", ".join(d.setting.partition(".")[2] for d in missing)
    published = architecture_in(checkpoint.state_dict, config).published
    texts.append(
      f"weights do not show how they are applied ({names}), and no"
      f" {torch_settings.FILE} beside them says it; published: {published}"
    )
  raise errors.UserError(
    f"{where} does not fit the experiment: {'; '.join(texts)}"
  )


def differences(
  checkpoint: Checkpoint, config: config_lib.Config, sizes: program.DataSpec
) -> list[Difference]:
  """Returns what differs; arguments as for `check`.

  Settings come before tensors, of which any number may differ.
  """
  state_dict = checkpoint.state_dict
  there = _in_weights(state_dict, config, sizes) | _in_settings(
    checkpoint, config, sizes
  )
  found = torch_settings.differences(there, config)
  changes = {d.setting: d.value for d in found if d.flag}
  if any(changes.get(name, 0) > limit for name, limit in _LIMITS.items()):
    return found
  expansion = changes.get("model.mlp_expansion", config.model.mlp_expansion)
  shown = _inner_widths(state_dict, config, expansion)
  widths = torch_settings.differences(shown, config)
  found = [d for d in found if d.setting not in shown] + widths
  changes |= {d.setting: d.value for d in widths}
  puzzles = list(_other_puzzles(state_dict, config, sizes, there))
  found += puzzles
  try:
    fitted = config_lib.changed(config, changes)
    prefix = fitted.model.num_prefix_tokens
    sizes = _told_once(sizes, state_dict, prefix, puzzles)
    expected = shapes_of(build(fitted, sizes))
  except errors.UserError:
    if not found:
      raise
    return found  # there is no such network
  texts = _other_tensors(checkpoint, expected, task=config.data.task)
  return found + [Difference(text) for text in texts]


def without_idle_units(
  state_dict: dict[str, np.ndarray], config: config_lib.Config
) -> dict[str, np.ndarray]:
  """Takes off inner units of SwiGLUs that are zero and more than the config's.

  An export to the official code's widths has them.
  """

  def width_of(size):
    return _width(size, config.model.mlp_expansion, config.model.mlp_multiple)

  widths = torch_names.inner_widths(state_dict).values()
  if any(units < width_of(size) for size, units in widths):
    return state_dict
  return torch_names.with_inner_widths(state_dict, width_of) or state_dict


def architecture_in(
  state_dict: Mapping[str, np.ndarray], config: config_lib.Config
) -> torch_architectures.Architecture:
  """Returns the official network of a state dict; the config's if unclear."""
  model = config.model
  wanted = torch_names.levels(
    model.recursion_type, separate_networks=model.separate_networks
  )
  levels = torch_names.levels_in(state_dict) or wanted
  unclear = model.recursion_type if levels == wanted else "two_latents"
  return torch_architectures.architecture_of(
    torch_names.recurrence_of(state_dict) or unclear,
    separate_networks=len(levels) > 1,
  )


def build(
  config: config_lib.Config, sizes: program.DataSpec
) -> program.Program:
  """Builds the config's program with as few slots as possible."""
  mesh = mesh_lib.make_mesh()
  train = dataclasses.replace(
    config.train, batch_size=mesh.size, gradient_accumulation_steps=1
  )
  return program.build(dataclasses.replace(config, train=train), sizes, mesh)


def shapes_of(built: program.Program) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of the state dict of a program, by name."""
  weights = jax.tree.map(
    # Takes no memory, however large.
    lambda leaf: np.broadcast_to(np.float32(0), leaf.shape),
    built.abstract_state().ema_weights,
  )
  state_dict = torch_names.state_dict_of(
    weights,
    num_puzzle_ids=built.sizes.num_puzzle_ids,
    recurrence=built.config.model.recursion_type,
  )
  return {name: array.shape for name, array in state_dict.items()}


def _in_weights(
  state_dict: Mapping[str, np.ndarray],
  config: config_lib.Config,
  sizes: program.DataSpec,
) -> dict[str, tuple[Any, str]]:
  """Returns settings that names and shapes show, as `torch_settings.values`."""
  model, names = config.model, " ".join(state_dict)
  embedding = state_dict.get(torch_names.EMBEDDING)
  table = state_dict.get(torch_names.TABLE, np.zeros((0, 0)))
  shown: dict[str, Any] = {"hidden_size": model.hidden_size}
  if embedding is not None and embedding.ndim == 2:
    shown["hidden_size"] = embedding.shape[1]
  if table.ndim == 2:
    shown["puzzle_embed_dim"] = table.shape[1]
  is_mlp, is_attention = ".mlp_t." in names, ".self_attn." in names
  if is_mlp != is_attention:
    shown["token_mixing"] = "mlp" if is_mlp else "attention"
  if torch_names.POSITIONS in state_dict:
    shown["position_encoding"] = "learned"
  elif is_mlp:
    shown["position_encoding"] = "none"
  width, tokens = shown.get("puzzle_embed_dim", 1), _num_tokens(state_dict)
  least = -(-width // max(shown["hidden_size"], 1))
  prefix = tokens - sizes.seq_len
  if not width:
    shown["num_prefix_tokens"] = 0
  elif tokens and sizes.seq_len and prefix in range(least, _PREFIX_TOKENS + 1):
    shown["num_prefix_tokens"] = prefix
  architecture = architecture_in(state_dict, config)
  if architecture is torch_architectures.LATENT_PER_UPDATE:
    shown["latent_updates"] = torch_names.num_latents(state_dict)
  there = {
    f"model.{name}": (value, f"it has {name} {value!r}")
    for name, value in shown.items()
  }
  depths = {
    level: torch_names.num_layers(state_dict, level)
    for level in torch_names.levels_in(state_dict)
  }
  if depths:
    text = " and ".join(f"{k} has num_layers {n}" for k, n in depths.items())
    depth = max(depths.values()) if len({*depths.values()}) == 1 else None
    there["model.num_layers"] = depth or None, text
  arch = {"puzzle_emb_ndim": width, "hidden_size": shown["hidden_size"]}
  fixed = {torch_settings.SETTINGS[name] for name in architecture.fixed}
  whole = torch_settings.values(architecture, arch, subject="it")
  return {name: whole[name] for name in whole if name in fixed} | {
    name: value for name, value in there.items() if name not in fixed
  }


def _in_settings(
  checkpoint: Checkpoint, config: config_lib.Config, sizes: program.DataSpec
) -> dict[str, tuple[Any, str]]:
  """Returns settings that the checkpoint says, as `torch_settings.values`."""
  arch = checkpoint.arch
  if arch is None:
    return {}
  shown = _in_weights(checkpoint.state_dict, config, sizes)
  mixing, _ = shown.get("model.token_mixing", (config.model.token_mixing, ""))
  there = torch_settings.values(
    torch_settings.named(arch),
    {"mlp_t": mixing == "mlp", **arch},
    shown=shown.keys(),
  )
  if "mlp_t" not in arch:
    del there["model.token_mixing"]
  latents = torch_names.num_latents(checkpoint.state_dict)
  updates = arch.get("L_cycles")
  if latents and isinstance(updates, int) and updates != latents:
    # No value of ours has latents that are never updated.
    there["model.latent_updates"] = (
      None,
      f"arch.L_cycles is {torch_reader.quoted(updates)} with {latents} latents,"
      " and each update needs a latent of its own",
    )
  return {
    name: (value, f"in {checkpoint.arch_from} {text}")
    for name, (value, text) in there.items()
  }


def _missing(
  checkpoint: Checkpoint,
  config: config_lib.Config,
  sizes: program.DataSpec,
  given: Collection[str],
) -> list[Difference]:
  """Returns settings that neither the checkpoint nor the user say."""
  known = {
    *_in_weights(checkpoint.state_dict, config, sizes),
    *_in_settings(checkpoint, config, sizes),
    *given,
  }
  here = config_lib.flatten(config)
  has_heads = any(".self_attn." in name for name in checkpoint.state_dict)
  return [
    Difference("", name, value)
    for name, value in _HIDDEN.items()
    if name not in known
    and value != here[name]
    and (has_heads or name not in _OF_ATTENTION)
  ]


def _num_tokens(state_dict: Mapping[str, np.ndarray]) -> int:
  """Returns S, prefix and grid tokens; 0 if no shape shows it."""
  positions = state_dict.get(torch_names.POSITIONS)
  if positions is not None:
    return len(positions) if positions.ndim == 2 else 0
  widths = torch_names.inner_widths(state_dict)
  return next((size for n, (size, _) in widths.items() if ".mlp_t." in n), 0)


def _width(size: int, expansion: float, multiple: int) -> int:
  return layers.swiglu_width(size, expansion=expansion, multiple=multiple)


def _inner_widths(
  state_dict: Mapping[str, np.ndarray],
  config: config_lib.Config,
  expansion: float,
) -> dict[str, tuple[Any, str]]:
  """Returns settings that make SwiGLUs as wide as in the file, if any do."""
  widths = sorted({*torch_names.inner_widths(state_dict).values()})
  exact = [1.5 * units / size for size, units in widths if size]
  model = config.model
  multiples = (model.mlp_multiple, *_MULTIPLES)
  # The settings, then the official values, then what fits.
  for multiple, value in (
    *itertools.product(multiples[:2], (expansion, model.mlp_expansion, 4.0)),
    *itertools.product(multiples, (*map(float, range(1, 9)), *exact)),
  ):
    if all(units == _width(size, value, multiple) for size, units in widths):
      return {
        "model.mlp_expansion": (value, f"it has mlp_expansion {value!r}"),
        "model.mlp_multiple": (multiple, f"it has mlp_multiple {multiple}"),
      }
  return {}


def _other_puzzles(
  state_dict: Mapping[str, np.ndarray],
  config: config_lib.Config,
  sizes: program.DataSpec,
  there: Mapping[str, tuple[Any, str]],
) -> Iterator[Difference]:
  """Yields what of vocabulary and grid the weights show to be otherwise."""
  data, is_own = config.data, config.data.task == "grid"
  embedding = state_dict.get(torch_names.EMBEDDING)
  if is_own and embedding is not None and embedding.ndim:
    count = len(embedding)
    if count != sizes.vocab_size:
      yield Difference(
        f"it has {count} tokens, so config.data.charset must have {count - 1}"
        f" characters, those of tokens 1 to {count - 1} in their order, and has"
        f" {len(data.charset)}",
        "data.charset",
        "CHARACTERS",
      )
  tokens = _num_tokens(state_dict)
  prefix, _ = there.get(
    "model.num_prefix_tokens", (config.model.num_prefix_tokens, "")
  )
  if sizes.seq_len and tokens in (0, prefix + sizes.seq_len):
    return
  text = f"it has {tokens - prefix} cells, but"
  if tokens <= prefix:
    text = f"it has {tokens} tokens, prefix and cells, but" if tokens else ""
  if not is_own:
    text += f" config.data.task {data.task!r} has {sizes.seq_len} cells"
    if tasks.get(data).digits:
      text += " (config.data.box_rows and config.data.box_cols set its size)"
    yield Difference(text)
    return
  yield Difference(
    f"{text} config.data.grid_rows is {data.grid_rows} and"
    f" config.data.grid_cols {data.grid_cols}".strip(),
    "data.grid_rows",
    "ROWS",
  )
  yield Difference("", "data.grid_cols", "COLUMNS")


def _told_once(
  sizes: program.DataSpec,
  state_dict: Mapping[str, np.ndarray],
  prefix: int,
  puzzles: Collection[Difference],
) -> program.DataSpec:
  """Returns the sizes, those of the file where that was found to differ."""
  vocab_size, seq_len = sizes.vocab_size, sizes.seq_len
  settings = {difference.setting for difference in puzzles}
  if "data.charset" in settings:
    vocab_size = len(state_dict[torch_names.EMBEDDING])
  if settings - {"data.charset"}:
    seq_len = _num_tokens(state_dict) - prefix
  return dataclasses.replace(
    sizes, vocab_size=max(vocab_size, 1), seq_len=max(seq_len, 1)
  )


def _other_tensors(
  checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]], *, task: str
) -> Iterator[str]:
  """Yields what differs between tensors and the expected shapes."""
  state_dict = checkpoint.state_dict
  for name in expected:
    if name not in state_dict:
      yield f"{name} is missing"
  wrong: dict[tuple, list[str]] = {}
  for name, array in state_dict.items():
    if name not in expected:
      yield f"{torch_reader.quoted(name)} is unknown"
    elif array.shape != expected[name]:
      block = torch_names.block_of(name)
      part = (block[2] if block else name).partition(".")[0]
      key = (_REASONS.get(part, ""), array.shape, expected[name])
      wrong.setdefault(key, []).append(name)
    elif array.dtype.name not in _DTYPES:
      yield f"{name} has dtype {array.dtype.name}, expected float32"
  for (reason, there, here), (name, *others) in wrong.items():
    text = f"{name} and {len(others)} more have" if others else f"{name} has"
    text += f" shape {there}, expected {here}"
    if reason:
      text += f" by {reason.format(task=task, rows_from=checkpoint.rows_from)}"
    yield text
