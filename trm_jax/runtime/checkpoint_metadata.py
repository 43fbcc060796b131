"""What lies beside a checkpoint, and whether a run may go on from it.

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

import trm_jax
from trm_jax import config as config_lib
from trm_jax import errors
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
    "train.microbatches",
    "train.max_minutes",
    "data.source",
    "data.cache_dir",
    "data.identifiers",
    "data.new_rows",
    "data.num_test",
  )
)
# Settings that checkpoints of before they existed do not name, and what they
# would have been.
_ADDED_LATER: Mapping[str, Any] = {
  "model.recurrence": "two_latents",
  "model.separate_networks": False,
  "model.gradient_updates": 0,
  "model.mlp_gate": "silu",
  "model.gate_kernel": "xla",
  "optimizer.muon_weight_decay": 0.005,
  "optimizer.muon_iterations": 5,
  "optimizer.max_gradient_norm": 0.0,
  "train.label_smoothing": 0.0,
  "data.new_rows": "",
  "eval.solver": "fixed",
  "eval.halt_threshold": 0.5,
  "eval.rollouts": 8,
  "eval.noise": 0.5,
  "eval.choice": "confidence",
}
_DECAY = "optimizer.weight_decay"
TABLE = "puzzle_table"  # path of the one array that may have more rows
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
class Description:
  """What lies beside a state, as JSON holds it."""

  settings: Mapping[str, Any]  # "model.hidden_size" -> 512; see config.flatten
  data_fingerprint: str  # of the training puzzles
  vocabulary: list[str]  # a character for each token
  identifiers: str  # digest of what the rows of the puzzle table are
  learned: list[str]  # marks of ARC's test answers seen so far; see data/leaks
  next_batch: int  # number of the first batch not yet seen
  versions: Mapping[str, str]
  # Both are not known of checkpoints of before they were kept.
  num_puzzle_ids: int | None = None  # rows of the table that mean something
  arrays: Mapping[str, array_digest.Record] = dataclasses.field(
    default_factory=dict
  )

  def to_json(self) -> dict[str, Any]:
    """Returns what JSON can hold."""
    values = json.loads(json.dumps(dataclasses.asdict(self)))
    return {**values, "checksum": _checksum(values)}

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> "Description":
    """Reads what `to_json` returned.

    Raises:
      KeyError, TypeError, ValueError: it is damaged.
    """
    rest = dict(values)
    if "arrays" in rest and rest.pop("checksum") != _checksum(rest):
      raise ValueError("its description has another checksum")
    arrays = {
      name: array_digest.Record(**{**record, "shape": tuple(record["shape"])})
      for name, record in rest.pop("arrays", {}).items()
    }
    # Muon's matrices once had the decay of all other parameters.
    muon = {"optimizer.muon_weight_decay": rest["settings"].get(_DECAY)}
    is_muon = rest["settings"].get("optimizer.name") == "muon"
    added = {**_ADDED_LATER, **(muon if is_muon else {})}
    rest["settings"] = {**added, **rest["settings"]}
    return cls(**rest, arrays=arrays)


def _checksum(values: Mapping[str, Any]) -> str:
  content = json.dumps(values, sort_keys=True).encode()
  return hashlib.sha256(content).hexdigest()


def describe(
  config: config_lib.Config,
  task: task_lib.Task,
  data_fingerprint: str,
  next_batch: int,
  *,
  learned_before: Iterable[str] = (),
) -> Description:
  """Returns the description of a state saved now.

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
  return Description(
    settings=config_lib.flatten(config),
    data_fingerprint=data_fingerprint,
    vocabulary=list(task.look.symbols),
    identifiers=task.identifiers_digest,
    learned=sorted({*task.learned, *learned_before}),
    next_batch=next_batch,
    versions=versions,
    num_puzzle_ids=task.num_puzzle_ids,
  )


def _differences(
  saved: Description, config: config_lib.Config, matters: Callable[[str], bool]
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
  saved: Description,
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
  saved: Description, config: config_lib.Config, task: task_lib.Task
) -> None:
  """Raises UserError that names each difference of networks and tokens."""
  check_network_fits(saved, config, task.look.symbols)


def check_network_fits(
  saved: Description, config: config_lib.Config, symbols: Sequence[str]
) -> None:
  """Raises UserError that names each difference of networks and tokens.

  Args:
    saved: of the checkpoint.
    config: of what is to be evaluated.
    symbols: the character of each token there.
  """

  def matters(name):
    return name.startswith("model.") and name not in _FREE_IN_EVALUATION

  _refuse(_differences(saved, config, matters) + _other_tokens(saved, symbols))


def check_arrays_fit(
  saved: Description, wanted: Any, *, where: str, partly: bool
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
  there: tuple[int, ...], here: tuple[int, ...], num_rows: int | None
) -> bool:
  """Tells whether tables differ at most in rows that mean nothing."""
  if num_rows is None:  # saved before tables were padded
    num_rows = there[0]
  return there[1:] == here[1:] and min(there[0], here[0]) >= num_rows


def _other_tokens(saved: Description, symbols: Sequence[str]) -> list[str]:
  """Says so if tokens stand for other characters than in the checkpoint."""
  if saved.vocabulary == list(symbols):
    return []
  return [
    f"its tokens are {''.join(saved.vocabulary)!r}, here they are"
    f" {''.join(symbols)!r} (config.data.charset sets those of the task 'grid')"
  ]


def _refuse(differences: list[str]) -> None:
  if differences:
    raise errors.UserError(
      "the workdir holds a checkpoint of another experiment: "
      + "; ".join(differences)
      + "; choose another --workdir, or the settings of the checkpoint"
    )
