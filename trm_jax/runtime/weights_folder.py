"""Weights folders: a network's averaged weights, to publish and to ship.

`model.safetensors` has the arrays, `config.json` what is saved beside any
checkpoint (settings, tokens, a digest of each array), `identifiers.json` what
the rows of the puzzle table are, `README.md` the model card. They are data:
nothing in them is executed. A folder is read as if it were the workdir of a run
with this one checkpoint; it cannot be trained in.
"""

import dataclasses
import json
from typing import Any

import jax
import numpy as np
import safetensors.numpy
from etils import epath

from trm_jax import errors
from trm_jax.core import types
from trm_jax.data import files, identifiers
from trm_jax.runtime import array_digest, checkpoint_metadata
from trm_jax.runtime import checkpoints as checkpoints_lib

WEIGHTS = "model.safetensors"
SETTINGS = "config.json"
CARD = "README.md"


def is_one(workdir: str) -> bool:
  """Tells whether a folder has published weights, and no checkpoints."""
  folder = files.folder(workdir)
  return not (folder / "checkpoints").exists() and any(
    (folder / name).exists() for name in (WEIGHTS, SETTINGS)
  )


def refuse(workdir: str) -> None:
  """Raises UserError if a folder that is to be trained in has such weights."""
  if is_one(workdir):
    raise errors.UserError(
      f"{workdir} holds published weights, not a run to resume: choose another"
      f" --workdir, and start from the weights with"
      f" --config.checkpoint.init_from={workdir}"
    )


class WeightsFolder(checkpoints_lib.Checkpoints):
  """Published weights, read as the only checkpoint of a workdir."""

  def __init__(self, workdir: str):
    """Opens a weights folder for reading.

    Raises:
      UserError: a file is missing.
    """
    self.folder = files.folder(workdir)
    self.writes = False
    self._has_failed = False
    self._metadata = {}
    for name in (WEIGHTS, SETTINGS):
      if not (self.folder / name).exists():
        raise errors.UserError(
          f"{self.folder / name} is missing; a folder of published weights has"
          f" {WEIGHTS}, {SETTINGS} and {identifiers.FILE}"
        )
    self._step = self.metadata(0).next_batch
    self._metadata[self._step] = self._metadata[0]

  @property
  def latest_step(self) -> int:
    """Supervision step of the weights."""
    return self._step

  @property
  def best_step(self) -> int:
    """As `latest_step`: there is only one."""
    return self._step

  def all_steps(self) -> list[int]:
    """Returns the only step."""
    return [self._step]

  def path(self, step: int) -> epath.Path:
    """Returns the folder itself."""
    del step
    return self.folder

  def _read_metadata(self, step: int) -> checkpoint_metadata.Metadata:
    del step
    values = json.loads((self.folder / SETTINGS).read_bytes())
    return checkpoint_metadata.Metadata.from_json(values)

  def _restore(self, step: int, wanted: Any, *, partly: bool) -> Any:
    saved = self.metadata(step)
    checkpoint_metadata.check_arrays_fit(
      saved, wanted, where=f"the network of {self.folder}", partly=partly
    )
    restored = self._read(step, lambda: self._read_arrays(saved, wanted))
    self._check_digests(step, saved.arrays, restored)
    return restored

  def _read_arrays(
    self, saved: checkpoint_metadata.Metadata, wanted: Any
  ) -> Any:
    """Reads the arrays of a tree; what is not as it was written raises."""
    found = safetensors.numpy.load((self.folder / WEIGHTS).read_bytes())
    names = iter(array_digest.named_leaves(wanted))

    def place(leaf):
      name = next(names)
      array, info = found[name], saved.arrays[name]
      if (array.shape, str(array.dtype)) != (info.shape, info.dtype):
        raise ValueError(
          f"{name} is {array.dtype} {array.shape} in {WEIGHTS},"
          f" {info.dtype} {info.shape} in {SETTINGS}"
        )
      rows = array[: leaf.shape[0]] if array.ndim else array
      # Rows of the puzzle table that divide it over the devices are zero.
      more = [
        (0, size - had)
        for size, had in zip(leaf.shape, rows.shape, strict=True)
      ]
      padded = np.pad(rows, more)
      return jax.make_array_from_callback(
        leaf.shape, leaf.sharding, lambda index: padded[index]
      )

    return jax.tree.map(place, wanted)

  def close(self) -> None:
    """Does nothing."""


def write(
  output: str,
  weights: types.Weights,
  metadata: checkpoint_metadata.Metadata,
  *,
  names: list[str],
  card: str,
) -> epath.Path:
  """Writes a weights folder; a model card that is there is kept.

  Args:
    output: the folder; made if missing.
    weights: the averaged weights.
    metadata: of the checkpoint they are from.
    names: what the rows of the puzzle table are.
    card: text of the model card.

  Returns:
    The folder.

  Raises:
    UserError: it has weights or checkpoints, or cannot be written.
  """
  folder = files.folder(output)
  taken = (WEIGHTS, SETTINGS, "checkpoints")
  for name in taken:
    if (folder / name).exists():
      raise errors.UserError(
        f"{folder} has {name} already, which is not overwritten; choose another"
        " --output"
      )
  weights = dataclasses.replace(
    jax.device_get(weights),
    puzzle_table=jax.device_get(weights.puzzle_table)[: len(names)],
  )
  tree = checkpoint_metadata.weights_tree(weights)
  arrays = {
    name: np.array(leaf, order="C")
    for name, leaf in array_digest.named_leaves(tree).items()
  }
  metadata = dataclasses.replace(
    metadata, arrays=array_digest.array_infos(tree)
  )
  content = {
    SETTINGS: (json.dumps(metadata.to_json(), indent=1) + "\n").encode(),
    WEIGHTS: safetensors.numpy.save(arrays),
  }
  if not (folder / CARD).exists():
    content[CARD] = card.encode()
  identifiers.write(folder / identifiers.FILE, names)
  for name, data in content.items():
    with files.writing(folder / name) as file:
      file.write(data)
  return folder
