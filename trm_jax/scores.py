"""How good each checkpoint was, in a file beside them.

A checkpoint is saved before it is evaluated, so that an evaluation that is
killed has something to go on with; its score follows.
"""

import json
import math
from collections.abc import Iterable

from etils import epath

from trm_jax import errors
from trm_jax.data import atomic_file

_FILE = "scores.json"


class Scores:
  """Scores of checkpoints by step, higher is better."""

  def __init__(self, folder: epath.Path):
    """Reads the scores in a folder, if there are any.

    Raises:
      UserError: the file is damaged.
    """
    self._path = folder / _FILE
    self._scores: dict[int, float] = {}
    if not self._path.exists():
      return
    try:
      read = json.loads(self._path.read_text())
      self._scores = {int(step): float(score) for step, score in read.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
      raise errors.UserError(
        f"{self._path} is damaged ({errors.first_line(error)}); delete it to"
        " forget which checkpoint was the best"
      ) from error

  def note(self, step: int, score: float, *, writes: bool) -> None:
    """Keeps a score; NaN is none.

    Args:
      step: of the checkpoint.
      score: of its evaluation.
      writes: False on all processes but the first.

    Raises:
      UserError: the file cannot be written.
    """
    if math.isnan(score):
      return
    self._scores[step] = score
    if writes:
      with atomic_file.writing(self._path) as file:
        file.write(json.dumps(self._scores).encode())

  def best(self, steps: Iterable[int], count: int) -> list[int]:
    """Returns the best of `steps` that have a score; of equals, the newest."""
    scored = [step for step in steps if step in self._scores]
    scored.sort(key=lambda step: (self._scores[step], step), reverse=True)
    return scored[:count]
