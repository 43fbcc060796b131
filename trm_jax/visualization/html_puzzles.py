"""The report's sections of single puzzles: best and worst, a film, votes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from trm_jax.data import kind
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import tasks as arc_tasks
from trm_jax.evaluation import voting
from trm_jax.visualization import animation, exhibition, grid_image, html_parts
from trm_jax.visualization.html_parts import Html, element

MOST_STEPS = 5  # pictures of answers to a puzzle
_TASKS_EACH = 2  # with votes, of each outcome
_OUTCOMES = (
  "solved in two attempts",
  "solved in part",
  "right answer has too few votes",
  "no vote for the right answer",
  "solution not known",
)
_MOST_INPUTS = 2  # of a task


@dataclasses.dataclass(frozen=True)
class Voted:
  """An ARC task, and the votes on it."""

  task: arc_tasks.ArcTask
  result: voting.TaskResult


def best_and_worst(
  kinds: Mapping[str, Sequence[exhibition.Shown]], notes: Sequence[Html]
) -> tuple[str, Html]:
  """Shows puzzles with their steps.

  Args:
    kinds: what they have in common -> puzzles.
    notes: what else is to be said of them.
  """
  thoughts = [shown.thinking for some in kinds.values() for shown in some]
  return html_parts.section(
    "Best and worst puzzles",
    *notes,
    _legend(max(thoughts, key=lambda thinking: thinking.num_steps)),
    *(
      html_parts.join([element("h3", name), *map(_puzzle, shown)])
      for name, shown in kinds.items()
    ),
  )


def film(shown: exhibition.Shown) -> tuple[str, Html]:
  """Shows a puzzle being solved, moving where that is not unwelcome."""
  thinking = shown.thinking
  still, *_ = _png(
    animation.still(thinking, thinking.telling_steps(MOST_STEPS))
  )
  moving = html_parts.data_uri(animation.gif(thinking), "image/gif")
  picture = element(
    "picture",
    element("source", srcset=still, media="(prefers-reduced-motion: reduce)"),
    element(
      "img",
      src=moving,
      alt=f"Animation of {shown.name} being solved in {thinking.num_steps}"
      f" steps; {animation.words_of(thinking, thinking.num_steps)}.",
    ),
  )
  return html_parts.section(
    "See it think",
    element(
      "p",
      f"{shown.name[0].upper()}{shown.name[1:]}, {shown.verdict}: the answer"
      " after each supervision step. The bar is the network's confidence that"
      " its answer is right.",
    ),
    element("div", picture, class_="paper film"),
  )


def votes(voted: Sequence[Voted]) -> tuple[str, Html]:
  """Shows the votes of some tasks: solved, nearly solved, not solved."""
  outcomes: dict[str, list[Voted]] = {name: [] for name in _OUTCOMES}
  for one in voted:
    outcomes[_outcome(one.result)].append(one)
  outcomes = {name: some for name, some in outcomes.items() if some}
  counts = html_parts.table(
    ["outcome", "tasks"],
    [(name, f"{len(some):,}") for name, some in outcomes.items()],
  )
  return html_parts.section(
    "Votes",
    element(
      "p",
      "All variants of a task vote for an answer to each of its test inputs;"
      " the two answers with the most votes are the attempts.",
    ),
    counts,
    *(
      html_parts.join(
        [
          element("h3", f"{name[0].upper()}{name[1:]}"),
          *map(_task, some[:_TASKS_EACH]),
        ]
      )
      for name, some in outcomes.items()
    ),
  )


def _outcome(result: voting.TaskResult) -> str:
  """Returns one of `_OUTCOMES`."""
  solved, in_part, too_few, none, unknown = _OUTCOMES
  if not result.known:
    return unknown
  share = result.solved_within(2)
  if share > 0:
    return solved if share == 1 else in_part
  has_votes = any(one.rank is not None for one in result.inputs)
  return too_few if has_votes else none


def _task(voted: Voted) -> Html:
  inputs = list(zip(voted.task.test, voted.result.inputs, strict=True))
  parts = [
    html_parts.join(_test_input(number, pair, result))
    for number, (pair, result) in enumerate(inputs[:_MOST_INPUTS], 1)
  ]
  if len(inputs) > _MOST_INPUTS:
    parts.append(
      element("p", f"{len(inputs)} test inputs in all.", class_="soft")
    )
  heading = element("h4", f"Task {voted.task.name}")
  return element("article", heading, *parts, class_="puzzle")


def _test_input(
  number: int, pair: arc_tasks.Pair, result: voting.InputResult
) -> list[Html]:
  """Shows a test input, the attempts at it, and who voted for what."""
  leaders = result.leaders
  attempts = [
    f"attempt {place}, {_counted(count, 'vote')}"
    for place, (count, _) in enumerate(leaders[:2], 1)
  ]
  parts = []
  if attempts:
    thinking = animation.Thinking(
      look=kind.ARC_LOOK,
      question=arc_grids.encode(pair.input),
      answers=np.stack(
        [_encode(grid) for grid in result.attempts[: len(attempts)]]
      ),
      confidence=np.array([mean for _, mean in leaders[: len(attempts)]]),
      solution=None if pair.output is None else arc_grids.encode(pair.output),
    )
    parts.append(_grids(thinking, titles=attempts))
  where = "not known"
  if result.rank is not None:
    where = f"in place {result.rank + 1:,}"
  elif result.known:
    where = "not among them"
  parts.append(
    element(
      "p",
      f"Test input {number}: {result.num_votes:,} votes for"
      f" {result.num_candidates:,} different answers; the right one is"
      f" {where}.",
    )
  )
  rows = [
    (
      str(place),
      f"{count:,}",
      html_parts.percent(count / result.num_votes, 1),
      html_parts.percent(mean, 1),
      _rightness(result, place),
    )
    for place, (count, mean) in enumerate(leaders, 1)
  ]
  if rows:
    parts.append(
      html_parts.table(
        ["place", "votes", "share", "mean confidence", "answer"], rows
      )
    )
  return parts


def _rightness(result: voting.InputResult, place: int) -> str:
  if not result.known:
    return "not known"
  return "right" if result.rank == place - 1 else "wrong"


def _encode(grid: voting.Grid) -> np.ndarray:
  """Returns a grid, perhaps without cells, as tokens, [900]."""
  shape = (len(grid), len(grid[0]) if grid else 0)
  return arc_grids.encode(np.array(grid, np.uint8).reshape(shape))


def _puzzle(shown: exhibition.Shown) -> Html:
  exhibit = shown.exhibit
  heading = (
    f"{shown.name[0].upper()}{shown.name[1:]}: {shown.verdict}, confidence"
    f" {grid_image.percent(exhibit.confidence)},"
    f" {_counted(exhibit.steps, 'step')}"
  )
  grids = _grids(shown.thinking, titles=None if shown.has_steps else ["answer"])
  parts = [element("h4", heading), grids]
  if not shown.has_steps:
    parts.append(
      element(
        "p",
        "The steps before this answer are not known: solved again for the"
        " picture, without noise and in a batch of another size, the puzzle got"
        " another answer.",
        class_="soft",
      )
    )
  return element("article", *parts, class_="puzzle")


def _counted(count: int, what: str) -> str:
  """Returns e.g. "1 step" or "2 steps"."""
  return f"{count:,} {what}{'s' * (count != 1)}"


def _grids(
  thinking: animation.Thinking, *, titles: Sequence[str] | None
) -> Html:
  """Shows question, answers and solution side by side.

  Args:
    thinking: the puzzle.
    titles: of each of its answers; None: some of them, named by their step and
      compared with each other.
  """
  steps = (
    thinking.telling_steps(MOST_STEPS)
    if titles is None
    else range(1, len(titles) + 1)
  )
  question, answers, solution = animation.panels_of(
    thinking, steps, titles=titles, compare=titles is None
  )
  figures = [_figure(question, "question", has_bar=False)]
  for step, answer in zip(steps, answers, strict=True):
    alt = f"{answer.title}: {animation.words_of(thinking, step)}"
    figures.append(_figure(answer, alt, has_bar=True))
  if solution:
    figures.append(_figure(solution, "solution", has_bar=False))
  return element("div", *figures, class_="grids")


def _figure(panel: grid_image.Panel, alt: str, *, has_bar: bool) -> Html:
  source, width, height = _png(panel.image)
  said = [element("span", panel.title)]
  bar = element("div", class_="no-bar")
  if has_bar and panel.confidence is not None:
    said.append(element("span", grid_image.percent(panel.confidence)))
    if math.isfinite(panel.confidence):
      bar = element(
        "progress",
        value=f"{panel.confidence:.4f}",
        max="1",
        aria_label="confidence",
      )
  image = element(
    "img", src=source, alt=alt, width=str(width), height=str(height)
  )
  return element(
    "figure",
    element("figcaption", *said),
    bar,
    element("div", image, class_="paper"),
  )


def _legend(thinking: animation.Thinking) -> Html:
  """Shows each mark beside its meaning."""
  items = []
  for meaning in animation.meanings(thinking):
    source, width, height = _png(meaning.image)
    image = element(
      "img", src=source, alt="", width=str(width), height=str(height)
    )
    items.append(element("li", image, element("span", meaning.words)))
  return element("ul", *items, class_="legend")


def _png(image: Image.Image) -> tuple[str, int, int]:
  """Returns an image's address, and the size at which it is to be seen."""
  address = html_parts.data_uri(animation.png(image), "image/png")
  return address, image.width // 2, image.height // 2
