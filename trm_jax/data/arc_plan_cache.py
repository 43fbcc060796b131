"""Plans of variants kept in files, so that each is drawn once."""

import hashlib
import json
import pathlib
import sys
import textwrap

import numpy as np

from trm_jax import errors
from trm_jax.data import arc_plan, atomic_file

_FORMAT = 1  # of the files; to be raised when they or the draws change
_ARRAYS = ("group_indices", "rows", "transforms", "colours")


def cached(
  tasks: arc_plan.Tasks, *, num_variants: int, seed: int, folder: pathlib.Path
) -> arc_plan.Plan:
  """Builds a plan as `arc_plan.build` does, or reads it from its file.

  Args:
    tasks: As in `arc_plan.build`.
    num_variants: As in `arc_plan.build`.
    seed: Of the draws; 42 officially.
    folder: Where plans are kept.

  Returns:
    The plan.

  Raises:
    UserError: if a number is out of range, if the file is damaged or cannot
      be written, or as in `arc_plan.build`.
  """
  if num_variants < 0 or not 0 <= seed < 2**32:
    raise errors.UserError(
      f"number of variants is {num_variants} and their seed {seed}, expected 0 "
      "or more and, for the seed, less than 2^32"
    )
  path = folder / f"arc_plan_{_digest(tasks, num_variants, seed)}.npz"
  if path.exists():
    return _read(path)
  count = sum(map(len, tasks.values()))
  print(
    f"building the plan of variants, once: {count:,} tasks, up to "
    f"{num_variants:,} variants each",
    file=sys.stderr,
    flush=True,
  )
  rng = np.random.RandomState(seed)
  plan = arc_plan.build(tasks, num_variants=num_variants, rng=rng)
  _list_sparse(plan, num_variants)
  with atomic_file.writing(path) as file:
    np.savez(
      file,
      groups=np.array(json.dumps(plan.groups)),
      num_rows=np.array(plan.num_rows),
      **{name: getattr(plan, name) for name in _ARRAYS},
    )
  return plan


def _list_sparse(plan: arc_plan.Plan, num_variants: int) -> None:
  """Tells which tasks have fewer variants than were asked for."""
  by_count: dict[int, list[str]] = {}
  for name, count in sorted(plan.sparse(num_variants)):
    by_count.setdefault(count, []).append(name)
  if by_count:
    lines = [
      "fewer variants, by symmetry or for want of colours (with the original):"
    ]
    for count, names in sorted(by_count.items()):
      text = f"{count:,}: {', '.join(names)}"
      lines.append(textwrap.indent(textwrap.fill(text, 76), "  "))
    print("\n".join(lines), file=sys.stderr, flush=True)


def _read(path: pathlib.Path) -> arc_plan.Plan:
  try:
    with np.load(path) as file:
      return arc_plan.Plan(
        groups=tuple(map(tuple, json.loads(str(file["groups"])))),
        num_rows=int(file["num_rows"]),
        **{name: file[name] for name in _ARRAYS},
      )
  except Exception as error:  # zipfile, zlib and NumPy raise many kinds
    raise errors.UserError(
      f"the plan of variants in {path} is damaged "
      f"({errors.first_line(error)}): delete that file to have it built again"
    ) from error


def _digest(tasks: arc_plan.Tasks, num_variants: int, seed: int) -> str:
  """Returns a hex digest of all that a plan depends on."""
  result = hashlib.blake2b(
    repr((_FORMAT, num_variants, seed)).encode(), digest_size=12
  )
  for subset, members in tasks.items():
    result.update(repr((subset, len(members))).encode())
    for task in members:
      pairs = (*task.train, *task.test)
      result.update(repr((task.name, len(pairs))).encode())
      for pair in pairs:
        for grid in (pair.input, pair.output):
          result.update(repr(grid if grid is None else grid.shape).encode())
          result.update(b"" if grid is None else grid.tobytes())
  return result.hexdigest()
