"""Official checkpoints out of workdirs, and in again."""

import dataclasses
import errno
import json
import os
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
import saved_run
import torch_files
import torch_stand_in
import yaml

from trm_jax import errors
from trm_jax.core import types
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import torch_checkpoint, torch_names, torch_reader
from trm_jax.runtime import program

HRM, DIRECT = torch_files.HRM, torch_files.DIRECT
PREFIX = torch_names.PREFIX
DOWN = "L_level.layers.1.mlp.down_proj.weight"


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
  """A run of bfloat16 products; its initial latents have more digits."""
  workdir = tmp_path_factory.mktemp("run")
  config = torch_files.config(model={"compute_dtype": "bfloat16"})
  saved_run.save(program.load(config), workdir, {2: 0.5})
  return solver_lib.load(str(workdir))


@pytest.fixture(name="torch")
def _torch(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", torch_stand_in.torch)


def test_a_trained_run_comes_back_bit_for_bit(tmp_path, capsys, run):
  path = tmp_path / "exported" / "step_2.safetensors"
  torch_files.export(run, path)
  assert f"wrote {path}, with" in capsys.readouterr().out
  again = torch_files.load(run.config, path, tmp_path / "run")
  assert f"imported as {again.path}" in capsys.readouterr().out
  assert again.step == run.step == 2
  assert again.config == run.config
  torch_files.assert_same_weights(again.weights, run.weights)
  questions = np.random.default_rng(0).integers(1, 6, (5, 16), np.uint8)
  np.testing.assert_array_equal(
    again.solve_tokens(questions).confidence,
    run.solve_tokens(questions).confidence,
  )
  # And out once more: the same file, byte for byte.
  torch_files.export(again, tmp_path / "again" / path.name)
  for file in path.parent.iterdir():
    assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.usefixtures("torch")
def test_direct_prediction_goes_out_as_it_came_in(tmp_path):
  """The other networks do among the golden tests."""
  config = torch_files.of_kind("transformers_baseline", mlp_multiple=256)
  weights = dict(sorted(torch_files.state_dict(config).items()))
  path = torch_files.save(tmp_path / "theirs", config, weights)
  (path.parent / "identifiers.json").write_text('["<blank>"]')
  solver = torch_files.load(config, path.parent, tmp_path / "run")
  assert solver.config == config
  assert solver.step == 30
  torch_files.export(solver, tmp_path / "ours" / path.name)
  files = {file.name for file in (tmp_path / "ours").iterdir()}
  assert files == {"all_config.yaml", "identifiers.json", "step_30"}
  for name in files:
    ours = (tmp_path / "ours" / name).read_bytes()
    assert ours == (path.parent / name).read_bytes(), name


def test_a_missing_package_is_named_before_anything_is_written(
  tmp_path, monkeypatch, run
):
  monkeypatch.setitem(sys.modules, "torch", None)
  text = "pip install torch, or export with --format=safet"
  with pytest.raises(errors.UserError, match=text) as caught:
    torch_files.export(run, tmp_path / "x" / "step_2")
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["step_1", "step_1.safetensors"])
@pytest.mark.usefixtures("torch")
def test_a_file_that_cannot_be_written_leaves_the_old_one(
  tmp_path, monkeypatch, run, name
):
  torch_files.export(run, tmp_path / name)
  before = (tmp_path / name).read_bytes()

  def fail(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(errors.UserError, match="No space left on device"):
    torch_files.export(run, tmp_path / name)
  assert (tmp_path / name).read_bytes() == before
  assert len(list(tmp_path.iterdir())) == 3


def test_an_export_has_the_official_names_types_and_neighbours(
  tmp_path, capsys, run
):
  path = tmp_path / "step_2.safetensors"
  torch_files.export(run, path)
  tree = torch_reader.read(path)
  assert all(name.startswith("_orig_mod.model.inner.") for name in tree)
  assert tree[f"{PREFIX}q_head.weight"].shape == (2, 16)
  assert tree[f"{PREFIX}puzzle_emb.weights"].shape == (1, 16)
  # Widths are rounded up as officially, by units that are zero.
  kernel = run.weights.params["network"]["layers_1"]["channel_mlp"]["down"]
  down = tree[f"{PREFIX}{DOWN}"]
  assert down.shape == (16, 256)
  np.testing.assert_array_equal(down[:, :48], kernel["kernel"].T)
  assert not down[:, 48:].any()
  gate, up = np.split(tree[PREFIX + DOWN.replace("down", "gate_up")], 2)
  kernel = run.weights.params["network"]["layers_1"]["channel_mlp"]["gate_up"]
  theirs = np.split(kernel["kernel"].T, 2)
  for part, expected in zip((gate, up), theirs, strict=True):
    np.testing.assert_array_equal(part[:48], expected)
    assert not part[48:].any()
  assert "fill widths up to the official multiples" in capsys.readouterr().err
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
    torch_files.export(solver, path)
    tree = torch_reader.read(path)
    for name, value in (("H_init", latents.y), ("L_init", latents.z)):
      assert tree[PREFIX + name].dtype == dtype
      np.testing.assert_array_equal(tree[PREFIX + name].astype("f4"), value)
    said = "then computes in float32" in capsys.readouterr().err
    assert said == (dtype == np.float32)


def test_another_checkpoint_is_not_exported_over(tmp_path, run):
  path = tmp_path / "step_2.safetensors"
  torch_files.export(run, path)
  before = path.read_bytes()
  other = dataclasses.replace(
    run, config=torch_files.config(model={"num_heads": 4})
  )
  with pytest.raises(errors.UserError, match=r"all_config\.yaml belongs to"):
    torch_files.export(other, tmp_path / "step_3.safetensors")
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
    ({"recursion_type": "single_latent", "separate_networks": True},
     "no network with config.model.recursion_type 'single_latent' and config."),
    ({**HRM, "num_prefix_tokens": 2}, "HRM (as experiments/hrm.py) with"
     " num_prefix_tokens 1, but config.model.num_prefix_tokens is 2"),
    ({**DIRECT, "latent_updates": 2}, "with latent_updates 1, but config."),
    ({**DIRECT, "recursion_cycles": 2}, "with recursion_cycles 1, but config."),
    ({"recursion_type": "direct", "recursion_cycles": 1},
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
    torch_files.export(solver, tmp_path / "x" / "s.safetensors")
  assert text in str(e.value)
  assert "\n" not in str(e.value)
  assert not (tmp_path / "x").exists()


def test_what_the_official_code_trains_otherwise_is_said(tmp_path, capsys, run):
  config = torch_files.config(model={**HRM, "gradient_updates": 0})
  solver = dataclasses.replace(run, config=config)
  torch_files.export(solver, tmp_path / "s.safetensors")
  assert (
    "in training, the official code ignores config.model.gradient_updates and"
    " config.train.halt_rule for this network; the answers are the same"
    in capsys.readouterr().err
  )


def _with_weights(run, config):
  """The run's solver with random weights of another network."""
  weights = torch_names.weights_of(torch_files.state_dict(config))
  return dataclasses.replace(run, config=config, weights=weights)


@pytest.mark.parametrize(
  ("kind", "model", "text"),
  [
    ("trm_hier6", {"latent_updates": 3}, "it has multi-scale z with 6 latents"),
    ("transformers_baseline", {"position_encoding": "none"}, "has positions"),
    ("trm", {"mlp_multiple": 512}, "makes inner widths larger than the offi"),
  ],
)
def test_what_the_official_code_cannot_load_is_said_in_the_file_beside_it(
  tmp_path, capsys, run, kind, model, text
):
  config = torch_files.of_kind(kind, **model)
  torch_files.export(_with_weights(run, config), tmp_path / "s.safetensors")
  settings = (tmp_path / "all_config.yaml").read_text()
  first = settings.splitlines()[0]
  assert first.startswith("# the official code cannot load these weights: ")
  assert text in first
  assert first[2:] in capsys.readouterr().err
  assert yaml.safe_load(settings)["arch"]["hidden_size"] == 16
