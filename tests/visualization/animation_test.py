"""Puzzles being solved: what is marked, and what is written to files."""

import io

import numpy as np
from PIL import Image

from trm_jax.core import types
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.data.arc import load as arc_load
from trm_jax.visualization import animation, grid_image

SUDOKU = task_lib.Look(
  rows=4, cols=4, symbols=tuple(" .1234"), box_rows=2, box_cols=2
)
QUESTION = np.array([2, 1, 1, 1] * 4, np.uint8)
SOLUTION = np.array([2, 3, 4, 5] * 4, np.uint8)


def _sudoku(answers, **changes):
  values = {
    "look": SUDOKU,
    "question": QUESTION,
    "answers": np.stack(answers),
    "confidence": np.linspace(0.1, 0.9, len(answers)),
    "solution": SOLUTION,
  } | changes
  return animation.AnswerTrace(**values)


def _but(cells):
  """The solution, but for some cells."""
  answer = SOLUTION.copy()
  for cell, token in cells.items():
    answer[cell] = token
  return answer


def _arc(question, answers, solution=None):
  return animation.AnswerTrace(
    look=arc_load.LOOK,
    question=arc_grids.encode(np.array(question, np.uint8)),
    answers=np.stack(
      [arc_grids.encode(np.array(a, np.uint8)) for a in answers]
    ),
    confidence=None,
    solution=None
    if solution is None
    else arc_grids.encode(np.array(solution, np.uint8)),
  )


# --- what is wrong, what changed ---------------------------------------------


def test_cells_are_wrong_where_the_solution_is_known_and_another():
  trace = _sudoku([_but({3: 2, 7: 2})])
  assert np.flatnonzero(trace.wrong(1)).tolist() == [3, 7]
  partly = SOLUTION.copy()
  partly[7] = 0  # no label
  trace = _sudoku([_but({3: 2, 7: 2})], solution=partly)
  assert np.flatnonzero(trace.wrong(1)).tolist() == [3]
  assert not _sudoku([_but({3: 2})], solution=None).wrong(1).any()


def test_an_arc_answer_is_wrong_in_what_it_has_too_much_or_too_little():
  solution = [[1, 2], [3, 4]]
  for answer, wrong in (
    (solution, []),
    ([[1, 2], [3, 5]], [31]),
    ([[1, 2, 7], [3, 4, 7]], [2, 32]),  # a column too much
    ([[1, 2]], [30, 31]),  # a row too few
  ):
    trace = _arc([[0]], [answer], solution)
    assert np.flatnonzero(trace.wrong(1)).tolist() == wrong


def test_what_lies_outside_an_arc_answers_grid_is_not_read():
  trace = _arc([[0]], [[[1, 2], [3, 4]]], [[1, 2], [3, 4]])
  trace.answers[0, 100:] = 5  # behind the marks of the grid's end
  assert not trace.wrong(1).any()
  assert grid_image.extent(
    arc_load.LOOK, [trace.answer(1)]
  ) == grid_image.Extent(2, 2)


def test_cells_changed_since_the_step_that_was_shown_before():
  trace = _sudoku([_but({1: 5}), _but({2: 5}), _but({})])
  assert not trace.changed(1, None).any()
  assert np.flatnonzero(trace.changed(2, 1)).tolist() == [1, 2]
  assert np.flatnonzero(trace.changed(3, 1)).tolist() == [1]


def test_key_steps_are_those_of_changes_and_the_last():
  a, b, c = _but({1: 5}), _but({2: 5}), _but({})
  assert _sudoku([a, a, b, b, c, c]).key_steps(9) == (1, 3, 5, 6)
  assert _sudoku([a, a, a]).key_steps(9) == (1, 3)
  assert _sudoku([a]).key_steps(9) == (1,)
  many = _sudoku([a, b, c] * 5)
  assert many.key_steps(20) == tuple(range(1, 16))
  few = many.key_steps(4)
  assert len(few) == 4
  assert (few[0], few[-1]) == (1, 15)


# --- how it looks ------------------------------------------------------------


def test_only_arcs_own_cells_are_shown():
  question, answers, solution = animation.draw_panels(
    _arc([[1, 2, 3]], [[[1] * 6] * 4], [[1, 2]]), [1]
  )
  border = grid_image.Extent(4, 6).cell // 16 * 2
  cell = grid_image.Extent(4, 6).cell
  assert question.image.size == (3 * cell + border, cell + border)
  assert answers[0].image.size == (6 * cell + border, 4 * cell + border)
  assert solution.image.size == (2 * cell + border, cell + border)


def test_an_answer_without_a_grid_can_be_drawn():
  trace = _arc([[1, 2]], [[[1, 2]]])
  trace.answers[:] = 0
  _, (answer,), _ = animation.draw_panels(trace, [1])
  assert answer.image.width > 10


def test_the_legend_names_only_what_there_is():
  def words(trace):
    return " ".join(entry.words for entry in animation.legend(trace))

  whole = words(_sudoku([_but({}), _but({})]))
  for part in ("given", "underlined", "shaded", "confidence"):
    assert part in whole
  bare = words(_sudoku([_but({})], solution=None, confidence=None))
  for part in ("underlined", "shaded", "confidence"):
    assert part not in bare
  assert "crossed" in words(_arc([[1]], [[[1]]], [[1]]))


# --- images ----------------------------------------------------------------


def test_a_picture_has_the_steps_that_were_asked_for():
  trace = _sudoku([_but({1: 5}), _but({2: 5}), _but({})])
  few, many = (animation.draw_steps(trace, steps) for steps in ((1,), (1, 3)))
  assert few.width < many.width
  with Image.open(io.BytesIO(animation.png(few))) as image:
    assert (image.format, image.size) == ("PNG", few.size)


def test_the_gif_has_a_frame_for_each_step_up_to_the_last_change():
  answers = [_but({1: 5}), _but({1: 5}), _but({2: 5}), *[_but({})] * 3]
  content = animation.gif(_sudoku(answers))
  with Image.open(io.BytesIO(content)) as image:
    assert image.format == "GIF"
    assert image.n_frames == 4
    assert image.info["loop"] == 0  # for ever
    times, filled = [], []
    for number in range(image.n_frames):
      image.seek(number)
      times.append(image.info["duration"])
      top = np.asarray(image.convert("RGB"), int)[:50]
      bar = (top[..., 2] > top[..., 0] + 80).sum()
      filled.append(int(bar))
  change, pause, end = times[0], times[1], times[-1]
  assert times == [change, pause, change, end]
  assert pause < change < end
  assert filled == sorted(set(filled))  # it becomes surer with each step


def test_a_gif_of_one_step_or_of_no_confidence_is_one_too():
  trace = _sudoku([_but({})], confidence=None)
  with Image.open(io.BytesIO(animation.gif(trace))) as image:
    image.load()
    assert image.format == "GIF"


# --- the example of a training -----------------------------------------------


def _picked(axis="steps", numbers=None, shown=(1, 3)):
  """Of four puzzles the third is solved last, the fourth never."""
  solution = np.array([[2, 3], [3, 2], [2, 2], [3, 3]])
  wrong = np.array([9, 9])
  answers = np.stack([solution] * 3)
  answers[0, 1] = wrong
  answers[:2, 2] = wrong
  answers[:, 3] = wrong
  return animation.pick(
    task_lib.Look(rows=1, cols=2, symbols=tuple("0123456789")),
    {"inputs": solution, "labels": solution, "mask": np.array([True] * 4)},
    answers,
    shown,
    axis=axis,
    numbers=numbers,
  )


def test_the_example_is_the_solved_puzzle_that_took_longest():
  picked = _picked()
  assert picked.titles == ("step 1", "step 3")
  np.testing.assert_array_equal(picked.trace.solution, [2, 2])
  np.testing.assert_array_equal(picked.trace.answers, [[9, 9], [2, 2]])
  assert picked.text(width=37).splitlines() == [
    "question   step 1   step 3   solution",
    "22         99       22       22",
  ]
  assert picked.text(width=36).splitlines() == [  # what comes first is left out
    "question   step 3   solution",
    "22         22       22",
  ]
  assert picked.text(width=27) == ""


def test_titles_of_the_examples_answers_say_what_is_counted():
  picked = _picked("rollouts", numbers=(1, 2, 4), shown=(1, 4))
  assert picked.titles == ("best of 1", "best of 4")
  np.testing.assert_array_equal(picked.trace.answers[1], [2, 2])
  assert _picked("adaptive", (1, 2, 16), (16,)).titles == ("answer",)
  with Image.open(io.BytesIO(picked.picture())) as image:
    image.load()


def test_an_example_without_a_known_solution_shows_none():
  picked = animation.pick(
    task_lib.Look(rows=1, cols=2, symbols=tuple("0123456789")),
    {
      "inputs": np.array([[2, 3]]),
      "labels": np.full((1, 2), types.IGNORED_LABEL),
      "mask": np.array([True]),
    },
    np.array([[[4, 5]]]),
    (1,),
  )
  assert picked.text(80).splitlines() == ["question   step 1", "23         45"]
