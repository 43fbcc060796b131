"""People's ARC tasks through a trained network: variants vote, as in training.

The network sees no demonstrations. What it knows of a task stands in the rows
of the puzzle table that were trained on them, one for each variant.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from trm_jax import errors
from trm_jax.data import files, identifiers, puzzle_set
from trm_jax.data.arc import dataset as arc_dataset
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import plan as arc_plan
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import tally, voting
from trm_jax.inference import arc_questions, outputs
from trm_jax.inference import pictures as prediction_pictures
from trm_jax.inference import solver as solver_lib
from trm_jax.runtime import processes

_BLANK_ROW = 0  # of the puzzle table, of what has none of its own
_SUBSET = "input"  # all tasks are of one
_NUM_NAMED = 5  # tasks that a line names
_IDENTIFIERS = "the checkpoint's list of identifiers"


def predict_tasks(
  solver: solver_lib.Solver, input_path: str, output_path: str, pictures: str
) -> None:
  """Answers the test inputs of ARC tasks with two attempts each.

  All variants of a task for which the table has rows (`eval.variants`: the
  first so many) answer, are turned back and vote, as in an evaluation. A task
  that is not in the table is answered as it is, with the blank row; a line
  warns of that.

  Written is Kaggle's submission, {NAME: [{"attempt_1": grid, "attempt_2":
  grid}, ...]}, of the tasks that could be read, and nothing else: scorers take
  each key beside the grids for an attempt, or refuse it. Votes, confidence and
  steps stand in a second file beside it, NAME_details.json of NAME.json, which
  replaces only another such file; they are also told on stderr.

  Args:
    solver: The trained network.
    input_path: As for `arc_questions.read`.
    output_path: As for `answers.writing`; printed is the submission alone.
    pictures: As for `predict.predict_file`; drawn are the first test inputs of
      the originals.

  Raises:
    UserError: if nothing can be read or written; or, when the answers have been
      written, if some tasks could not be read.
  """
  beside = Place.beside(output_path, input_path)
  with outputs.writing(output_path, input_path=input_path) as file:
    given = arc_questions.read(input_path)
    if not given.tasks:
      raise errors.UserError(_faults(given))
    table = _Table.of(solver.identifiers, given.tasks)
    if table.missing:
      processes.note(_warning(table.missing))
    outcomes = {
      outcome.result.name: outcome for outcome in _vote(solver, table)
    }
    ordered = [outcomes[task.name] for task in given.tasks]
    submission = voting.submission(outcome.result for outcome in ordered)
    file.write(json.dumps(submission).encode())
    if beside:
      beside.write(
        {
          outcome.result.name: of_answered(
            outcome.result,
            outcome.steps,
            in_table=outcome.result.name not in table.missing,
          )
          for outcome in ordered
        }
        | of_faults(given.faults)
      )
  place = outputs.place(output_path)
  processes.note(
    f"{len(ordered):,} task{'s' * (len(ordered) != 1)} answered by"
    f" {solver.path}: {place}{beside.told if beside else ''}"
  )
  if pictures:
    prediction_pictures.draw(solver, _puzzles(table), pictures)
  if given.faults:
    raise errors.UserError(
      f"{_faults(given)}; the others' answers are in {place}"
    )


def _faults(given: arc_questions.Tasks) -> str:
  faults = list(given.faults.values())
  total = len(faults) + len(given.tasks)
  if total == 1:
    return faults[0]
  return (
    f"{len(faults):,} of {total:,} tasks could not be read:"
    f" {_shown(given.faults)} (first {faults[0]})"
  )


def _warning(missing: Sequence[str]) -> str:
  return (
    f"WARNING: the puzzle table has no row for {len(missing):,} of the tasks"
    f" ({_shown(missing)}): they are answered with the blank one, which is"
    " hardly ever right; experiments/arc_adapt.py adds rows for new tasks and"
    " trains them"
  )


# --- variants ----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Table:
  """What the puzzle table knows of some tasks.

  Attributes:
    tasks: The tasks.
    names: Of the rows that are of use, as in a list of identifiers of its own.
    rows: Which rows of the whole table these are, int32 [len(names)]; the blank
      one for a task that has none.
    missing: Names of the tasks that have none.
  """

  tasks: tuple[arc_tasks.ArcTask, ...]
  names: tuple[str, ...]
  rows: np.ndarray
  missing: tuple[str, ...]

  @classmethod
  def of(
    cls, all_names: Sequence[str], tasks: tuple[arc_tasks.ArcTask, ...]
  ) -> "_Table":
    """Looks tasks up in a table by the names of its rows."""
    wanted = {task.name for task in tasks}
    found = [
      row
      for row, name in enumerate(all_names)
      if name.partition(arc_grids.SEPARATOR)[0] in wanted
    ]
    names = [all_names[row] for row in found]
    known = set(names)
    missing = [task.name for task in tasks if task.name not in known]
    blanks = [_BLANK_ROW] * len(missing)
    return cls(
      tasks=tasks,
      names=(identifiers.BLANK, *names, *missing),
      rows=np.array([_BLANK_ROW, *found, *blanks], np.int32),
      missing=tuple(missing),
    )

  def plan(self) -> arc_plan.Plan:
    """Returns the variants; its rows are places in `names`."""
    return arc_plan.from_identifiers(
      self.names, {_SUBSET: self.tasks}, where=_IDENTIFIERS
    )


# --- votes -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Outcome:
  """The answers to a task.

  Attributes:
    result: Attempts and votes.
    steps: Supervision steps on average, of each test input.
  """

  result: voting.TaskResult
  steps: tuple[float, ...]


def _vote(solver: solver_lib.Solver, table: _Table) -> Iterator[_Outcome]:
  """Yields the tasks' outcomes, in the order of the table; tells each."""
  tasks = {_SUBSET: table.tasks}
  whole = arc_dataset.test_set(tasks, table.plan(), test_subset=_SUBSET)
  variants = puzzle_set.select(
    whole, num_groups=0, num_variants=solver.config.eval.variants
  )
  votes = tally.Tally(
    whole.tasks,
    puzzle_indices=variants.puzzle_indices,
    group_indices=variants.group_indices,
    transforms=whole.transforms[variants.puzzles],
    colours=whole.colours[variants.puzzles],
    num_attempts=voting.NUM_ATTEMPTS,
  )
  steps = np.empty(variants.num_examples, np.int32)
  portion = solver_lib.Portions(solver, "grids", variants.num_examples)
  num_finished = 0
  for start in range(0, variants.num_examples, portion.size):
    examples = np.arange(
      start, min(start + portion.size, variants.num_examples)
    )
    puzzles = puzzle_set.puzzles_of(examples, variants.puzzle_indices)
    inputs, _ = variants.fetch(examples, puzzles)
    rows = table.rows[variants.puzzle_ids[puzzles]]
    solved = portion.solve(inputs, rows)
    steps[examples] = solved.steps
    for result in votes.add(start, inputs, solved.answers, solved.halt_logits):
      bounds = variants.group_indices[num_finished : num_finished + 2]
      taken = slice(*variants.puzzle_indices[bounds])
      means = steps[taken].reshape(-1, len(result.inputs)).mean(axis=0)
      outcome = _Outcome(result=result, steps=tuple(means.tolist()))
      num_finished += 1
      _tell(outcome)
      yield outcome


# --- what is told ------------------------------------------------------------


def _tell(outcome: _Outcome) -> None:
  name = _shown([outcome.result.name])
  for number, (result, steps) in enumerate(
    zip(outcome.result.inputs, outcome.steps, strict=True), 1
  ):
    (first, sure), (second, less_sure) = ranked(result)
    then = ""
    if result.num_candidates > 1:
      then = f", then {second:,} ({less_sure:.1%})"
    processes.note(
      f"{name} test {number}: {first:,} of {result.num_votes:,}"
      f" votes (confidence {sure:.1%}){then}, "
      f"{steps:.1f} supervision steps on average"
    )


def _shown(names: Iterable[str]) -> str:
  """Lists names of tasks; a terminal must not obey what is in them."""
  shown = [
    name if name.isprintable() else repr(name)[1:-1]
    for name in itertools.islice(names, _NUM_NAMED + 1)
  ]
  shown[_NUM_NAMED:] = ["..."] * (len(shown) > _NUM_NAMED)
  return ", ".join(shown)


def _puzzles(table: _Table) -> list[prediction_pictures.Puzzle]:
  """Lists the first test inputs of the originals, to be drawn."""
  row_of = dict(zip(table.names, table.rows.tolist(), strict=True))
  puzzles = [
    prediction_pictures.Puzzle(
      name=f"{task.name}_test_{number}",
      tokens=arc_grids.encode(pair.input),
      row=row_of[task.name],
    )
    for task in table.tasks
    for number, pair in enumerate(task.test, 1)
  ]
  return puzzles[: prediction_pictures.MOST]


# What is told of answers to ARC tasks in a file of its own.


_ANSWERED = frozenset(("in_table", "test"))  # what is said of a task
_FAULTY = frozenset(("error",))
_DIGITS = 6  # of fractions; no more are exact


@dataclasses.dataclass(frozen=True)
class Place:
  """Where details stand.

  Attributes:
    path: NAME_details.json for NAME.json.
    told: Ends the line that says what was written.
  """

  path: epath.Path
  told: str

  @classmethod
  def beside(cls, output_path: str, input_path: str) -> "Place | None":
    """Finds a place beside answers; None if these are printed.

    Args:
      output_path: As for `answers.writing`.
      input_path: Likewise.

    Raises:
      UserError: if something else stands there that would be lost.
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
    is_there = path.exists()
    problem = ""
    if outputs.is_input(path, input_path):
      problem = "is the --input"
    elif is_there and not _has_details(path):
      problem = "is there and is something else"
    if problem:
      raise errors.UserError(
        f"--output is {output_path!r}, but {path.name}, which would get the"
        f" details, {problem}: name another file"
      )
    replaced = ", in place of an earlier one" if is_there else ""
    return cls(path=path, told=f"; details: {path}{replaced}")

  def write(self, details: Mapping[str, Any]) -> None:
    """Writes what `of_answered` and `of_faults` say of tasks, by name."""
    with files.writing(self.path) as file:
      file.write(json.dumps(details, indent=1).encode())


def _has_details(path: epath.Path) -> bool:
  """Tells whether a file says of tasks what is said here, and no more."""
  try:
    value = arc_tasks.load_json(path.read_bytes(), where=path.name)
  except (errors.UserError, OSError):
    return False
  return isinstance(value, dict) and all(
    isinstance(entry, dict) and entry.keys() in (_ANSWERED, _FAULTY)
    for entry in value.values()
  )


def ranked(result: voting.InputResult) -> list[tuple[int, float]]:
  """Returns votes and mean confidence of each attempt."""
  last = len(result.leaders) - 1
  return [result.leaders[min(i, last)] for i in range(voting.NUM_ATTEMPTS)]


def of_answered(
  result: voting.TaskResult, steps: Sequence[float], *, in_table: bool
) -> dict[str, Any]:
  """Returns what is said of an answered task, of JSON's types.

  Args:
    result: Attempts and votes.
    steps: Supervision steps on average, of each test input.
    in_table: Whether the puzzle table has rows for it.
  """
  return {
    "in_table": in_table,
    "test": [
      {
        "attempts": [
          {"votes": votes, "confidence": round(confidence, _DIGITS)}
          for votes, confidence in ranked(one)
        ],
        "votes": one.num_votes,
        "candidates": one.num_candidates,
        "steps": round(average, _DIGITS),
      }
      for one, average in zip(result.inputs, steps, strict=True)
    ],
  }


def of_faults(faults: Mapping[str, str]) -> dict[str, Any]:
  """Returns what is said of tasks that could not be read, by name."""
  return {name: {"error": fault} for name, fault in faults.items()}
