"""The variants of ARC tasks: drawn once, and their rows of the puzzle table.

The official builder writes every variant of every task to disk. Here, a table
holds what it draws for them, a transform and ten colours, draw by draw the
same, so that row i of the puzzle table means the same in both.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from trm_jax import errors
from trm_jax.data import files
from trm_jax.data import identifiers as identifiers_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.data.arc import variants as arc_variants

Tasks = Mapping[str, Sequence[arc_tasks.ArcTask]]  # by subset


@dataclasses.dataclass(frozen=True)
class VariantTable:
  """Variants (puzzles) grouped by task; the first of a task is its original.

  Attributes:
    groups: Subset and name of each task, G.
    group_indices: Group g has the puzzles [g] to [g + 1], int64 [G + 1].
    rows: Row of the puzzle table for each puzzle, int32 [N]. A task that is in
      two subsets shares its rows.
    transforms: Transform 0..7 of each puzzle, for `grids.apply`, uint8 [N].
    colours: New colour of each old one, for `grids.apply`, uint8 [N, 10].
    num_rows: Rows of the puzzle table, including row 0, which is blank.
    unused: Rows and identifiers of tasks that are not in the data.
  """

  groups: tuple[tuple[str, str], ...]
  group_indices: np.ndarray
  rows: np.ndarray
  transforms: np.ndarray
  colours: np.ndarray
  num_rows: int
  unused: tuple[tuple[int, str], ...] = ()

  def __post_init__(self):
    count = len(self.rows)
    for name, dtype, shape in (
      ("group_indices", np.int64, (len(self.groups) + 1,)),
      ("rows", np.int32, (count,)),
      ("transforms", np.uint8, (count,)),
      ("colours", np.uint8, (count, arc_grids.NUM_COLOURS)),
    ):
      array = getattr(self, name)
      if array.dtype != dtype or array.shape != shape:
        raise ValueError(
          f"{name} is {array.dtype} {array.shape}, "
          f"expected {np.dtype(dtype)} {shape}"
        )
    ends = self.group_indices
    if ends[0] != 0 or ends[-1] != count or (np.diff(ends) < 1).any():
      raise ValueError(f"group_indices do not cut 0..{count} into parts")
    if self.rows.min() < 1 or self.rows.max() >= self.num_rows:
      raise ValueError(f"rows are not between 1 and {self.num_rows - 1}")

  def identifiers(self) -> list[str]:
    """Returns the name of every row, as in the official identifiers.json."""
    result = [identifiers_lib.BLANK] * self.num_rows
    for row, name in self.unused:
      result[row] = name
    digits = (self.colours + np.uint8(ord("0"))).tobytes().decode("ascii")
    rows, transforms = self.rows.tolist(), self.transforms.tolist()
    starts = self.group_indices.tolist()
    for (_, task), start, end in zip(
      self.groups, starts[:-1], starts[1:], strict=True
    ):
      result[rows[start]] = task
      for i in range(start + 1, end):
        result[rows[i]] = arc_grids.variant_name(
          task,
          transform=transforms[i],
          digits=digits[
            arc_grids.NUM_COLOURS * i : arc_grids.NUM_COLOURS * (i + 1)
          ],
        )
    return result

  def sparse(self, num_augmentations: int) -> list[tuple[str, int]]:
    """Returns name and number of puzzles of the tasks that lack variants.

    Tasks of few colours or with symmetric grids have less than
    `num_augmentations` in addition to the original.
    """
    counts = np.diff(self.group_indices).tolist()
    return [
      (name, count)
      for (_, name), count in zip(self.groups, counts, strict=True)
      if count <= num_augmentations
    ]


def build(
  tasks: Tasks, *, num_augmentations: int, rng: np.random.RandomState
) -> VariantTable:
  """Draws a table, draw by draw as the official builder does.

  Args:
    tasks: Tasks of each subset; the order of subsets and tasks matters.
    num_augmentations: Variants per task in addition to the original.
    rng: Random state; seeded with 42 officially.

  Returns:
    The table: subsets in the given order, the tasks of each in random order.

  Raises:
    UserError: if there is no task, or one has an impossible name.
  """
  _check_names(tasks)
  groups, variants = [], []
  for subset, members in tasks.items():
    order = list(range(len(members)))
    rng.shuffle(order)
    for task in (members[i] for i in order):
      groups.append((subset, task.name))
      variants.append(
        arc_variants.distinct(
          task, num_augmentations=num_augmentations, rng=rng
        )
      )
  rows, num_rows = _new_rows(groups, variants)
  return VariantTable(
    groups=tuple(groups),
    group_indices=_indices([transforms for transforms, _ in variants]),
    rows=rows,
    transforms=np.concatenate([transforms for transforms, _ in variants]),
    colours=np.concatenate([colours for _, colours in variants]),
    num_rows=num_rows,
  )


def _check_names(tasks: Tasks) -> None:
  if not any(tasks.values()):
    raise errors.UserError(f"no tasks in the subsets {', '.join(tasks)}")
  for subset, members in tasks.items():
    for task in members:
      if arc_grids.SEPARATOR in task.name or task.name in (
        "",
        identifiers_lib.BLANK,
      ):
        raise errors.UserError(
          f"task {task.name[:100]!r} of the subset {subset!r} has a name that "
          f"identifiers cannot hold: rename it, without {arc_grids.SEPARATOR!r}"
        )


def _new_rows(
  groups: Sequence[tuple[str, str]],
  variants: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, int]:
  """Numbers the variants from 1 on, those with the same name alike.

  Args:
    groups: Subset and name of each task.
    variants: Transforms and colours of each task's variants.

  Returns:
    Rows of all variants, int32 [N], and the number of rows.
  """
  in_subsets = collections.Counter(name for _, name in groups)
  known: dict[tuple[str, int, bytes], int] = {}  # only repeatable ones
  parts = []
  following = 1
  for (_, name), (transforms, colours) in zip(groups, variants, strict=True):
    rows = np.arange(following, following + len(transforms), dtype=np.int32)
    if in_subsets[name] == 1:
      following += len(rows)
    else:
      for i, transform in enumerate(transforms.tolist()):
        variant = (name, transform, colours[i].tobytes())
        rows[i] = known.setdefault(variant, following)
        following = max(following, int(rows[i]) + 1)
    parts.append(rows)
  return np.concatenate(parts), following


def _indices(parts: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
  """Returns the start of each part and the end of the last, int64."""
  return np.cumsum([0, *map(len, parts)], dtype=np.int64)


def without_rows(
  names: Sequence[str], tasks: Tasks
) -> dict[str, list[arc_tasks.ArcTask]]:
  """Returns the tasks without any row in a puzzle table.

  Args:
    names: Identifiers of the rows.
    tasks: Tasks of each subset.

  Returns:
    The tasks of each subset that need new rows.
  """
  known = {name.split(arc_grids.SEPARATOR)[0] for name in names}
  return {
    subset: [task for task in members if task.name not in known]
    for subset, members in tasks.items()
  }


def from_identifiers(
  names: Sequence[str], tasks: Tasks, *, where: str
) -> VariantTable:
  """Builds the table that an existing puzzle table was trained with.

  Args:
    names: Identifiers of the rows, in any order except for row 0, which is
      blank.
    tasks: Tasks of each subset.
    where: File of the identifiers; begins an error message.

  Returns:
    The table: subsets in the given order, the tasks of each in the order of
    their originals in the list.

  Raises:
    UserError: on a malformed or repeated identifier, or if a task of the data
      is missing.
  """
  _check_names(tasks)
  identifiers_lib.check(names, where=where)
  # Of row 0, the blank, too.
  task_of, transforms, colours = arc_grids.parse_names(
    names, range(len(names)), where=where
  )
  members: dict[str, list[int]] = collections.defaultdict(list)
  for row, task in enumerate(task_of[1:], 1):
    if names[row] == task:
      members[task].insert(0, row)
    else:
      members[task].append(row)
  groups = _groups_in(names, members, tasks, where)
  rows = np.concatenate([members[name] for _, name in groups])
  used = {name for _, name in groups}
  return VariantTable(
    groups=groups,
    group_indices=_indices([members[name] for _, name in groups]),
    rows=rows.astype(np.int32),
    transforms=transforms[rows],
    colours=colours[rows],
    num_rows=len(names),
    unused=tuple(
      (row, names[row])
      for row in range(1, len(names))
      if task_of[row] not in used
    ),
  )


def _groups_in(
  names: Sequence[str],
  members: Mapping[str, list[int]],
  tasks: Tasks,
  where: str,
) -> tuple[tuple[str, str], ...]:
  """Returns the tasks in order; UserError if the list does not match them."""
  groups: list[tuple[str, str]] = []
  missing: list[str] = []
  counts = collections.Counter(
    task.name for given in tasks.values() for task in given
  )
  for name, count in counts.items():
    if count > 1:
      raise errors.UserError(
        f"the ARC task {name!r} is in several subsets, and which of its rows "
        f"in {where} belong to which is not known; leave one subset out"
      )
  for subset, given in tasks.items():
    found = {}
    for task in given:
      if task.name in members and names[members[task.name][0]] == task.name:
        found[task.name] = members[task.name][0]
      else:
        missing.append(f"{task.name!r} of the subset {subset!r}")
    groups += [(subset, name) for name in sorted(found, key=found.__getitem__)]
  if missing:
    raise errors.UserError(
      f"{where} has the identifiers of another data set: the originals of "
      f"{len(missing)} of {len(missing) + len(groups)} tasks are missing, first"
      f" {missing[0]}"
    )
  return tuple(groups)


# --- tables cached in files --------------------------------------------------

_FORMAT = 1  # to be raised when the files or the draws change
_ARRAYS = ("group_indices", "rows", "transforms", "colours")


def cached(
  tasks: Tasks, *, num_augmentations: int, seed: int, folder: pathlib.Path
) -> VariantTable:
  """Builds a table as `build` does, or reads it from its file.

  Args:
    tasks: As in `build`.
    num_augmentations: As in `build`.
    seed: Seed of the draws; 42 officially.
    folder: Folder of the files.

  Returns:
    The table.

  Raises:
    UserError: if a number is out of range, if the file is damaged or cannot
      be written, or as in `build`.
  """
  if num_augmentations < 0 or not 0 <= seed < 2**32:
    raise errors.UserError(
      f"number of variants is {num_augmentations} and their seed {seed},"
      " expected 0 or more and, for the seed, less than 2^32"
    )
  path = folder / f"arc_plan_{_digest(tasks, num_augmentations, seed)}.npz"
  if path.exists():
    return _read(path)
  count = sum(map(len, tasks.values()))
  print(
    f"drawing the variants of {count:,} tasks, once: up to"
    f" {num_augmentations:,} each",
    file=sys.stderr,
    flush=True,
  )
  rng = np.random.RandomState(seed)
  table = build(tasks, num_augmentations=num_augmentations, rng=rng)
  with files.writing(path) as file:
    np.savez(
      file,
      groups=np.array(json.dumps(table.groups)),
      num_rows=np.array(table.num_rows),
      **{name: getattr(table, name) for name in _ARRAYS},
    )
  return table


def _read(path: pathlib.Path) -> VariantTable:
  try:
    with np.load(path) as file:
      return VariantTable(
        groups=tuple(map(tuple, json.loads(str(file["groups"])))),
        num_rows=int(file["num_rows"]),
        **{name: file[name] for name in _ARRAYS},
      )
  except Exception as error:  # zipfile, zlib and NumPy raise many kinds
    raise errors.UserError(
      f"the table of variants in {path} is damaged "
      f"({errors.first_line(error)}): delete that file to rebuild it"
    ) from error


def _digest(tasks: Tasks, num_augmentations: int, seed: int) -> str:
  """Returns a hex digest of everything that a table depends on."""
  result = hashlib.blake2b(
    repr((_FORMAT, num_augmentations, seed)).encode(), digest_size=12
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
