"""A puzzle being solved: pictures of its steps, and an animated GIF."""

import dataclasses
import io
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath
from PIL import Image

from trm_jax.data import atomic_file, puzzle_set
from trm_jax.data import look as look_lib
from trm_jax.show import panels, sheets

_SMALLEST = 32  # pixels of a cell, if its grid's size allows it
# Milliseconds of a frame in which something changes, or nothing, and the last.
_CHANGE, _PAUSE, _END = 900, 250, 3000


@dataclasses.dataclass(frozen=True)
class Thinking:
  """A puzzle and what was answered to it after each of K supervision steps."""

  look: look_lib.Look  # of the grids
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
        panels.is_cell(self.look, answer)
        | panels.is_cell(self.look, self.solution)
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
) -> tuple[sheets.Panel, list[sheets.Panel], sheets.Panel | None]:
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
  asked = panels.extent(look, [thinking.question])
  said = panels.extent(look, [*answers, *known])
  common = min(asked.cell, said.cell)
  nowhere = np.full(thinking.question.shape, False)

  def plain(tokens):
    given = thinking.question == tokens
    marks = panels.Marks(given=given, wrong=nowhere, changed=nowhere)
    extent = panels.extent(look, [tokens])
    # Beside a large answer a small question would be too small to be seen.
    cell = max(common, min(extent.cell, _SMALLEST))
    return panels.draw(look, tokens, marks, extent=extent, cell=cell)

  def after(step, title, answer, before):
    marks = panels.Marks(
      given=thinking.question == answer,
      wrong=thinking.wrong(step),
      changed=thinking.changed(step, before),
    )
    image = panels.draw(look, answer, marks, extent=said, cell=common)
    return sheets.Panel(title, image, thinking.confidence_after(step))

  return (
    sheets.Panel("question", plain(thinking.question)),
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
    sheets.Panel("solution", plain(known[0])) if known else None,
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
  with atomic_file.writing(path) as file:
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
  return sheets.draw(columns, list(meanings(thinking)))


def save_gif(thinking: Thinking, path: epath.PathLike) -> None:
  """Writes a GIF of the puzzle being solved, a frame for each step.

  Args:
    thinking: the puzzle.
    path: the GIF to write.

  Raises:
    UserError: it cannot be written.
  """
  with atomic_file.writing(path) as file:
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
    sheet = sheets.draw([question, answer], legend)
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


def meanings(thinking: Thinking) -> Iterator[sheets.Meaning]:
  """Yields what is to be known of the marks in a puzzle's pictures."""
  has_symbols = not thinking.look.colours
  symbol = thinking.look.symbols[-1] if has_symbols else ""

  def mark(words, **marks):
    image = panels.sample(sheets.SAMPLE, symbol=symbol, **marks)
    return sheets.Meaning(words, image)

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
    yield sheets.Meaning(words, sheets.bar_sample())


def words_of(thinking: Thinking, step: int) -> str:
  """Describes an answer for those who cannot see it."""
  count = int(thinking.wrong(step).sum())
  parts = []
  if thinking.solution is not None:
    parts.append(f"{count} cell{'s' * (count != 1)} not as in the solution")
  confidence = thinking.confidence_after(step)
  if confidence is not None:
    parts.append(f"confidence {sheets.percent(confidence)}")
  return ", ".join(parts) or "the answer's grid"
