"""A checkpoint's metadata, and whether a run may resume from it.

The settings, the library versions, the fingerprint of the training data, what
tokens and rows of the puzzle table stand for, the number of the next batch, and
a digest of each array. Its own checksum tells whether it is as it was written.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import types
from trm_jax.data import task as task_lib
from trm_jax.runtime import array_digest

# Settings that may differ between a checkpoint and the run that goes on from
# it: they change how fast or how long, never what the next step computes.
_FREE_IN_TRAINING = frozenset(
  (
    "name",
    "model.remat",
    "model.attention_kernel",
    "model.gate_kernel",
    "train.gradient_accumulation_steps",
    "train.time_limit_minutes",
    "data.source",
    "data.cache_dir",
    "data.identifiers",
    "data.new_rows",
    "data.num_test",
  )
)
# Settings that checkpoints and published weights of this version's beginnings
# do not have: name -> the value that means what the code did without them. A
# setting that is added to `config.Config` must be added here, too.
ADDED: Mapping[str, Any] = {
  "eval.rollout_halting": "never",
  "eval.rollout_variation": "noise",
  "log.trackers": ("tensorboard",),
  "model.symbol_head_size": 32,
  "model.symbol_heads": 4,
  "model.symbol_mixing": "none",
  "train.depth_curriculum": False,
  "train.num_starts": 1,
  "train.step_loss_decay": 1.0,
}
_RANDOM = (
  "jax_default_prng_impl",
  "jax_enable_x64",
  "jax_random_seed_offset",
  "jax_threefry_partitionable",
)
TABLE = "puzzle_table"  # path of the one array that may have more rows
_TOKENS = "carry/batch/inputs"  # path of the slots' puzzles, [slots, L]
_FREE_GROUPS = ("eval.", "checkpoint.", "log.")
# Evaluation needs the same network only, and not its way to be computed.
_FREE_IN_EVALUATION = (
  "model.remat",
  "model.attention_kernel",
  "model.gate_kernel",
  "model.compute_dtype",
  "model.gradient_updates",
)


@dataclasses.dataclass(frozen=True)
class Metadata:
  """What is saved beside a state, as JSON.

  Attributes:
    settings: "model.hidden_size" -> 512; see `config.flatten`.
    data_fingerprint: Of the training puzzles.
    vocabulary: A character for each token.
    identifiers: Digest of what the rows of the puzzle table stand for.
    num_puzzle_ids: Rows of the puzzle table that stand for something.
    learned: Marks of ARC's test answers seen so far; see data/arc/leakage.
    next_batch: Number of the first batch not yet seen.
    versions: Of trm_jax, the libraries and Python.
    random: JAX's settings that change random numbers, by variable; empty in
      older checkpoints.
    arrays: Info of each array of the state, by its path.
    seq_len: L, grid tokens.
  """

  settings: Mapping[str, Any]
  data_fingerprint: str
  vocabulary: list[str]
  identifiers: str
  num_puzzle_ids: int
  learned: list[str]
  next_batch: int
  versions: Mapping[str, str]
  random: Mapping[str, str] = dataclasses.field(default_factory=dict)
  arrays: Mapping[str, array_digest.ArrayInfo] = dataclasses.field(
    default_factory=dict
  )
  seq_len: int = 0

  def to_json(self) -> dict[str, Any]:
    """Returns what JSON can hold."""
    values = json.loads(json.dumps(dataclasses.asdict(self)))
    return {**values, "checksum": _checksum(values)}

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> "Metadata":
    """Reads what `to_json` returned, also of an older version.

    Settings that were added since then have the values that mean what that
    version did.

    Raises:
      KeyError, TypeError, ValueError: it is damaged.
    """
    rest = dict(values)
    if rest.pop("checksum") != _checksum(rest):
      raise ValueError("its metadata has another checksum")
    rest["settings"] = {**ADDED, **rest["settings"]}
    if "seq_len" not in rest:
      rest["seq_len"] = rest["arrays"][_TOKENS]["shape"][1]
    arrays = {
      name: array_digest.ArrayInfo(**{**info, "shape": tuple(info["shape"])})
      for name, info in rest.pop("arrays").items()
    }
    return cls(**rest, arrays=arrays)


def weights_tree(weights: types.Weights) -> dict[str, Any]:
  """Returns averaged weights under the names that a saved state has them by.

  Args:
    weights: arrays or ShapeDtypeStructs.
  """
  return {
    "ema_params": weights.params,
    TABLE: weights.puzzle_table,
    "initial_latents": {
      name: leaf
      for name, leaf in vars(weights.initial_latents).items()
      if leaf is not None  # a recurrence without z
    },
  }


def weights_of_tree(tree: Mapping[str, Any]) -> types.Weights:
  """Inverts `weights_tree`."""
  return types.Weights(
    params=tree["ema_params"],
    puzzle_table=tree[TABLE],
    initial_latents=types.Latents(**tree["initial_latents"]),
  )


def _checksum(values: Mapping[str, Any]) -> str:
  content = json.dumps(values, sort_keys=True).encode()
  return hashlib.sha256(content).hexdigest()


def make_metadata(
  config: config_lib.Config,
  task: task_lib.Task,
  data_fingerprint: str,
  next_batch: int,
  *,
  learned_before: Iterable[str] = (),
) -> Metadata:
  """Returns the metadata of a state saved now.

  Args:
    config: of the run.
    task: of the run.
    data_fingerprint: of the training puzzles.
    next_batch: number of the first batch not yet seen.
    learned_before: marks of what the weights it began with had learned.
  """
  packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
  versions = {name: importlib.metadata.version(name) for name in packages}
  versions["python"] = platform.python_version()
  versions["trm_jax"] = trm_jax.__version__
  return Metadata(
    settings=config_lib.flatten(config),
    data_fingerprint=data_fingerprint,
    vocabulary=list(task.look.symbols),
    identifiers=task.identifiers_digest,
    learned=sorted({*task.learned, *learned_before}),
    next_batch=next_batch,
    versions=versions,
    num_puzzle_ids=task.num_puzzle_ids,
    random=random_settings(),
  )


def random_settings() -> dict[str, str]:
  """Returns JAX's settings that change random numbers, by variable."""
  return {
    name.upper(): str(jax.config.values[name])
    for name in _RANDOM
    if name in jax.config.values
  }


def other_random_settings(saved: Metadata) -> str:
  """Returns a warning if a run draws other numbers than before, or ''."""
  here = random_settings()
  changes = [
    f"{name} was {saved.random[name]} and is {here[name]}"
    for name in sorted(here.keys() & saved.random.keys())
    if here[name] != saved.random[name]
  ]
  if not changes:
    return ""
  return (
    f"{', '.join(changes)}: from here on JAX draws other random numbers than"
    " the run would have drawn"
  )


def _differences(
  saved: Metadata, config: config_lib.Config, matters: Callable[[str], bool]
) -> list[str]:
  """Names each setting that matters and is not the checkpoint's."""
  # As JSON has them: a tuple is a list there.
  here = json.loads(json.dumps(config_lib.flatten(config)))
  found = []
  for name in filter(matters, {**here, **saved.settings}):
    if name not in saved.settings:
      found.append(
        f"config.{name} is {here[name]!r} here, and unknown to the checkpoint"
        f" (written by trm_jax {saved.versions.get('trm_jax', 'unknown')})"
      )
    elif name not in here:
      found.append(f"config.{name} is only in the checkpoint")
    elif saved.settings[name] != here[name]:
      found.append(
        f"config.{name} is {saved.settings[name]!r} in the checkpoint,"
        f" {here[name]!r} here"
      )
  return found


def check_training_fits(
  saved: Metadata,
  config: config_lib.Config,
  task: task_lib.Task,
  data_fingerprint: str,
) -> None:
  """Raises UserError that names each difference which forbids to go on."""
  has_cosine = config.optimizer.min_learning_rate_ratio != 1.0

  def matters(name):
    if name == "train.num_steps":
      return has_cosine  # its end is the schedule's
    return name not in _FREE_IN_TRAINING and not name.startswith(_FREE_GROUPS)

  differences = _differences(saved, config, matters)
  if saved.data_fingerprint != data_fingerprint:
    differences.append("the training puzzles are not the same")
  _refuse(differences + _other_tokens(saved, task.look.symbols))


def check_evaluation_fits(
  saved: Metadata, config: config_lib.Config, task: task_lib.Task
) -> None:
  """Raises UserError that names each difference of networks and tokens."""
  check_network_fits(saved, config, task.look.symbols)


def check_network_fits(
  saved: Metadata, config: config_lib.Config, symbols: Sequence[str]
) -> None:
  """Raises UserError that names each difference of networks and tokens.

  Args:
    saved: of the checkpoint.
    config: of what is to be evaluated.
    symbols: the character of each token there.
  """

  def matters(name):
    return name.startswith("model.") and name not in _FREE_IN_EVALUATION

  _refuse(
    _differences(saved, config, matters) + _other_tokens(saved, symbols),
    " (to evaluate or use it, omit --config to use the run's own settings)",
  )


def check_arrays_fit(
  saved: Metadata, wanted: Any, *, where: str, partly: bool
) -> None:
  """Raises UserError that names each array of another shape or dtype.

  Args:
    saved: of the checkpoint.
    wanted: tree of ShapeDtypeStructs. The puzzle table may have more rows than
      puzzles, here as there: they are zero.
    where: the checkpoint, begins the text of an error.
    partly: whether the checkpoint may hold more.
  """
  leaves = array_digest.named_leaves(wanted)
  differences = []
  for name, leaf in leaves.items():
    if name not in saved.arrays:
      differences.append(f"{name} is not in the checkpoint")
      continue
    there = saved.arrays[name]
    shapes = (there.shape, tuple(leaf.shape))
    is_table = name == TABLE and _differ_in_zeros(*shapes, saved.num_puzzle_ids)
    if shapes[0] != shapes[1] and not is_table:
      differences.append(
        f"{name} has shape {shapes[0]} in the checkpoint, {shapes[1]} here"
      )
    elif there.dtype != str(leaf.dtype):
      differences.append(
        f"{name} is {there.dtype} in the checkpoint, {leaf.dtype} here"
      )
  if not partly:
    only_there = sorted(set(saved.arrays) - set(leaves))
    differences += [f"{name} is only in the checkpoint" for name in only_there]
  if differences:
    raise errors.UserError(f"{where} does not fit: {'; '.join(differences)}")


def _differ_in_zeros(
  there: tuple[int, ...], here: tuple[int, ...], num_rows: int
) -> bool:
  """Returns whether tables differ only in padding rows at their end."""
  return there[1:] == here[1:] and min(there[0], here[0]) >= num_rows


def _other_tokens(saved: Metadata, symbols: Sequence[str]) -> list[str]:
  """Says so if tokens stand for other characters than in the checkpoint."""
  if saved.vocabulary == list(symbols):
    return []
  return [
    f"its tokens are {''.join(saved.vocabulary)!r}, here they are"
    f" {''.join(symbols)!r} (config.data.charset sets those of the task 'grid')"
  ]


def _refuse(differences: list[str], advice: str = "") -> None:
  if differences:
    raise errors.UserError(
      "the workdir holds a checkpoint of another experiment: "
      + "; ".join(differences)
      + "; choose another --workdir, or the settings of the checkpoint"
      + advice
    )
