"""What lies beside a checkpoint, and whether a run may go on from it.

The settings, the library versions, the fingerprint of the training data and
the number of the next batch.
"""

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any

from trm_jax import config as config_lib
from trm_jax import errors

# Settings that may differ between a checkpoint and the run that goes on from
# it: they change how fast or how long, never what the next step computes.
_FREE_IN_TRAINING = frozenset(
  (
    "name",
    "train.num_steps",
    "model.remat",
    "data.source",
    "data.cache_dir",
    "data.num_test",
    "data.prefetch_threads",
    "data.prefetch_batches",
  )
)
_FREE_GROUPS = ("eval.", "checkpoint.", "log.")
# Evaluation needs the same network only.
_NEEDED_IN_EVALUATION = "model."


@dataclasses.dataclass(frozen=True)
class Description:
  """What lies beside a state."""

  config: config_lib.Config
  data_fingerprint: str  # of the training puzzles
  next_batch: int  # number of the first batch not yet seen
  versions: Mapping[str, str]

  def to_json(self) -> dict[str, Any]:
    """Returns what JSON can hold."""
    return {
      "config": json.loads(config_lib.to_json(self.config)),
      "data_fingerprint": self.data_fingerprint,
      "next_batch": self.next_batch,
      "versions": dict(self.versions),
    }

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> "Description":
    """Reads what `to_json` returned."""
    return cls(
      config=config_lib.from_json(json.dumps(values["config"])),
      data_fingerprint=values["data_fingerprint"],
      next_batch=values["next_batch"],
      versions=values["versions"],
    )


def describe(
  config: config_lib.Config, data_fingerprint: str, next_batch: int
) -> Description:
  """Returns the description of a state saved now."""
  packages = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
  versions = {name: importlib.metadata.version(name) for name in packages}
  versions["python"] = platform.python_version()
  return Description(config, data_fingerprint, next_batch, versions)


def check_training_fits(
  saved: Description, config: config_lib.Config, data_fingerprint: str
) -> None:
  """Raises UserError that names each difference which forbids to go on."""
  free = set(_FREE_IN_TRAINING)
  if config.optimizer.min_learning_rate_ratio != 1.0:
    free.remove("train.num_steps")  # the cosine depends on it
  old, new = config_lib.flatten(saved.config), config_lib.flatten(config)
  differences = [
    f"config.{name} is {old.get(name)!r} in the checkpoint, {new[name]!r} here"
    for name in new
    if name not in free
    and not name.startswith(_FREE_GROUPS)
    and old.get(name) != new[name]
  ]
  if not differences and saved.data_fingerprint != data_fingerprint:
    differences.append("the training puzzles are not the same")
  _refuse(differences)


def check_evaluation_fits(
  saved: Description, config: config_lib.Config
) -> None:
  """Raises UserError that names each difference of the networks."""
  old, new = config_lib.flatten(saved.config), config_lib.flatten(config)
  _refuse(
    [
      f"config.{name} is {old.get(name)!r} in the checkpoint, {new[name]!r}"
      " here"
      for name in new
      if name.startswith(_NEEDED_IN_EVALUATION)
      and name not in ("model.remat", "model.compute_dtype")
      and old.get(name) != new[name]
    ]
  )


def _refuse(differences: list[str]) -> None:
  if differences:
    raise errors.UserError(
      "the workdir holds a checkpoint of another experiment: "
      + "; ".join(differences)
      + "; choose another --workdir, or the settings of the checkpoint"
    )
