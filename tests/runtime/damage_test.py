"""Checkpoints that are damaged on the disk: named, passed over, never lost."""

import dataclasses
import functools
import json
import shutil

import chex
import jax
import numpy as np
import pytest
import saved_run
import tiny

from trm_jax import errors, train
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import mesh, program, restore

OLD, NEW = 2, 4
SCORES = {OLD: 0.9, NEW: 0.1}


@functools.cache
def _run(**evaluation):
  config = tiny.config()
  changed = dataclasses.replace(config.eval, **evaluation)
  return program.load(dataclasses.replace(config, eval=changed))


@functools.cache
def _abstract():
  return _run().program.abstract_state()


@pytest.fixture(scope="module", name="saved")
def _saved(tmp_path_factory):
  return saved_run.save(_run(), tmp_path_factory.mktemp("saved"), SCORES)


@pytest.fixture(name="workdir")
def _workdir(saved, tmp_path):
  return shutil.copytree(saved, tmp_path / "run")


def _folder(workdir, step=NEW):
  return workdir / "checkpoints" / f"ckpt_{step}"


def _content(workdir):
  return {
    str(path.relative_to(workdir)): path.read_bytes()
    for path in workdir.rglob("*")
    if path.is_file()
  }


def _restore(workdir, step):
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    return jax.device_get(checkpoints.restore(step, _abstract()))


# --- every damage is noticed -------------------------------------------------


def _data_files(folder):
  return [p for p in (folder / "state").rglob("d/*") if p.is_file()]


def _truncate_data(folder):
  for path in _data_files(folder):
    path.write_bytes(path.read_bytes()[:100])


def _delete_data(folder):
  for path in _data_files(folder):
    path.unlink()


def _empty(folder):
  shutil.rmtree(folder)
  folder.mkdir()


def _change_metadata(folder):
  path = folder / "metadata" / "metadata"
  text = path.read_text()
  assert '"next_batch": 4' in text
  path.write_text(text.replace('"next_batch": 4', '"next_batch": 6'))


def _swap_states(folder):
  """Whole files, but of other numbers: only digests can tell."""
  shutil.rmtree(folder / "state")
  shutil.copytree(
    _folder(folder.parent.parent, OLD) / "state", folder / "state"
  )


DAMAGES = {
  "truncated data": (_truncate_data, ""),
  "deleted data": (_delete_data, ""),
  "no manifest": (lambda f: (f / "state" / "manifest.ocdbt").unlink(), ""),
  "garbage list": (
    lambda f: (f / "state" / "_METADATA").write_text("garbage"),
    "Expecting value",
  ),
  "no list": (lambda f: (f / "state" / "_METADATA").unlink(), ""),
  "no state": (lambda f: shutil.rmtree(f / "state"), ""),
  "empty folder": (_empty, "metadata"),
  "no metadata": (lambda f: shutil.rmtree(f / "metadata"), "not found"),
  "garbage metadata": (
    lambda f: (f / "metadata" / "metadata").write_text("{"),
    "",
  ),
  "other metadata": (
    lambda f: (f / "metadata" / "metadata").write_text('{"a": 1}'),
    "",
  ),
  "changed metadata": (_change_metadata, "another checksum"),
  "other numbers": (
    _swap_states,
    "not the numbers that were saved: step, params/",
  ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
  workdir, saved, name, capfd
):
  damage, reason = DAMAGES[name]
  damage(_folder(workdir))
  before = _content(workdir)
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    with pytest.raises(checkpoints_lib.DamagedError) as caught:
      checkpoints.restore(NEW, _abstract())
    text = str(caught.value)
    assert text.startswith(f"the checkpoint {_folder(workdir)} is damaged (")
    assert reason in text
    found = restore.newest(
      checkpoints, lambda step: checkpoints.restore(step, _abstract())
    )
  assert int(found.step) == OLD
  # One line, and none of what Orbax prints beside it.
  (line,) = capfd.readouterr().err.splitlines()
  assert line.startswith(
    f"WARNING: the checkpoint {_folder(workdir)} is damaged"
  )
  assert line.endswith(f"); using {_folder(workdir, OLD)} instead")
  assert _content(workdir) == before  # opened for reading only


def test_flipped_bytes_are_noticed_or_harmless(workdir, saved):
  whole = _restore(saved, NEW)
  noticed = 0
  for path in _data_files(_folder(workdir)):
    content = path.read_bytes()
    changed = bytearray(content)
    middle = len(content) // 2
    for place in range(middle, min(middle + 64, len(content))):
      changed[place] ^= 0x55
    path.write_bytes(changed)
    try:
      chex.assert_trees_all_equal(_restore(workdir, NEW), whole)
    except checkpoints_lib.DamagedError:
      noticed += 1
    path.write_bytes(content)
  assert noticed


def test_weights_alone_are_compared_too(workdir):
  _swap_states(_folder(workdir))
  abstract = _abstract().ema_weights
  with (
    checkpoints_lib.Checkpoints(str(workdir)) as checkpoints,
    pytest.raises(checkpoints_lib.DamagedError, match="not the numbers"),
  ):
    checkpoints.restore_weights(NEW, abstract)


def test_what_may_be_well_tomorrow_is_no_damage(workdir, monkeypatch):
  def fails(*_, **__):
    raise ValueError("UNAVAILABLE: the bucket does not answer")

  before = _content(workdir)
  with checkpoints_lib.Checkpoints(str(workdir), tiny.config().checkpoint) as c:
    monkeypatch.setattr(
      checkpoints_lib.ocp.PyTreeCheckpointHandler, "restore", fails
    )
    with pytest.raises(errors.UserError, match="cannot be read") as caught:
      restore.newest(c, lambda step: c.restore(step, _abstract()))
  assert not isinstance(caught.value, checkpoints_lib.DamagedError)
  assert _content(workdir) == before


# --- going on ----------------------------------------------------------------


def _newest_to_train(workdir):
  with checkpoints_lib.Checkpoints(str(workdir), tiny.config().checkpoint) as c:
    return restore.newest(c, lambda step: c.restore(step, _abstract()))


def test_where_training_goes_on_the_damaged_one_is_put_aside(workdir, capfd):
  _truncate_data(_folder(workdir))
  damaged = _content(_folder(workdir))
  checkpoints_folder = workdir / "checkpoints"
  (checkpoints_folder / "damaged_ckpt_4").mkdir()  # of another time
  state = _newest_to_train(workdir)
  aside = checkpoints_folder / "damaged_ckpt_4_2"
  assert _content(aside) == damaged
  assert not list((checkpoints_folder / "damaged_ckpt_4").iterdir())
  assert (
    capfd.readouterr()
    .err.splitlines()[0]
    .endswith(f" and is now {aside}; going on from {_folder(workdir, OLD)}")
  )
  # The step can be saved again, and its old score is not the new one's.
  scores = json.loads((checkpoints_folder / "scores.json").read_text())
  assert list(scores) == [str(OLD)]
  with checkpoints_lib.Checkpoints(str(workdir), tiny.config().checkpoint) as c:
    saved = c.metadata(OLD)
    c.save(state, dataclasses.replace(saved, next_batch=NEW), step=NEW)
  assert int(_restore(workdir, NEW).step) == OLD


def test_if_all_are_damaged_nothing_is_changed_or_begun_anew(workdir, capfd):
  for step in (OLD, NEW):
    _truncate_data(_folder(workdir, step))
  before = _content(workdir)
  for _ in range(2):
    with pytest.raises(checkpoints_lib.DamagedError) as caught:
      _newest_to_train(workdir)
  text = str(caught.value)
  assert "no checkpoint of" in text
  assert "\n" not in text
  for step in (OLD, NEW):
    assert f"{_folder(workdir, step)} is damaged" in text
  assert capfd.readouterr().err == ""
  assert _content(workdir) == before


def test_one_that_does_not_fit_is_not_passed_over(workdir):
  other = _abstract().replace(
    step=jax.ShapeDtypeStruct(
      (2,), np.int32, sharding=_abstract().step.sharding
    )
  )
  before = _content(workdir)
  with (
    checkpoints_lib.Checkpoints(str(workdir), tiny.config().checkpoint) as c,
    pytest.raises(errors.UserError, match="does not fit: step") as caught,
  ):
    restore.newest(c, lambda step: c.restore(step, other))
  assert not isinstance(caught.value, checkpoints_lib.DamagedError)
  assert _content(workdir) == before


def test_a_training_goes_on_from_the_one_before(
  tmp_path, capfd, make_mesh, monkeypatch
):
  monkeypatch.setattr(mesh, "make_mesh", lambda: make_mesh(1))
  config = tiny.config()
  config = dataclasses.replace(
    config,
    train=dataclasses.replace(config.train, num_steps=NEW),
    eval=dataclasses.replace(config.eval, every_steps=OLD),
  )
  train.train(config, str(tmp_path / "whole"))
  shutil.copytree(tmp_path / "whole", tmp_path / "run")
  _truncate_data(_folder(tmp_path / "run"))
  train.train(config, str(tmp_path / "run"))
  out = capfd.readouterr()
  assert f"resuming from step {OLD} (" in out.out
  assert "damaged_ckpt_4; going on from" in out.err
  chex.assert_trees_all_equal(
    _restore(tmp_path / "run", NEW), _restore(tmp_path / "whole", NEW)
  )
  for name in ("metrics.jsonl", "checkpoints/scores.json"):
    files = [tmp_path / run / name for run in ("whole", "run")]
    found = [json.loads(line) for p in files for line in p.open()]
    for row in found:  # seconds differ
      row.pop("slot_steps_per_second", None)
    assert found[: len(found) // 2] == found[len(found) // 2 :]
  for step in (OLD, NEW):
    _truncate_data(_folder(tmp_path / "run", step))
  with pytest.raises(checkpoints_lib.DamagedError, match="no checkpoint of"):
    train.train(config, str(tmp_path / "run"))


# --- evaluating --------------------------------------------------------------


def test_the_newest_is_replaced_to_evaluate_but_the_best_is_not(workdir, capfd):
  run = _run()
  _truncate_data(_folder(workdir))
  before = _content(workdir)
  assert restore.ema_weights(*run, str(workdir)).step == OLD
  assert f"using {_folder(workdir, OLD)} instead" in capfd.readouterr().err
  assert restore.ema_weights(*_run(checkpoint="best"), str(workdir)).step
  _truncate_data(_folder(workdir, OLD))
  with pytest.raises(checkpoints_lib.DamagedError, match="it is the best one"):
    restore.ema_weights(*_run(checkpoint="best"), str(workdir))
  with pytest.raises(checkpoints_lib.DamagedError, match="no checkpoint of"):
    restore.ema_weights(*run, str(workdir))
  assert before.keys() == _content(workdir).keys()


# --- scores ------------------------------------------------------------------


def test_damaged_scores_are_put_aside_and_no_checkpoint_is_lost(workdir, capfd):
  path = workdir / "checkpoints" / "scores.json"
  path.write_text("[")
  with pytest.raises(errors.UserError, match=r"scores\.json is damaged"):
    restore.ema_weights(*_run(checkpoint="best"), str(workdir))
  assert restore.ema_weights(*_run(), str(workdir)).step == NEW
  assert path.read_text() == "["

  settings = dataclasses.replace(tiny.config().checkpoint, keep_last=1)
  for step in (6, 8):
    with checkpoints_lib.Checkpoints(str(workdir), settings) as checkpoints:
      assert checkpoints.best_step == (None if step == 6 else 6)
      saved = checkpoints.metadata(OLD)
      state = checkpoints.restore(OLD, _abstract())
      checkpoints.save(state, saved, step=step)
      checkpoints.note_score(step, 1 / step)
  err = capfd.readouterr().err
  assert err.count("\n") == 1
  assert "damaged_scores.json: which checkpoint was the best is not" in err
  assert (path.parent / "damaged_scores.json").read_text() == "["
  # Either of the old ones may have been the best.
  kept = sorted(p.name for p in path.parent.glob("ckpt_*"))
  assert kept == ["ckpt_2", "ckpt_4", "ckpt_6", "ckpt_8"]


# --- before version 0.2 ------------------------------------------------------


def test_an_older_versions_checkpoint_is_one_line_and_not_damaged(workdir):
  folder = _folder(workdir)
  (folder / "metadata").rename(folder / "description")
  with checkpoints_lib.Checkpoints(
    str(workdir), tiny.config().checkpoint
  ) as checkpoints:
    with pytest.raises(
      errors.UserError, match=r"written by trm_jax 0\.1, "
    ) as e:
      restore.newest(checkpoints, checkpoints.metadata)
    assert not isinstance(e.value, checkpoints_lib.DamagedError)
  assert folder.exists()
