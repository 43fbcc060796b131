"""Images of the HTML report, embedded as data URIs."""

import base64
import dataclasses
from collections.abc import Callable, Iterable, Sequence

from PIL import Image

from trm_jax.visualization import animation, plots

_MAX_STEPS = 5  # answers per puzzle


@dataclasses.dataclass(frozen=True)
class Chart:
  """A chart in two themes.

  Attributes:
    light: Data URI of the light theme's SVG.
    dark: Data URI of the dark theme's SVG.
    alt: Description for screen readers.
    caption: Text below it.
  """

  light: str
  dark: str
  alt: str
  caption: str


@dataclasses.dataclass(frozen=True)
class Figure:
  """A grid's image.

  Attributes:
    title: Text above it.
    alt: Description for screen readers.
    source: Data URI.
    width: Pixels on the page.
    height: Pixels on the page.
    confidence: Probability of a correct answer; None for no bar.
  """

  title: str
  alt: str
  source: str
  width: int
  height: int
  confidence: float | None = None


def chart(
  draw: Callable[[plots.Theme], bytes], *, alt: str, caption: str
) -> Chart:
  """Draws a chart in both themes.

  Args:
    draw: Returns the SVG of a theme.
    alt: As in `Chart`.
    caption: As in `Chart`.
  """
  light, dark = (
    _data_uri(draw(theme), "image/svg+xml")
    for theme in (plots.LIGHT, plots.DARK)
  )
  return Chart(light=light, dark=dark, alt=alt, caption=caption)


def figures(
  trace: animation.AnswerTrace, *, titles: Sequence[str] | None = None
) -> list[Figure]:
  """Draws the question, answers and any known solution of a puzzle.

  Args:
    trace: The puzzle.
    titles: Titles of all its answers; None for the key steps, each compared
      with the one before.
  """
  steps = (
    trace.key_steps(_MAX_STEPS) if titles is None else range(1, len(titles) + 1)
  )
  question, answers, solution = animation.draw_panels(
    trace, steps, titles=titles, compare=titles is None
  )
  drawn = [_figure(question.title, "question", question.image)]
  for step, answer in zip(steps, answers, strict=True):
    alt = f"{answer.title}: {animation.describe(trace, step)}"
    drawn.append(_figure(answer.title, alt, answer.image, answer.confidence))
  if solution:
    drawn.append(_figure(solution.title, "solution", solution.image))
  return drawn


def legend(traces: Iterable[animation.AnswerTrace]) -> list[Figure]:
  """Draws the legend of puzzles of a task; without alt texts."""
  most_steps = max(traces, key=lambda trace: trace.num_steps)
  return [
    _figure(entry.words, "", entry.image)
    for entry in animation.legend(most_steps)
  ]


def still(trace: animation.AnswerTrace) -> str:
  """Returns the data URI of a picture of the key steps."""
  image = animation.draw_steps(trace, trace.key_steps(_MAX_STEPS))
  return _data_uri(animation.png(image), "image/png")


def gif(trace: animation.AnswerTrace) -> str:
  """Returns the data URI of an animation of all steps."""
  return _data_uri(animation.gif(trace), "image/gif")


def _figure(
  title: str, alt: str, image: Image.Image, confidence: float | None = None
) -> Figure:
  return Figure(
    title=title,
    alt=alt,
    source=_data_uri(animation.png(image), "image/png"),
    width=image.width // 2,
    height=image.height // 2,
    confidence=confidence,
  )


def _data_uri(content: bytes, media_type: str) -> str:
  return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
