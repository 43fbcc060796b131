"""Checkpoints: everything the next supervision step depends on, by Orbax.

Asynchronous and atomic. Beside each state lie the settings, the library
versions, the fingerprint of the training data and the next batch's number.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from trm_jax import config as config_lib
from trm_jax import description as description_lib
from trm_jax import errors, train_state, types
from trm_jax import scores as scores_lib

_PREFIX = "ckpt"


@dataclasses.dataclass(frozen=True)
class _KeepBest:
  """A preservation policy of Orbax: keeps the best by our own scores."""

  scores: scores_lib.Scores
  count: int

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Says of each checkpoint whether it is kept."""
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    best = self.scores.best(steps, self.count)
    return [step in best for step in steps]


class Checkpoints:
  """The checkpoints of one workdir."""

  def __init__(
    self, workdir: str, settings: config_lib.CheckpointConfig | None = None
  ):
    """Opens the folder `checkpoints` of a workdir.

    Args:
      workdir: a folder; need not exist when training.
      settings: which to keep; None opens for reading only.

    Raises:
      UserError: the workdir can't be written, or has no checkpoint to read.
    """
    self.folder = _folder(workdir)
    self._scores = scores_lib.Scores(self.folder)
    if settings is None:
      if not self.folder.exists():
        raise errors.UserError(
          f"{workdir} holds no checkpoint; train first, or name another"
          " --workdir"
        )
      options = ocp.CheckpointManagerOptions(
        step_prefix=_PREFIX, read_only=True
      )
    else:
      try:
        self.folder.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise errors.UserError(
          f"cannot write to the workdir, {self.folder}:"
          f" {error.strerror or error}"
        ) from error
      options = ocp.CheckpointManagerOptions(
        step_prefix=_PREFIX,
        preservation_policy=policies.AnyPreservationPolicy(
          [
            policies.LatestN(settings.keep_last),
            _KeepBest(self._scores, settings.keep_best),
          ]
        ),
        cleanup_tmp_directories=True,
      )
    self._manager = ocp.CheckpointManager(
      self.folder, item_names=("state", "description"), options=options
    )

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint, None if there is none."""
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    """Step with the best score; None if none was evaluated."""
    best = self._scores.best(self._manager.all_steps(), 1)
    return best[0] if best else None

  def path(self, step: int) -> epath.Path:
    """Folder of a checkpoint."""
    return self.folder / f"{_PREFIX}_{step}"

  def save(
    self,
    state: train_state.TrainState,
    description: description_lib.Description,
    *,
    step: int,
  ) -> None:
    """Saves in the background; the state may be donated at once."""
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        description=ocp.args.JsonSave(description.to_json()),
      ),
    )

  def note_score(self, step: int, score: float) -> None:
    """Notes how good a saved checkpoint is.

    Args:
      step: of the checkpoint.
      score: of its evaluation, higher is better; NaN if the right answers are
        not known.
    """
    self._scores.note(step, score, writes=jax.process_index() == 0)

  def description(self, step: int) -> description_lib.Description:
    """Reads what lies beside the state of a step."""

    def read():
      restored = self._manager.restore(
        step, args=ocp.args.Composite(description=ocp.args.JsonRestore())
      )
      return description_lib.Description.from_json(restored.description)

    return self._read(step, read)

  def restore(
    self, step: int, abstract: train_state.TrainState
  ) -> train_state.TrainState:
    """Reads a whole state.

    Args:
      step: of the checkpoint.
      abstract: ShapeDtypeStructs with the shardings to restore to.

    Returns:
      The state.

    Raises:
      UserError: shapes differ (all are listed), or a file is damaged.
    """
    self._check_shapes(step, abstract)
    restored = self._read(
      step,
      lambda: self._manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
      ),
    )
    return restored.state

  def restore_weights(
    self, step: int, abstract: types.Weights
  ) -> types.Weights:
    """Reads only what solving needs; arguments as for `restore`."""
    wanted = {
      "ema_params": abstract.params,
      "puzzle_table": abstract.puzzle_table,
      "initial_latents": {
        "y": abstract.initial_latents.y,
        "z": abstract.initial_latents.z,
      },
    }
    self._check_shapes(step, wanted)
    restored = self._read(
      step,
      lambda: self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeRestore(
            wanted,
            restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
            partial_restore=True,
          )
        ),
      ),
    ).state
    return types.Weights(
      params=restored["ema_params"],
      puzzle_table=restored["puzzle_table"],
      initial_latents=types.Latents(**restored["initial_latents"]),
    )

  def wait(self) -> None:
    """Blocks until every save is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then closes."""
    self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def _read(self, step: int, read: Callable[[], Any]) -> Any:
    try:
      return read()
    except Exception as error:  # Orbax raises whatever its backends raise
      raise errors.UserError(
        f"the checkpoint {self.path(step)} is damaged"
        f" ({errors.first_line(error)}); move it away to use the one before it"
      ) from error

  def _saved_leaves(self, step: int) -> dict[str, Any]:
    """Returns shape and dtype of each array saved, by its path."""
    with ocp.StandardCheckpointer() as checkpointer:
      metadata = checkpointer.metadata(self.path(step) / "state")
    if metadata.item_metadata is None:
      raise ValueError("its list of arrays cannot be read")
    leaves = jax.tree_util.tree_leaves_with_path(metadata.item_metadata.tree)
    return {_name(path): leaf for path, leaf in leaves}

  def _check_shapes(self, step: int, wanted: Any) -> None:
    saved = self._read(step, lambda: self._saved_leaves(step))
    differences = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
      name = _name(path)
      if name not in saved:
        differences.append(f"{name} is not in the checkpoint")
      elif tuple(saved[name].shape) != tuple(leaf.shape):
        differences.append(
          f"{name} has shape {tuple(saved[name].shape)} in the checkpoint,"
          f" {tuple(leaf.shape)} here"
        )
    if isinstance(wanted, train_state.TrainState):
      names = {
        _name(path) for path, _ in jax.tree_util.tree_leaves_with_path(wanted)
      }
      differences += [
        f"{name} is only in the checkpoint"
        for name in saved
        if name not in names
      ]
    if differences:
      raise errors.UserError(
        f"the checkpoint {self.path(step)} does not fit: "
        + "; ".join(differences)
      )


def has_checkpoint(workdir: str) -> bool:
  """Tells whether a workdir has a finished checkpoint."""
  folder = _folder(workdir)
  return folder.exists() and any(
    path.name.removeprefix(f"{_PREFIX}_").isdigit() for path in folder.iterdir()
  )


def _folder(workdir: str) -> epath.Path:
  return epath.Path(workdir).expanduser().resolve() / "checkpoints"


def _name(path) -> str:
  """Path of a leaf, alike for dataclasses, tuples and Orbax's dicts."""
  parts = []
  for entry in path:
    for attribute in ("name", "key", "idx"):
      if hasattr(entry, attribute):
        parts.append(str(getattr(entry, attribute)))
        break
  return "/".join(parts)
