"""Collects the puzzles that a report shows, and solves them step by step.

An ARC evaluation has hundreds of thousands of answers: only a few numbers are
kept of each, and whole grids of a few.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from trm_jax.core import eval_step, types
from trm_jax.data import puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.inference import solver
from trm_jax.runtime import program as program_lib
from trm_jax.runtime import restore
from trm_jax.visualization import animation, calibration

# Puzzles of each category that are kept whole, and those that are shown: of
# ARC's, many may be augmentations of one task.
_KEPT, _SHOWN = 40, 3


@dataclasses.dataclass(frozen=True)
class Puzzle:
  """A puzzle and its answer.

  Attributes:
    index: Position among the evaluated puzzles (0-based).
    question: Tokens, uint8 [L].
    answer: Tokens, uint8 [L].
    solution: Tokens, uint8 [L], `NO_LABEL` where unknown; None if all are.
    confidence: Probability of a correct answer by the halt head.
    steps: Supervision steps used.
  """

  index: int
  question: np.ndarray
  answer: np.ndarray
  solution: np.ndarray | None
  confidence: float
  steps: int


class Collector:
  """Collects the answers of an evaluation, batch by batch, in order."""

  def __init__(self, *, keep: int = _KEPT):
    """Starts without answers.

    Args:
      keep: Maximum number of puzzles per category that are kept whole.
    """
    self._keep = keep
    self._num_puzzles = 0
    self._stats: list[calibration.AnswerStats] = []
    self._kept: dict[str, list[Puzzle]] = {}

  def observe(self, answers: eval_step.Answers) -> None:
    """Adds a batch; the callback of `evaluate.restore_and_evaluate`."""
    rows = np.asarray(answers.rows)
    questions, tokens, labels = (
      np.asarray(values)[rows]
      for values in (answers.questions, answers.answers, answers.labels)
    )
    has_label = labels != types.IGNORED_LABEL
    solutions = np.where(has_label, labels, puzzle_set.NO_LABEL)
    known = has_label.any(-1)
    exact = ((tokens == labels) | ~has_label).all(-1) & known
    stats = calibration.AnswerStats(
      confidence=_sigmoid(np.asarray(answers.halt_logits)[rows]),
      steps=np.asarray(answers.steps)[rows],
      known=known,
      exact=exact,
    )
    self._stats.append(stats)

    def puzzle(row: int) -> Puzzle:  # copies: a view would keep the batch
      return Puzzle(
        index=self._num_puzzles + row,
        question=questions[row].copy(),
        answer=tokens[row].copy(),
        solution=solutions[row].astype(np.uint8) if known[row] else None,
        confidence=float(stats.confidence[row]),
        steps=int(stats.steps[row]),
      )

    for category, members, sign in (
      ("Correct, highest confidence", exact, -1),
      ("Incorrect, highest confidence", known & ~exact, -1),
      ("Correct, lowest confidence", exact, 1),
      ("No known solution, highest confidence", ~known, -1),
    ):
      kept = self._kept.setdefault(category, [])
      candidates = np.flatnonzero(members).tolist()
      confidence = np.array(
        [one.confidence for one in kept] + stats.confidence[members].tolist()
      )
      # A stable sort: of equal confidence, the first evaluated comes first.
      first = np.argsort(sign * confidence, kind="stable")[: self._keep]
      self._kept[category] = [
        kept[i] if i < len(kept) else puzzle(candidates[i - len(kept)])
        for i in first.tolist()
      ]
    self._num_puzzles += len(known)

  @property
  def stats(self) -> calibration.AnswerStats:
    """The statistics of all puzzles so far."""
    columns = zip(*self._stats, strict=True)
    return calibration.AnswerStats(*map(np.concatenate, columns))

  @property
  def puzzles(self) -> dict[str, list[Puzzle]]:
    """Category -> puzzles kept; without empty categories."""
    return {name: kept for name, kept in self._kept.items() if kept}


@dataclasses.dataclass(frozen=True)
class ShownPuzzle:
  """A puzzle as the report shows it.

  Attributes:
    name: What the puzzle is called, e.g. "puzzle 7".
    puzzle: As it was evaluated.
    trace: Its answers by supervision step; the last is the evaluation's.
    has_steps: Whether the trace has the answers before the last.
    verdict: "correct", "incorrect", ...
  """

  name: str
  puzzle: Puzzle
  trace: animation.AnswerTrace
  has_steps: bool
  verdict: str


@dataclasses.dataclass(frozen=True)
class Selection:
  """The puzzles of a report.

  Attributes:
    categories: What the puzzles have in common -> puzzles.
    animated: The one that is shown as an animation, if any.
  """

  categories: Mapping[str, Sequence[ShownPuzzle]]
  animated: ShownPuzzle | None


def select(
  program: program_lib.Program,
  task: task_lib.Task,
  trained: restore.RestoredWeights,
  collector: Collector,
) -> Selection:
  """Selects puzzles and solves them again, for the steps on the way.

  Args:
    program: Of the evaluation.
    task: Of the evaluation.
    trained: The weights that were evaluated.
    collector: The answers.

  Returns:
    The first puzzles of each category, none twice, of an ARC task one; and the
    most interesting of all to animate.
  """
  kept = {
    puzzle.index: puzzle
    for puzzles in collector.puzzles.values()
    for puzzle in puzzles
  }
  test = program.test_puzzles(task)
  # A resumed ARC evaluation has solved the last puzzles only.
  num_before = test.num_examples - len(collector.stats.exact)
  examples = num_before + np.array(list(kept))
  rows = dict(
    zip(
      kept,
      test.puzzle_ids[puzzle_set.puzzles_of(examples, test.puzzle_indices)],
      strict=True,
    )
  )
  names = {index: f"puzzle {num_before + index + 1:,}" for index in kept}
  tasks: dict[int, str] = {}
  if task.augmentation_table is not None:
    for index, row in rows.items():
      identifier = task.identifiers[row]
      names[index] += f" ({identifier})"
      tasks[index] = identifier.split(arc_grids.SEPARATOR)[0]
  chosen = _distinct(collector.puzzles, tasks)
  # The batch size of the evaluation: the same program then rounds in the same
  # way. What room the chosen leave is for more puzzles to animate.
  num_chosen = sum(map(len, chosen.values()))
  count = max(num_chosen, program.config.eval.batch_size)
  order = dict.fromkeys(
    [puzzle.index for puzzles in chosen.values() for puzzle in puzzles]
    + list(kept)
  )
  solved = list(order)[:count]
  filled = np.resize(solved, count).tolist()
  trace = solver.Solver(
    config=program.config,
    look=task.look,
    rules=task.rules,
    identifiers=task.identifiers,
    step=trained.step,
    path=trained.path,
    weights=trained.weights,
    program=program,
  ).trace_tokens(
    np.stack([kept[index].question for index in filled]),
    np.array([rows[index] for index in filled], np.int32),
  )
  shown = {
    index: _with_steps(
      task,
      names[index],
      kept[index],
      trace.answers[:, i],
      trace.confidence[:, i],
    )
    for i, index in enumerate(solved)
  }
  return Selection(
    categories={
      name: [shown[puzzle.index] for puzzle in puzzles]
      for name, puzzles in chosen.items()
    },
    animated=most_interesting(shown.values()),
  )


def _distinct(
  categories: Mapping[str, Sequence[Puzzle]], tasks: Mapping[int, str]
) -> dict[str, list[Puzzle]]:
  """Chooses the first of each category, none twice, and one of an ARC task."""
  taken: set[int] = set()
  chosen = {}
  for name, puzzles in categories.items():
    by_task: dict[int | str, Puzzle] = {}
    for puzzle in puzzles:
      if puzzle.index not in taken:
        by_task.setdefault(tasks.get(puzzle.index, puzzle.index), puzzle)
    some = list(by_task.values())[:_SHOWN]
    taken |= {puzzle.index for puzzle in some}
    if some:
      chosen[name] = some
  return chosen


def _with_steps(
  task: task_lib.Task,
  name: str,
  puzzle: Puzzle,
  answers: np.ndarray,
  confidence: np.ndarray,
) -> ShownPuzzle:
  """Adds the steps if they led to the evaluation's answer."""
  steps = puzzle.steps
  has_steps = bool((answers[steps - 1] == puzzle.answer).all())
  trace = animation.AnswerTrace(
    look=task.look,
    question=puzzle.question,
    answers=answers[:steps] if has_steps else puzzle.answer[None],
    confidence=confidence[:steps]
    if has_steps
    else np.array([puzzle.confidence]),
    solution=puzzle.solution,
  )
  return ShownPuzzle(name, puzzle, trace, has_steps, _verdict(task, puzzle))


def _verdict(task: task_lib.Task, puzzle: Puzzle) -> str:
  """Returns whether the answer is correct, by the rules of the metrics."""
  if puzzle.solution is None:
    return "no known solution"
  labelled = puzzle.solution != puzzle_set.NO_LABEL
  if (puzzle.answer == puzzle.solution)[labelled].all():
    return "correct"
  rules = task.rules
  if rules and rules.is_valid(puzzle.question[None], puzzle.answer[None])[0]:
    return f"differs from the solution but is a {rules.what}"
  return "incorrect"


def most_interesting(puzzles: Iterable[ShownPuzzle]) -> ShownPuzzle | None:
  """Returns the puzzle with the most changes, preferring correct answers.

  Args:
    puzzles: To choose from; those without steps are passed over.
  """
  return max(
    (one for one in puzzles if one.has_steps and one.trace.num_steps > 1),
    key=lambda one: (one.verdict == "correct", len(one.trace.changes())),
    default=None,
  )


def _sigmoid(logits: np.ndarray) -> np.ndarray:
  with np.errstate(over="ignore"):  # exp overflows to inf, the result is 0
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
