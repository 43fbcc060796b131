"""Makes a task of a folder that the official builders wrote."""

import pathlib

import numpy as np

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.data import (
  arc,
  arc_tasks,
  look,
  official,
  puzzle_set,
)
from trm_jax.data import task as task_lib

_TEST_PUZZLES = "test_puzzles.json"


def load(
  data: config_lib.DataConfig,
  shown: look.Look,
  rules: task_lib.Rules | None,
) -> task_lib.Task:
  """Opens both splits; nothing of them is read into memory.

  Args:
    data: the settings; `source` names the folder.
    shown: the task's look, which says how many tokens and cells there are.
    rules: of the task.

  Returns:
    The task, without a ballot.

  Raises:
    UserError: the files are missing, damaged or of another task.
  """
  train, test = (
    official.load_split(data.source, split) for split in ("train", "test")
  )
  _check_size(data.source, train, test, shown)
  for name, wanted, there in (
    ("num_train", data.num_train, train.num_groups),
    ("num_test", data.num_test, test.num_groups),
  ):
    if wanted not in (0, there):
      raise errors.UserError(
        f"config.data.{name} asks for {wanted} puzzles, but {data.source} was"
        f" built with {there}; set it to 0"
      )
  if data.identifiers:
    raise errors.UserError(
      f"{data.source} has an identifiers.json of its own; leave"
      " config.data.identifiers empty"
    )
  return task_lib.Task(
    train=train,
    test=test,
    look=shown,
    augmentation=None,
    identifiers=official.read_identifiers(
      data.source, num_puzzle_ids=train.num_puzzle_ids
    ),
    rules=rules,
    notes=(
      f"{data.source} is a data set of the official builders: its variants are"
      " written out, config.data.augmentation, num_variants and subsets have"
      " no effect",
    ),
  )


def _check_size(
  source: str,
  train: official.OfficialSet,
  test: official.OfficialSet,
  shown: look.Look,
) -> None:
  found = (train.vocab_size, train.seq_len, train.num_puzzle_ids)
  if (test.vocab_size, test.seq_len, test.num_puzzle_ids) != found:
    raise errors.UserError(
      f"the train and test sets in {source} differ in vocabulary, length or"
      " number of puzzle identifiers: they are of two data sets"
    )
  expected = (len(shown.symbols), shown.rows * shown.cols)
  if found[:2] != expected:
    raise errors.UserError(
      f"{source} has {found[0]} tokens and {found[1]} cells, expected"
      f" {expected[0]} and {expected[1]}: is config.data.task the right one?"
    )


def ballot(
  source: str, test: puzzle_set.Puzzles, names: list[str]
) -> task_lib.Ballot:
  """Reads what is needed to vote on an official ARC data set.

  Args:
    source: the folder.
    test: its test split.
    names: its identifiers.

  Raises:
    UserError: test_puzzles.json is missing, damaged or of other puzzles.
  """
  folder = pathlib.Path(source).expanduser()
  path = folder / _TEST_PUZZLES
  tasks = _read_tasks(path)
  variants = [
    arc.parse_name(names[row], where=f"{folder}/identifiers.json entry {row}")
    for row in test.puzzle_ids.tolist()
  ]
  chosen = []
  for group in range(test.num_groups):
    first, end = test.group_indices[group : group + 2].tolist()
    members = sorted({variants[p][0] for p in range(first, end)})
    name = members[0]
    if len(members) > 1:
      raise errors.UserError(
        f"{source} does not fit together: by identifiers.json, group {group} of"
        f" its test set has variants of {name!r} and of {members[1]!r}"
      )
    if name not in tasks:
      raise errors.UserError(
        f"{path} has no task {name!r}, which is in the test set by"
        " identifiers.json: they are of two data sets"
      )
    sizes = np.diff(test.puzzle_indices[first : end + 1])
    wrong = sizes[sizes != len(tasks[name].test)]
    if wrong.size:
      raise errors.UserError(
        f"{path} does not fit the test set: the task {name!r} has"
        f" {len(tasks[name].test)} test inputs there, {wrong[0]} here"
      )
    chosen.append(tasks[name])
  digits = "".join(colours for _, _, colours in variants).encode("ascii")
  result = task_lib.Ballot(
    tasks=tuple(chosen),
    transforms=np.array([transform for _, transform, _ in variants], np.uint8),
    colours=np.frombuffer(digits, np.uint8).reshape(len(variants), -1)
    - np.uint8(ord("0")),
  )
  _check_variants(source, test, result)
  return result


def _check_variants(
  source: str, test: puzzle_set.Puzzles, made: task_lib.Ballot
) -> None:
  """Raises UserError unless variants are those that their names say.

  Looks at the first and the last variant of each task: files that were mixed up
  differ there. `tally` checks each of them when it is evaluated.
  """
  ends = np.stack([test.group_indices[:-1], test.group_indices[1:] - 1], axis=1)
  for group, puzzles in enumerate(ends.tolist()):
    task = made.tasks[group]
    for puzzle in puzzles:
      first, end = test.puzzle_indices[puzzle : puzzle + 2].tolist()
      examples = np.arange(first, end)
      inputs, _ = test.fetch(examples, np.full(len(examples), puzzle))
      for grid, pair in zip(arc.crop(inputs), task.test, strict=True):
        original = arc.undo(
          grid,
          transform=int(made.transforms[puzzle]),
          colours=made.colours[puzzle],
        )
        if not np.array_equal(original, pair.input):
          raise errors.UserError(
            f"{source} does not fit together: puzzle {puzzle} of its test set"
            f" is not the variant of {task.name!r} that identifiers.json and"
            " test_puzzles.json say"
          )


def learned_pairs(train: puzzle_set.Puzzles) -> list[arc_tasks.Pair]:
  """Reads the pairs of all originals, the first puzzle of each group."""
  originals = train.group_indices[:-1]
  sizes = np.diff(train.puzzle_indices)[originals]
  examples = np.concatenate(
    [
      np.arange(
        train.puzzle_indices[puzzle], train.puzzle_indices[puzzle] + size
      )
      for puzzle, size in zip(originals.tolist(), sizes.tolist(), strict=True)
    ]
  )
  inputs, labels = train.fetch(examples, np.repeat(originals, sizes))
  return [
    arc_tasks.Pair(input=arc.find(x), output=arc.find(y))
    for x, y in zip(inputs, labels, strict=True)
  ]


def _read_tasks(path: pathlib.Path) -> dict[str, arc_tasks.ArcTask]:
  try:
    content = path.read_bytes()
  except OSError as error:
    raise errors.UserError(
      f"{path} cannot be read: {error.strerror}; the official builder writes it"
      " beside train/ and test/"
    ) from error
  value = arc_tasks.load_json(content, where=str(path))
  if not isinstance(value, dict):
    raise errors.UserError(f"{path} is not an object of tasks by name")
  return {
    name: arc_tasks.parse_task(name, task, solutions=None, where=str(path))
    for name, task in value.items()
  }
