"""One training per workdir; what only reads may run beside it."""

import json
import os
import signal
import subprocess
import sys

import command_line
import pytest
import saved_run
import tiny

from trm_jax import errors, train
from trm_jax.data import files
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import metric_writer, program, restore, workdir_lock

pytestmark = pytest.mark.usefixtures("one_device")


def _content(workdir):
  return {
    str(path.relative_to(workdir)): path.stat().st_mtime_ns
    for path in workdir.rglob("*")
  }


@pytest.fixture(name="workdir")
def _workdir(tmp_path):
  return saved_run.save(program.load(tiny.config()), tmp_path / "run", {2: 0.5})


def test_the_second_training_names_the_first_and_touches_nothing(workdir):
  settings = tiny.config().checkpoint
  with checkpoints_lib.Checkpoints(str(workdir), settings):
    before = _content(workdir)
    with pytest.raises(errors.UserError) as caught:
      train.train(tiny.config(), str(workdir))
    owner = json.loads((workdir / workdir_lock.FILE).read_text())
    assert owner["pid"] == os.getpid()
    assert str(caught.value) == (
      f"{workdir} is in use by another training: process {owner['pid']} on"
      f" {owner['host']}, since {owner['since']}; wait until it has ended, end"
      " it, or choose another --workdir"
    )
    assert _content(workdir) == before
    # Reading goes on beside it.
    run = program.load(tiny.config())
    assert restore.ema_weights(*run, str(workdir)).step == 2
  with checkpoints_lib.Checkpoints(str(workdir), settings) as again:
    assert again.latest_step == 2


def test_the_lock_ends_with_its_process(tmp_path):
  holder = subprocess.Popen(
    [
      sys.executable,
      "-c",
      "import sys, time; from trm_jax.data import files\n"
      "file = open(sys.argv[1], 'a+')\n"
      "print(files.try_lock(file), flush=True)\ntime.sleep(60)",
      str(tmp_path / workdir_lock.FILE),
    ],
    stdout=subprocess.PIPE,
    text=True,
  )
  with holder:
    assert holder.stdout.readline() == "True\n"
    with pytest.raises(errors.UserError, match="in use by another training; w"):
      workdir_lock.WorkdirLock(str(tmp_path))
    holder.send_signal(signal.SIGKILL)
    holder.wait()
  workdir_lock.WorkdirLock(str(tmp_path)).release()


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, capfd):
  def fails(_):
    raise OSError(workdir_lock.errno.ENOLCK, "No locks available")

  monkeypatch.setattr(files, "try_lock", fails)
  workdir_lock.WorkdirLock(str(tmp_path)).release()
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith(f"WARNING: the file system of {tmp_path} has no locks")


def test_of_two_runs_in_a_bucket_the_one_that_finds_the_other_ends(
  tmp_path, monkeypatch
):
  monkeypatch.setattr(files, "is_remote", lambda path: True)  # no appending
  one, other = (
    metric_writer.Writer(
      str(tmp_path),
      first_step=0,
      is_finished=False,
      active=True,
      config=tiny.config(),
    )
    for _ in range(2)
  )
  one.scalars(1, "train", {"loss": 1.0})
  one.scalars(2, "train", {"loss": 1.0})
  other.scalars(1, "train", {"loss": 2.0})  # it has not seen the file yet
  with pytest.raises(errors.UserError, match="another run writes to"):
    one.scalars(3, "train", {"loss": 1.0})
  other.scalars(2, "train", {"loss": 2.0})
  assert [row["loss"] for row in metric_writer.read_metrics(tmp_path)] == [2, 2]


@pytest.mark.slow
def test_two_commands_at_once_and_one_trains(tmp_path):
  flags = [
    f"--workdir={tmp_path / 'run'}",
    *("--config.data.box_cols=2", "--config.data.num_clues=6"),
    *("--config.data.num_train=24", "--config.data.num_test=8"),
    *("--config.model.hidden_size=16", "--config.model.puzzle_embed_dim=16"),
    *("--config.train.batch_size=8", "--config.train.num_steps=200"),
    *("--config.log.every_steps=1", "--config.eval.every_steps=0"),
  ]
  pair = [command_line.start(*flags, compiles_fast=True) for _ in range(2)]
  ended = [process.communicate(timeout=300) for process in pair]
  statuses = sorted(process.returncode for process in pair)
  assert statuses == [0, 1], ended
  (lost,) = (e for p, (_, e) in zip(pair, ended, strict=True) if p.returncode)
  assert "is in use by another training: process " in lost.splitlines()[-1]
  rows = metric_writer.read_metrics(str(tmp_path / "run"))
  steps = [row["step"] for row in rows if row["group"] == "train"]
  assert steps == list(range(1, 201))
