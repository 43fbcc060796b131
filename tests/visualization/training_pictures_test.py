"""The pictures at the end of a training: they never cost its result."""

import types

import numpy as np

from trm_jax import train
from trm_jax.data import task as task_lib
from trm_jax.runtime import mesh

DRAW = train._Loop._draw  # before conftest.py leaves it out


def _lines(tmp_path, monkeypatch):
  """Draws the pictures of a run; returns what is printed."""
  lines = []
  monkeypatch.setattr(mesh, "local_rows", lambda rows, axis: rows)
  tokens = np.array([[1, 2]])
  loop = object.__new__(train._Loop)
  loop._workdir = str(tmp_path)
  loop._writer = types.SimpleNamespace(line=lines.append)
  loop._task = types.SimpleNamespace(
    look=task_lib.Look(rows=1, cols=2, symbols=tuple("0123"))
  )
  loop._program = types.SimpleNamespace(
    config=types.SimpleNamespace(eval=types.SimpleNamespace(report_steps=(1,)))
  )
  report = types.SimpleNamespace(
    first_batch={"inputs": tokens, "labels": tokens, "mask": np.array([True])},
    first_answers=tokens[None],
    shown=lambda steps: (1,),
    axis="steps",
    numbers=(1,),
  )
  DRAW(loop, report)
  return lines


def test_curves_and_an_example(tmp_path, monkeypatch):
  monkeypatch.setenv("COLUMNS", "80")
  assert _lines(tmp_path, monkeypatch) == [
    f"curves: {tmp_path / 'curves.png'}",
    "question   step 1   solution\n12         12       12",
    f"example: {tmp_path / 'example.png'}",
  ]
  assert (tmp_path / "curves.png").stat().st_size
  assert (tmp_path / "example.png").stat().st_size


def test_a_picture_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
  monkeypatch.setenv("COLUMNS", "20")
  (tmp_path / "curves.png").mkdir()
  warning, example = _lines(tmp_path, monkeypatch)
  assert warning.startswith(f"WARNING: cannot draw {tmp_path / 'curves.png'}: ")
  assert "\n" not in warning
  assert example == f"example: {tmp_path / 'example.png'}"
