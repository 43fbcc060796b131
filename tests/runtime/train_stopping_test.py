"""A run that is asked to end saves, and the same command goes on."""

import functools
import json
import re
import signal
import socket
import time

import command_line
import jax
import numpy as np
import pytest

from tests import tiny
from trm_jax import config as config_lib
from trm_jax import train
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import metric_writer, preemption, program
from trm_jax.terminal import interrupts


class _StopAt(preemption.PreemptionSignal):
  """Is asked to end just before it is asked for the `number`-th time."""

  def __init__(self, number):
    super().__init__()
    self._left = number

  def now(self, mesh):
    self._left -= 1
    if self._left == 0:
      self.request()
    return super().now(mesh)


pytestmark = pytest.mark.usefixtures("one_device")


def _config():
  config = tiny.config_dict()
  config.eval.every_steps = 2
  return config_lib.from_config_dict(config)


@pytest.fixture(name="whole", scope="module")
def _whole(one_device, tmp_path_factory):
  """The workdir of a run that nobody stopped."""
  workdir = tmp_path_factory.mktemp("whole")
  train.train(_config(), str(workdir))
  return workdir


def _state(workdir):
  run = program.load(_config())
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    step = checkpoints.latest_step
    return jax.device_get(
      checkpoints.restore(step, run.program.abstract_state())
    )


def _metrics(workdir):
  rows = metric_writer.read_metrics(str(workdir))
  return [
    {name: row[name] for name in row if name != "slot_steps_per_second"}
    for row in rows
  ]


_slow = functools.partial(pytest.param, marks=pytest.mark.slow)


# Asked before each step and each of the two batches of an evaluation:
# step 0, 1, 2 (saved, then evaluated), two batches, 3.
@pytest.mark.parametrize(
  ("number", "message", "saved"),
  [
    _slow(1, r"the run after step 0 of 4; saved nothing", None),
    (2, r"the run after step 1 of 4; saved \S*/ckpt_1", 1),
    _slow(3, r"the run after step 2 of 4; saved \S*/ckpt_2", 2),
    (5, r"the evaluation of step 2; the last .* \S*/ckpt_2", 2),
    _slow(6, r"the run after step 3 of 4; saved \S*/ckpt_3", 3),
  ],
)
def test_stopped_and_continued_is_never_stopped(
  whole, tmp_path, number, message, saved
):
  with pytest.raises(preemption.Preempted) as stopped:
    train.train(_config(), str(tmp_path), _StopAt(number))
  goes_on = "; the same command goes on from there"
  expected = f"SIGTERM ended {message}{goes_on}"
  assert re.fullmatch(expected, str(stopped.value))
  with checkpoints_lib.Checkpoints(str(tmp_path)) as checkpoints:
    assert checkpoints.latest_step == saved
  assert not (tmp_path / metric_writer.RESULT_FILE).exists()
  train.train(_config(), str(tmp_path))
  jax.tree.map(np.testing.assert_array_equal, _state(tmp_path), _state(whole))
  assert _metrics(tmp_path) == _metrics(whole)
  results = [
    json.loads((folder / metric_writer.RESULT_FILE).read_text())
    for folder in (tmp_path, whole)
  ]
  assert results[0] == results[1]
  assert results[0]["step"] == 4


class _PressAt(_StopAt):
  """Ctrl-C, as the thread that waits for it hands it on."""

  def request(self, number=None):
    if number is None:
      interrupts._press()
    else:
      super().request(number)


def test_ctrl_c_saves_first(whole, tmp_path, capfd):
  stop = _PressAt(2)
  with pytest.raises(preemption.Preempted, match=r"SIGINT .* step 1 .*ckpt_1"):
    train.train(_config(), str(tmp_path), stop)
  assert stop.interrupted
  assert "saving first, a second Ctrl-C" in capfd.readouterr().err
  assert not interrupts.end_at_once()
  train.train(_config(), str(tmp_path))
  jax.tree.map(np.testing.assert_array_equal, _state(tmp_path), _state(whole))


def test_before_the_first_step_there_is_nothing_to_save(tmp_path, monkeypatch):
  def ends():
    raise SystemExit(130)

  monkeypatch.setattr(interrupts, "end", ends)
  with pytest.raises(SystemExit):
    train.train(_config(), str(tmp_path), _PressAt(1))


def test_a_result_is_there_only_when_nothing_is_left_to_train(whole, capsys):
  path = whole / metric_writer.RESULT_FILE
  config = _config()
  train.train(config, str(whole))
  assert path.exists()
  longer = config_lib.changed(config, {"train.num_steps": 6})
  with pytest.raises(preemption.Preempted):
    train.train(longer, str(whole), _StopAt(2))
  assert not path.exists()
  # The newest score is shown again, though another process measured it.
  (line,) = re.findall("^step 5/6 .*", capsys.readouterr().out, re.M)
  score = metric_writer.last_row(str(whole), "eval")["exact_accuracy"]
  assert line.endswith(f" | test exact {100 * score:.1f} % (step 4)")


def _flags(workdir):
  return [
    f"--workdir={workdir}",
    "--config.data.box_rows=2",
    "--config.data.box_cols=2",
    "--config.data.num_clues=6",
    "--config.data.num_train=24",
    "--config.data.num_test=12",
    "--config.model.hidden_size=16",
    "--config.train.batch_size=8",
    "--config.model.puzzle_embed_dim=16",
    "--config.eval.every_steps=0",
    "--config.log.every_steps=1",
    "--config.train.num_steps=1000000",
  ]


def _wait_for_steps(workdir, processes, step):
  deadline = time.monotonic() + 200
  while not metric_writer.has_row(str(workdir), step, "train"):
    assert not any(process.poll() for process in processes)
    assert time.monotonic() < deadline
    time.sleep(0.05)


def _step_of(output, workdir, name="SIGTERM"):
  """The step after which a signal has ended a run."""
  match = re.fullmatch(
    rf"{name} ended the run after step (\d+) of 1000000; saved (.*);"
    r" the same command goes on from there",
    output.splitlines()[-1],
  )
  assert match, output
  assert match[2] == str(workdir / "checkpoints" / f"ckpt_{match[1]}")
  return int(match[1])


@pytest.mark.slow
def test_signals_and_the_limit_of_minutes_through_main(tmp_path):
  flags = _flags(tmp_path)
  process = command_line.start(*flags, compiles_fast=True)
  _wait_for_steps(tmp_path, [process], 2)
  process.send_signal(signal.SIGTERM)
  output, errors = process.communicate(timeout=120)
  assert process.returncode == 0, errors
  assert "Traceback" not in errors
  step = _step_of(output, tmp_path)

  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  process = command_line.start(*flags, compiles_fast=True)
  signal.signal(signal.SIGINT, before)
  _wait_for_steps(tmp_path, [process], step + 2)
  process.send_signal(signal.SIGINT)
  output, errors = process.communicate(timeout=120)
  assert process.returncode == 130
  assert errors == "interrupted; saving first, a second Ctrl-C ends at once\n"
  step = _step_of(output, tmp_path, "SIGINT")

  result = command_line.run(
    *flags, "--config.train.time_limit_minutes=0.1", compiles_fast=True
  )
  assert result.returncode == 0, result.stderr
  assert f"resuming from step {step} " in result.stdout
  last = result.stdout.splitlines()[-1]
  assert last.startswith(
    "config.train.time_limit_minutes ended the run after step"
  )


@pytest.mark.slow
def test_sigterm_to_the_second_of_two_processes_ends_both(tmp_path):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  processes = [
    command_line.start(
      *_flags(tmp_path),
      f"--coordinator=localhost:{port}",
      "--num_processes=2",
      f"--process_id={number}",
      compiles_fast=True,
    )
    for number in range(2)
  ]
  try:
    _wait_for_steps(tmp_path, processes, 2)
    processes[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], outputs
  step = _step_of(outputs[0][0], tmp_path)
  assert "step" not in outputs[1][0]  # the first one speaks

  # One process goes on where two have ended.
  process = command_line.start(*_flags(tmp_path), compiles_fast=True)
  _wait_for_steps(tmp_path, [process], step + 2)
  process.send_signal(signal.SIGTERM)
  output, _ = process.communicate(timeout=120)
  assert f"resuming from step {step} " in output
  assert _step_of(output, tmp_path) > step
