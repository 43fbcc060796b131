"""Official checkpoints into workdirs and out again."""

import dataclasses
import json
import pathlib
import pickle

import command_line
import golden_support as golden
import jax
import ml_dtypes
import numpy as np
import pytest
import saved_run
import torch_files
import yaml

from experiments import custom
from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.core import types
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import (
  torch_checkpoint,
  torch_config,
  torch_file,
  torch_names,
  torch_pickle,
)
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import program, restore

SAVED = pathlib.Path(__file__).parent.parent / "golden_torch"
PREFIX = torch_names.PREFIX
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


# --- import ------------------------------------------------------------------


@pytest.fixture(name="run", scope="module")
def _run(tmp_path_factory):
  """A run of bfloat16 products; its initial latents have more digits."""
  workdir = tmp_path_factory.mktemp("run")
  config = torch_files.config(model={"compute_dtype": "bfloat16"})
  saved_run.save(program.load(config), workdir, {2: 0.5})
  return solver_lib.load(str(workdir))


def _assert_same_weights(weights, others):
  for one, other in zip(
    jax.tree.leaves(jax.device_get(weights)),
    jax.tree.leaves(jax.device_get(others)),
    strict=True,
  ):
    assert one.dtype == other.dtype
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", ["step_2", "step_2.safetensors"])
def test_a_trained_run_comes_back_bit_for_bit(tmp_path, capsys, run, name):
  path = tmp_path / "exported" / name
  kind = "safetensors" if path.suffix else "torch"
  torch_checkpoint.export_checkpoint(run, str(path), kind)
  assert f"wrote {path}, and beside it" in capsys.readouterr().out
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
  torch_checkpoint.export_checkpoint(
    again, str(tmp_path / "again" / name), kind
  )
  for file in path.parent.iterdir():
    assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_an_export_has_the_official_names_types_and_neighbours(tmp_path, run):
  path = tmp_path / "step_2"
  torch_checkpoint.export_checkpoint(run, str(path), "torch")
  tree = torch_file.read(path)
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


def test_initial_latents_are_short_if_nothing_is_lost(capsys, tmp_path, run):
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
    path = tmp_path / np.dtype(dtype).name / "step_2"
    torch_checkpoint.export_checkpoint(solver, str(path), "torch")
    tree = torch_file.read(path)
    for name, value in (("H_init", latents.y), ("L_init", latents.z)):
      assert tree[PREFIX + name].dtype == dtype
      np.testing.assert_array_equal(tree[PREFIX + name].astype("f4"), value)
    said = "then computes in float32" in capsys.readouterr().err
    assert said == (dtype == np.float32)


def test_another_checkpoint_is_not_exported_over(tmp_path, run):
  torch_checkpoint.export_checkpoint(run, str(tmp_path / "step_2"), "torch")
  before = (tmp_path / "step_2").read_bytes()
  other = dataclasses.replace(
    run, config=torch_files.config(model={"num_heads": 4})
  )
  with pytest.raises(errors.UserError, match=r"all_config\.yaml is of another"):
    torch_checkpoint.export_checkpoint(other, str(tmp_path / "step_3"), "torch")
  assert not (tmp_path / "step_3").exists()
  assert (tmp_path / "step_2").read_bytes() == before


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


def test_weights_alone_and_what_must_be_typed_with_them(tmp_path):
  config = torch_files.config(model=torch_files.ATTENTION)
  path = torch_files.save(tmp_path / "x", config)
  (path.parent / "all_config.yaml").unlink()
  message = _error(config, path, tmp_path / "run")
  assert (
    "type --config.model.latent_updates=n --config.model.recursion_cycles=T"
    " --config.model.num_heads=H as it was trained" in message
  )
  said = frozenset(("model.latent_updates", "model.recursion_cycles"))
  message = _error(config, path, tmp_path / "run", said)
  assert "type --config.model.num_heads=H as" in message
  with_mlp = torch_files.config()
  path = torch_files.save(tmp_path / "y", with_mlp)
  (path.parent / "all_config.yaml").unlink()
  assert "num_heads" not in _error(with_mlp, path, tmp_path / "run")
  assert _import(with_mlp, path, tmp_path / "run", said).step == 30


def test_a_dict_around_weights_and_their_settings(
  tmp_path, monkeypatch, capsys
):
  """As some forks save them, without all_config.yaml."""
  config = torch_files.config()
  arch = yaml.safe_load(torch_config.written(config))["arch"]
  dump = torch_pickle.dump

  def wrapped(tensors):
    parts = {
      "epoch": pickle.dumps(3, protocol=2),
      "ema": dump(tensors),
      "config": pickle.dumps({"arch": arch}, protocol=2),
    }
    items = b"".join(
      pickle.dumps(name, protocol=2)[2:-1] + part[2:-1] + b"s"
      for name, part in parts.items()
    )
    return b"\x80\x02}" + items + b"."

  monkeypatch.setattr(torch_pickle, "dump", wrapped)
  path = torch_files.save(tmp_path / "x", config, name="last.pt")
  (path.parent / "all_config.yaml").unlink()
  other = torch_files.config(model={"recursion_cycles": 7})
  message = _error(other, path, tmp_path / "run")
  assert "in its own settings arch.H_cycles is 2," in message
  assert _import(config, path, tmp_path / "run").step == 0
  assert f"took the averaged weights 'ema' of {path}" in capsys.readouterr().out


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
    "its vocabulary has 11 tokens",
    "in all_config.yaml arch.hidden_size is 32",
    "lm_head.weight is missing",
    "'other' is unknown here",
    "in all_config.yaml arch.L_cycles is 6",
    "in all_config.yaml arch.H_cycles is 3",
    "--config.model.latent_updates=6",
    "--config.model.recursion_cycles=3",
  ):
    assert message.count(part) == 1
  assert "its hidden_size" not in message  # told once
  (path.parent / "all_config.yaml").unlink()
  message = _error(torch_files.config(), path, tmp_path / "run")
  assert "its hidden_size is 32, config.model.hidden_size is 16" in message
  assert "as it was trained: --config.model.hidden_size=32; no all_" in message
  assert "type --config.model.latent_updates=n" in message


def test_of_many_differences_the_first_are_told(tmp_path):
  config = torch_files.config()
  theirs = torch_files.config(model={"latent_updates": 6})
  others = {f"other_{number}": np.ones(2) for number in range(1000)}
  path = torch_files.save(
    tmp_path / "x", theirs, torch_files.state_dict(config) | others
  )
  message = _error(config, path, tmp_path / "run")
  assert "in all_config.yaml arch.L_cycles is 6" in message
  assert message.count("is unknown here") == 9
  assert "; and 991 more; as it was trained: --config.model.lat" in message


def test_a_table_of_other_rows(tmp_path):
  config = torch_files.config()
  path = torch_files.save(
    tmp_path / "x", config, torch_files.state_dict(config, num_rows=9)
  )
  message = _error(config, path, tmp_path / "run")
  assert "has 9 rows, the task 'generated_sudoku' names 1" in message
  names = ["<blank>", *(f"p{row}" for row in range(1, 9))]
  beside = path.parent / "identifiers.json"
  beside.write_text(json.dumps(names[:-1]))
  message = _error(config, path, tmp_path / "run")
  assert f"has 9 rows, {beside} names 8: it is the table of another" in message
  beside.write_text(json.dumps(names[1:]))
  assert "is it a list of identifiers?" in _error(
    config, path, tmp_path / "run"
  )
  beside.write_text(json.dumps(names))
  solver = _import(config, path, tmp_path / "run")
  assert solver.identifiers == names
  # Rows that fill the table up for the devices are zero, and not exported.
  table = np.asarray(solver.weights.puzzle_table)
  expected = torch_file.read(path)[f"{PREFIX}puzzle_emb.weights"]
  np.testing.assert_array_equal(table[:9], expected)
  assert not table[9:].any()
  torch_checkpoint.export_checkpoint(solver, str(tmp_path / "y/s"), "torch")
  again = torch_file.read(tmp_path / "y/s")[f"{PREFIX}puzzle_emb.weights"]
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
  assert f"put it beside {path}, or name it by --config.data.iden" in message
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
  start = train._start(*program.load(new), str(tmp_path / "new"))
  _assert_same_weights(start.weights, solver.weights)
  slots = dataclasses.replace(config.train, batch_size=solver.program.mesh.size)
  smallest = dataclasses.replace(
    solver.program, config=dataclasses.replace(config, train=slots)
  )
  with checkpoints_lib.Checkpoints(str(tmp_path / "run")) as checkpoints:
    state = checkpoints.restore(30, smallest.abstract_state())
  assert int(state.step) == solver.step == 30
  assert f"starting from {solver.path}" in capsys.readouterr().out


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
  assert "arch.L_cycles is 2, config.model.latent_updates is 3" in message
  assert "as it was trained: --config.model.latent_updates=2" in message
  result = command_line.run(
    *arguments,
    "--config.model.latent_updates=2",
    config="experiments/custom.py",
    compiles_fast=True,
  )
  assert result.returncode == 0, result.stderr
  assert "run/checkpoints/ckpt_8; --mode=evaluate and" in result.stdout


def _base() -> config_lib.Config:
  return config_lib.from_config_dict(custom.get_config())
