"""Checkpoints: everything the next supervision step depends on, by Orbax.

Asynchronous and atomic. Each state has metadata beside it: the settings, the
next batch's number and a digest of each array, which what is read is compared
with. A damaged checkpoint is skipped, but never silently.

A checkpoint is saved before it is evaluated, so that a killed evaluation can
resume; its score follows (`checkpoint_scores`).
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as policies

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import train_state, types
from trm_jax.data import files
from trm_jax.runtime import (
  array_digest,
  checkpoint_metadata,
  checkpoint_scores,
  processes,
  workdir_lock,
)

_PREFIX = "ckpt"
_METADATA = "metadata"
_OLDER_METADATA = "description"  # of versions before 0.2

_T = TypeVar("_T")


class DamagedError(errors.UserError):
  """A checkpoint is not as it was saved; one that does not fit is another."""


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
      UserError: the workdir can't be written, is in use by another training,
        or has no checkpoint to read.
    """
    self.folder = _folder(workdir)
    self.writes = settings is not None  # or reads only
    self._has_failed = False
    self._metadata: dict[int, checkpoint_metadata.Metadata] = {}
    errors.silence_orbax()
    self._at_close = contextlib.ExitStack()
    with (
      errors.user_error_context(f"cannot use the workdir, {self.folder}"),
      contextlib.ExitStack() as on_error,
    ):
      if self.writes:
        lock = workdir_lock.WorkdirLock(workdir)
        on_error.callback(lock.release)
      if self.writes:
        self.folder.mkdir(parents=True, exist_ok=True)
      elif not self.folder.exists():
        raise errors.UserError(
          f"{workdir} holds no checkpoint; train first, or name another"
          " --workdir"
        )
      self._scores = checkpoint_scores.Scores(self.folder)
      self._manager = ocp.CheckpointManager(
        self.folder,
        item_names=("state", _METADATA),
        options=_options(settings, self._scores),
      )
      self._at_close = on_error.pop_all()
    if self.writes and self._scores.damage:
      self._scores.begin_anew(self._manager.all_steps())

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint, None if there is none."""
    return processes.from_first(self._manager.latest_step)

  @property
  def best_step(self) -> int | None:
    """Step with the best score; None if none was evaluated."""
    best = self._scores.best(self.all_steps(), 1)
    return best[0] if best else None

  def last_good(self) -> str:
    """Says which checkpoint there is to go back to, as a part of a line."""
    steps = _steps(self.folder)  # not those that are still being written
    if not steps:
      return "no checkpoint was saved before it"
    return f"the last good checkpoint is {self.path(steps[-1])}"

  def path(self, step: int) -> epath.Path:
    """Folder of a checkpoint."""
    return self.folder / f"{_PREFIX}_{step}"

  def save(
    self,
    state: train_state.TrainState,
    metadata: checkpoint_metadata.Metadata,
    *,
    step: int,
  ) -> None:
    """Saves in the background; the state may be donated at once.

    Raises:
      UserError: this one or the one before it could not be written.
    """
    metadata = dataclasses.replace(
      metadata,
      arrays=array_digest.array_infos(state),
      seq_len=state.carry.batch.inputs.shape[1],
    )
    self._metadata[step] = metadata
    with self._writing():
      was_saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(_stored(state)),
          metadata=ocp.args.JsonSave(metadata.to_json()),
        ),
      )
      if not was_saved:  # Orbax's own policy saw no need
        raise RuntimeError(f"step {step} was left out")

  def note_score(self, step: int, score: float) -> None:
    """Notes how good a saved checkpoint is.

    Args:
      step: of the checkpoint.
      score: of its evaluation, higher is better; NaN if the right answers are
        not known.
    """
    self._scores.note(step, score)

  def all_steps(self) -> list[int]:
    """Steps of all checkpoints, in order; alike on all hosts."""
    return processes.from_first(lambda: list(self._manager.all_steps()))

  def put_aside(self, step: int) -> str:
    """Renames a damaged checkpoint, so that its step can be saved again."""
    path = self.path(step)
    aside = processes.from_first(lambda: str(files.put_aside(path)))
    self._manager.reload()
    self._metadata.pop(step, None)
    return aside

  def forget_scores_after(self, step: int) -> None:
    """Drops the scores of later steps, which will be made again."""
    self._scores.forget_after(step)

  def metadata(self, step: int) -> checkpoint_metadata.Metadata:
    """Returns the metadata of a step, read once.

    Raises:
      DamagedError: it is not as it was saved.
      UserError: an older version wrote the checkpoint, or it cannot be read.
    """
    if step not in self._metadata:
      self._metadata[step] = self._read(step, lambda: self._read_metadata(step))
    return self._metadata[step]

  def _read_metadata(self, step: int) -> checkpoint_metadata.Metadata:
    path = self.path(step)
    if (path / _OLDER_METADATA).exists() and not (path / _METADATA).exists():
      raise errors.UserError(
        f"the checkpoint {path} was written by trm_jax 0.1, whose checkpoints"
        " this version does not read; export its weights with that version"
        " (--mode=export --format=safetensors) and import them here"
      )
    values = ocp.JsonCheckpointHandler().restore(path / _METADATA)
    return checkpoint_metadata.Metadata.from_json(values)

  def restore(
    self, step: int, abstract: train_state.TrainState
  ) -> train_state.TrainState:
    """Reads a whole state.

    Args:
      step: of the checkpoint.
      abstract: ShapeDtypeStructs with the shardings to restore to. The puzzle
        table may have another number of rows of zeros at its end.

    Returns:
      The state.

    Raises:
      DamagedError: it is not as it was saved.
      UserError: shapes differ; all are listed.
    """
    return self._restore(step, abstract, partly=False)

  def restore_weights(
    self, step: int, abstract: types.Weights
  ) -> types.Weights:
    """Reads only what solving needs; arguments as for `restore`."""
    wanted = checkpoint_metadata.weights_tree(abstract)
    return checkpoint_metadata.weights_of_tree(
      self._restore(step, wanted, partly=True)
    )

  def _restore(self, step: int, wanted: Any, *, partly: bool) -> Any:
    saved = self.metadata(step)
    # Not by the manager, whose hosts would wait for one that cannot read.
    handler = ocp.PyTreeCheckpointHandler()
    folder = self.path(step) / "state"
    checkpoint_metadata.check_arrays_fit(
      saved, wanted, where=f"the checkpoint {self.path(step)}", partly=partly
    )
    stored = _stored(wanted)
    if partly:
      stored = {name: tree for name, tree in stored.items() if tree is not None}
    # All shapes fit: what is not strict are the table's rows of zeros.
    restore_args = jax.tree.map(
      lambda args: dataclasses.replace(args, strict=False),
      ocp.checkpoint_utils.construct_restore_args(stored),
    )
    restored = self._read(
      step,
      lambda: handler.restore(
        folder,
        args=ocp.args.PyTreeRestore(
          stored, restore_args=restore_args, partial_restore=partly
        ),
      ),
    )
    if partly:
      restored = {**dict.fromkeys(wanted), **restored}
    restored = _with_empty(restored, wanted)
    self._check_digests(step, saved.arrays, restored)
    return restored

  def _check_digests(
    self, step: int, saved: Mapping[str, array_digest.ArrayInfo], restored: Any
  ) -> None:
    found = array_digest.array_infos(restored)
    wrong = [
      name for name, info in found.items() if saved[name].digest != info.digest
    ]
    if wrong:
      more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
      raise self._damaged(
        step, f"not the numbers that were saved: {', '.join(wrong[:3])}{more}"
      )

  def wait(self) -> None:
    """Blocks until every save is on disk; raises as `save` does."""
    with self._writing():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then closes."""
    with self._at_close, self._writing():
      self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind, error, _) -> None:
    if error is None:
      self.close()
      return
    was_told = self._has_failed
    try:
      self.close()
    except errors.UserError as also:  # must not hide the one before it
      if not was_told:
        processes.log_once(f"WARNING: {also}")

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns whatever Orbax raises, also later, into a UserError."""
    try:
      yield
    except Exception as error:
      self._has_failed = True
      raise errors.UserError(
        f"cannot save a checkpoint in {self.folder}: {errors.reason(error)};"
        f" {self.last_good()}"
      ) from error

  def _damaged(self, step: int, reason: str) -> DamagedError:
    return DamagedError(
      f"the checkpoint {self.path(step)} is damaged ({reason})"
    )

  def _read(self, step: int, read: Callable[[], _T]) -> _T:
    """Calls `read`; what one host cannot read, is an error on all of them."""
    damage = trouble = other = ""
    found: list[_T] = []
    try:
      found.append(read())
    except errors.UserError as error:
      other = str(error)
    except Exception as error:
      # Some readers take what they may not read for missing.
      trouble = files.denied(self.path(step))
      if not trouble and errors.is_trouble(error):
        trouble = errors.reason(error)
      elif not trouble:
        damage = errors.reason(error)
    trouble = processes.of_any_host(trouble)
    damage = processes.of_any_host(damage)
    other = processes.of_any_host(other)
    if other:
      raise errors.UserError(other)
    if trouble:
      raise errors.UserError(
        f"the checkpoint {self.path(step)} cannot be read: {trouble}"
      )
    if damage:
      raise self._damaged(step, damage)
    return found[0]


def has_checkpoint(workdir: str) -> bool:
  """Tells whether a workdir has a finished checkpoint."""
  return bool(_steps(_folder(workdir)))


def _folder(workdir: str) -> epath.Path:
  """Returns the checkpoints' folder; one that may not be read is no new run."""
  folder = files.folder(workdir) / "checkpoints"
  files.check_listable(folder.parent)
  files.check_listable(folder)
  return folder


def _stored(tree: Any) -> Any:
  """Leaves out arrays without entries, which Orbax does not save."""
  return jax.tree.map(lambda leaf: leaf if leaf.size else None, tree)


def _with_empty(restored: Any, wanted: Any) -> Any:
  """Puts in the arrays that `_stored` left out."""
  return jax.tree.map(
    lambda want, found: (
      found
      if want.size
      else jnp.zeros(want.shape, want.dtype, device=want.sharding)
    ),
    wanted,
    restored,
  )


def _steps(folder: epath.Path) -> list[int]:
  """Returns the steps of the finished checkpoints, in order."""
  names = ocp.path.step.standard_name_format(step_prefix=_PREFIX)
  with errors.user_error_context(f"cannot read {folder}"):
    return sorted(found.step for found in names.find_all(folder))


def _options(
  settings: config_lib.CheckpointConfig | None, scores: checkpoint_scores.Scores
) -> ocp.CheckpointManagerOptions:
  if settings is None:
    return ocp.CheckpointManagerOptions(
      step_prefix=_PREFIX, read_only=True, create=False, save_interval_steps=0
    )
  return ocp.CheckpointManagerOptions(
    step_prefix=_PREFIX,
    preservation_policy=policies.AnyPreservationPolicy(
      [
        policies.LatestN(settings.keep_last),
        checkpoint_scores.KeepBest(scores, settings.keep_best),
      ]
    ),
    cleanup_tmp_directories=True,
  )
