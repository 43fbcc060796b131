"""A puzzle being solved: pictures of its steps, and an animated GIF."""

import dataclasses
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from etils import epath
from PIL import Image

from trm_jax.core import types
from trm_jax.data import files, puzzle_set
from trm_jax.data import task as task_lib
from trm_jax.visualization import grid_image

_SMALLEST = 32  # pixels of a cell, if its grid's size allows it
# Milliseconds of a frame in which something changes, or nothing, and the last.
_CHANGE, _PAUSE, _END = 900, 250, 3000


@dataclasses.dataclass(frozen=True)
class Thinking:
  """A puzzle and what was answered to it after each of K supervision steps."""

  look: task_lib.Look  # of the grids
  question: np.ndarray  # [L] tokens
  answers: np.ndarray  # [K, L] tokens
  confidence: np.ndarray | None  # [K] that the answer is right, 0..1
  solution: np.ndarray | None  # [L] tokens, `NO_LABEL` where it is not known

  @property
  def num_steps(self) -> int:
    """K."""
    return len(self.answers)

  def answer(self, step: int) -> np.ndarray:
    """Returns what is read of the answer after `step` steps, from 1; [L]."""
    answer = self.answers[step - 1]
    return self.look.cut(answer) if self.look.cut else answer

  def confidence_after(self, step: int) -> float | None:
    """Returns the confidence after `step` steps, from 1, if it is known."""
    return None if self.confidence is None else float(self.confidence[step - 1])

  def wrong(self, step: int) -> np.ndarray:
    """Tells which cells are known to be wrong after `step` steps; bool [L]."""
    answer = self.answer(step)
    if self.solution is None:
      return np.full(answer.shape, False)
    differs = answer != self.solution
    if self.look.cut:  # a cell too much is wrong, too
      return differs & (
        grid_image.is_cell(self.look, answer)
        | grid_image.is_cell(self.look, self.solution)
      )
    return differs & (self.solution != puzzle_set.NO_LABEL)

  def changed(self, step: int, before: int | None) -> np.ndarray:
    """Tells which cells changed since step `before`, if any; bool [L]."""
    answer = self.answer(step)
    return answer != (answer if before is None else self.answer(before))

  def telling_steps(self, most: int) -> tuple[int, ...]:
    """Chooses steps to show: where the answer changed, and the last.

    Args:
      most: how many at most, at least 2; some in between are left out.
    """
    changes = [
      step
      for step in range(1, self.num_steps + 1)
      if step == 1 or self.changed(step, step - 1).any()
    ]
    steps = sorted({*changes, self.num_steps})
    if len(steps) > most:
      chosen = np.linspace(0, len(steps) - 1, most).round().astype(int)
      steps = [steps[place] for place in chosen]
    return tuple(steps)


def panels_of(
  thinking: Thinking,
  steps: Sequence[int],
  *,
  titles: Sequence[str] | None = None,
  compare: bool = True,
) -> tuple[grid_image.Panel, list[grid_image.Panel], grid_image.Panel | None]:
  """Draws the question, the answers after `steps`, and the solution if known.

  Args:
    thinking: the puzzle.
    steps: from 1, rising.
    titles: of the answers; by default their steps.
    compare: whether to mark what changed since the answer before it in `steps`.

  Returns:
    The three, with cells of the same size where that can be seen.
  """
  look = thinking.look
  answers = [thinking.answer(step) for step in steps]
  known = [] if thinking.solution is None else [thinking.solution]
  asked = grid_image.extent(look, [thinking.question])
  said = grid_image.extent(look, [*answers, *known])
  common = min(asked.cell, said.cell)
  nowhere = np.full(thinking.question.shape, False)

  def plain(tokens):
    given = thinking.question == tokens
    marks = grid_image.Marks(given=given, wrong=nowhere, changed=nowhere)
    extent = grid_image.extent(look, [tokens])
    # Beside a large answer a small question would be too small to be seen.
    cell = max(common, min(extent.cell, _SMALLEST))
    return grid_image.draw_panel(look, tokens, marks, extent=extent, cell=cell)

  def after(step, title, answer, before):
    marks = grid_image.Marks(
      given=thinking.question == answer,
      wrong=thinking.wrong(step),
      changed=thinking.changed(step, before),
    )
    image = grid_image.draw_panel(look, answer, marks, extent=said, cell=common)
    return grid_image.Panel(title, image, thinking.confidence_after(step))

  return (
    grid_image.Panel("question", plain(thinking.question)),
    [
      after(step, title, answer, before)
      for step, title, answer, before in zip(
        steps,
        titles or [f"step {step}" for step in steps],
        answers,
        [None, *(steps[:-1] if compare else [None] * (len(steps) - 1))],
        strict=True,
      )
    ],
    grid_image.Panel("solution", plain(known[0])) if known else None,
  )


def save_steps(
  thinking: Thinking, path: epath.PathLike, *, steps: Sequence[int]
) -> None:
  """Draws the question, the answers after some steps, and the solution.

  Args:
    thinking: the puzzle.
    path: the PNG to write.
    steps: supervision steps to show, from 1, rising.

  Raises:
    UserError: it cannot be written.
  """
  with files.writing(path) as file:
    file.write(png(still(thinking, steps)))


def still(
  thinking: Thinking,
  steps: Sequence[int],
  *,
  titles: Sequence[str] | None = None,
) -> Image.Image:
  """Draws what `save_steps` writes; arguments as for `panels_of`."""
  question, answers, solution = panels_of(thinking, steps, titles=titles)
  columns = [question, *answers, *([solution] if solution else [])]
  return grid_image.draw_sheet(columns, list(meanings(thinking)))


def save_gif(thinking: Thinking, path: epath.PathLike) -> None:
  """Writes a GIF of the puzzle being solved, a frame for each step.

  Args:
    thinking: the puzzle.
    path: the GIF to write.

  Raises:
    UserError: it cannot be written.
  """
  with files.writing(path) as file:
    file.write(gif(thinking))


def gif(thinking: Thinking) -> bytes:
  """Returns an animated GIF, which begins again after its end."""
  steps = range(1, thinking.num_steps + 1)
  question, answers, _ = panels_of(
    thinking,
    steps,
    titles=[f"step {step} of {thinking.num_steps}" for step in steps],
  )
  legend = list(meanings(thinking))
  frames, milliseconds = [], []
  for step, answer in zip(steps, answers, strict=True):
    sheet = grid_image.draw_sheet([question, answer], legend)
    frames.append(
      sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.BOX)
    )
    moves = step == 1 or thinking.changed(step, step - 1).any()
    milliseconds.append(_CHANGE if moves else _PAUSE)
  milliseconds[-1] = _END
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
  """Returns an image as a PNG; 256 colours are enough for grids."""
  content = io.BytesIO()
  image.quantize(256, dither=Image.Dither.NONE).save(
    content, format="PNG", optimize=True
  )
  return content.getvalue()


def meanings(thinking: Thinking) -> Iterator[grid_image.Meaning]:
  """Yields what is to be known of the marks in a puzzle's pictures."""
  has_symbols = not thinking.look.colours
  symbol = thinking.look.symbols[-1] if has_symbols else ""

  def mark(words, **marks):
    image = grid_image.sample(grid_image.SAMPLE, symbol=symbol, **marks)
    return grid_image.Meaning(words, image)

  if thinking.look.box_rows:
    yield mark("given", given=True)
    yield mark("filled in")
  elif has_symbols:
    yield mark("as in the question", given=True)
    yield mark("another")
  if thinking.solution is not None:
    how = "underlined" if has_symbols else "crossed"
    yield mark(f"{how}: not as in the solution", wrong=True)
  if thinking.num_steps > 1:
    how = "shaded" if has_symbols else "framed"
    yield mark(f"{how}: changed since the picture before", changed=True)
  if thinking.confidence is not None:
    words = "confidence that the answer is right"
    yield grid_image.Meaning(words, grid_image.bar_sample())


def words_of(thinking: Thinking, step: int) -> str:
  """Describes an answer for those who cannot see it."""
  count = int(thinking.wrong(step).sum())
  parts = []
  if thinking.solution is not None:
    parts.append(f"{count} cell{'s' * (count != 1)} not as in the solution")
  confidence = thinking.confidence_after(step)
  if confidence is not None:
    parts.append(f"confidence {grid_image.percent(confidence)}")
  return ", ".join(parts) or "the answer's grid"


# One puzzle and the answers it got on the way, as a picture and as text.


# What an answer is called, by the report's axis.
_TITLES = {
  "steps": "step {}",
  "rollouts": "best of {}",
  "adaptive": "answer",
}


@dataclasses.dataclass(frozen=True)
class Example:
  """A puzzle, its solution and its answers."""

  look: task_lib.Look
  question: np.ndarray  # [L]
  solution: np.ndarray  # [L]
  answers: Mapping[str, np.ndarray]  # title -> [L]

  def save_picture(self, path: epath.Path) -> None:
    """Draws it as a PNG."""
    known = (self.solution != puzzle_set.NO_LABEL).any()
    thinking = Thinking(
      look=self.look,
      question=self.question,
      answers=np.stack(list(self.answers.values())),
      confidence=None,
      solution=self.solution if known else None,
    )
    image = still(
      thinking, range(1, len(self.answers) + 1), titles=tuple(self.answers)
    )
    with files.writing(path) as file:
      file.write(png(image))

  def text(self) -> str:
    """Returns question and answers side by side, for the terminal."""
    panels = {"question": self.question, **self.answers}
    panels["solution"] = self.solution
    columns = [
      [title, *self.look.text(tokens).splitlines()]
      for title, tokens in panels.items()
    ]
    widths = [max(len(line) for line in column) for column in columns]
    return "\n".join(
      "   ".join(
        cell.ljust(width) for cell, width in zip(line, widths, strict=True)
      ).rstrip()
      for line in itertools.zip_longest(*columns, fillvalue="")
    )


def pick(
  look: task_lib.Look,
  batch: Mapping[str, np.ndarray],
  answers: np.ndarray,
  shown: Sequence[int],
  *,
  axis: str = "steps",
  numbers: Sequence[int] | None = None,
) -> Example:
  """Picks the puzzle that was solved, and took longest.

  Args:
    look: of the grids.
    batch: `inputs`, `labels` [B, L] and `mask` [B].
    answers: [K, B, L] tokens, e.g. after each supervision step.
    shown: numbers of the answers to keep.
    axis: what the numbers count; see `report.EvalResult`.
    numbers: K, of the answers; by default 1, 2, ...

  Returns:
    The example; some unsolved puzzle if none was solved.
  """
  labels = batch["labels"]
  known = labels != types.IGNORED_LABEL
  right = (answers == labels) | ~known
  exact = right.all(-1) & batch["mask"]
  unsolved = np.where(exact[-1], (~exact).sum(0), -1)  # [B] steps
  row = int(np.argmax(unsolved))
  places = list(numbers or range(1, len(answers) + 1))
  kept = look.cut or (lambda tokens: tokens)
  return Example(
    look=look,
    question=batch["inputs"][row],
    solution=np.where(known, labels, puzzle_set.NO_LABEL)[row],
    answers={
      _TITLES[axis].format(number): kept(answers[places.index(number), row])
      for number in shown
    },
  )
