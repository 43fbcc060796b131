"""Shows a puzzle being solved: as a picture of its steps, a GIF, or text."""

import dataclasses
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from trm_jax.core import types
from trm_jax.data import puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.visualization import grid_image

_SMALLEST = 32  # pixels of a cell, if the grid's size allows it
# Milliseconds of a frame with a change, of one without, and of the last.
_CHANGE, _PAUSE, _END = 900, 250, 3000


@dataclasses.dataclass(frozen=True)
class AnswerTrace:
  """A puzzle and its answer after each of K supervision steps.

  Attributes:
    look: Look of the grids.
    question: Tokens, [L].
    answers: Tokens, [K, L].
    confidence: Probability of a correct answer by the halt head, [K], or None.
    solution: Tokens, [L], `NO_LABEL` where unknown, or None.
  """

  look: task_lib.Look
  question: np.ndarray
  answers: np.ndarray
  confidence: np.ndarray | None
  solution: np.ndarray | None

  @property
  def num_steps(self) -> int:
    """K."""
    return len(self.answers)

  def answer(self, step: int) -> np.ndarray:
    """Returns the answer after `step` steps (1-based), [L].

    Outside of an ARC answer's grid it is blank.
    """
    answer = self.answers[step - 1]
    return self.look.cut(answer) if self.look.cut else answer

  def confidence_after(self, step: int) -> float | None:
    """Returns the confidence after `step` steps (1-based), if known."""
    return None if self.confidence is None else float(self.confidence[step - 1])

  def wrong(self, step: int) -> np.ndarray:
    """Returns which cells are incorrect after `step` steps; bool [L]."""
    answer = self.answer(step)
    if self.solution is None:
      return np.full(answer.shape, False)
    differs = answer != self.solution
    if self.look.cut:  # an extra cell is incorrect, too
      return differs & (
        grid_image.is_cell(self.look, answer)
        | grid_image.is_cell(self.look, self.solution)
      )
    return differs & (self.solution != puzzle_set.NO_LABEL)

  def changed(self, step: int, before: int | None) -> np.ndarray:
    """Returns which cells changed since step `before`, if any; bool [L]."""
    answer = self.answer(step)
    return answer != (answer if before is None else self.answer(before))

  def changes(self) -> list[int]:
    """Returns the steps that changed the answer, the first among them."""
    return [
      step
      for step in range(1, self.num_steps + 1)
      if step == 1 or self.changed(step, step - 1).any()
    ]

  def key_steps(self, max_steps: int) -> tuple[int, ...]:
    """Returns the steps to show: those that changed the answer, and the last.

    Args:
      max_steps: Maximum number of them, at least 2; the rest are left out
        evenly.
    """
    steps = sorted({*self.changes(), self.num_steps})
    if len(steps) > max_steps:
      chosen = np.linspace(0, len(steps) - 1, max_steps).round().astype(int)
      steps = [steps[place] for place in chosen]
    return tuple(steps)


def draw_panels(
  trace: AnswerTrace,
  steps: Sequence[int],
  *,
  titles: Sequence[str] | None = None,
  compare: bool = True,
) -> tuple[grid_image.Panel, list[grid_image.Panel], grid_image.Panel | None]:
  """Draws the question, the answers after `steps`, and any known solution.

  Args:
    trace: The puzzle.
    steps: 1-based, ascending.
    titles: Titles of the answers; by default their steps.
    compare: Whether to mark changes from each answer to the next.

  Returns:
    The three, with cells of the same size unless that is too small.
  """
  look = trace.look
  answers = [trace.answer(step) for step in steps]
  known = [] if trace.solution is None else [trace.solution]
  question_extent = grid_image.extent(look, [trace.question])
  answer_extent = grid_image.extent(look, [*answers, *known])
  common = min(question_extent.cell, answer_extent.cell)

  def unmarked(tokens):
    extent = grid_image.extent(look, [tokens])
    # Next to a large answer, a small question would be unreadable.
    cell = max(common, min(extent.cell, _SMALLEST))
    given = trace.question == tokens
    return grid_image.draw_grid(look, tokens, extent, cell, given=given)

  def marked(step, title, answer, before):
    image = grid_image.draw_grid(
      look,
      answer,
      answer_extent,
      common,
      given=trace.question == answer,
      wrong=trace.wrong(step),
      changed=trace.changed(step, before),
    )
    return grid_image.Panel(title, image, trace.confidence_after(step))

  return (
    grid_image.Panel("question", unmarked(trace.question)),
    [
      marked(step, title, answer, before)
      for step, title, answer, before in zip(
        steps,
        titles or [f"step {step}" for step in steps],
        answers,
        [None, *(steps[:-1] if compare else [None] * (len(steps) - 1))],
        strict=True,
      )
    ],
    grid_image.Panel("solution", unmarked(known[0])) if known else None,
  )


def draw_steps(
  trace: AnswerTrace,
  steps: Sequence[int],
  *,
  titles: Sequence[str] | None = None,
) -> Image.Image:
  """Draws question, answers and solution side by side, with a legend.

  Args:
    trace: The puzzle.
    steps: As for `draw_panels`.
    titles: As for `draw_panels`.
  """
  question, answers, solution = draw_panels(trace, steps, titles=titles)
  panels = [question, *answers, *([solution] if solution else [])]
  return grid_image.draw_sheet(panels, list(legend(trace)))


def draw_each(trace: AnswerTrace, num_steps: int) -> list[Image.Image]:
  """Draws question and answer, a picture for each of the first steps."""
  steps = range(1, num_steps + 1)
  question, answers, _ = draw_panels(
    trace, steps, titles=[f"step {step} of {trace.num_steps}" for step in steps]
  )
  entries = list(legend(trace))
  return [grid_image.draw_sheet([question, each], entries) for each in answers]


def gif(trace: AnswerTrace) -> bytes:
  """Returns an animated GIF with a frame per step, which loops forever.

  It ends with the last step that changed the answer.
  """
  changes = trace.changes()
  frames = [
    sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.BOX)
    for sheet in draw_each(trace, changes[-1])
  ]
  milliseconds = [
    _CHANGE if step in changes else _PAUSE for step in range(1, changes[-1])
  ] + [_END]
  content = io.BytesIO()
  frames[0].save(
    content,
    format="GIF",
    save_all=True,
    append_images=frames[1:],
    duration=milliseconds,
    loop=0,
  )
  return content.getvalue()


def png(image: Image.Image) -> bytes:
  """Returns an image as a PNG; 256 colors suffice for grids."""
  content = io.BytesIO()
  image.quantize(256, dither=Image.Dither.NONE).save(
    content, format="PNG", optimize=True
  )
  return content.getvalue()


def legend(trace: AnswerTrace) -> Iterator[grid_image.LegendEntry]:
  """Yields the meaning of each mark in a puzzle's pictures."""
  has_symbols = not trace.look.colours
  symbol = trace.look.symbols[-1] if has_symbols else ""

  def entry(words, **marks):
    return grid_image.LegendEntry(
      words, grid_image.draw_sample(symbol, **marks)
    )

  if trace.look.box_rows:
    yield entry("given", given=True)
    yield entry("filled in")
  elif has_symbols:
    yield entry("same as in the question", given=True)
    yield entry("differs from the question")
  if trace.solution is not None:
    how = "underlined" if has_symbols else "crossed"
    yield entry(f"{how}: incorrect", wrong=True)
  if trace.num_steps > 1:
    how = "shaded" if has_symbols else "framed"
    yield entry(f"{how}: changed since the previous picture", changed=True)
  if trace.confidence is not None:
    yield grid_image.LegendEntry(
      "confidence that the answer is correct", grid_image.draw_bar_sample()
    )


def describe(trace: AnswerTrace, step: int) -> str:
  """Describes the answer after `step` steps in words, for an alt text."""
  count = int(trace.wrong(step).sum())
  parts = []
  if trace.solution is not None:
    parts.append(f"{count} incorrect cell{'s' * (count != 1)}")
  confidence = trace.confidence_after(step)
  if confidence is not None:
    parts.append(f"confidence {grid_image.percent(confidence)}")
  return ", ".join(parts) or "the answer's grid"


# Title of an answer, by the axis of the evaluation.
_TITLES = {
  "steps": "step {}",
  "rollouts": "best of {}",
  "adaptive": "answer",
}


@dataclasses.dataclass(frozen=True)
class Example:
  """A puzzle of an evaluation with some of its answers.

  Attributes:
    trace: The puzzle with K answers.
    titles: Titles of the answers, K.
  """

  trace: AnswerTrace
  titles: tuple[str, ...]

  def picture(self) -> bytes:
    """Returns the example as a PNG."""
    steps = range(1, self.trace.num_steps + 1)
    return png(draw_steps(self.trace, steps, titles=self.titles))

  def text(self, width: int) -> str:
    """Returns question, answers and solution side by side, for a terminal.

    Args:
      width: Characters of a line; the first answers are left out where it is
        too small for all, and everything where it is too small for the last.
    """
    trace = self.trace
    panels = {"question": trace.question}
    for step, title in enumerate(self.titles, 1):
      panels[title] = trace.answer(step)
    if trace.solution is not None:
      panels["solution"] = trace.solution
    columns = [
      [title, *trace.look.text(tokens).splitlines()]
      for title, tokens in panels.items()
    ]
    for _ in self.titles:
      widths = [max(map(len, column)) for column in columns]
      if sum(widths) + 3 * (len(widths) - 1) <= width:
        return "\n".join(
          "   ".join(map(str.ljust, line, widths)).rstrip()
          for line in itertools.zip_longest(*columns, fillvalue="")
        )
      del columns[1]
    return ""


def pick(
  look: task_lib.Look,
  batch: Mapping[str, np.ndarray],
  answers: np.ndarray,
  shown: Sequence[int],
  *,
  axis: str = "steps",
  numbers: Sequence[int] | None = None,
) -> Example:
  """Picks the solved puzzle that took longest; any puzzle if none was solved.

  Args:
    look: Look of the grids.
    batch: `inputs` and `labels` [B, L], and `mask` [B].
    answers: Tokens, [K, B, L], e.g. after each supervision step.
    shown: Numbers of the answers to keep.
    axis: What the numbers count; see `evaluation.report.EvalResult`.
    numbers: Number of each answer, K; by default 1, 2, ...
  """
  labels = batch["labels"]
  known = labels != types.IGNORED_LABEL
  exact = ((answers == labels) | ~known).all(-1) & batch["mask"]  # [K, B]
  num_unsolved = np.where(exact[-1], (~exact).sum(0), -1)  # [B]
  row = int(np.argmax(num_unsolved))
  places = list(numbers or range(1, len(answers) + 1))
  solution = np.where(known, labels, puzzle_set.NO_LABEL)[row]
  return Example(
    trace=AnswerTrace(
      look=look,
      question=batch["inputs"][row],
      answers=np.stack([answers[places.index(n), row] for n in shown]),
      confidence=None,
      solution=solution if known[row].any() else None,
    ),
    titles=tuple(_TITLES[axis].format(number) for number in shown),
  )
