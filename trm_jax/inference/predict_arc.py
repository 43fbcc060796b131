"""Prediction for user-provided ARC tasks: variants vote as in an evaluation.

The network does not see the demonstrations. What it knows of a task is in the
rows of the puzzle table that were trained on them, one for each variant.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files, identifiers, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.arc import dataset as arc_dataset
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import voting
from trm_jax.inference import inputs, outputs
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import processes
from trm_jax.terminal import progress

_BLANK_ROW = 0  # row of the puzzle table shared by all unknown tasks
_SUBSET = "input"  # of all tasks
_NUM_NAMED = 5  # tasks named in a message

_ANSWERED = frozenset(("in_table", "test"))  # keys of a task's details
_INVALID = frozenset(("error",))
_DIGITS = 6  # of fractions in the details; no more are exact


def predict_tasks(
  solver: solver_lib.Solver,
  input_path: str,
  output_path: str,
  draw: outputs.Draw | None = None,
) -> None:
  """Answers the test inputs of ARC tasks with two attempts each.

  All variants of a task with a row in the puzzle table (at most
  `eval.max_augmentations`) are solved and vote, as in an evaluation. A task
  without rows
  is solved once, with the blank row, and a warning says so.

  The output is Kaggle's submission of the valid tasks, {NAME: [{"attempt_1":
  grid, "attempt_2": grid}, ...]}, and nothing else: scorers take any other key
  for an attempt, or refuse it. Votes, confidence and steps are logged to stderr
  and written to NAME_details.json next to NAME.json, which replaces only
  another such file.

  Args:
    solver: The trained network.
    input_path: As for `inputs.read_tasks`.
    output_path: As for `outputs.writing`; only the submission is printed.
    draw: Draws the test inputs of the first original tasks.

  Raises:
    UserError: nothing can be read or written; or, after the answers have been
      written, some tasks were invalid.
  """
  details_path = _details_path(output_path, input_path)
  with outputs.writing(output_path, input_path=input_path) as file:
    given = inputs.read_tasks(input_path)
    if not given.tasks:
      raise errors.UserError(_faults(given))
    variants = _Variants.of(given.tasks, solver.identifiers)
    if variants.missing:
      processes.log_once(
        "WARNING: the puzzle table has no rows for"
        f" {len(variants.missing):,} of the tasks ({_listed(variants.missing)})"
        ": they are answered with the blank row, which is hardly ever correct;"
        " experiments/arc_adapt.py adds rows for new tasks and trains them"
      )
    by_name = {result.name: result for result in _vote(solver, variants)}
    results = [by_name[task.name] for task in given.tasks]
    file.write(json.dumps(voting.submission(results)).encode())
    if details_path:
      details = {
        result.name: _details(result, result.name not in variants.missing)
        for result in results
      } | {name: {"error": fault} for name, fault in given.faults.items()}
      with files.writing(details_path) as details_file:
        details_file.write(json.dumps(details, indent=1).encode())
  place = outputs.place(output_path)
  processes.log_once(
    f"{len(results):,} task{'s' * (len(results) != 1)} answered by"
    f" {solver.path}: {place}"
    f"{f'; details: {details_path}' if details_path else ''}"
  )
  if draw:
    draw(variants.originals())
  if given.faults:
    raise errors.UserError(
      f"{_faults(given)}; the answers to the others are in {place}"
    )


@dataclasses.dataclass(frozen=True)
class _Variants:
  """The variants of some tasks that have rows in a puzzle table.

  Attributes:
    tasks: The tasks.
    rows: Row of the puzzle table by name of a task or variant.
    missing: Names of the tasks without rows, which get the blank one.
  """

  tasks: Sequence[arc_tasks.ArcTask]
  rows: dict[str, int]
  missing: tuple[str, ...]

  @classmethod
  def of(
    cls, tasks: Sequence[arc_tasks.ArcTask], names: Sequence[str]
  ) -> "_Variants":
    """Finds tasks among the names of a table's rows."""
    wanted = {task.name for task in tasks}
    rows = {
      name: row
      for row, name in enumerate(names)
      if name.partition(arc_grids.SEPARATOR)[0] in wanted
    }
    missing = tuple(task.name for task in tasks if task.name not in rows)
    return cls(tasks, rows | dict.fromkeys(missing, _BLANK_ROW), missing)

  def test_set(
    self, num_augmentations: int
  ) -> tuple[task_lib.AugmentationTable, puzzle_set.Subset]:
    """Returns the variants' test inputs as in a data set.

    Args:
      num_augmentations: Maximum per task; 0 for all.
    """
    tasks = {_SUBSET: self.tasks}
    plan = arc_plan.from_identifiers(
      [identifiers.BLANK, *self.rows],
      tasks,
      where="the checkpoint's list of identifiers",
    )
    whole = arc_dataset.test_set(tasks, plan, test_subset=_SUBSET)
    puzzles = puzzle_set.select(
      whole, num_groups=0, num_augmentations=num_augmentations
    )
    rows = np.array([_BLANK_ROW, *self.rows.values()], np.int32)
    return (
      task_lib.AugmentationTable(
        tasks=whole.tasks, transforms=whole.transforms, colours=whole.colours
      ),
      dataclasses.replace(puzzles, puzzle_ids=rows[puzzles.puzzle_ids]),
    )

  def originals(self) -> list[outputs.DrawnPuzzle]:
    """Returns the test inputs of the original tasks, to be drawn."""
    return [
      outputs.DrawnPuzzle(
        name=f"{task.name}_test_{number}",
        tokens=arc_grids.encode(pair.input),
        row=self.rows[task.name],
      )
      for task in self.tasks
      for number, pair in enumerate(task.test, 1)
    ]


def _vote(
  solver: solver_lib.Solver, variants: _Variants
) -> Iterator[voting.TaskResult]:
  """Yields and logs the tasks' results, in the order of the table."""
  table, puzzles = variants.test_set(solver.config.eval.max_augmentations)
  counter = voting.VoteCounter(table, puzzles)
  num_solved = 0
  with progress.Progress("grids", puzzles.num_examples) as shown:
    for batch in solver.solve_puzzles(puzzles):
      num_solved += len(batch.answers)
      for result in counter.add(
        batch.questions, batch.answers, batch.halt_logits, batch.steps
      ):
        _log(result)
        yield result
      shown.update(num_solved)


def _log(result: voting.TaskResult) -> None:
  for number, one in enumerate(result.inputs, 1):
    (first, confidence), (second, lower) = _attempts(one)
    then = ""
    if one.num_candidates > 1:
      then = f", then {second:,} ({lower:.1%})"
    processes.log_once(
      f"{_listed([result.name])} test {number}: {first:,} of"
      f" {one.num_votes:,} votes (confidence {confidence:.1%}){then}, mean ACT"
      f" steps {one.steps:.1f}"
    )


def _attempts(result: voting.InputResult) -> list[tuple[int, float]]:
  """Returns the votes for, and mean confidence in, each attempt."""
  last = len(result.leaders) - 1
  return [result.leaders[min(i, last)] for i in range(voting.NUM_ATTEMPTS)]


def _details(result: voting.TaskResult, in_table: bool) -> dict[str, Any]:
  return {
    "in_table": in_table,
    "test": [
      {
        "attempts": [
          {"votes": votes, "confidence": round(confidence, _DIGITS)}
          for votes, confidence in _attempts(one)
        ],
        "votes": one.num_votes,
        "candidates": one.num_candidates,
        "steps": round(one.steps, _DIGITS),
      }
      for one in result.inputs
    ],
  }


def _details_path(output_path: str, input_path: str) -> epath.Path | None:
  """Returns NAME_details.json for NAME.json; None if the answers are printed.

  Raises:
    UserError: a file that is no details would be lost.
  """
  if outputs.is_standard(output_path):
    return None
  output = epath.Path(output_path).expanduser()
  if outputs.is_input(output.parent, input_path):
    raise errors.UserError(
      f"--output is {output_path!r}, which is in the folder --input, where"
      " all .json files are tasks: name a file elsewhere"
    )
  name = output.name.removesuffix(".gz").removesuffix(".json")
  path = output.with_name(f"{name}_details.json")
  problem = ""
  if outputs.is_input(path, input_path):
    problem = "is the --input"
  elif path.exists() and not _has_details(path):
    problem = "exists and is something else"
  if problem:
    raise errors.UserError(
      f"--output is {output_path!r}, but {path.name}, which would hold the"
      f" details, {problem}: name another file"
    )
  files.check_writable(path)
  return path


def _has_details(path: epath.Path) -> bool:
  """Returns whether a file has the form of details, and nothing more."""
  try:
    value = arc_tasks.load_json(path.read_bytes(), where=path.name)
  except (errors.UserError, OSError):
    return False
  return isinstance(value, dict) and all(
    isinstance(entry, dict) and entry.keys() in (_ANSWERED, _INVALID)
    for entry in value.values()
  )


def _faults(given: inputs.Tasks) -> str:
  faults = list(given.faults.values())
  total = len(faults) + len(given.tasks)
  if total == 1:
    return faults[0]
  return (
    f"{len(faults):,} of {total:,} tasks were invalid:"
    f" {_listed(given.faults)} (first {faults[0]})"
  )


def _listed(names: Iterable[str]) -> str:
  """Lists names of tasks; control characters in them are escaped."""
  shown = [
    name if name.isprintable() else repr(name)[1:-1]
    for name in itertools.islice(names, _NUM_NAMED + 1)
  ]
  shown[_NUM_NAMED:] = ["..."] * (len(shown) > _NUM_NAMED)
  return ", ".join(shown)
