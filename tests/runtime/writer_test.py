"""metrics.jsonl, TensorBoard events, and pictures."""

import json
import math
import sys
import types

import pytest
import tiny
from matplotlib import image
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.runtime import metric_writer, setting_checks
from trm_jax.visualization import plots


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


def _writer(
  folder,
  first_step=0,
  active=True,
  is_finished=False,
  trackers=("tensorboard",),
):
  config = tiny.config_dict()
  config.log.trackers = trackers
  return metric_writer.Writer(
    str(folder),
    first_step=first_step,
    is_finished=is_finished,
    active=active,
    config=config_lib.from_config_dict(config),
  )


def test_scalars_reach_both_files_and_nan_becomes_null(tmp_path):
  out = _writer(tmp_path)
  out.scalars(3, "train", {"answer_loss": 0.5, "exact_accuracy": math.nan})
  out.scalars(4, "eval", {"answer_loss": 0.25})
  out.close()
  assert metric_writer.read_metrics(str(tmp_path)) == [
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
  assert [row["step"] for row in metric_writer.read_metrics(str(tmp_path))] == [
    1,
    2,
  ]


def test_an_unreadable_line_costs_itself_only_and_is_told(tmp_path, capsys):
  good = '{"step": 1, "group": "train"}'
  later = '{"step": 2, "group": "train"}'
  bad = [b'{"step": 1, "gro', b"[1, 2]", b'{"group": "x"}', b"\xff\xfe"]
  path = tmp_path / metric_writer.METRICS_FILE
  path.write_bytes(b"\n".join([good.encode(), *bad, later.encode()]))
  assert [r["step"] for r in metric_writer.read_metrics(str(tmp_path))] == [
    1,
    2,
  ]
  _writer(tmp_path, first_step=2).close()
  assert path.read_text().splitlines() == [good, later]
  assert "4 unreadable line(s)" in capsys.readouterr().out


def test_an_unwritable_workdir_is_one_line(tmp_path):
  (tmp_path / metric_writer.METRICS_FILE).mkdir()
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
  assert metric_writer.format_seconds(seconds) == text


def test_curves_leave_out_what_was_not_measured(tmp_path):
  rows = [
    {
      "step": 1,
      "group": "train",
      "answer_loss": 2.0,
      "in_slot_exact_accuracy": None,
    },
    {"step": 2, "group": "eval", "answer_loss": 1.0, "exact_accuracy": 0.5},
  ]
  path = tmp_path / "curves.png"
  plots.save_curves([json.loads(json.dumps(row)) for row in rows], path)
  pixels = image.imread(path)
  assert pixels.shape[0] > 100
  assert pixels[..., :3].std() > 0.01  # something is drawn


# --- trackers ----------------------------------------------------------------


class _Service:
  """Records the calls of a tracking package, whatever they are."""

  def __init__(self, fails=False):
    self.calls, self.fails = [], fails
    self.id, self.info = "run-7", types.SimpleNamespace(run_id="run-7")

  def __getattr__(self, name):
    def call(*args, **kwargs):
      self.calls.append((name, args, kwargs))
      if self.fails and name.startswith("log") and name != "log_params":
        raise RuntimeError("the service is down")
      return self

    return call

  def named(self, name):
    return [
      (args, kwargs) for called, args, kwargs in self.calls if called == name
    ]


def test_a_run_continues_in_weights_and_biases(tmp_path, monkeypatch):
  service = _Service()
  monkeypatch.setitem(sys.modules, "wandb", service)
  for first_step in (0, 1):
    out = _writer(tmp_path, first_step=first_step, trackers=("wandb",))
    out.scalars(first_step + 1, "train", {"loss": 0.5, "bad": math.nan})
    out.close()
  started = [kwargs for _, kwargs in service.named("init")]
  assert [kwargs["id"] for kwargs in started] == [None, "run-7"]
  assert started[0]["config"]["train.batch_size"] == 8
  assert [args for args, _ in service.named("log")] == [
    ({"step": 1, "train/loss": 0.5},),
    ({"step": 2, "train/loss": 0.5},),
  ]
  assert len(service.named("finish")) == 2
  assert not (tmp_path / "tensorboard").exists()


def test_a_run_continues_in_mlflow(tmp_path, monkeypatch):
  service = _Service()
  monkeypatch.setitem(sys.modules, "mlflow", service)
  for first_step in (0, 1):
    out = _writer(tmp_path, first_step=first_step, trackers=("mlflow",))
    out.scalars(first_step + 1, "eval", {"loss": 0.25})
    out.close()
  ids = [kwargs["run_id"] for _, kwargs in service.named("start_run")]
  assert ids == [None, "run-7"]
  assert len(service.named("log_params")) == 1
  assert service.named("log_metrics") == [
    (({"eval/loss": 0.25},), {"step": 1}),
    (({"eval/loss": 0.25},), {"step": 2}),
  ]


def test_a_service_that_fails_ends_no_training(tmp_path, monkeypatch, capsys):
  service = _Service(fails=True)
  monkeypatch.setitem(sys.modules, "mlflow", service)
  out = _writer(tmp_path, trackers=("mlflow", "tensorboard"))
  for step in (1, 2):
    out.scalars(step, "train", {"loss": 0.5})
  out.close()
  assert len(metric_writer.read_metrics(str(tmp_path))) == 2
  assert len(_events(tmp_path / "tensorboard")) == 2
  assert capsys.readouterr().out.splitlines() == [
    "WARNING: cannot log metrics to mlflow (the service is down); it gets no"
    " more metrics of this run"
  ]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_one_line(name, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, name, None)
  out = _writer(tmp_path, trackers=(name,))
  with pytest.raises(errors.UserError, match=rf"pip install '.\[{name}\]'"):
    out.scalars(1, "train", {"loss": 0.5})


def test_an_unknown_tracker_is_one_line():
  config = config_lib.changed(tiny.config(), {"log.trackers": ("excel",)})
  with pytest.raises(errors.UserError, match="one of tensorboard, wandb, mlf"):
    setting_checks.check_names(config)
