"""Published weights: what is exported is what every reader gets back."""

import csv
import dataclasses
import io
import json
import shutil
import subprocess
import sys

import chex
import command_line
import jax
import numpy as np
import pytest
import safetensors.numpy
import saved_run
import tiny

from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.evaluation import evaluate
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import publish, torch_checkpoint
from trm_jax.runtime import (
  array_digest,
  checkpoint_metadata,
  preemption,
  program,
  restore,
  weights_folder,
)
from trm_jax.runtime import checkpoints as checkpoints_lib

STEP = 7
NAME = "network/layers_0/channel_mlp/down/kernel"


def _config(**changes):
  small = {"model.num_layers": 1, "model.recursion_cycles": 1}
  return config_lib.changed(tiny.config(), small | changes)


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
  """A workdir, and its program."""
  loaded = program.load(
    _config(**{"data.cache_dir": "/home/me", "checkpoint.init_from": "/mine"})
  )
  workdir = tmp_path_factory.mktemp("run")
  return saved_run.save(loaded, workdir, {STEP: 0.5}), loaded


def _export(workdir, folder):
  solver = solver_lib.load(str(workdir))
  publish.export_folder(solver, str(workdir), str(folder))
  return folder


@pytest.fixture(name="folder", scope="module")
def _folder(run, tmp_path_factory):
  return _export(run[0], tmp_path_factory.mktemp("published") / "tiny")


def test_the_folder_has_weights_settings_and_a_card(run, folder):
  names = ["README.md", "config.json", "identifiers.json", "model.safetensors"]
  assert sorted(path.name for path in folder.iterdir()) == names
  for name in names[:3]:
    text = (folder / name).read_text()
    assert "/home/me" not in text
    assert "/mine" not in text
  card = (folder / "README.md").read_text()
  count = sum(
    leaf.size
    for leaf in jax.tree.leaves(run[1].program.abstract_state().params)
  )
  for line in (
    "# tiny",
    f"| parameters | {count:,}, and a puzzle table of 1 x 16 |",
    "| task | generated_sudoku, 4 x 4 cells |",
    f"| trained | {STEP} steps of 8 slots (56 slot-steps), adam_atan2 |",
    f"| weights | averaged, EMA decay {_config().optimizer.ema_decay} |",
  ):
    assert f"\n{line}\n" in f"\n{card}"
  arrays = safetensors.numpy.load_file(folder / "model.safetensors")
  assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
  assert arrays["puzzle_table"].shape == (1, 16)  # not padded for 8 devices


def test_every_reader_gets_the_same_weights(run, folder):
  workdir, loaded = run
  expected = restore.ema_weights(*loaded, str(workdir))
  for which in ("latest", "best"):
    config = _config(**{"eval.checkpoint": which})
    found = restore.ema_weights(*program.load(config), str(folder))
    assert found.path == folder
    assert dataclasses.replace(
      found, path=expected.path, weights=expected.weights
    ) == dataclasses.replace(expected, weights=expected.weights)
    chex.assert_trees_all_equal(found.weights, expected.weights)
  same = {"data.cache_dir": "", "checkpoint.init_from": ""}
  assert restore.saved_config(str(folder)) == config_lib.changed(
    restore.saved_config(str(workdir)), same
  )


def test_its_numbers_are_those_of_the_run(run, folder):
  by_run, by_folder = (
    evaluate.evaluate_workdir(restore.saved_config(str(place)), str(place))
    for place in (run[0], folder)
  )
  assert by_folder.final == by_run.final
  question = run[1].task.test.inputs[:1]
  for solve in ("solve_tokens", "trace_tokens"):
    jax.tree.map(
      np.testing.assert_array_equal,
      *(
        vars(getattr(solver_lib.load(str(place)), solve)(question))
        for place in (run[0], folder)
      ),
    )


def test_a_training_starts_from_it_but_not_in_it(tmp_path, run, folder):
  config = _config(**{"checkpoint.init_from": str(folder)})
  loaded = program.load(config)
  start = train._start(*loaded, str(tmp_path))
  with checkpoints_lib.Checkpoints(str(tmp_path), config.checkpoint) as saved:
    loop = train._Loop(
      *loaded, str(tmp_path), saved, start, preemption.PreemptionSignal()
    )
  expected = restore.ema_weights(*run[1], str(run[0])).weights
  chex.assert_trees_all_equal(loop._state.ema_weights, expected)
  before = sorted(path.name for path in folder.iterdir())
  for begin in (
    lambda: train.train(config, str(folder)),
    lambda: torch_checkpoint.import_checkpoint(
      config, frozenset(), "x", str(folder)
    ),
  ):
    with pytest.raises(errors.UserError) as caught:
      begin()
    assert str(caught.value) == (
      f"{folder} holds published weights, not a run to resume: choose another"
      " --workdir, and start from the weights with"
      f" --config.checkpoint.init_from={folder}"
    )
  assert sorted(path.name for path in folder.iterdir()) == before


def test_nothing_is_overwritten_but_a_card_is_kept(tmp_path, run, folder):
  for taken in (folder, run[0]):
    with pytest.raises(errors.UserError, match="already, which is not over"):
      _export(run[0], taken)
  with pytest.raises(errors.UserError, match="--output=pretrained/mine"):
    _export(run[0], "-")
  (tmp_path / "README.md").write_text("mine")
  # From a folder to a folder, too.
  _export(folder, tmp_path)
  assert (tmp_path / "README.md").read_text() == "mine"
  for name in ("model.safetensors", "config.json", "identifiers.json"):
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


# --- faults ------------------------------------------------------------------


def _rewrite(path, change):
  arrays = safetensors.numpy.load_file(path)
  change(arrays)
  safetensors.numpy.save_file(arrays, path)


def _change_settings(path, change):
  values = json.loads(path.read_text())
  change(values)
  path.write_text(json.dumps(values))


def _set(tree, name, value):
  tree[name] = value(tree[name])


FAULTS = {
  "no weights": (
    lambda f: (f / "model.safetensors").unlink(),
    "model.safetensors is missing; a folder of published weights has",
  ),
  "no settings": (
    lambda f: (f / "config.json").unlink(),
    "config.json is missing; a folder of published weights has",
  ),
  "no identifiers": (
    lambda f: (f / "identifiers.json").unlink(),
    "identifiers.json cannot be read",
  ),
  "truncated": (
    lambda f: (f / "model.safetensors").write_bytes(
      (f / "model.safetensors").read_bytes()[:-9]
    ),
    "is damaged (",
  ),
  "a pickle": (
    lambda f: (f / "model.safetensors").write_bytes(b"\x80\x04K\x01."),
    "is damaged (",
  ),
  "other numbers": (
    lambda f: _rewrite(
      f / "model.safetensors",
      lambda arrays: _set(arrays, f"ema_params/{NAME}", lambda a: a + 1),
    ),
    f"is damaged (not the numbers that were saved: ema_params/{NAME})",
  ),
  "another shape": (
    lambda f: _rewrite(
      f / "model.safetensors",
      lambda arrays: _set(arrays, f"ema_params/{NAME}", lambda a: a[:-1]),
    ),
    f"is damaged (ema_params/{NAME} is float32 (",
  ),
  "a missing array": (
    lambda f: _rewrite(
      f / "model.safetensors", lambda arrays: arrays.pop("initial_latents/y")
    ),
    "is damaged ('initial_latents/y' is missing)",
  ),
  "no JSON": (
    lambda f: (f / "config.json").write_text("{"),
    "is damaged (",
  ),
  "deep JSON": (
    lambda f: (f / "config.json").write_text("[" * 10**5),
    "is damaged (",
  ),
  "another kind of JSON": (
    lambda f: (f / "config.json").write_text("[]"),
    "is damaged (",
  ),
  "changed settings": (
    lambda f: _change_settings(
      f / "config.json", lambda values: values.update(seq_len=9)
    ),
    "is damaged (its metadata has another checksum)",
  ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line(tmp_path, folder, name):
  copy = shutil.copytree(folder, tmp_path / "copy")
  fault, text = FAULTS[name]
  fault(copy)
  with pytest.raises(errors.UserError) as caught:
    solver_lib.load(str(copy))
  assert text in str(caught.value)
  assert str(copy) in str(caught.value)
  assert "\n" not in str(caught.value)


def test_another_network_is_named(folder):
  loaded = program.load(_config(**{"model.num_layers": 2}))
  with pytest.raises(errors.UserError, match=r"model\.num_layers is 1 in the"):
    restore.ema_weights(*loaded, str(folder))


def test_first_values_are_of_settings_that_exist():
  config_lib.changed(tiny.config(), checkpoint_metadata.ADDED)


def test_settings_of_later_versions_have_their_first_value(folder, monkeypatch):
  values = json.loads((folder / "config.json").read_text())
  values.pop("checksum")
  removed = values["settings"].pop("train.stagger_slots")
  length = values.pop("seq_len")
  shape = [8, length]
  values["arrays"]["carry/batch/inputs"] = {
    "dtype": "int32", "shape": shape, "digest": 0
  }  # fmt: skip
  values["checksum"] = checkpoint_metadata._checksum(values)
  monkeypatch.setattr(
    checkpoint_metadata, "ADDED", {"train.stagger_slots": removed}
  )
  old = checkpoint_metadata.Metadata.from_json(values)
  assert old.seq_len == length
  assert restore.settings_of(old, "") == restore.saved_config(str(folder))


# --- as a person types it ----------------------------------------------------


def test_a_puzzle_is_answered_on_standard_output(run, folder):
  question = "".join(
    run[1].task.look.symbols[token] for token in run[1].task.test.inputs[0]
  )
  result = subprocess.run(
    [
      *(sys.executable, "-m", "trm_jax.main", "--mode=predict"),
      f"--workdir={folder}",
      f"--input={question}",
    ],
    cwd=command_line._ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  (row,) = csv.DictReader(io.StringIO(result.stdout))
  (answer,) = solver_lib.load(str(folder)).solve([question])
  assert row["answer"] == answer.text
  assert str(folder) in result.stderr


@pytest.mark.slow
def test_export_evaluate_and_report_through_main(tmp_path, run):
  folder = tmp_path / "published"

  def main(*arguments):
    result = subprocess.run(
      [sys.executable, "-m", "trm_jax.main", *arguments],
      cwd=command_line._ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()

  export = ("--mode=export", f"--workdir={run[0]}", f"--output={folder}")
  (line,) = main(*export, "--format=folder")
  assert line.startswith(f"wrote {folder}, ")
  last = {
    main("--mode=evaluate", f"--workdir={place}")[-1]
    for place in (run[0], folder)
  }
  assert len(last) == 1
  assert main("--mode=report", f"--workdir={folder}")[-1] in last
  assert (folder / "report.html").exists()


def test_the_names_of_arrays_are_those_of_a_checkpoint(run, folder):
  with checkpoints_lib.Checkpoints(str(run[0])) as checkpoints:
    saved = checkpoints.metadata(STEP)
  published = weights_folder.WeightsFolder(str(folder)).metadata(STEP)
  arrays = safetensors.numpy.load_file(folder / "model.safetensors")
  assert set(published.arrays) == set(arrays)
  for name, info in published.arrays.items():
    assert isinstance(info, array_digest.ArrayInfo)
    assert info.digest == saved.arrays[name].digest
