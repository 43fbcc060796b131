"""metrics.jsonl, TensorBoard events, and pictures."""

import json
import math

import numpy as np
import pytest
from matplotlib import figure, image
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from trm_jax import errors, example, plots, writer
from trm_jax.data import look


def _events(folder):
  """Reads TFRecords without TensorFlow: length, crc, data, crc."""
  found = {}
  for path in sorted(folder.glob("events.out.tfevents.*")):
    data = path.read_bytes()
    while data:
      length = int.from_bytes(data[:8], "little")
      body, crc = data[12 : 12 + length], data[12 + length : 16 + length]
      assert masked_crc32c(body) == int.from_bytes(crc, "little")
      event = event_pb2.Event.FromString(body)
      for value in event.summary.value:
        found[(value.tag, event.step)] = value.simple_value
      data = data[16 + length :]
  return found


def _writer(folder, first_step=0, active=True, is_finished=False):
  return writer.Writer(
    str(folder),
    first_step=first_step,
    is_finished=is_finished,
    tensorboard=True,
    active=active,
  )


def test_scalars_reach_both_files_and_nan_becomes_null(tmp_path):
  out = _writer(tmp_path)
  out.scalars(3, "train", {"answer_loss": 0.5, "exact_accuracy": math.nan})
  out.scalars(4, "eval", {"answer_loss": 0.25})
  out.close()
  assert writer.read_metrics(str(tmp_path)) == [
    {"step": 3, "group": "train", "answer_loss": 0.5, "exact_accuracy": None},
    {"step": 4, "group": "eval", "answer_loss": 0.25},
  ]
  assert _events(tmp_path / "tensorboard") == {
    ("train/answer_loss", 3): 0.5,
    ("eval/answer_loss", 4): 0.25,
  }


def test_rows_after_the_first_step_are_dropped(tmp_path):
  out = _writer(tmp_path)
  for step in (1, 2, 3):
    out.scalars(step, "train", {"loss": float(step)})
  out.close()
  _writer(tmp_path, first_step=2).close()
  assert [row["step"] for row in writer.read_metrics(str(tmp_path))] == [1, 2]


def test_an_unreadable_line_costs_itself_only_and_is_told(tmp_path, capsys):
  good = '{"step": 1, "group": "train"}'
  later = '{"step": 2, "group": "train"}'
  bad = [b'{"step": 1, "gro', b"[1, 2]", b'{"group": "x"}', b"\xff\xfe"]
  path = tmp_path / writer.METRICS_FILE
  path.write_bytes(b"\n".join([good.encode(), *bad, later.encode()]))
  assert [r["step"] for r in writer.read_metrics(str(tmp_path))] == [1, 2]
  _writer(tmp_path, first_step=2).close()
  assert path.read_text().splitlines() == [good, later]
  assert "4 unreadable line(s)" in capsys.readouterr().out


def test_an_unwritable_workdir_is_one_line(tmp_path):
  (tmp_path / writer.METRICS_FILE).mkdir()
  with pytest.raises(errors.UserError, match="cannot write to the workdir"):
    _writer(tmp_path)


def test_only_the_first_process_writes(tmp_path, capsys):
  out = _writer(tmp_path, active=False)
  out.scalars(1, "train", {"loss": 1.0})
  out.line("hello")
  out.close()
  assert not list(tmp_path.iterdir())
  assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
  ("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (3725, "1:02:05")]
)
def test_format_seconds(seconds, text):
  assert writer.format_seconds(seconds) == text


def test_curves_leave_out_what_was_not_measured(tmp_path):
  rows = [
    {"step": 1, "group": "train", "answer_loss": 2.0, "exact_accuracy": None},
    {"step": 2, "group": "eval", "answer_loss": 1.0, "exact_accuracy": 0.5},
  ]
  path = tmp_path / "curves.png"
  plots.save_curves([json.loads(json.dumps(row)) for row in rows], path)
  pixels = image.imread(path)
  assert pixels.shape[0] > 100
  assert pixels[..., :3].std() > 0.01  # something is drawn


def test_a_wrong_digit_is_red_a_clue_black_and_bold():
  question = np.array([2, 1, 1, 1] * 4)
  solution = np.array([2, 3, 4, 5] * 4)
  answer = solution.copy()
  answer[1] = 5
  axes = figure.Figure().subplots()
  shown = look.Look(rows=4, cols=4, symbols=tuple(" .1234"))
  plots._draw_symbols(axes, question, answer, answer != solution, shown)
  first, second, third = axes.texts[:3]
  assert (first.get_text(), first.get_color()) == ("1", plots._CLUE)
  assert first.get_weight() == "bold"
  assert (second.get_text(), second.get_color()) == ("4", plots._WRONG)
  assert (third.get_text(), third.get_color()) == ("3", plots._RIGHT)


def test_a_wrong_colour_is_marked_and_the_solution_beside_it(tmp_path):
  shown = look.Look(
    rows=2, cols=3, symbols=tuple("abc"), colours=("#000000", "#ffffff", "#00f")
  )
  solution = np.array([0, 1, 2, 0, 1, 2])
  path = tmp_path / "grids.png"
  pictures = {}
  for name, answer in (("right", solution), ("wrong", solution[::-1])):
    plots.save_grids(
      solution, {"step 1": answer}, solution, look=shown, path=path
    )
    pictures[name] = image.imread(path)
  assert pictures["right"].shape == pictures["wrong"].shape
  assert np.any(pictures["right"] != pictures["wrong"])


def test_the_example_is_the_solved_puzzle_that_took_longest():
  shown = look.Look(rows=1, cols=2, symbols=tuple("0123456789"))
  solution = np.array([[2, 3], [3, 2], [2, 2], [3, 3]])
  wrong = np.array([9, 9])
  answers = np.stack([solution] * 3)
  answers[0, 1] = wrong  # solved at step 2
  answers[:2, 2] = wrong  # at step 3
  answers[:, 3] = wrong  # never
  batch = {
    "inputs": solution,
    "labels": solution,
    "mask": np.array([True] * 4),
  }
  picked = example.pick(shown, batch, answers, (1, 3))
  np.testing.assert_array_equal(picked.solution, solution[2])
  np.testing.assert_array_equal(picked.answers[1], wrong)
  np.testing.assert_array_equal(picked.answers[3], solution[2])
