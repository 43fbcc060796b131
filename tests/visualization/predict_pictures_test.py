"""Pictures of predicted puzzles: their files, and what is logged."""

import numpy as np
import pytest
import solver_stand_in
import tiny
from PIL import Image

from trm_jax import errors
from trm_jax.inference import outputs
from trm_jax.visualization import animation, predict_pictures


def _draw(folder, names):
  solver = solver_stand_in.of(solver_stand_in.Echo, tiny.config())
  tokens = np.ones(16, np.uint8)
  puzzles = [outputs.DrawnPuzzle(name, tokens) for name in names]
  predict_pictures.draw(solver, str(folder), puzzles)


def test_pictures_of_the_first_puzzles(tmp_path, monkeypatch, capfd):
  monkeypatch.setattr(outputs, "MOST_DRAWN", 2)
  _draw(tmp_path / "new", ["a", "b", "c"])
  paths = sorted((tmp_path / "new").iterdir())
  assert [path.name for path in paths] == ["a.gif", "a.png", "b.gif", "b.png"]
  for path in paths:
    with Image.open(path) as image:
      image.load()
  told = capfd.readouterr().err
  assert "4 pictures of the first 2 puzzles (at most 2)" in told


def test_names_of_pictures_are_safe_and_distinct(tmp_path, capfd):
  names = ["a/b", "a_b", "A?b", "a_b_2", "x" * 300, "x" * 301, "日" * 99]
  _draw(tmp_path, [*names, "../c"])
  assert sorted(path.stem for path in tmp_path.glob("*.png")) == sorted(
    [
      *("a_b", "a_b_2", "A_b_3", "a_b_2_2", "___c"),
      *("x" * 50, "x" * 50 + "_2", "日" * 50),
    ]
  )
  assert len(list(tmp_path.iterdir())) == 16
  assert "16 pictures of the first 8 puzzles" in capfd.readouterr().err


def test_what_is_there_after_an_interruption_is_told(
  tmp_path, monkeypatch, capfd
):
  results = iter([b"a GIF"])

  def gif(trace):
    for content in results:
      return content
    raise KeyboardInterrupt

  monkeypatch.setattr(animation, "gif", gif)
  with pytest.raises(KeyboardInterrupt):
    _draw(tmp_path, "abc")
  assert capfd.readouterr().err == (
    f"3 pictures of the first 3 puzzles (at most 20): {tmp_path}\n"
  )


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(errors.UserError, match=r"cannot write .*file/a\.png"):
    _draw(tmp_path / "file", "a")


def test_a_folder_that_cannot_be_made_is_known_before(tmp_path):
  (tmp_path / "pictures").write_text("")
  with pytest.raises(errors.UserError, match="Not a directory"):
    predict_pictures.check_writable(str(tmp_path / "pictures"))
