"""The newest checkpoint that is not damaged; the others are named and kept."""

from collections.abc import Callable
from typing import TypeVar

from trm_jax import checkpointing, hosts

_T = TypeVar("_T")


def newest(
  checkpoints: checkpointing.Checkpoints, read: Callable[[int], _T]
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
    except checkpointing.DamagedError as error:
      damage[step] = str(error)  # the error itself holds on to arrays
      continue
    if checkpoints.writes:
      checkpoints.forget_scores_after(step)
    _pass_over(checkpoints, damage, used=step)
    return found
  if damage:
    raise checkpointing.DamagedError(
      f"no checkpoint of {checkpoints.folder} can be used: "
      + "; ".join(damage.values())
      + "; put a copy in its place, or choose another --workdir"
    )
  return None


def _pass_over(
  checkpoints: checkpointing.Checkpoints,
  damage: dict[int, str],
  *,
  used: int,
) -> None:
  path = checkpoints.path(used)
  for step, error in damage.items():
    if checkpoints.writes:
      aside = checkpoints.put_aside(step)
      hosts.note(f"WARNING: {error} and is now {aside}; going on from {path}")
    else:
      hosts.note(f"WARNING: {error}; using {path} instead")
