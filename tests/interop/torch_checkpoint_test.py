"""Official checkpoints into workdirs."""

import dataclasses
import json
import pathlib

import command_line
import golden_support as golden
import numpy as np
import pytest
import torch_files
import yaml

from experiments import custom
from trm_jax import config as config_lib
from trm_jax import errors, train
from trm_jax.interop import torch_names, torch_reader, torch_settings
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import program, restore

SAVED = pathlib.Path(__file__).parent.parent / "golden_torch"
PREFIX = torch_names.PREFIX


def _error(config, source, workdir, overridden=frozenset()) -> str:
  with pytest.raises(errors.UserError) as caught:
    torch_files.load(config, source, workdir, overridden)
  assert "\n" not in str(caught.value)
  assert not (workdir / "checkpoints").exists()
  return str(caught.value)


def test_weights_alone_and_what_must_be_typed_with_them(tmp_path):
  config = torch_files.config(model=torch_files.ATTENTION)
  path = torch_files.save(tmp_path / "x", config)
  (path.parent / "all_config.yaml").unlink()
  message = _error(config, path, tmp_path / "run")
  assert (
    "pass --config.model.latent_updates=n --config.model.recursion_cycles=T"
    " --config.model.num_heads=H --config.model.num_prefix_tokens=16; weights"
    in message
  )
  said = frozenset(
    f"model.{name}"
    for name in ("latent_updates", "recursion_cycles", "num_prefix_tokens")
  )
  message = _error(config, path, tmp_path / "run", said)
  assert "pass --config.model.num_heads=H; weights" in message
  with_mlp = torch_files.config()
  path = torch_files.save(tmp_path / "y", with_mlp)
  (path.parent / "all_config.yaml").unlink()
  assert "num_heads" not in _error(with_mlp, path, tmp_path / "run")
  assert torch_files.load(with_mlp, path, tmp_path / "run", said).step == 30


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
  assert torch_files.load(config, path, tmp_path / "run").step == 0
  assert f"took the averaged weights 'ema' of {path}" in capsys.readouterr().out


def test_a_lightning_checkpoint_of_nano_trm(tmp_path, capsys):
  """With the flags that its settings propose, and nothing more."""
  config = torch_files.config(model=torch_files.ATTENTION)
  theirs = torch_files.as_nano_trm(torch_files.state_dict(config))
  tree = {
    "pytorch-lightning_version": "2.5.5",
    "state_dict": theirs,
    "callbacks": {"ModelCheckpoint": {"path": pathlib.PurePosixPath("a/b")}},
    "hyper_parameters": {
      "hidden_size": 16, "num_layers": 2, "num_heads": 2, "H_cycles": 2,
      "L_cycles": 4, "N_supervision": 3, "ffn_expansion": 4,
      "puzzle_emb_dim": 16, "puzzle_emb_len": 1, "rope_theta": 10000,
      "pos_emb_type": "1d", "use_mlp_t": False, "learning_rate": 1e-4,
    },
  }  # fmt: skip
  path = tmp_path / "last.ckpt"
  torch_files.write(path, tree)
  message = _error(config, path, tmp_path / "run")
  assert message.endswith("pass --config.model.latent_updates=4")
  fitted = config_lib.changed(config, {"model.latent_updates": 4})
  solver = torch_files.load(fitted, path, tmp_path / "run")
  head = solver.weights.params["halt_head"]["kernel"]
  np.testing.assert_array_equal(head[:, 0], theirs["q_head.weight"][0])
  assert "pathlib.PurePosixPath" in capsys.readouterr().err
  tree["hyper_parameters"]["pos_emb_type"] = "2d"
  torch_files.write(path, tree)
  assert "'pos_emb_type' ('2d'); if they do not, pass --ignore=" in _error(
    fitted, path, tmp_path / "other"
  )


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
  solver = torch_files.load(config, path, tmp_path / "run")
  assert solver.identifiers == names
  # Rows that fill the table up for the devices are zero, and not exported.
  table = np.asarray(solver.weights.puzzle_table)
  expected = torch_reader.read(path)[f"{PREFIX}puzzle_emb.weights"]
  np.testing.assert_array_equal(table[:9], expected)
  assert not table[9:].any()
  exported = tmp_path / "y" / "s.safetensors"
  torch_files.export(solver, exported)
  again = torch_reader.read(exported)[f"{PREFIX}puzzle_emb.weights"]
  np.testing.assert_array_equal(again, expected)


def test_a_network_without_a_puzzle_table(tmp_path):
  """Its table is an empty array, in a checkpoint of ours too."""
  config = torch_files.config(
    model={"puzzle_embed_dim": 0, "num_prefix_tokens": 0}
  )
  path = torch_files.save(tmp_path / "x", config)
  solver = torch_files.load(config, path, tmp_path / "run")
  assert solver.weights.puzzle_table.shape[1] == 0
  answers = solver.solve_tokens(np.ones((2, 16), np.uint8)).answers
  assert answers.shape == (2, 16)
  slots = dataclasses.replace(config.train, batch_size=solver.program.mesh.size)
  smallest = dataclasses.replace(
    solver.program, config=dataclasses.replace(config, train=slots)
  )
  with checkpoints_lib.Checkpoints(str(tmp_path / "run")) as checkpoints:
    state = checkpoints.restore(30, smallest.abstract_state())
  assert state.puzzle_table.shape == solver.weights.puzzle_table.shape
  torch_files.export(solver, tmp_path / "y" / "s.safetensors")
  again = torch_files.load(
    config, tmp_path / "y" / "s.safetensors", tmp_path / "again"
  )
  torch_files.assert_same_weights(again.weights, solver.weights)


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
  solver = torch_files.load(named, path, tmp_path / "run")
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
  assert (
    "pass --config.data.charset=CHARACTERS --config.data.grid_rows=ROWS"
    " --config.data.grid_cols=COLUMNS"
  ) in _error(config, path, tmp_path / "run")


def test_a_run_is_not_imported_over(tmp_path):
  config = torch_files.config()
  path = torch_files.save(tmp_path / "x", config)
  torch_files.load(config, path, tmp_path / "run")
  with pytest.raises(errors.UserError, match="has a checkpoint already"):
    torch_files.load(config, path, tmp_path / "run")


def test_training_starts_with_an_import_but_does_not_go_on_in_it(
  tmp_path, capsys
):
  config = torch_files.config()
  path = torch_files.save(tmp_path / "x", config)
  solver = torch_files.load(config, path, tmp_path / "run")
  with pytest.raises(errors.UserError) as caught:
    train.train(config, str(tmp_path / "run"))  # before anything is compiled
  assert "the training puzzles are not the same" in str(caught.value)
  assert "\n" not in str(caught.value)
  new = torch_files.config(checkpoint={"init_from": str(tmp_path / "run")})
  start = train._start(*program.load(new), str(tmp_path / "new"))
  torch_files.assert_same_weights(start.weights, solver.weights)
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
    "its training, pass --config.model.hidden_size=32"
    " --config.model.latent_updates=n --config.model.recursion_cycles=T;"
    in message
  )


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
  recurrence = torch_files.of_kind(kind).model.recursion_type
  if recurrence != torch_files.of_kind(wrong).model.recursion_type:
    assert f"with recursion_type {recurrence!r}" in message
    assert f"--config.model.recursion_type={recurrence}" in message
  assert words in message
  for noise in ("is missing", "is unknown here", "has shape"):
    assert noise not in message


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
  assert "--config.model.num_prefix_tokens=1 --config" in message


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
      "arch.L_cycles is 4 with 6 latents, and each update needs a latent of its"
      " own" in message
    )
    assert "latent_updates=4" not in message  # nothing that could be typed
  message = _error(fewer, _without_settings(path), tmp_path / "run")
  assert "it has latent_updates 6, but config.model.latent_updates" in message
  assert flag in message


def test_settings_that_nothing_reads_are_refused_or_ignored(tmp_path, capsys):
  """A fork's network may have the official parameters and compute otherwise."""
  config = torch_files.config()
  path = torch_files.save(tmp_path / "x", config)
  settings = path.parent / "all_config.yaml"
  tree = yaml.safe_load(settings.read_bytes())
  tree["arch"] |= {"residual_scale": 0.5, "gate\x1b": "$(x)"}
  settings.write_text(json.dumps(tree))
  message = _error(config, path, tmp_path / "run")
  assert (
    "in all_config.yaml arch has settings that are not read here and may change"
    r" what the network computes: 'residual_scale' (0.5), 'gate\x1b' ('$(x)')"
    in message
  )
  assert "--ignore" not in message  # of a name that is no word
  del tree["arch"]["gate\x1b"]
  settings.write_text(json.dumps(tree))
  message = _error(config, path, tmp_path / "run")
  assert message.endswith("if they do not, pass --ignore=residual_scale")
  with pytest.raises(errors.UserError, match="--ignore has 'other', which is"):
    torch_files.load(config, path, tmp_path / "run", ignore=["other"])
  torch_files.load(config, path, tmp_path / "run", ignore=["residual_scale"])
  # What another program's settings hold besides is only said.
  arch = tree["arch"] | {"lr": 0.1}
  del arch["name"]
  weights = torch_files.state_dict(config)
  torch_files.write(tmp_path / "last.pt", {"model": weights, "config": arch})
  torch_files.load(config, tmp_path / "last.pt", tmp_path / "other")
  assert (
    "that are not read: 'residual_scale' (0.5), 'lr' (0.1)"
    in capsys.readouterr().err
  )


def test_networks_that_are_not_official_are_not_imported(tmp_path):
  path = torch_files.save(tmp_path / "x", torch_files.of_kind("trm_singlez"))
  both = torch_files.of_kind("trm_singlez", separate_networks=True)
  message = _error(both, path, tmp_path / "run")
  assert (
    "no network with config.model.recursion_type 'single_latent'" in message
  )


# --- the command line --------------------------------------------------------


def test_import_as_people_type_it(tmp_path):
  config = golden.run_config(
    {**yaml.safe_load((SAVED / "all_config.yaml").read_bytes())["arch"],
     "vocab_size": 11, "seq_len": 12}
  )  # fmt: skip
  base = config_lib.from_config_dict(custom.get_config()).model
  flags = [
    f"--config.model.{field.name}={getattr(config.model, field.name)}"
    for field in dataclasses.fields(base)
    if getattr(config.model, field.name) != getattr(base, field.name)
  ]
  result = command_line.run(
    "--mode=import",
    f"--source={SAVED}",
    f"--workdir={tmp_path / 'run'}",
    "--config.data.grid_rows=3",
    "--config.data.grid_cols=4",
    "--config.data.charset=0123456789",
    "--config.train.max_supervision_steps=4",
    *flags,
    config="experiments/custom.py",
    compiles_fast=True,
  )
  assert result.returncode == 0, result.stderr
  assert "run/checkpoints/ckpt_8; use it with --mode=evaluate" in result.stdout
