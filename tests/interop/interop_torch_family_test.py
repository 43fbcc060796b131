"""Official checkpoints of HRM and of TRM's variants: names, settings, rows."""

import dataclasses
import functools
import json
import math
import pathlib

import jax
import numpy as np
import pytest
import torch_files
import yaml

from experiments import ablations, hrm
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import (
  torch_checkpoint,
  torch_config,
  torch_fit,
  torch_names,
  torch_settings,
  torch_shapes,
)
from trm_jax.runtime import program

HRM = dict(separate_networks=True, gradient_updates=1, latent_updates=2)
DIRECT = dict(recurrence="direct", recursion_cycles=1, **torch_files.ATTENTION)
# What makes a network of each kind of a tiny one; changes of config.model.
MODELS = {
  "trm": {},
  "hrm": HRM,
  "trm_singlez": dict(recurrence="single_latent"),
  "trm_hier6": dict(recurrence="latent_per_update", latent_updates=6),
  "transformers_baseline": DIRECT,
}
LEVELS = {
  "trm": {"L_level"},
  "hrm": {"H_level", "L_level"},
  "trm_singlez": {"L_level"},
  "trm_hier6": {"L_level"},
  "transformers_baseline": {"H_level"},
}
INITIAL = {
  "trm": {"H_init", "L_init"},
  "hrm": {"H_init", "L_init"},
  "trm_singlez": {"L_init"},
  "trm_hier6": {"H_init", *(f"L{number}_init" for number in range(1, 7))},
  "transformers_baseline": {"H_init"},
}
# Halting by the continue logit needs no word of it in these two.
HALTS_OVER_CONTINUE = ("hrm", "transformers_baseline")


def _config(kind, **model):
  rule = "halt_over_continue" if kind in HALTS_OVER_CONTINUE else "halt"
  return torch_files.config(
    model={**MODELS[kind], **model}, train={"halt_rule": rule}
  )


def _message(config, source, workdir, overridden=frozenset()):
  """The one line with which an import is refused."""
  with pytest.raises(errors.UserError) as caught:
    torch_checkpoint.import_checkpoint(
      config, overridden, str(source), str(workdir)
    )
  assert "\n" not in str(caught.value)
  assert not workdir.exists()
  return str(caught.value)


def _without_settings(path):
  (path.parent / "all_config.yaml").unlink()
  return path


# --- names -------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODELS)
def test_networks_and_initial_latents_have_their_official_names(kind):
  state_dict = torch_files.state_dict(_config(kind))
  levels = {name.split(".")[0] for name in state_dict if "_level" in name}
  assert levels == LEVELS[kind]
  assert {n for n in state_dict if n.endswith("_init")} == INITIAL[kind]


@pytest.mark.parametrize("kind", MODELS)
def test_weights_come_back_bit_for_bit(kind):
  config = _config(kind)
  state_dict = torch_files.state_dict(config)
  weights = torch_names.weights_of(state_dict)
  built = program.load(config).program.abstract_state().averaged_weights
  for part in ("params", "initial_latents"):
    shapes = jax.tree.map(np.shape, getattr(weights, part))
    assert shapes == jax.tree.map(np.shape, getattr(built, part))
  again = torch_names.state_dict_of(
    weights, num_puzzle_ids=1, recurrence=config.model.recurrence
  )
  assert again.keys() == state_dict.keys()
  for name, value in again.items():
    assert value.tobytes() == state_dict[name].tobytes(), name


def test_which_network_is_which():
  """L_level updates z and H_level y; alone, either is the one network."""
  low = "L_level.layers.1.mlp.down_proj.weight"
  high = "H_level.layers.1.mlp.down_proj.weight"
  both = torch_names.params_of({low: np.zeros((2, 3)), high: np.ones((2, 3))})
  for network, value in (("network", 0), ("answer_network", 1)):
    kernel = both[network]["layers_1"]["channel_mlp"]["down"]["kernel"]
    np.testing.assert_array_equal(kernel, np.full((3, 2), value))
  alone = torch_names.params_of({high: np.ones((2, 3))})
  assert alone.keys() == {"network"}


def test_each_latent_of_multi_scale_z_keeps_its_place():
  state_dict = torch_files.state_dict(_config("trm_hier6"))
  z = torch_names.weights_of(state_dict).initial_latents.z
  for number in range(1, 7):
    np.testing.assert_array_equal(z[number - 1], state_dict[f"L{number}_init"])


def test_hrm_has_as_many_elements_as_its_published_checkpoint():
  config = config_lib.from_config_dict(hrm.get_config())
  sizes = program.Sizes(vocab_size=11, seq_len=81, num_puzzle_ids=1)
  shapes = torch_shapes.expected(config.model, sizes).tensors()
  assert sum(map(math.prod, shapes.values())) == 27_276_802


# --- settings ----------------------------------------------------------------

# As the authors' config/arch/*.yaml have them.
_PUBLISHED = {
  "halt_exploration_prob": 0.1, "halt_max_steps": 16,
  "loss": {"name": "losses@ACTLossHead", "loss_type": "softmax_cross_entropy"},
  "hidden_size": 512, "num_heads": 8, "expansion": 4, "puzzle_emb_ndim": 512,
  "pos_encodings": "rope",
}  # fmt: skip
_HRM = {
  **_PUBLISHED, "H_cycles": 2, "L_cycles": 2, "H_layers": 4, "L_layers": 4,
}  # fmt: skip
_OF_TRM = {
  **_PUBLISHED, "H_cycles": 3, "L_cycles": 6, "H_layers": 0, "L_layers": 2,
  "forward_dtype": "bfloat16", "mlp_t": True, "pos_encodings": "none",
  "puzzle_emb_len": 16, "no_ACT_continue": True,
}  # fmt: skip
_ACT = "TinyRecursiveReasoningModel_ACTV1"


@pytest.mark.parametrize(
  ("arch", "get_config", "text"),
  [
    (
      {**_HRM, "name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1"},
      hrm.get_config,
      "",
    ),
    (
      {
        **_HRM,
        "name": "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1",
        "forward_dtype": "bfloat16",
        "mlp_t": False,
        "puzzle_emb_len": 16,  # it does not read this
      },
      hrm.get_config,
      "maze",
    ),
    (
      {**_OF_TRM, "name": f"recursive_reasoning.trm_singlez@{_ACT}"},
      ablations.get_config,
      "single_latent",
    ),
    (
      {**_OF_TRM, "name": f"recursive_reasoning.trm_hier6@{_ACT}"},
      ablations.get_config,
      "multi_scale",
    ),
    (
      {
        **_PUBLISHED,
        "name": "recursive_reasoning.transformers_baseline@Model_ACTV2",
        "H_cycles": 7,  # it does not read this
        "H_layers": 8,
        "halt_max_steps": 1,
        "act_enabled": True,
        "no_ACT_continue": True,  # nor this: we write it
      },
      ablations.get_config,
      "direct",
    ),
  ],
)
def test_published_settings_are_those_of_the_experiments(
  arch, get_config, text
):
  config = config_lib.from_config_dict(get_config(text))
  tree = {"arch": arch, "data_path": "data/x", "epochs": 20000}
  found = torch_config.find(tree)
  assert torch_settings.differences(found, config) == []


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
  ("model", "rule"), [({}, "halt"), ({"gradient_updates": 1}, "halt"),
                      ({"gradient_updates": 0}, "halt_over_continue")],
)  # fmt: skip
def test_settings_of_every_kind_survive_their_yaml(kind, model, rule):
  config = torch_files.config(
    model={**MODELS[kind], **model}, train={"halt_rule": rule}
  )
  tree = yaml.safe_load(torch_config.written(config))
  assert tree["arch"]["name"].split("@")[0].endswith(f".{kind}")
  assert torch_settings.differences(torch_config.find(tree), config) == []


@pytest.mark.parametrize("kind", MODELS)
def test_official_code_finds_what_it_reads_and_no_words_of_ours(kind):
  arch = yaml.safe_load(torch_config.written(_config(kind)))["arch"]
  assert not {"recurrence", "separate_networks", "mlp_gate"} & arch.keys()
  assert "gradient_updates" not in arch
  assert {"H_cycles", "H_layers", "num_heads", "hidden_size"} <= arch.keys()
  assert ("no_ACT_continue" in arch) == (kind not in HALTS_OVER_CONTINUE)
  assert ("L_cycles" in arch) == (kind != "transformers_baseline")


def test_every_setting_of_the_network_is_official_or_changes_no_answer():
  """One that is neither would be lost without a word by an export."""
  in_shapes = {"num_layers", "mlp_multiple"}
  kernels = {"attention_kernel", "gate_kernel"}
  of_speed = {"remat"} | kernels
  official = {
    ours.removeprefix("model.") for ours in torch_settings.SETTINGS.values()
  }
  fields = set(config_lib.ModelConfig.__dataclass_fields__)
  assert fields <= official | in_shapes | of_speed


# --- what does not fit -------------------------------------------------------


def test_hrm_for_trm_and_trm_for_hrm(tmp_path):
  for theirs, ours, typed in (("hrm", "trm", True), ("trm", "hrm", False)):
    path = torch_files.save(tmp_path / theirs, _config(theirs))
    there, here = typed, not typed
    for told in (
      "in all_config.yaml arch.name is that of",
      "it is",  # by the names of its tensors
    ):
      message = _message(_config(ours), path, tmp_path / "run")
      text = f"{told} {theirs.upper()} (as experiments/"
      assert text in message
      assert (
        f"whose separate_networks is {there},"
        f" config.model.separate_networks is {here}" in message
      )
      assert f"--config.model.separate_networks={typed}" in message
      assert message.count("separate_networks") == 3  # told once
      assert "arch.L_cycles" not in message  # of another kind, all differs
      if told.startswith("in"):
        assert f"is {here}; and 3 more; as it was trained: --conf" in message
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
  path = torch_files.save(tmp_path / "x", _config(kind))
  message = _message(_config(wrong), _without_settings(path), tmp_path / "run")
  recurrence = _config(kind).model.recurrence
  if recurrence != _config(wrong).model.recurrence:
    assert f"whose recurrence is {recurrence!r}" in message
    assert f"--config.model.recurrence={recurrence}" in message
  assert words in message
  for noise in ("is missing", "is unknown here", "has shape"):
    assert noise not in message


@pytest.mark.parametrize(
  ("kind", "typed"),
  [
    ("trm", "latent_updates=n --config.model.recursion_cycles=T as"),
    ("hrm", "(officially: n and T are 2, H is 8)"),
    ("trm_hier6", "type --config.model.recursion_cycles=T as it was trained"),
    ("transformers_baseline", "type --config.model.num_heads=H as it was"),
  ],
)
def test_what_weights_alone_do_not_show_is_to_be_typed(tmp_path, kind, typed):
  path = torch_files.save(tmp_path / "x", _config(kind))
  message = _message(_config(kind), _without_settings(path), tmp_path / "run")
  assert typed in message
  assert "gradient_updates" not in message  # no answer depends on it


def test_prefix_tokens_of_hrm_are_seen_without_its_settings(tmp_path):
  """Attention has no tensor that shows how many there are."""
  path = torch_files.save(
    tmp_path / "x", _config("hrm", **torch_files.ATTENTION)
  )
  config = _config("hrm", **torch_files.ATTENTION, num_prefix_tokens=16)
  message = _message(config, _without_settings(path), tmp_path / "run")
  assert "HRM (as experiments/hrm.py), whose num_prefix_tokens is 1," in message
  assert "--config.model.num_prefix_tokens=1;" in message


def _found_in(kind, change):
  """What of a state dict of the kind differs from its config, as texts."""
  state_dict = torch_files.state_dict(_config(kind))
  change(state_dict)
  return [
    difference.text
    for difference in torch_fit.differences(
      state_dict, _config(kind), program.Sizes(6, 16, 1), rows_of="names.json"
    )
  ]


def test_networks_of_unequal_depth_are_told_in_one_sentence():
  def cut(state_dict):
    for name in [n for n in state_dict if n.startswith("H_level.layers.1")]:
      del state_dict[name]

  assert _found_in("hrm", cut) == [
    "L_level has 2 layers and H_level has 1 layers, config.model.num_layers is"
    " of both"
  ]
  arch = yaml.safe_load(torch_config.written(_config("hrm")))["arch"]
  (found,) = torch_settings.differences({**arch, "H_layers": 1}, _config("hrm"))
  assert found.text == (
    "arch.L_layers is 2 and arch.H_layers is 1, config.model.num_layers is of"
    " both networks"
  )
  assert not found.flag


def test_a_lost_tensor_of_either_network_is_named():
  name = "H_level.layers.1.mlp.down_proj.weight"
  assert _found_in("hrm", lambda s: s.pop(name)) == [f"{name} is missing"]
  assert _found_in("hrm", lambda s: s.pop("L_init")) == ["L_init is missing"]
  assert _found_in("trm_hier6", lambda s: s.update(L_init=s["H_init"]))


def test_latents_of_multi_scale_z_are_as_many_as_updates(tmp_path):
  path = torch_files.save(tmp_path / "x", _config("trm_hier6"))
  fewer = _config("trm_hier6", latent_updates=4)
  flag = "as it was trained: --config.model.latent_updates=6"
  assert flag in _message(fewer, path, tmp_path / "run")
  settings = path.parent / "all_config.yaml"
  tree = yaml.safe_load(settings.read_bytes())
  tree["arch"]["L_cycles"] = 4
  settings.write_text(json.dumps(tree))
  for config in (fewer, _config("trm_hier6")):
    message = _message(config, path, tmp_path / "run")
    assert (
      "arch.L_cycles is 4 with 6 latents, here each update has a latent of its"
      " own" in message
    )
    assert "latent_updates=4" not in message  # nothing that could be typed
  message = _message(fewer, _without_settings(path), tmp_path / "run")
  assert "it has 6 latents, L1_init to L6_init, config.model.lat" in message
  assert flag in message


def test_heads_that_do_not_divide_the_network_are_told():
  """Officially 12 heads of 42 in a network of 512."""
  state_dict = torch_files.state_dict(_config("transformers_baseline"))
  for number in range(2):
    block = f"H_level.layers.{number}.self_attn"
    state_dict[f"{block}.qkv_proj.weight"] = np.ones((45, 16), np.float32)
    state_dict[f"{block}.o_proj.weight"] = np.ones((16, 15), np.float32)
  (found,) = torch_fit.differences(
    state_dict,
    _config("transformers_baseline"),
    program.Sizes(6, 16, 1),
    rows_of="names.json",
  )
  assert found.text == (
    "its heads are 15 wide in all, config.model.num_heads 2 makes them 16"
  )


# --- in and out --------------------------------------------------------------


@pytest.fixture(name="solver_of", scope="module")
def _solver_of(tmp_path_factory):
  """Imports random weights of a kind, and returns their solver."""

  @functools.cache
  def solver_of(kind):
    folder = tmp_path_factory.mktemp(kind)
    config = _config(kind)
    tensors = dict(sorted(torch_files.state_dict(config).items()))
    torch_files.save(folder / "theirs", config, tensors)
    (folder / "theirs" / "identifiers.json").write_text('["<blank>"]')
    torch_checkpoint.import_checkpoint(
      config, frozenset(), str(folder / "theirs"), str(folder / "run")
    )
    return solver_lib.load(str(folder / "run"))

  return solver_of


@pytest.mark.parametrize("kind", [kind for kind in MODELS if kind != "trm"])
def test_a_checkpoint_goes_out_as_it_came_in(tmp_path, solver_of, kind):
  solver = solver_of(kind)
  assert solver.config == _config(kind)
  assert solver.step == 30
  torch_checkpoint.export_checkpoint(solver, str(tmp_path / "step_30"), "torch")
  theirs = pathlib.Path(solver.path).parents[2] / "theirs"
  assert sorted(f.name for f in tmp_path.iterdir()) == [
    "all_config.yaml", "identifiers.json", "step_30",
  ]  # fmt: skip
  for file in tmp_path.iterdir():
    assert file.read_bytes() == (theirs / file.name).read_bytes(), file.name


@pytest.mark.parametrize(
  ("model", "text"),
  [
    ({"recurrence": "single_latent", "separate_networks": True},
     "no network with config.model.recurrence 'single_latent' and config."),
    ({**HRM, "num_prefix_tokens": 2}, "HRM (as experiments/hrm.py), whose"
     " num_prefix_tokens is 1, config.model.num_prefix_tokens is 2"),
    ({**DIRECT, "latent_updates": 2}, "whose latent_updates is 1, config."),
    ({**DIRECT, "recursion_cycles": 2}, "whose recursion_cycles is 1, config."),
    ({"recurrence": "direct", "recursion_cycles": 1},
     "whose token_mixing is 'attention', config.model.token_mixing is 'mlp'"),
    ({"mlp_gate": "normed"}, "whose mlp_gate is 'silu', config.model.mlp_gate"),
  ],
)  # fmt: skip
def test_what_the_official_code_would_compute_otherwise_is_not_exported(
  tmp_path, solver_of, model, text
):
  config = torch_files.config(model=model)
  solver = dataclasses.replace(solver_of("hrm"), config=config)
  with pytest.raises(errors.UserError, match="the official code has no") as e:
    torch_checkpoint.export_checkpoint(solver, str(tmp_path / "x/s"), "torch")
  assert text in str(e.value)
  assert "\n" not in str(e.value)
  assert not (tmp_path / "x").exists()


def test_what_the_official_code_trains_otherwise_is_said(
  tmp_path, capsys, solver_of
):
  config = torch_files.config(model={**HRM, "gradient_updates": 0})
  solver = dataclasses.replace(solver_of("hrm"), config=config)
  torch_checkpoint.export_checkpoint(solver, str(tmp_path / "s"), "torch")
  assert (
    "the official code trains such a network otherwise than"
    " config.model.gradient_updates and config.train.halt_rule say; it answers"
    " the same" in capsys.readouterr().err
  )


def test_another_number_of_latents_than_six_is_said(
  tmp_path, capsys, solver_of
):
  solver = solver_of("trm_hier6")
  latents = solver.weights.initial_latents
  weights = dataclasses.replace(
    solver.weights,
    initial_latents=dataclasses.replace(latents, z=latents.z[:3]),
  )
  config = _config("trm_hier6", latent_updates=3)
  solver = dataclasses.replace(solver, config=config, weights=weights)
  torch_checkpoint.export_checkpoint(solver, str(tmp_path / "s"), "torch")
  assert (
    "latent_updates is 3: with multi-scale z the official code knows 6"
    in (capsys.readouterr().err)
  )


def test_positions_that_direct_prediction_officially_needs(
  tmp_path, capsys, solver_of
):
  config = _config("transformers_baseline", positions="none")
  solver = dataclasses.replace(
    solver_of("transformers_baseline"), config=config
  )
  torch_checkpoint.export_checkpoint(solver, str(tmp_path / "s"), "torch")
  assert "no direct prediction without positions" in capsys.readouterr().err


def test_networks_that_are_not_official_are_not_imported(tmp_path):
  path = torch_files.save(tmp_path / "x", _config("trm_singlez"))
  both = _config("trm_singlez", separate_networks=True)
  message = _message(both, path, tmp_path / "run")
  assert "no network with config.model.recurrence 'single_latent'" in message
