"""The demo page: what it computes, and that it is served."""

import importlib.util
import pathlib

import numpy as np
import pytest
import saved_run
import tiny

from trm_jax import errors
from trm_jax.runtime import program

pytestmark = pytest.mark.usefixtures("one_device")

ROOT = pathlib.Path(__file__).resolve().parents[2]
PUZZLE = ".32.1..........24.4...316143.2...1.."


@pytest.fixture(scope="module")
def demo():
  spec = importlib.util.spec_from_file_location(
    "demo", ROOT / "examples" / "demo.py"
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  folder = tmp_path_factory.mktemp("run")
  saved_run.save(program.load(tiny.config()), folder, {3: 0.5})
  return str(folder)


def test_it_shows_each_step_of_a_puzzle_and_attempts(demo, weights):
  page = demo.Demo(weights)
  grid = PUZZLE[:16]
  watched = page.watch(grid)
  steps = tiny.config().eval.supervision_steps
  assert len(watched.frames) == steps
  assert watched.confidence.shape == (steps,)
  assert len(watched.text) == 16
  assert f"After {steps} steps: **not a valid solution**" in demo.summary(
    watched
  )
  first, last = (np.asarray(watched.frames[i].convert("L")) for i in (0, -1))
  assert first.shape == last.shape
  assert len(page.attempt(grid, 4).text) == 16


@pytest.mark.parametrize(
  ("puzzle", "said"),
  [
    ("12", "2 characters"),
    ("1" * 1001, "at most 1000"),
    ("11" + "." * 14, "1"),
  ],
)
def test_a_puzzle_that_cannot_be_read_is_one_line(demo, weights, puzzle, said):
  with pytest.raises(errors.UserError, match=said):
    demo.Demo(weights).watch(puzzle)


def test_puzzles_beside_the_weights_are_offered(demo, tmp_path):
  assert demo.examples(str(tmp_path)) == []
  (tmp_path / "puzzles.csv").write_text("question,answer\n1..2,1212\n")
  assert demo.examples(str(tmp_path)) == ["1..2"]


@pytest.mark.slow
def test_the_page_is_served_and_answers(demo, weights):
  import gradio_client  # of the extra `demo`

  blocks = demo.page(demo.Demo(weights), [PUZZLE[:16]])
  _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
  try:
    client = gradio_client.Client(url, verbose=False)
    *_, said = client.predict(PUZZLE[:16], api_name="/watch")
    assert "not a valid solution" in said
    assert "4 attempts" in client.predict(PUZZLE[:16], 4, api_name="/attempt")
    with pytest.raises(Exception, match="2 characters"):
      client.predict("12", api_name="/watch")
  finally:
    blocks.close()
