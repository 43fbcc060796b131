"""A page in the browser: type a Sudoku and watch a network solve it.

Shows the answer after each supervision step with the network's confidence, and
what several attempts under random symmetries of the puzzle find.

  pip install '.[demo]'
  python examples/demo.py --weights=pretrained/sudoku_small

Opens http://127.0.0.1:7860, for this machine only. A Hugging Face Space runs
the same file; its environment says on which address.
"""

import argparse
import csv
import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

import trm_jax
from trm_jax import errors
from trm_jax.inference import inputs
from trm_jax.inference import solver as solver_lib
from trm_jax.visualization import animation

ROOT = pathlib.Path(__file__).resolve().parent.parent
ATTEMPTS = (1, 4, 16, 64)  # choices of K
_LONGEST = 1000  # characters of a puzzle that is typed in


@dataclasses.dataclass(frozen=True)
class Watched:
  """A puzzle being solved.

  Attributes:
    frames: pictures of question and answer, one for each step.
    confidence: of the answer after each step, [steps].
    text: the last answer.
    valid: whether it is a valid solution.
  """

  frames: list[Image.Image]
  confidence: np.ndarray
  text: str
  valid: bool


class Demo:
  """What the page computes; it needs no Gradio."""

  def __init__(self, weights: str):
    """Loads the weights, a run or an exported folder."""
    self._weights = weights
    self._solver = trm_jax.load(weights)
    self._by_attempts: dict[int, solver_lib.Solver] = {}

  def watch(self, puzzle: str) -> Watched:
    """Solves a puzzle in single steps.

    Args:
      puzzle: as people write it: 81 characters, or nine rows.

    Raises:
      UserError: it cannot be read, or its clues break the rules.
    """
    solver, tokens = self._solver, self._tokens(puzzle)
    trace = solver.trace_tokens(tokens[None])
    answers = animation.AnswerTrace(
      look=solver.look,
      question=tokens,
      answers=trace.answers[:, 0],
      confidence=trace.confidence[:, 0],
      solution=None,
    )
    (answer,) = solver.solve([self._text(puzzle)])
    return Watched(
      frames=animation.draw_each(answers, answers.num_steps),
      confidence=trace.confidence[:, 0],
      text=answer.text,
      valid=bool(answer.valid),
    )

  def attempt(self, puzzle: str, attempts: int) -> solver_lib.Answer:
    """Solves a puzzle in several attempts, each under a random symmetry.

    A valid answer is chosen if there is one, else the most confident.
    """
    if attempts not in self._by_attempts:
      self._by_attempts[attempts] = trm_jax.load(
        self._weights,
        solver="rollouts",
        rollouts=attempts,
        rollout_variation="symmetries",
        rollout_selection="rules",
      )
    (answer,) = self._by_attempts[attempts].solve([self._text(puzzle)])
    return answer

  def _text(self, puzzle: str) -> str:
    if len(puzzle) > _LONGEST:
      raise errors.UserError(f"a puzzle has at most {_LONGEST} characters")
    return puzzle.strip("\r\n")

  def _tokens(self, puzzle: str) -> np.ndarray:
    solver = self._solver
    return inputs.tokens_of(
      self._text(puzzle), solver.look, solver.config.data, where="the puzzle"
    )


def examples(weights: str) -> list[str]:
  """Returns the puzzles that lie beside the weights, if there are any."""
  path = pathlib.Path(weights) / "puzzles.csv"
  if not path.exists():
    return []
  with path.open() as file:
    return [row["question"] for row in csv.DictReader(file)]


def summary(watched: Watched) -> str:
  """Says in a line how it ended."""
  outcome = "a valid solution" if watched.valid else "not a valid solution"
  return (
    f"After {len(watched.frames)} steps: **{outcome}**, confidence"
    f" {watched.confidence[-1]:.1%}. `{watched.text}`"
  )


def page(demo: Demo, puzzles: list[str]) -> Any:
  """Builds the page."""
  import gradio as gr

  def readable(function, *arguments):
    try:
      return function(*arguments)
    except errors.UserError as error:
      raise gr.Error(str(error)) from error

  def watch(puzzle):
    watched = readable(demo.watch, puzzle)
    last = len(watched.frames)
    slider = gr.Slider(1, last, value=last, step=1, interactive=True)
    return watched.frames, watched.frames[-1], slider, summary(watched)

  def attempt(puzzle, attempts):
    answer = readable(demo.attempt, puzzle, int(attempts))
    outcome = "a valid solution" if answer.valid else "no valid solution"
    return (
      f"{attempts} attempts: **{outcome}**, confidence"
      f" {answer.confidence:.1%}. `{answer.text}`"
    )

  with gr.Blocks(
    title="TRM solves a Sudoku", analytics_enabled=False
  ) as blocks:
    gr.Markdown(
      "# A Tiny Recursive Model solves a Sudoku\nType or paste a puzzle: 81"
      " characters or nine rows, `.` or `0` for a blank cell. The network"
      " improves its answer step by step; move the slider to watch."
    )
    puzzle = gr.Textbox(
      value=puzzles[0] if puzzles else "", label="Puzzle", lines=1, max_lines=12
    )
    if puzzles:
      gr.Examples([[each] for each in puzzles], inputs=puzzle)
    with gr.Row():
      solve_button = gr.Button("Solve", variant="primary")
      attempts = gr.Radio(ATTEMPTS, value=ATTEMPTS[-2], label="Attempts")
      attempt_button = gr.Button("Solve in several attempts")
    several = gr.Markdown()
    said = gr.Markdown()
    step = gr.Slider(1, 16, value=16, step=1, label="Supervision step")
    picture = gr.Image(label="Answer", format="png", height=560)
    frames = gr.State([])
    solve_button.click(
      watch, puzzle, [frames, picture, step, said], api_name="watch"
    )
    attempt_button.click(
      attempt, [puzzle, attempts], several, api_name="attempt"
    )
    step.change(
      lambda frames, step: frames[int(step) - 1] if frames else None,
      [frames, step],
      picture,
      api_visibility="private",
    )
  return blocks


def main() -> None:
  """Serves the page."""
  parser = argparse.ArgumentParser(
    description="A page that shows a network solving Sudokus."
  )
  parser.add_argument(
    "--weights", default=str(ROOT / "pretrained/sudoku_small")
  )
  parser.add_argument("--port", type=int, default=7860)
  arguments = parser.parse_args()
  try:
    demo = Demo(arguments.weights)
  except errors.UserError as error:
    raise SystemExit(f"error: {error}") from error
  page(demo, examples(arguments.weights)).launch(
    server_name=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
    server_port=arguments.port,
  )


if __name__ == "__main__":
  main()
