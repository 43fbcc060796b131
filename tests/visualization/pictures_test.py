"""Pictures of puzzles being solved: what is marked, and what is written."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from trm_jax import errors
from trm_jax.data import kind
from trm_jax.data import task as task_lib
from trm_jax.data.arc import grids as arc_grids
from trm_jax.visualization import animation, grid_image

SUDOKU = task_lib.Look(
  rows=4, cols=4, symbols=tuple(" .1234"), box_rows=2, box_cols=2
)
MAZE = task_lib.Look(
  rows=2,
  cols=3,
  symbols=tuple("?# SGo"),
  colours=("#ffffff", "#303030", "#ffffff", "#43a047", "#e65100", "#1e88e5"),
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
  return animation.Thinking(**values)


def _but(cells):
  """The solution, but for some cells."""
  answer = SOLUTION.copy()
  for cell, token in cells.items():
    answer[cell] = token
  return answer


def _arc(question, answers, solution=None):
  return animation.Thinking(
    look=kind.ARC_LOOK,
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
  thinking = _sudoku([_but({3: 2, 7: 2})])
  assert np.flatnonzero(thinking.wrong(1)).tolist() == [3, 7]
  partly = SOLUTION.copy()
  partly[7] = 0  # no label
  thinking = _sudoku([_but({3: 2, 7: 2})], solution=partly)
  assert np.flatnonzero(thinking.wrong(1)).tolist() == [3]
  assert not _sudoku([_but({3: 2})], solution=None).wrong(1).any()


def test_an_arc_answer_is_wrong_in_what_it_has_too_much_or_too_little():
  solution = [[1, 2], [3, 4]]
  for answer, wrong in (
    (solution, []),
    ([[1, 2], [3, 5]], [31]),
    ([[1, 2, 7], [3, 4, 7]], [2, 32]),  # a column too much
    ([[1, 2]], [30, 31]),  # a row too few
  ):
    thinking = _arc([[0]], [answer], solution)
    assert np.flatnonzero(thinking.wrong(1)).tolist() == wrong


def test_what_lies_outside_an_arc_answers_grid_is_not_read():
  thinking = _arc([[0]], [[[1, 2], [3, 4]]], [[1, 2], [3, 4]])
  thinking.answers[0, 100:] = 5  # behind the marks of the grid's end
  assert not thinking.wrong(1).any()
  assert grid_image.extent(
    kind.ARC_LOOK, [thinking.answer(1)]
  ) == grid_image.Extent(2, 2)


def test_cells_changed_since_the_step_that_was_shown_before():
  thinking = _sudoku([_but({1: 5}), _but({2: 5}), _but({})])
  assert not thinking.changed(1, None).any()
  assert np.flatnonzero(thinking.changed(2, 1)).tolist() == [1, 2]
  assert np.flatnonzero(thinking.changed(3, 1)).tolist() == [1]


def test_telling_steps_are_those_of_changes_and_the_last():
  a, b, c = _but({1: 5}), _but({2: 5}), _but({})
  assert _sudoku([a, a, b, b, c, c]).telling_steps(9) == (1, 3, 5, 6)
  assert _sudoku([a, a, a]).telling_steps(9) == (1, 3)
  assert _sudoku([a]).telling_steps(9) == (1,)
  many = _sudoku([a, b, c] * 5)
  assert many.telling_steps(20) == tuple(range(1, 16))
  few = many.telling_steps(4)
  assert len(few) == 4
  assert (few[0], few[-1]) == (1, 15)


# --- how it looks ------------------------------------------------------------


def _drawn(shown, tokens, *, given=(), wrong=(), changed=(), cell=40):
  """Cells of a drawn grid, as arrays [cell, cell, 3] of 0..255."""

  def at(cells):
    marks = np.full(len(tokens), False)
    marks[list(cells)] = True
    return marks

  extent = grid_image.extent(shown, [tokens])
  image = grid_image.draw_panel(
    shown,
    tokens,
    grid_image.Marks(given=at(given), wrong=at(wrong), changed=at(changed)),
    extent=extent,
    cell=cell,
  )
  border = (image.width - cell * extent.cols) // 2
  pixels = np.asarray(image, int)
  return [
    pixels[top : top + cell, left : left + cell]
    for top in range(border, border + extent.rows * cell, cell)
    for left in range(border, border + extent.cols * cell, cell)
  ]


def _ink(cell):
  """The darkest colour in the middle of a cell."""
  inner = cell[6:-9, 6:-6].reshape(-1, 3)
  return inner[inner.sum(-1).argmin()].tolist()


def test_clues_are_black_what_was_filled_in_blue_what_is_wrong_red():
  cells = _drawn(SUDOKU, SOLUTION, given=[0], wrong=[2])
  assert _ink(cells[0]) == [0, 0, 0]
  red, green, blue = _ink(cells[1])
  assert blue > 2 * max(red, green) - 100 > red
  red, green, blue = _ink(cells[2])
  assert red > 3 * max(green, blue)


@pytest.mark.parametrize("shown", [SUDOKU, MAZE])
def test_each_mark_is_seen_without_colours(shown):
  tokens = np.full(shown.rows * shown.cols, 5)
  plain = _drawn(shown, tokens)[0].mean(-1)
  wrong = _drawn(shown, tokens, wrong=[0])[0].mean(-1)
  changed = _drawn(shown, tokens, changed=[0])[0].mean(-1)
  both = _drawn(shown, tokens, wrong=[0], changed=[0])[0].mean(-1)
  for one, other in itertools.combinations((plain, wrong, changed, both), 2):
    # In many places far from each other, not only a shade everywhere.
    assert (abs(one - other) > 15).sum() > 20


def test_marks_stay_in_their_own_cell():
  tokens = np.full(16, 5)
  plain = _drawn(SUDOKU, tokens)
  marked = _drawn(SUDOKU, tokens, wrong=[5], changed=[5])
  differs = [
    i
    for i, (a, b) in enumerate(zip(plain, marked, strict=True))
    if (a != b).any()
  ]
  assert differs == [5]


def test_clues_are_bold():
  ink = [
    (cell < 128).all(-1).sum()
    for given in ((0,), ())
    for cell in _drawn(SUDOKU, SOLUTION, given=given)[:1]
  ]
  assert ink[0] > ink[1]


def test_an_empty_cell_of_a_sudoku_is_empty_but_not_if_it_is_an_answer():
  empty, wrong = _drawn(SUDOKU, np.array([1] * 16), wrong=[1])[:2]
  assert (empty[6:-6, 6:-6] == 255).all()
  assert (wrong[6:-6, 6:-6] != 255).any()


def test_only_arcs_own_cells_are_shown():
  question, answers, solution = animation.panels_of(
    _arc([[1, 2, 3]], [[[1] * 6] * 4], [[1, 2]]), [1]
  )
  border = grid_image.Extent(4, 6).cell // 16 * 2
  cell = grid_image.Extent(4, 6).cell
  assert question.image.size == (3 * cell + border, cell + border)
  assert answers[0].image.size == (6 * cell + border, 4 * cell + border)
  assert solution.image.size == (2 * cell + border, cell + border)


def test_an_answer_without_a_grid_can_be_drawn():
  thinking = _arc([[1, 2]], [[[1, 2]]])
  thinking.answers[:] = 0
  _, (answer,), _ = animation.panels_of(thinking, [1])
  assert answer.image.width > 10


@pytest.mark.parametrize(
  ("share", "text"),
  [
    (0.0, "0%"),
    (0.001, "<1%"),
    (0.5, "50%"),
    (0.997, ">99%"),
    (1.0, "100%"),
    (float("nan"), "not known"),
  ],
)
def test_percent_is_never_more_certain_than_it_is(share, text):
  assert grid_image.percent(share) == text


def test_the_legend_names_only_what_there_is():
  def words(thinking):
    return " ".join(m.words for m in animation.meanings(thinking))

  whole = words(_sudoku([_but({}), _but({})]))
  for part in ("given", "underlined", "shaded", "confidence"):
    assert part in whole
  bare = words(_sudoku([_but({})], solution=None, confidence=None))
  for part in ("underlined", "shaded", "confidence"):
    assert part not in bare
  assert "crossed" in words(_arc([[1]], [[[1]]], [[1]]))


# --- files -----------------------------------------------------------------


def test_steps_are_written_as_a_picture_of_what_was_asked_for(tmp_path):
  thinking = _sudoku([_but({1: 5}), _but({2: 5}), _but({})])
  sizes = []
  for steps in ((1,), (1, 3)):
    animation.save_steps(thinking, tmp_path / "a/steps.png", steps=steps)
    with Image.open(tmp_path / "a/steps.png") as image:
      image.load()
      assert image.format == "PNG"
      sizes.append(image.size)
  assert sizes[0][0] < sizes[1][0]


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match=r"cannot write .*steps\.png"):
    animation.save_steps(
      _sudoku([_but({})]), tmp_path / "file/steps.png", steps=(1,)
    )


def test_the_gif_has_a_frame_for_each_step_and_rests_at_the_end(tmp_path):
  answers = [_but({1: 5}), _but({1: 5}), _but({2: 5}), _but({}), _but({})]
  animation.save_gif(_sudoku(answers), tmp_path / "puzzle.gif")
  with Image.open(tmp_path / "puzzle.gif") as image:
    assert image.format == "GIF"
    assert image.n_frames == len(answers)
    assert image.info["loop"] == 0  # for ever
    times, filled = [], []
    for number in range(image.n_frames):
      image.seek(number)
      times.append(image.info["duration"])
      top = np.asarray(image.convert("RGB"), int)[:50]
      bar = (top[..., 2] > top[..., 0] + 80).sum()
      filled.append(int(bar))
  change, pause, end = times[0], times[1], times[-1]
  assert times == [change, pause, change, change, end]
  assert pause < change < end
  assert filled == sorted(set(filled))  # it becomes surer with each step


def test_a_gif_of_one_step_or_of_no_confidence_is_one_too():
  thinking = _sudoku([_but({})], confidence=None)
  with Image.open(io.BytesIO(animation.gif(thinking))) as image:
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
  np.testing.assert_array_equal(picked.solution, [2, 2])
  assert list(picked.answers) == ["step 1", "step 3"]
  np.testing.assert_array_equal(picked.answers["step 1"], [9, 9])
  np.testing.assert_array_equal(picked.answers["step 3"], [2, 2])
  assert picked.text().splitlines() == [
    "question   step 1   step 3   solution",
    "22         99       22       22",
  ]


def test_the_examples_answers_are_named_by_what_is_counted(tmp_path):
  picked = _picked("rollouts", numbers=(1, 2, 4), shown=(1, 4))
  assert list(picked.answers) == ["best of 1", "best of 4"]
  np.testing.assert_array_equal(picked.answers["best of 4"], [2, 2])
  assert list(_picked("adaptive", (1, 2, 16), (16,)).answers) == ["answer"]
  picked.save_picture(tmp_path / "example.png")
  with Image.open(tmp_path / "example.png") as image:
    image.load()
