"""Files that are written whole or not at all, in place of others."""

import os
import signal
import subprocess
import sys

import pytest

from trm_jax import errors
from trm_jax.data import files


def _write(path, content=b"new"):
  with files.writing(path) as file:
    file.write(content)


def test_mode_and_owner_of_a_file_stay(tmp_path, monkeypatch):
  path = tmp_path / "answers.csv"
  path.write_bytes(b"old")
  path.chmod(0o640)
  if os.geteuid() == 0:
    os.chown(path, 1234, 2345)
  before = path.stat()
  _write(path)
  after = path.stat()
  assert path.read_bytes() == b"new"
  assert (after.st_mode, after.st_uid, after.st_gid) == (
    before.st_mode,
    before.st_uid,
    before.st_gid,
  )

  def refuses(*_):
    raise PermissionError

  # Only the superuser gives files away: then the file itself is written.
  monkeypatch.setattr(os, "fchmod", refuses)
  _write(path, b"newer")
  assert path.read_bytes() == b"newer"
  assert path.stat().st_ino == after.st_ino
  assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path):
  (tmp_path / "data").mkdir()
  link = tmp_path / "answers.csv"
  for target in ("data/there.csv", "data/new.csv"):
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    _write(link)
    assert link.is_symlink()
    assert (tmp_path / target).read_bytes() == b"new"
    assert not (tmp_path / target).is_symlink()
  assert len(list(tmp_path.iterdir())) == 2


def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
  path = tmp_path / "answers.csv"
  program = (
    "import sys; from trm_jax.data import files\n"
    "with files.writing(sys.argv[1]) as file:\n"
    "  file.write(b'x' * 100); file.flush(); print('begun', flush=True)\n"
    "  sys.stdin.read()\n"
  )
  with subprocess.Popen(
    [sys.executable, "-c", program, str(path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as process:
    process.stdout.readline()
    _write(path)  # leaves the draft of one that is at work
    assert len(list(tmp_path.iterdir())) == 2
    process.send_signal(signal.SIGKILL)
  assert len(list(tmp_path.iterdir())) == 2
  _write(path)
  assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_known_before(tmp_path, monkeypatch):
  path = tmp_path / "answers.csv"
  path.write_bytes(b"old")
  refused = {path, tmp_path / "closed"}
  monkeypatch.setattr(os, "access", lambda place, _: place not in refused)
  (tmp_path / "closed").mkdir()
  files.check_writable(tmp_path / "new" / "folder" / "answers.csv")
  for bad, place in (
    (path, path),
    (tmp_path / "closed" / "a" / "b.csv", tmp_path / "closed"),
  ):
    for check in (files.check_writable, _write):
      with pytest.raises(errors.UserError) as caught:
        check(bad)
      assert str(caught.value).endswith(f"Permission denied ({place})")
  with pytest.raises(
    errors.UserError, match=r"Not a directory \(.*answers\.csv\)"
  ):
    files.check_writable(path / "more.csv")
  assert path.read_bytes() == b"old"
