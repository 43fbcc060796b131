"""Trained weights of a run or a weights folder, checked to fit a program."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from etils import epath

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import types
from trm_jax.data import files, official
from trm_jax.data import identifiers as identifiers_lib
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.runtime import checkpoint_metadata, processes, weights_folder
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import program as program_lib

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class RestoredWeights:
  """What was restored of a checkpoint."""

  weights: types.Weights  # the averaged ones
  step: int  # supervision step they are of
  path: epath.Path  # the checkpoint's folder
  num_rows: int  # of the puzzle table there, that mean something
  learned: tuple[str, ...]  # marks of the answers that were seen; data/leaks


def open_weights(workdir: str) -> checkpoints_lib.Checkpoints:
  """Opens a workdir's checkpoints, or published weights, for reading.

  Raises:
    UserError: there are none.
  """
  if weights_folder.is_one(workdir):
    return weights_folder.WeightsFolder(workdir)
  return checkpoints_lib.Checkpoints(workdir)


def ema_weights(
  program: program_lib.Program,
  task: task_lib.Task,
  workdir: str,
  *,
  may_grow: bool = False,
) -> RestoredWeights:
  """Reads what a workdir's checkpoint would be evaluated with.

  Args:
    program: of the run; `eval.checkpoint` says whether to read the newest
      checkpoint or the best.
    task: of the run.
    workdir: of a training, or a weights folder.
    may_grow: whether the run's puzzle table may have more rows, at its end;
      they are zero.

  Returns:
    The weights and where they are from.

  Raises:
    UserError: there is no such checkpoint, or one of another network, other
      tokens or other puzzles.
  """
  config = program.config
  with open_weights(workdir) as checkpoints:

    def read(step):
      saved = checkpoints.metadata(step)
      check_rows(saved, config, task, workdir, may_grow=may_grow)
      checkpoint_metadata.check_evaluation_fits(saved, config, task)
      return RestoredWeights(
        weights=checkpoints.restore_weights(
          step, program.abstract_state().ema_weights
        ),
        step=step,
        path=checkpoints.path(step),
        num_rows=saved.num_puzzle_ids or task.num_puzzle_ids,
        learned=tuple(saved.learned),
      )

    return chosen(checkpoints, read, config.eval.checkpoint, workdir)


def chosen(
  checkpoints: checkpoints_lib.Checkpoints,
  read: Callable[[int], _T],
  which: str,
  workdir: str,
) -> _T:
  """Reads the newest checkpoint that is whole, or the best one.

  Args:
    checkpoints: of the workdir.
    read: reads what is wanted of the checkpoint of a step.
    which: 'latest' or 'best'.
    workdir: for messages.

  Raises:
    UserError: there is no such checkpoint, or what `read` raises.
  """
  if which == "best":
    found = _best(checkpoints, read, workdir)
  else:
    found = newest(checkpoints, read)
  if found is None:
    raise errors.UserError(
      f"{workdir} holds no checkpoint yet; train first, or name another workdir"
    )
  return found


def _best(
  checkpoints: checkpoints_lib.Checkpoints,
  read: Callable[[int], _T],
  workdir: str,
) -> _T | None:
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
  except checkpoints_lib.DamagedError as error:
    raise checkpoints_lib.DamagedError(
      f"{error}; it is the best one, --config.eval.checkpoint=latest uses the"
      " newest"
    ) from error


def identifiers_path(workdir: str) -> epath.Path:
  """Where a run says what the rows of its puzzle table are."""
  return files.folder(workdir) / identifiers_lib.FILE


def check_rows(
  saved: checkpoint_metadata.Metadata,
  config: config_lib.Config,
  task: task_lib.Task,
  workdir: str,
  *,
  may_grow: bool = False,
) -> None:
  """Raises UserError unless the table's rows stand for the same puzzles.

  Args:
    saved: of a checkpoint.
    config: of the run.
    task: of the run.
    workdir: of the checkpoint.
    may_grow: whether the run may have more rows, after those.
  """
  here = task.identifiers
  if saved.identifiers == task.identifiers_digest:
    return
  if may_grow and saved.identifiers == identifiers_lib.digest(
    here[: saved.num_puzzle_ids]
  ):
    return
  message = f"the puzzle table of {workdir} has rows for other puzzles"
  path = identifiers_path(workdir)
  there = identifiers_lib.read(path) if path.exists() else []
  if identifiers_lib.digest(there) != saved.identifiers:
    raise errors.UserError(
      f"{message}; which ones is not known: {path} is"
      f" {'not the list of them' if there else 'missing'}"
    )
  message += _first_difference(there, here)
  # Sudokus and mazes have no rows of their own, and the official builders'
  # data sets have them written down.
  if (
    task.augmentation_table
    and not official.is_official(config.data.source)
    and (may_grow or _originals(here) <= set(there))
  ):
    message += f"; --config.data.identifiers={path} lines the rows up"
  raise errors.UserError(message)


def _originals(identifiers: list[str]) -> set[str]:
  return {name for name in identifiers if arc_grids.SEPARATOR not in name}


def _first_difference(there: list[str], here: list[str]) -> str:
  for row, (name, other) in enumerate(zip(there, here, strict=False)):
    if name != other:
      return f": row {row} is {name!r} there, {other!r} here"
  return f": it has {len(there):,} rows, here there are {len(here):,}"


def saved_config(workdir: str, which: str = "latest") -> config_lib.Config:
  """Returns the settings that lie beside a workdir's checkpoint.

  Args:
    workdir: of a training.
    which: 'latest' or 'best', as `eval.checkpoint`.

  Raises:
    UserError: there is no such checkpoint, or it has other settings than this
      version knows.
  """
  with open_weights(workdir) as checkpoints:
    saved = chosen(checkpoints, checkpoints.metadata, which, workdir)
  return settings_of(saved, workdir)


def settings_of(
  saved: checkpoint_metadata.Metadata, workdir: str
) -> config_lib.Config:
  """Returns the settings of a checkpoint; errors as of `saved_config`.

  Where they name a list of the puzzle table's rows, it is the workdir's own,
  which has these rows and is where the run is now.
  """
  try:
    config = config_lib.unflatten(saved.settings)
  except errors.UserError as error:
    raise errors.UserError(
      f"the checkpoint in {workdir}, written by trm_jax"
      f" {saved.versions.get('trm_jax', 'unknown')}, has other settings than"
      f" this version ({error}); name its experiment by --config"
    ) from error
  if not config.data.identifiers:
    return config
  data = dataclasses.replace(
    config.data, identifiers=str(identifiers_path(workdir))
  )
  return dataclasses.replace(config, data=data)


# The newest checkpoint that is not damaged; the others are named and kept.


def newest(
  checkpoints: checkpoints_lib.Checkpoints, read: Callable[[int], _T]
) -> _T | None:
  """Reads the newest checkpoint that is not damaged.

  Those that are are named on stderr. Where training goes on, they are put
  aside, and the scores of later steps are dropped: both are made again.

  Args:
    checkpoints: of a workdir.
    read: reads what is wanted of the checkpoint of a step; called from the
      newest on until it does not raise DamagedError, on all hosts alike.

  Returns:
    What `read` returned; None if there is no checkpoint.

  Raises:
    DamagedError: every checkpoint is damaged; all are left as they are.
    UserError: what else `read` raises, e.g. that one does not fit.
  """
  damage: dict[int, str] = {}
  for step in reversed(checkpoints.all_steps()):
    try:
      found = read(step)
    except checkpoints_lib.DamagedError as error:
      damage[step] = str(error)  # the error itself holds on to arrays
      continue
    if checkpoints.writes:
      checkpoints.forget_scores_after(step)
    _pass_over(checkpoints, damage, used=step)
    return found
  if damage:
    raise checkpoints_lib.DamagedError(
      f"no checkpoint of {checkpoints.folder} can be used: "
      + "; ".join(damage.values())
      + "; put a copy in its place, or choose another --workdir"
    )
  return None


def _pass_over(
  checkpoints: checkpoints_lib.Checkpoints,
  damage: dict[int, str],
  *,
  used: int,
) -> None:
  path = checkpoints.path(used)
  for step, error in damage.items():
    if checkpoints.writes:
      aside = checkpoints.put_aside(step)
      processes.log_once(
        f"WARNING: {error} and is now {aside}; going on from {path}"
      )
    else:
      processes.log_once(f"WARNING: {error}; using {path} instead")
