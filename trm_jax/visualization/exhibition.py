"""Chooses the puzzles that a report shows, and finds the steps on the way."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from trm_jax.data import puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.inference import solver
from trm_jax.runtime import program as program_lib
from trm_jax.runtime import restore
from trm_jax.visualization import animation, gallery

_EACH = 3  # puzzles that are shown of each kind


@dataclasses.dataclass(frozen=True)
class Shown:
  """A puzzle of the evaluation, with all that is shown of it."""

  name: str
  exhibit: gallery.Exhibit
  thinking: animation.Thinking  # its last answer is the evaluation's
  has_steps: bool  # whether the answers before the last are known
  verdict: str  # "right", "wrong", ...


@dataclasses.dataclass(frozen=True)
class Exhibition:
  """The puzzles of a report."""

  kinds: Mapping[str, Sequence[Shown]]  # what they have in common -> puzzles
  film: Shown | None  # the one to be shown moving


def choose(
  program: program_lib.Program,
  task: task_lib.Task,
  trained: restore.Trained,
  kept: Mapping[str, Sequence[gallery.Exhibit]],
  num_seen: int,
) -> Exhibition:
  """Chooses puzzles and solves them again, for the steps on the way.

  Args:
    program: of the evaluation.
    task: of the evaluation.
    trained: the weights that were evaluated.
    kept: what they have in common -> puzzles, of a `gallery.Gallery`.
    num_seen: puzzles that the gallery has seen: the last ones of the test set.

  Returns:
    The first of each kind, none twice; and the most telling of those kept.
  """
  places = _Places(program, task, num_seen)
  chosen = _distinct(kept, places)
  exhibits = {
    exhibit.number: exhibit
    for some in (*chosen.values(), *kept.values())
    for exhibit in some
  }
  # As many as the evaluation had in a batch: the same program then rounds in
  # the same way.
  count = max(sum(map(len, chosen.values())), program.config.eval.batch_size)
  solved = list(exhibits.values())[:count]
  trace = _trace(program, task, trained, solved, places, count)
  shown = {
    exhibit.number: _with_steps(
      task,
      places.name(exhibit),
      exhibit,
      trace.answers[: exhibit.steps, place],
      trace.confidence[: exhibit.steps, place],
    )
    for place, exhibit in enumerate(solved)
  }
  return Exhibition(
    kinds={
      name: [shown[exhibit.number] for exhibit in some]
      for name, some in chosen.items()
    },
    film=most_telling(shown.values()),
  )


class _Places:
  """Where the puzzles of a gallery stand in the test set."""

  def __init__(
    self, program: program_lib.Program, task: task_lib.Task, num_seen: int
  ):
    self._task = task
    self._puzzles = program.test_puzzles(task)
    # An evaluation that goes on from its votes has not seen the first ones.
    self._before = self._puzzles.num_examples - num_seen

  def row(self, exhibit: gallery.Exhibit) -> int:
    """Returns the puzzle's row in the puzzle table."""
    example = np.array(self._before + exhibit.number)
    puzzle = puzzle_set.puzzles_of(example, self._puzzles.puzzle_indices)
    return int(self._puzzles.puzzle_ids[puzzle])

  def name(self, exhibit: gallery.Exhibit) -> str:
    """Returns what the puzzle is called."""
    name = f"puzzle {self._before + exhibit.number + 1:,}"
    if self._task.ballot is None:
      return name
    return f"{name} ({self._task.identifiers[self.row(exhibit)]})"

  def group(self, exhibit: gallery.Exhibit) -> int | str:
    """Returns what is the same for all variants of an ARC task."""
    if self._task.ballot is None:
      return exhibit.number
    return self._task.identifiers[self.row(exhibit)].split(arc_grids.SEPARATOR)[
      0
    ]


def _trace(
  program: program_lib.Program,
  task: task_lib.Task,
  trained: restore.Trained,
  exhibits: Sequence[gallery.Exhibit],
  places: _Places,
  count: int,
) -> solver.Trace:
  """Solves puzzles again, repeated until there are `count`."""
  order = np.resize(np.arange(len(exhibits)), count)
  return solver.Solver(
    config=program.config,
    look=task.look,
    rules=task.rules,
    identifiers=task.identifiers,
    step=trained.step,
    path=trained.path,
    weights=trained.weights,
    program=program,
  ).trace_tokens(
    np.stack([exhibit.question for exhibit in exhibits])[order],
    np.array([places.row(exhibit) for exhibit in exhibits], np.int32)[order],
  )


def _distinct(
  kinds: Mapping[str, Sequence[gallery.Exhibit]], places: _Places
) -> dict[str, list[gallery.Exhibit]]:
  """Chooses the first of each kind, none twice, and one of a group."""
  taken: set[int] = set()
  chosen = {}
  for name, exhibits in kinds.items():
    by_group: dict[int | str, gallery.Exhibit] = {}
    for exhibit in exhibits:
      if exhibit.number not in taken:
        by_group.setdefault(places.group(exhibit), exhibit)
    some = list(by_group.values())[:_EACH]
    taken |= {exhibit.number for exhibit in some}
    if some:
      chosen[name] = some
  return chosen


def _with_steps(
  task: task_lib.Task,
  name: str,
  exhibit: gallery.Exhibit,
  answers: np.ndarray,
  confidence: np.ndarray,
) -> Shown:
  """Puts together what is shown; steps only if they led to the same answer."""
  same = bool((answers[-1] == exhibit.answer).all())
  thinking = animation.Thinking(
    look=task.look,
    question=exhibit.question,
    answers=answers if same else exhibit.answer[None],
    confidence=confidence if same else np.array([exhibit.confidence]),
    solution=exhibit.solution,
  )
  return Shown(
    name=name,
    exhibit=exhibit,
    thinking=thinking,
    has_steps=same,
    verdict=_verdict(task, exhibit),
  )


def _verdict(task: task_lib.Task, exhibit: gallery.Exhibit) -> str:
  """Says whether an answer is right, as the metrics count it."""
  if exhibit.solution is None:
    return "solution not known"
  labelled = exhibit.solution != puzzle_set.NO_LABEL
  if (exhibit.answer == exhibit.solution)[labelled].all():
    return "right"
  rules = task.rules
  if rules and rules.is_valid(exhibit.question[None], exhibit.answer[None])[0]:
    return f"not the solution, yet a {rules.what}"
  return "wrong"


def most_telling(puzzles: Iterable[Shown]) -> Shown | None:
  """Returns the puzzle that was solved after the most changes, if any was."""
  films = [
    shown
    for shown in puzzles
    if shown.has_steps and shown.thinking.num_steps > 1
  ]

  def interest(shown):
    thinking = shown.thinking
    changes = [
      thinking.changed(step, step - 1).any()
      for step in range(2, thinking.num_steps + 1)
    ]
    return shown.verdict == "right", sum(changes)

  return max(films, key=interest, default=None)
