"""Disks that are full, files that cannot be read: told in one line."""

import errno
import os
import resource
import shutil
import sys
import types

import chex
import folders
import jax
import pytest
import saved_run
import tiny
from etils import epath
from fsspec.implementations import memory

from trm_jax import errors
from trm_jax.data import files, identifiers, tasks
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.runtime import checkpoint_scores, program
from trm_jax.runtime import checkpoints as checkpoints_lib


def test_a_full_disk_is_told_and_the_older_checkpoint_stays(tmp_path, capfd):
  """The limit of a file's size stands for a disk that is full."""
  run = program.load(tiny.config())
  saved_run.save(run, tmp_path, {1: 0.5})
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  checkpoints = checkpoints_lib.Checkpoints(
    str(tmp_path), run.program.config.checkpoint
  )
  state = checkpoints.restore(1, run.program.abstract_state())
  described = checkpoints.metadata(1)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
  try:
    with pytest.raises(errors.UserError) as caught, checkpoints:
      checkpoints.save(state, described, step=2)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  folder = tmp_path / "checkpoints"
  assert str(caught.value) == (
    f"cannot save a checkpoint in {folder}: File too large; the last good"
    f" checkpoint is {folder / 'ckpt_1'}"
  )
  assert capfd.readouterr().err == ""
  with checkpoints_lib.Checkpoints(str(tmp_path)) as read:
    assert read.all_steps() == [1]
    chex.assert_trees_all_equal(
      read.restore(1, run.program.abstract_state()), state
    )


def test_what_a_save_has_left_half_done_is_cleaned_up(tmp_path):
  run = program.load(tiny.config())
  saved_run.save(run, tmp_path, {1: 0.5})
  folder = tmp_path / "checkpoints"
  shutil.copytree(folder / "ckpt_1", folder / "ckpt_2.orbax-checkpoint-tmp")
  with checkpoints_lib.Checkpoints(
    str(tmp_path), run.program.config.checkpoint
  ) as saved:
    assert saved.all_steps() == [1]
    assert saved.last_good() == (
      f"the last good checkpoint is {folder / 'ckpt_1'}"
    )
    state = saved.restore(1, run.program.abstract_state())
    saved.save(state, saved.metadata(1), step=2)
    saved.wait()
  assert sorted(p.name for p in folder.glob("ckpt_*")) == ["ckpt_1", "ckpt_2"]


def test_a_save_that_fails_does_not_hide_the_error_before_it(tmp_path, capfd):
  run = program.load(tiny.config())
  state = jax.jit(run.program.init)()
  checkpoints = checkpoints_lib.Checkpoints(
    str(tmp_path), run.program.config.checkpoint
  )

  def fails():
    raise OSError(errno.ENOSPC, "x")

  checkpoints._manager.close, close = fails, checkpoints._manager.close
  with pytest.raises(KeyError, match="first"), checkpoints:
    raise KeyError("first")
  close()
  del state
  assert capfd.readouterr().err == (
    f"WARNING: cannot save a checkpoint in {tmp_path / 'checkpoints'}:"
    " No space left on device; no checkpoint was saved before it\n"
  )


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path):
  path = tmp_path / "list.json"
  identifiers.write(path, ["old"])
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
  try:
    with pytest.raises(errors.UserError, match="File too large"):
      identifiers.write(path, ["new"] * 10_000)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert [p.name for p in tmp_path.iterdir()] == ["list.json"]
  assert identifiers.read(path) == ["old"]


def test_what_is_put_aside_never_takes_the_place_of_another(tmp_path):
  for number, name in enumerate(["damaged_x", "damaged_x_2", "damaged_x_3"]):
    path = epath.Path(tmp_path / "x")
    path.write_text(str(number))
    assert files.put_aside(path) == epath.Path(tmp_path / name)
  texts = {p.name: p.read_text() for p in tmp_path.iterdir()}
  assert texts == {"damaged_x": "0", "damaged_x_2": "1", "damaged_x_3": "2"}


# --- buckets -----------------------------------------------------------------


class _Bucket(memory.MemoryFileSystem):
  """gs:// in memory; like a bucket's, its objects cannot be appended to."""

  protocol = ("gs", "gcs")
  store: dict = {}  # noqa: RUF012  # one for all, as fsspec has it
  pseudo_dirs = [""]  # noqa: RUF012

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(path.replace("gs://", "memory://", 1))

  def _open(self, path, mode="rb", **kwargs):
    assert "a" not in mode
    return super()._open(path, mode=mode, **kwargs)


@pytest.fixture(name="bucket")
def _bucket(monkeypatch):
  """A path of a bucket."""
  backend = epath.backend.fsspec_backend
  monkeypatch.setattr(_Bucket, "store", {})
  monkeypatch.setattr(_Bucket, "pseudo_dirs", [""])
  monkeypatch.setattr(backend, "fs", lambda path: _Bucket())
  monkeypatch.setitem(sys.modules, "gcsfs", types.ModuleType("gcsfs"))
  return "gs://bucket/run"


def test_a_buckets_path_is_not_one_of_this_machine(
  tmp_path, monkeypatch, bucket
):
  monkeypatch.chdir(tmp_path)
  assert str(files.folder("gs://bucket/run")) == "gs://bucket/run"
  assert str(files.folder("run")) == str(tmp_path / "run")
  assert str(files.folder("~/run")) == os.path.expanduser("~/run")


def test_scores_and_lists_are_kept_in_a_bucket(bucket):
  folder = files.folder(bucket) / "checkpoints"
  checkpoint_scores.Scores(folder).note(3, 0.5)
  noted = checkpoint_scores.Scores(folder)
  noted.note(4, 0.25)
  assert checkpoint_scores.Scores(folder).best([3, 4], 2) == [3, 4]
  path = folder.parent / "identifiers.json"
  identifiers.write(path, ["<blank>", "b"])
  assert identifiers.read(path) == ["<blank>", "b"]
  (folder / "scores.json").write_text("[")
  checkpoint_scores.Scores(folder).begin_anew([3])
  names = sorted(path.name for path in folder.iterdir())
  assert names == ["damaged_scores.json", "scores.json"]


def test_votes_go_on_in_a_bucket(bucket):
  path = files.folder(bucket) / "votes.jsonl"
  entries = [{"rows": k} for k in range(3)]
  with arc_evaluation.EvaluationLog(path, {"a": 1}) as log:
    log.append(entries[0])
    log.append(entries[1])
  with arc_evaluation.EvaluationLog(path, {"a": 1}) as log:
    assert log.entries == entries[:2]
    log.append(entries[2])
  with arc_evaluation.EvaluationLog(path, {"a": 1}) as log:
    assert log.entries == entries
  with arc_evaluation.EvaluationLog(path, {"a": 2}) as log:
    assert log.replaced == ("a",)
    assert log.entries == []


def test_a_bucket_without_its_package_is_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, "gcsfs", None)
  with pytest.raises(errors.UserError, match="gcsfs") as caught:
    checkpoints_lib.Checkpoints("gs://bucket/run")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("path", "buckets", "text"),
  [
    ("file:///runs/x", True, "write a local path as it is, /runs/x"),
    ("http://host/x", True, "http:// cannot be read or written; name a local"),
    ("hdfs://x/y", False, "hdfs:// cannot be read or written; name a local"),
    ("gs://bucket/x", False, "this must be a local path"),
    ("gs://bucket/x", True, "pip install gcsfs"),
  ],
)
def test_addresses_that_are_no_paths_are_one_line(
  path, buckets, text, monkeypatch
):
  monkeypatch.setattr(files, "_is_installed", lambda name: False)
  with pytest.raises(errors.UserError) as caught:
    files.check_scheme(path, buckets=buckets)
  assert str(caught.value).startswith(f"{path}: ")
  assert text in str(caught.value)
  files.check_scheme("runs/x:y")


@pytest.mark.parametrize(
  "use",
  [
    lambda path: checkpoints_lib.Checkpoints(path),
    lambda path: checkpoints_lib.has_checkpoint(path),
    lambda path: files.cache_folder(path),
    lambda path: tasks.load(folders.data(task="sudoku", source=path)),
    lambda path: tasks.load(
      folders.data(
        task="generated_arc",
        identifiers=path,
        num_train=1,
        num_test=1,
        charset="",
      )
    ),
  ],
  ids=["reads", "has", "cache", "source", "identifiers"],
)
def test_every_path_goes_through_one_door(use):
  with pytest.raises(errors.UserError, match=r"^http://host/x: http:// cannot"):
    use("http://host/x")
