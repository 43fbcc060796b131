"""Trained weights from a run's workdir, checked to fit this experiment."""

import dataclasses
from collections.abc import Callable

from etils import epath

from trm_jax import (
  checkpointing,
  description,
  errors,
  experiment,
  fallback,
  types,
)
from trm_jax import workdir as workdir_lib
from trm_jax.data import arc, official
from trm_jax.data import identifiers as identifiers_lib

IDENTIFIERS_FILE = "identifiers.json"


@dataclasses.dataclass(frozen=True)
class Trained:
  """What was restored of a checkpoint."""

  weights: types.Weights  # the averaged ones
  step: int  # supervision step they are of
  path: epath.Path  # the checkpoint's folder
  learned: tuple[str, ...]  # marks of the answers that were seen; data/leaks


def averaged_weights(run: experiment.Experiment, workdir: str) -> Trained:
  """Reads what a workdir's checkpoint would be evaluated with.

  Args:
    run: the experiment; `eval.checkpoint` says whether to read the newest
      checkpoint or the best.
    workdir: of a training.

  Returns:
    The weights and where they are from.

  Raises:
    UserError: there is no such checkpoint, or one of another network, other
      tokens or other puzzles.
  """
  with checkpointing.Checkpoints(workdir) as checkpoints:

    def read(step):
      saved = checkpoints.description(step)
      check_rows(saved, run, workdir)
      description.check_evaluation_fits(saved, run.config, run.task)
      return Trained(
        weights=checkpoints.restore_weights(
          step, run.abstract_state().averaged_weights
        ),
        step=step,
        path=checkpoints.path(step),
        learned=tuple(saved.learned),
      )

    if run.config.eval.checkpoint == "best":
      trained = _best(checkpoints, read, workdir)
    else:
      trained = fallback.newest(checkpoints, read)
  if trained is None:
    raise errors.UserError(
      f"{workdir} holds no checkpoint yet; train first, or name another workdir"
    )
  return trained


def _best(
  checkpoints: checkpointing.Checkpoints,
  read: Callable[[int], Trained],
  workdir: str,
) -> Trained | None:
  """Reads the best checkpoint and no other; None if there is none at all."""
  if checkpoints.latest_step is None:
    return None
  step = checkpoints.best_step
  if step is None:
    raise errors.UserError(
      f"no checkpoint in {workdir} was evaluated, so none is the best; use"
      " --config.eval.checkpoint=latest"
    )
  try:
    return read(step)
  except checkpointing.DamagedError as error:
    raise checkpointing.DamagedError(
      f"{error}; it is the best one, --config.eval.checkpoint=latest uses the"
      " newest"
    ) from error


def identifiers_path(workdir: str) -> epath.Path:
  """Where a run says what the rows of its puzzle table are."""
  return workdir_lib.folder(workdir) / IDENTIFIERS_FILE


def check_rows(
  saved: description.Description, run: experiment.Experiment, workdir: str
) -> None:
  """Raises UserError unless the table's rows stand for the same puzzles."""
  if saved.identifiers == run.task.identifiers_digest:
    return
  message = f"the puzzle table of {workdir} has rows for other puzzles"
  path = identifiers_path(workdir)
  there = identifiers_lib.read(path) if path.exists() else []
  if identifiers_lib.digest(there) != saved.identifiers:
    raise errors.UserError(
      f"{message}; which ones is not known: {path} is"
      f" {'not the list of them' if there else 'missing'}"
    )
  message += _first_difference(there, run.task.identifiers)
  # Sudokus and mazes have no rows of their own, and the official builders'
  # data sets have them written down.
  if (
    run.task.ballot
    and not official.is_official(run.config.data.source)
    and _originals(run.task.identifiers) <= set(there)
  ):
    message += f"; --config.data.identifiers={path} lines the rows up"
  raise errors.UserError(message)


def _originals(identifiers: list[str]) -> set[str]:
  return {name for name in identifiers if arc.SEPARATOR not in name}


def _first_difference(there: list[str], here: list[str]) -> str:
  for row, (name, other) in enumerate(zip(there, here, strict=False)):
    if name != other:
      return f": row {row} is {name!r} there, {other!r} here"
  return f": it has {len(there):,} rows, here there are {len(here):,}"
