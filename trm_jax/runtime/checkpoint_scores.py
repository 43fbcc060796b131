"""Scores of checkpoints in scores.json, and which checkpoints they keep."""

import dataclasses
import json
import math
from collections.abc import Iterable
from typing import Any

from etils import epath

from trm_jax import errors
from trm_jax.data import files
from trm_jax.runtime import processes

_SCORES = "scores.json"


class Scores:
  """Scores of checkpoints by step, higher is better.

  Attributes:
    damage: What is wrong with the file; empty if nothing is.
  """

  def __init__(self, folder: epath.Path):
    """Reads the scores in a folder, if there are any, on the first host."""
    self._path = folder / _SCORES
    found = processes.from_first(self._read)
    self.damage: str = found["damage"]
    # None: lost with a damaged file.
    self._scores: dict[int, float | None] = {
      int(step): score for step, score in found["scores"].items()
    }

  def _read(self) -> dict[str, Any]:
    if not self._path.exists():
      return {"scores": {}, "damage": ""}
    try:
      read = json.loads(self._path.read_text())
      scores = {
        int(step): None if score is None else float(score)
        for step, score in read.items()
      }
      return {"scores": scores, "damage": ""}
    except Exception as error:
      if errors.is_trouble(error):
        raise errors.UserError(
          f"{self._path} cannot be read: {errors.reason(error)}"
        ) from error
      return {"scores": {}, "damage": errors.first_line(error)}

  def begin_anew(self, steps: Iterable[int]) -> None:
    """Puts a damaged file aside; one of the checkpoints may be the best.

    Args:
      steps: of the checkpoints that are there; all are kept from now on.

    Raises:
      UserError: the file cannot be renamed or written.
    """
    self._scores = dict.fromkeys(steps)
    damage, self.damage = self.damage, ""

    def put_aside():
      aside = files.put_aside(self._path)
      self._write()
      processes.log_once(
        f"WARNING: {self._path} is damaged ({damage}) and is now {aside}: which"
        " checkpoint was the best is not known; those that are there are kept"
      )

    processes.from_first(put_aside)

  def note(self, step: int, score: float) -> None:
    """Keeps a score; NaN is none.

    Args:
      step: of the checkpoint.
      score: of its evaluation.

    Raises:
      UserError: the file cannot be written.
    """
    if not math.isnan(score):
      self._scores[step] = score
      self._write()

  def forget_after(self, step: int) -> None:
    """Drops the scores of later steps, which will be made again.

    Raises:
      UserError: the file cannot be written.
    """
    kept = {s: score for s, score in self._scores.items() if s <= step}
    if len(kept) < len(self._scores):
      self._scores = kept
      self._write()

  def best(self, steps: Iterable[int], count: int) -> list[int]:
    """Returns the best of `steps` that have a score; of equals, the newest.

    Raises:
      UserError: the file is damaged.
    """
    if self.damage:
      raise errors.UserError(
        f"{self._path} is damaged ({self.damage}): which checkpoint was the"
        " best is not known; use --config.eval.checkpoint=latest"
      )
    scored = [
      (score, step)
      for step in steps
      if (score := self._scores.get(step)) is not None
    ]
    return [step for _, step in sorted(scored, reverse=True)[:count]]

  def lost(self, steps: Iterable[int]) -> list[int]:
    """Returns those of `steps` whose score was lost with a damaged file."""
    return [s for s in steps if self._scores.get(s, math.nan) is None]

  def _write(self) -> None:
    if processes.is_first():
      with files.writing(self._path) as file:
        file.write(json.dumps(self._scores).encode())


@dataclasses.dataclass(frozen=True)
class KeepBest:
  """A preservation policy of Orbax: keeps the best, and what may be it."""

  scores: Scores
  count: int

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Says of each checkpoint whether it is kept."""
    del context
    steps = [checkpoint.step for checkpoint in checkpoints]
    kept = {*self.scores.best(steps, self.count), *self.scores.lost(steps)}
    return [step in kept for step in steps]
