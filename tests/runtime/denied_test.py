"""What may not be read is neither damaged nor missing: one line names it."""

import contextlib
import grp  # noqa: F401  # pathlib imports it late, when nobody can
import os
import pathlib
import shutil
import tempfile

import pytest
import saved_run
import tiny

from trm_jax import errors
from trm_jax.data import files, identifiers
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import metric_writer, program, restore

pytestmark = pytest.mark.usefixtures("one_device")

NOBODY = 65534


@contextlib.contextmanager
def _as_a_user():
  """As somebody who may not read everything: root may."""
  is_root = os.geteuid() == 0
  if is_root:
    os.seteuid(NOBODY)
  try:
    yield
  finally:
    if is_root:
      os.seteuid(0)


@pytest.fixture(scope="module", name="run")
def _run(one_device):
  return program.load(tiny.config())


@pytest.fixture(name="workdir")
def _workdir(run):
  """A workdir with steps 2 and 4 in a folder that every user may enter."""
  folder = pathlib.Path(tempfile.mkdtemp())
  folder.chmod(0o755)
  saved_run.save(run, folder / "run", {2: 0.5, 4: 0.7})
  # Imports and compiles what it needs: nobody may not read Python's own files.
  restore.ema_weights(*run, str(folder / "run"))
  checkpoints_lib.Checkpoints(
    str(folder / "run"), tiny.config().checkpoint
  ).close()
  if os.geteuid() == 0:
    for path in (folder, *folder.rglob("*")):
      os.chown(path, NOBODY, NOBODY)
  yield folder / "run"
  for path in (folder, *folder.rglob("*")):
    if path.is_dir():
      path.chmod(0o755)
  shutil.rmtree(folder)


def _names(workdir):
  return sorted(str(path) for path in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize(
  "name", ["ckpt_4", "ckpt_4/metadata/metadata", "ckpt_4/state/manifest.ocdbt"]
)
def test_a_checkpoint_that_may_not_be_read_is_not_damaged(run, workdir, name):
  def newest(settings):
    with checkpoints_lib.Checkpoints(str(workdir), settings) as checkpoints:
      restore.newest(
        checkpoints,
        lambda step: checkpoints.restore(step, run.program.abstract_state()),
      )

  before = _names(workdir)
  path = workdir / "checkpoints" / name
  path.chmod(0)
  with _as_a_user():
    for command in (
      lambda: restore.ema_weights(*run, str(workdir)),
      lambda: newest(run.program.config.checkpoint),  # as a training does
    ):
      with pytest.raises(errors.UserError) as caught:
        command()
      assert not isinstance(caught.value, checkpoints_lib.DamagedError)
      text = str(caught.value)
      assert f"ckpt_4 cannot be read: {path}" in text
      assert "Permission denied" in text
      assert "\n" not in text
  assert _names(workdir) == before


@pytest.mark.parametrize("name", [".", "checkpoints"])
@pytest.mark.parametrize("writes", [False, True])
def test_a_workdir_that_may_not_be_read_is_not_empty(workdir, name, writes):
  (workdir / name).chmod(0)
  settings = tiny.config().checkpoint if writes else None
  with (
    _as_a_user(),
    pytest.raises(errors.UserError, match=r"Permission denied") as caught,
  ):
    checkpoints_lib.Checkpoints(str(workdir), settings)
  assert str(workdir / name) in str(caught.value)
  with (
    _as_a_user(),
    pytest.raises(errors.UserError, match=r"cannot read .*Permission denied"),
  ):
    checkpoints_lib.has_checkpoint(str(workdir))


@pytest.mark.parametrize(
  "name", ["metrics.jsonl", "checkpoints/scores.json", "identifiers.json"]
)
def test_other_files_are_named_too(run, workdir, name):
  path = workdir / name
  path.touch()
  path.chmod(0)
  readers = {
    "metrics.jsonl": lambda: metric_writer.read_metrics(str(workdir)),
    "identifiers.json": lambda: identifiers.read(path),
    "checkpoints/scores.json": lambda: restore.ema_weights(*run, str(workdir)),
  }
  with _as_a_user(), pytest.raises(errors.UserError) as caught:
    readers[name]()
  assert str(path) in str(caught.value)
  assert "Permission denied" in str(caught.value)


def test_only_what_may_not_be_read_is_denied(tmp_path):
  (tmp_path / "empty").mkdir()
  (tmp_path / "file").write_text("x")
  assert files.denied(tmp_path) == ""
  assert files.denied(tmp_path / "file") == ""
  assert files.denied(tmp_path / "missing") == ""
