"""Official checkpoints into workdirs and out again."""

import dataclasses
import errno
import json
import os
import pathlib
import sys

import command_line
import golden_support as golden
import jax
import ml_dtypes
import numpy as np
import pytest
import saved_run
import torch_files
import torch_stand_in
import yaml

from experiments import custom
from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.core import types
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import (
  torch_checkpoint,
  torch_names,
  torch_reader,
  torch_settings,
)
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import experiment, restore

SAVED = pathlib.Path(__file__).parent.parent / "golden_torch"

PREFIX = torch_names.PREFIX

HRM, DIRECT = torch_files.HRM, torch_files.DIRECT
DOWN = "L_level.layers.1.mlp.down_proj.weight"


def _import(config, source, workdir, overridden=frozenset()):
  torch_checkpoint.import_checkpoint(
    config, overridden, str(source), str(workdir)
  )
  return solver_lib.load(str(workdir))


def _error(config, source, workdir, overridden=frozenset()) -> str:
  with pytest.raises(errors.UserError) as caught:
    _import(config, source, workdir, overridden)
  assert "\n" not in str(caught.value)
  assert not (workdir / "checkpoints").exists()
  return str(caught.value)


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
  """A run of bfloat16 products; its initial latents have more digits."""
  workdir = tmp_path_factory.mktemp("run")
  config = torch_files.config(model={"compute_dtype": "bfloat16"})
  saved_run.save(experiment.build(config), workdir, {2: 0.5})
  return solver_lib.load(str(workdir))


def _assert_same_weights(weights, others):
  for one, other in zip(
    jax.tree.leaves(jax.device_get(weights)),
    jax.tree.leaves(jax.device_get(others)),
    strict=True,
  ):
    assert one.dtype == other.dtype
    assert one.tobytes() == other.tobytes()


# --- export ------------------------------------------------------------------


@pytest.fixture(name="torch")
def _torch(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", torch_stand_in.torch)


def _export(solver, path):
  file_format = "safetensors" if path.suffix else "torch"
  torch_checkpoint.export_checkpoint(solver, str(path), file_format)


def test_a_trained_run_comes_back_bit_for_bit(tmp_path, capsys, run):
  path = tmp_path / "exported" / "step_2.safetensors"
  _export(run, path)
  assert f"wrote {path}, with" in capsys.readouterr().out
  again = _import(run.config, path, tmp_path / "run")
  assert f"imported as {again.path}" in capsys.readouterr().out
  assert again.step == run.step == 2
  assert again.config == run.config
  _assert_same_weights(again.weights, run.weights)
  questions = np.random.default_rng(0).integers(1, 6, (5, 16), np.uint8)
  np.testing.assert_array_equal(
    again.solve_tokens(questions).confidence,
    run.solve_tokens(questions).confidence,
  )
  # And out once more: the same file, byte for byte.
  _export(again, tmp_path / "again" / path.name)
  for file in path.parent.iterdir():
    assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.usefixtures("torch")
def test_direct_prediction_goes_out_as_it_came_in(tmp_path):
  """The other networks do among the golden tests."""
  config = torch_files.of_kind("transformers_baseline")
  weights = dict(sorted(torch_files.state_dict(config).items()))
  path = torch_files.save(tmp_path / "theirs", config, weights)
  (path.parent / "identifiers.json").write_text('["<blank>"]')
  solver = _import(config, path.parent, tmp_path / "run")
  assert solver.config == config
  assert solver.step == 30
  _export(solver, tmp_path / "ours" / path.name)
  files = {file.name for file in (tmp_path / "ours").iterdir()}
  assert files == {"all_config.yaml", "identifiers.json", "step_30"}
  for name in files:
    ours = (tmp_path / "ours" / name).read_bytes()
    assert ours == (path.parent / name).read_bytes(), name


@pytest.mark.parametrize(
  ("package", "name", "text"),
  [
    ("torch", "step_2", "pip install torch, or export with --format=safet"),
    ("safetensors", "step_2.safetensors", "pip install safetensors"),
  ],
)
def test_a_missing_package_is_named_before_anything_is_written(
  tmp_path, monkeypatch, run, package, name, text
):
  monkeypatch.setitem(sys.modules, package, None)
  with pytest.raises(errors.UserError, match=text) as caught:
    _export(run, tmp_path / "x" / name)
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["step_1", "step_1.safetensors"])
@pytest.mark.usefixtures("torch")
def test_a_file_that_cannot_be_written_leaves_the_old_one(
  tmp_path, monkeypatch, run, name
):
  _export(run, tmp_path / name)
  before = (tmp_path / name).read_bytes()

  def fail(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(errors.UserError, match="No space left on device"):
    _export(run, tmp_path / name)
  assert (tmp_path / name).read_bytes() == before
  assert len(list(tmp_path.iterdir())) == 3


def test_an_export_has_the_official_names_types_and_neighbours(tmp_path, run):
  path = tmp_path / "step_2.safetensors"
  _export(run, path)
  tree = torch_reader.read(path)
  assert all(name.startswith("_orig_mod.model.inner.") for name in tree)
  assert tree[f"{PREFIX}q_head.weight"].shape == (2, 16)
  assert tree[f"{PREFIX}puzzle_emb.weights"].shape == (1, 16)
  kernel = run.weights.params["network"]["layers_1"]["channel_mlp"]["down"]
  np.testing.assert_array_equal(tree[f"{PREFIX}{DOWN}"], kernel["kernel"].T)
  settings = yaml.safe_load((tmp_path / "all_config.yaml").read_bytes())
  assert settings["arch"]["L_cycles"] == run.config.model.latent_updates
  assert settings["arch"]["forward_dtype"] == "bfloat16"
  assert settings["ema_rate"] == run.config.optimizer.ema_decay
  names = json.loads((tmp_path / "identifiers.json").read_text())
  assert names == ["<blank>"]


@pytest.mark.parametrize("name", ["step_2", "step_2.safetensors"])
@pytest.mark.usefixtures("torch")
def test_initial_latents_are_short_if_nothing_is_lost(
  capsys, tmp_path, run, name
):
  """bfloat16 as officially; else float32, and what that means is said."""
  rounded = jax.tree.map(
    lambda a: a.astype(ml_dtypes.bfloat16).astype(np.float32),
    jax.device_get(run.weights.initial_latents),
  )
  digits = np.full(16, 1 + 2**-12, np.float32)
  for latents, dtype in (
    (rounded, ml_dtypes.bfloat16),
    (types.Latents(y=rounded.y, z=digits), np.float32),
  ):
    weights = dataclasses.replace(run.weights, initial_latents=latents)
    solver = dataclasses.replace(run, weights=weights)
    path = tmp_path / np.dtype(dtype).name / name
    _export(solver, path)
    tree = torch_reader.read(path)
    for name, value in (("H_init", latents.y), ("L_init", latents.z)):
      assert tree[PREFIX + name].dtype == dtype
      np.testing.assert_array_equal(tree[PREFIX + name].astype("f4"), value)
    said = "then computes in float32" in capsys.readouterr().err
    assert said == (dtype == np.float32)


def test_another_checkpoint_is_not_exported_over(tmp_path, run):
  path = tmp_path / "step_2.safetensors"
  _export(run, path)
  before = path.read_bytes()
  other = dataclasses.replace(
    run, config=torch_files.config(model={"num_heads": 4})
  )
  with pytest.raises(errors.UserError, match=r"all_config\.yaml belongs to"):
    _export(other, tmp_path / "step_3.safetensors")
  assert not (tmp_path / "step_3.safetensors").exists()
  assert path.read_bytes() == before


@pytest.mark.parametrize(
  ("output", "kind", "text"),
  [
    ("", "torch", "--output=exported/step_1000"),
    ("-", "torch", "--output=exported/step_1000"),
    ("a.safetensors", "torch", "--output=exported/step_1000;"),
    ("a", "safetensors", r"--output=exported/step_1000\.safetensors"),
    (".", "torch", "is a folder; name a file in it"),
  ],
)
def test_where_nothing_can_be_exported_to(run, output, kind, text):
  with pytest.raises(errors.UserError, match=text):
    torch_checkpoint.export_checkpoint(run, output, kind)


@pytest.mark.parametrize(
  ("model", "text"),
  [
    ({"recurrence": "single_latent", "separate_networks": True},
     "no network with config.model.recurrence 'single_latent' and config."),
    ({**HRM, "num_prefix_tokens": 2}, "HRM (as experiments/hrm.py) with"
     " num_prefix_tokens 1, but config.model.num_prefix_tokens is 2"),
    ({**DIRECT, "latent_updates": 2}, "with latent_updates 1, but config."),
    ({**DIRECT, "recursion_cycles": 2}, "with recursion_cycles 1, but config."),
    ({"recurrence": "direct", "recursion_cycles": 1},
     "with token_mixing 'attention', but config.model.token_mixing is 'mlp'"),
    ({"mlp_gate": "normed"}, "with mlp_gate 'silu', but config.model.mlp_gate"),
  ],
)  # fmt: skip
def test_what_the_official_code_would_compute_otherwise_is_not_exported(
  tmp_path, run, model, text
):
  config = torch_files.config(model=model)
  solver = dataclasses.replace(run, config=config)
  with pytest.raises(errors.UserError, match="the official code has no") as e:
    _export(solver, tmp_path / "x" / "s.safetensors")
  assert text in str(e.value)
  assert "\n" not in str(e.value)
  assert not (tmp_path / "x").exists()


def test_what_the_official_code_trains_otherwise_is_said(tmp_path, capsys, run):
  config = torch_files.config(model={**HRM, "gradient_updates": 0})
  solver = dataclasses.replace(run, config=config)
  _export(solver, tmp_path / "s.safetensors")
  assert (
    "in training, the official code ignores config.model.gradient_updates and"
    " config.train.halt_rule for this network; the answers are the same"
    in capsys.readouterr().err
  )


def _with_weights(run, config):
  """The run's solver with random weights of another network."""
  weights = torch_names.weights_of(torch_files.state_dict(config))
  return dataclasses.replace(run, config=config, weights=weights)


def test_another_number_of_latents_than_six_is_said(tmp_path, capsys, run):
  config = torch_files.of_kind("trm_hier6", latent_updates=3)
  _export(_with_weights(run, config), tmp_path / "s.safetensors")
  assert (
    "latent_updates is 3, but the official code has multi-scale z with 6"
    in (capsys.readouterr().err)
  )


def test_positions_that_direct_prediction_officially_needs(
  tmp_path, capsys, run
):
  config = torch_files.of_kind("transformers_baseline", positions="none")
  _export(_with_weights(run, config), tmp_path / "s.safetensors")
  assert "no direct prediction without positions" in capsys.readouterr().err


# --- import ------------------------------------------------------------------


def test_weights_alone_and_what_must_be_typed_with_them(tmp_path):
  config = torch_files.config(model=torch_files.ATTENTION)
  path = torch_files.save(tmp_path / "x", config)
  (path.parent / "all_config.yaml").unlink()
  message = _error(config, path, tmp_path / "run")
  assert (
    "pass --config.model.latent_updates=n --config.model.recursion_cycles=T"
    " --config.model.num_heads=H as in training" in message
  )
  said = frozenset(("model.latent_updates", "model.recursion_cycles"))
  message = _error(config, path, tmp_path / "run", said)
  assert "pass --config.model.num_heads=H as" in message
  with_mlp = torch_files.config()
  path = torch_files.save(tmp_path / "y", with_mlp)
  (path.parent / "all_config.yaml").unlink()
  assert "num_heads" not in _error(with_mlp, path, tmp_path / "run")
  assert _import(with_mlp, path, tmp_path / "run", said).step == 30


def test_a_dict_around_weights_and_their_settings(tmp_path, capsys):
  """As some forks save them, without all_config.yaml."""
  config = torch_files.config()
  arch = yaml.safe_load(torch_settings.to_yaml(config))["arch"]
  path = tmp_path / "last.pt"
  weights = torch_files.state_dict(config)
  tree = {"epoch": 3, "ema": weights, "config": {"arch": arch}}
  torch_files.write(path, tree)
  other = torch_files.config(model={"recursion_cycles": 7})
  message = _error(other, path, tmp_path / "run")
  assert "in its own settings arch.H_cycles is 2," in message
  assert _import(config, path, tmp_path / "run").step == 0
  assert f"took the averaged weights 'ema' of {path}" in capsys.readouterr().out


def test_a_table_of_other_rows(tmp_path):
  config = torch_files.config()
  path = torch_files.save(
    tmp_path / "x", config, torch_files.state_dict(config, num_rows=9)
  )
  message = _error(config, path, tmp_path / "run")
  assert (
    "has shape (9, 16), expected (1, 16) by the rows that the task"
    " 'generated_sudoku' lists" in message
  )
  names = ["<blank>", *(f"p{row}" for row in range(1, 9))]
  beside = path.parent / "identifiers.json"
  beside.write_text(json.dumps(names[:-1]))
  message = _error(config, path, tmp_path / "run")
  assert (
    f"expected (8, 16) by the rows that {beside} lists; it is the table"
    in message
  )
  beside.write_text(json.dumps(names[1:]))
  assert "is it a list of identifiers?" in _error(
    config, path, tmp_path / "run"
  )
  beside.write_text(json.dumps(names))
  solver = _import(config, path, tmp_path / "run")
  assert solver.identifiers == names
  # Rows that fill the table up for the devices are zero, and not exported.
  table = np.asarray(solver.weights.puzzle_table)
  expected = torch_reader.read(path)[f"{PREFIX}puzzle_emb.weights"]
  np.testing.assert_array_equal(table[:9], expected)
  assert not table[9:].any()
  exported = tmp_path / "y" / "s.safetensors"
  _export(solver, exported)
  again = torch_reader.read(exported)[f"{PREFIX}puzzle_emb.weights"]
  np.testing.assert_array_equal(again, expected)


def test_arc_needs_the_names_of_its_rows(tmp_path):
  config = torch_files.config(
    data={
      "task": "arc",
      "subsets": ("training", "evaluation"),
      "test_subset": "evaluation",
    },
    model={**torch_files.ATTENTION, "num_layers": 1},
  )
  state_dict = torch_files.state_dict(
    config, seq_len=900, vocab_size=12, num_rows=3
  )
  path = torch_files.save(tmp_path / "x", config, state_dict)
  message = _error(config, path, tmp_path / "run")
  assert f"put that file beside {path}, or pass --config.data.iden" in message
  names = tmp_path / "names.json"
  names.write_text(json.dumps(["<blank>", "007bbfb7", "00d62c1b"]))
  data = dataclasses.replace(config.data, identifiers=str(names))
  named = dataclasses.replace(config, data=data)
  solver = _import(named, path, tmp_path / "run")
  assert solver.identifiers[1:] == ["007bbfb7", "00d62c1b"]
  # Settings that are found beside the checkpoint line the rows up.
  kept = restore.saved_config(str(tmp_path / "run")).data.identifiers
  assert kept == str(restore.identifiers_path(str(tmp_path / "run")))
  # Wherever it is moved to.
  moved = (tmp_path / "run").rename(tmp_path / "moved")
  kept = restore.saved_config(str(moved)).data.identifiers
  assert kept == str(restore.identifiers_path(str(moved)))


def test_own_grids_need_their_characters(tmp_path):
  config = torch_files.config(data={"task": "grid"})
  path = torch_files.save(tmp_path / "x", config)
  assert "set config.data.charset, config.data.grid_rows and" in _error(
    config, path, tmp_path / "run"
  )


def test_a_run_is_not_imported_over(tmp_path):
  config = torch_files.config()
  path = torch_files.save(tmp_path / "x", config)
  _import(config, path, tmp_path / "run")
  with pytest.raises(errors.UserError, match="has a checkpoint already"):
    _import(config, path, tmp_path / "run")


def test_training_starts_with_an_import_but_does_not_go_on_in_it(
  tmp_path, capsys
):
  config = torch_files.config()
  path = torch_files.save(tmp_path / "x", config)
  solver = _import(config, path, tmp_path / "run")
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path / "run"))  # before anything is compiled
  assert "the training puzzles are not the same" in str(caught.value)
  assert "\n" not in str(caught.value)
  new = torch_files.config(checkpoint={"start_from": str(tmp_path / "run")})
  start = train._start(experiment.build(new), str(tmp_path / "new"))
  _assert_same_weights(start.weights, solver.weights)
  slots = dataclasses.replace(config.train, batch_size=solver.program.mesh.size)
  smallest = dataclasses.replace(
    solver.program, config=dataclasses.replace(config, train=slots)
  )
  with checkpoints_lib.Checkpoints(str(tmp_path / "run")) as checkpoints:
    state = checkpoints.restore(30, smallest.abstract_state())
  assert int(state.step) == solver.step == 30
  assert f"starting from {solver.path}" in capsys.readouterr().out


# --- what does not fit -------------------------------------------------------


def test_all_differences_stand_in_one_line(tmp_path):
  theirs = torch_files.config(
    model={"hidden_size": 32, "latent_updates": 6, "recursion_cycles": 3}
  )
  state_dict = torch_files.state_dict(theirs, vocab_size=11)
  del state_dict["lm_head.weight"]
  path = torch_files.save(
    tmp_path / "x", theirs, state_dict | {"other": np.ones(2)}
  )
  message = _error(torch_files.config(), path, tmp_path / "run")
  for part in (
    f"{path} does not fit the experiment: ",
    "embed_tokens.embedding_weight has shape (11, 32), expected (6, 32) by the"
    " vocabulary of config.data.task 'generated_sudoku'",
    "in all_config.yaml arch.hidden_size is 32",
    "lm_head.weight is missing",
    "'other' is unknown",
    "in all_config.yaml arch.L_cycles is 6",
    "in all_config.yaml arch.H_cycles is 3",
    "--config.model.latent_updates=6",
    "--config.model.recursion_cycles=3",
  ):
    assert message.count(part) == 1
  assert "it has hidden_size" not in message  # said once
  (path.parent / "all_config.yaml").unlink()
  message = _error(torch_files.config(), path, tmp_path / "run")
  assert "it has hidden_size 32, but config.model.hidden_size is 16" in message
  assert (
    "its training, pass --config.model.hidden_size=32; there is no all_"
    in message
  )
  assert "pass --config.model.latent_updates=n" in message


def test_of_many_differences_the_first_are_told(tmp_path):
  config = torch_files.config()
  theirs = torch_files.config(model={"latent_updates": 6})
  others = {f"other_{number}": np.ones(2) for number in range(1000)}
  path = torch_files.save(
    tmp_path / "x", theirs, torch_files.state_dict(config) | others
  )
  message = _error(config, path, tmp_path / "run")
  assert "in all_config.yaml arch.L_cycles is 6" in message
  assert message.count("is unknown") == 9
  assert "; and 991 more; to match its training, pass --config." in message


def _without_settings(path):
  (path.parent / "all_config.yaml").unlink()
  return path


def test_hrm_for_trm_and_trm_for_hrm(tmp_path):
  for theirs, ours, typed in (("hrm", "trm", True), ("trm", "hrm", False)):
    path = torch_files.save(tmp_path / theirs, torch_files.of_kind(theirs))
    there, here = typed, not typed
    for told in (
      "in all_config.yaml arch.name is",
      "it is",  # by the names of its tensors
    ):
      message = _error(torch_files.of_kind(ours), path, tmp_path / "run")
      text = f"{told} {theirs.upper()} (as experiments/"
      assert text in message
      assert (
        f"with separate_networks {there}, but"
        f" config.model.separate_networks is {here}" in message
      )
      assert f"--config.model.separate_networks={typed}" in message
      assert message.count("separate_networks") == 3  # told once
      assert "arch.L_cycles" not in message  # of another kind, all differs
      if told.startswith("in"):
        assert f"is {here}; and 3 more; to match its training," in message
        _without_settings(path)


@pytest.mark.parametrize(
  ("kind", "wrong", "words"),
  [
    ("trm_singlez", "trm", "a single z (as experiments/ablations.py:single_"),
    ("trm_hier6", "trm", "multi-scale z (as experiments/ablations.py:multi_"),
    ("transformers_baseline", "trm", "direct prediction (as experiments/abla"),
    ("trm", "trm_singlez", "it is TRM (as experiments/sudoku.py)"),
    ("transformers_baseline", "hrm", "direct prediction (as experiments/abla"),
  ],
)
def test_kinds_are_told_apart_by_their_tensors(tmp_path, kind, wrong, words):
  path = torch_files.save(tmp_path / "x", torch_files.of_kind(kind))
  message = _error(
    torch_files.of_kind(wrong), _without_settings(path), tmp_path / "run"
  )
  recurrence = torch_files.of_kind(kind).model.recurrence
  if recurrence != torch_files.of_kind(wrong).model.recurrence:
    assert f"with recurrence {recurrence!r}" in message
    assert f"--config.model.recurrence={recurrence}" in message
  assert words in message
  for noise in ("is missing", "is unknown here", "has shape"):
    assert noise not in message


@pytest.mark.parametrize(
  ("kind", "typed"),
  [
    (
      "trm",
      "pass --config.model.latent_updates=n --config.model.recursion_cycles=T",
    ),
    ("hrm", "(published: n and T are 2, H is 8)"),
    ("trm_hier6", "pass --config.model.recursion_cycles=T as in training"),
    ("transformers_baseline", "pass --config.model.num_heads=H as in"),
  ],
)
def test_what_weights_alone_do_not_show_is_to_be_typed(tmp_path, kind, typed):
  path = torch_files.save(tmp_path / "x", torch_files.of_kind(kind))
  message = _error(
    torch_files.of_kind(kind), _without_settings(path), tmp_path / "run"
  )
  assert typed in message
  assert "gradient_updates" not in message  # no answer depends on it


def test_prefix_tokens_of_hrm_are_seen_without_its_settings(tmp_path):
  """Attention has no tensor that shows how many there are."""
  path = torch_files.save(
    tmp_path / "x", torch_files.of_kind("hrm", **torch_files.ATTENTION)
  )
  config = torch_files.of_kind(
    "hrm", **torch_files.ATTENTION, num_prefix_tokens=16
  )
  message = _error(config, _without_settings(path), tmp_path / "run")
  assert "HRM (as experiments/hrm.py) with num_prefix_tokens 1, but" in message
  assert "--config.model.num_prefix_tokens=1;" in message


def test_latents_of_multi_scale_z_are_as_many_as_updates(tmp_path):
  path = torch_files.save(tmp_path / "x", torch_files.of_kind("trm_hier6"))
  fewer = torch_files.of_kind("trm_hier6", latent_updates=4)
  flag = "to match its training, pass --config.model.latent_updates=6"
  assert flag in _error(fewer, path, tmp_path / "run")
  settings = path.parent / "all_config.yaml"
  tree = yaml.safe_load(settings.read_bytes())
  tree["arch"]["L_cycles"] = 4
  settings.write_text(json.dumps(tree))
  for config in (fewer, torch_files.of_kind("trm_hier6")):
    message = _error(config, path, tmp_path / "run")
    assert (
      "arch.L_cycles is 4 with 6 latents, but each update needs a latent of its"
      " own" in message
    )
    assert "latent_updates=4" not in message  # nothing that could be typed
  message = _error(fewer, _without_settings(path), tmp_path / "run")
  assert "it has latent_updates 6, but config.model.latent_updates" in message
  assert flag in message


def test_networks_that_are_not_official_are_not_imported(tmp_path):
  path = torch_files.save(tmp_path / "x", torch_files.of_kind("trm_singlez"))
  both = torch_files.of_kind("trm_singlez", separate_networks=True)
  message = _error(both, path, tmp_path / "run")
  assert "no network with config.model.recurrence 'single_latent'" in message


# --- the command line --------------------------------------------------------


def test_import_and_its_mistakes_as_people_type_them(tmp_path):
  config = golden.run_config(
    {**yaml.safe_load((SAVED / "all_config.yaml").read_bytes())["arch"],
     "vocab_size": 11, "seq_len": 12}
  )  # fmt: skip
  assert config.data.grid_cols == 4
  model, base = config.model, _base().model
  flags = [
    f"--config.model.{field.name}={getattr(model, field.name)}"
    for field in dataclasses.fields(model)
    if getattr(model, field.name) != getattr(base, field.name)
    and field.name != "latent_updates"
  ]
  flags += [
    "--config.data.grid_rows=3",
    "--config.data.grid_cols=4",
    "--config.data.charset=0123456789",
    "--config.train.max_supervision_steps=4",
  ]
  arguments = (
    "--mode=import",
    f"--source={SAVED}",
    f"--workdir={tmp_path / 'run'}",
    *flags,
  )
  message = command_line.error_of(*arguments, config="experiments/custom.py")
  assert "arch.L_cycles is 2, but config.model.latent_updates is 3" in message
  assert "its training, pass --config.model.latent_updates=2" in message
  result = command_line.run(
    *arguments,
    "--config.model.latent_updates=2",
    config="experiments/custom.py",
    compiles_fast=True,
  )
  assert result.returncode == 0, result.stderr
  assert "run/checkpoints/ckpt_8; use it with --mode=evaluate" in result.stdout


def _base() -> config_lib.Config:
  return config_lib.from_config_dict(custom.get_config())
