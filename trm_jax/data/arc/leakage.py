"""Leakage: whether the evaluated answers were trained on.

Checkpoints store marks of the training data: the names of the ARC tasks whose
test answers a run sees, and a digest of each pair.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence

from trm_jax.data.arc import tasks as arc_tasks

_NUM_NAMED = 3  # leaked tasks that a warning names


def mark(pair: arc_tasks.Pair) -> str:
  """Returns the mark of a pair, a digest of its grids."""
  digest = hashlib.blake2b(digest_size=8)
  for grid in (pair.input, pair.output):
    if grid is not None:
      digest.update(bytes(grid.shape) + grid.tobytes())
  return f"pair {digest.hexdigest()}"


def marks(tasks: Iterable[arc_tasks.ArcTask]) -> list[str]:
  """Returns the marks of tasks trained on with their test answers."""
  result = []
  for task in tasks:
    result += [task.name, *_marks((*task.train, *task.test))]
  return result


def _marks(pairs: Iterable[arc_tasks.Pair]) -> list[str]:
  return [mark(pair) for pair in pairs if pair.output is not None]


def warning(
  tested: Sequence[arc_tasks.ArcTask], learned: Collection[str]
) -> str:
  """Returns a warning if test answers were learned, or "".

  Args:
    tested: Tasks to evaluate.
    learned: Marks; a task counts if its name or a test pair is among them.
  """
  known = set(learned)
  leaked = [
    task.name
    for task in tested
    if task.name in known or not known.isdisjoint(_marks(task.test))
  ]
  if not leaked:
    return ""
  return (
    f"training saw the test answers of {len(leaked)} of the {len(tested)}"
    f" evaluation tasks ({', '.join(leaked[:_NUM_NAMED])}"
    f"{', ...' if len(leaked) > _NUM_NAMED else ''}): solving them says nothing"
    " about unseen tasks"
  )
