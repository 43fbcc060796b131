"""The settings of official networks, and what differs from ours."""

import numpy as np
import pytest
import torch_files
import yaml
from etils import epath

from experiments import ablations, hrm
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.interop import torch_settings

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


def _differences(arch, config):
  there = torch_settings.values(torch_settings.named(arch), arch)
  return torch_settings.differences(there, config)


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
  found = torch_settings.find(tree)
  assert _differences(found, config) == []


@pytest.mark.parametrize("kind", torch_files.KINDS)
@pytest.mark.parametrize(
  ("model", "rule"), [
    ({}, "halt"), ({"gradient_updates": 1}, "halt"),
    ({"gradient_updates": 0}, "halt_over_continue"),
    ({"position_encoding": "learned", "rms_norm_eps": 2e-7}, "halt"),
  ],
)  # fmt: skip
def test_settings_of_every_kind_survive_their_yaml(kind, model, rule):
  config = torch_files.config(
    model={**torch_files.KINDS[kind], **model}, train={"halt_rule": rule}
  )
  tree = yaml.safe_load(torch_settings.to_yaml(config))
  assert tree["arch"]["name"].split("@")[0].endswith(f".{kind}")
  assert _differences(torch_settings.find(tree), config) == []


@pytest.mark.parametrize("kind", torch_files.KINDS)
def test_official_code_finds_what_it_reads_and_no_words_of_ours(kind):
  arch = yaml.safe_load(torch_settings.to_yaml(torch_files.of_kind(kind)))[
    "arch"
  ]
  assert not {"recurrence", "separate_networks", "mlp_gate"} & arch.keys()
  assert "gradient_updates" not in arch
  assert {"H_cycles", "H_layers", "num_heads", "hidden_size"} <= arch.keys()
  assert ("no_ACT_continue" in arch) == (
    kind not in torch_files.HALTS_OVER_CONTINUE
  )
  assert ("L_cycles" in arch) == (kind != "transformers_baseline")


def test_every_setting_of_the_network_is_official_or_changes_no_answer():
  """One that is neither would be lost without a word by an export."""
  in_shapes = {"num_layers", "mlp_multiple"}
  kernels = {"attention_kernel", "gate_kernel"}
  of_speed = {"remat"} | kernels
  refused = {"symbol_mixing", "symbol_head_size", "symbol_heads"}
  official = {
    ours.removeprefix("model.") for ours in torch_settings.SETTINGS.values()
  }
  # Networks with these are refused, see torch_names.state_dict_of.
  refused = {"symbol_mixing", "symbol_heads", "symbol_head_size"}
  fields = set(config_lib.ModelConfig.__dataclass_fields__)
  assert fields <= official | in_shapes | of_speed | refused


@pytest.mark.parametrize(
  ("arch", "sentence", "flag"),
  [
    ({"H_cycles": 5}, "arch.H_cycles is 5, but config.model.recursion_cycles",
     "--config.model.recursion_cycles=5"),
    ({"L_cycles": 6}, "arch.L_cycles is 6, but config.model.latent_updates",
     "--config.model.latent_updates=6"),
    ({"hidden_size": "x"}, "arch.hidden_size is 'x', but config.model.hidden",
     ""),
    ({"mlp_t": False}, "arch.mlp_t is False, but config.model.token_mix",
     "--config.model.token_mixing=attention"),
    ({"mlp_t": None}, "arch.mlp_t is None, but config.model.token_mix", ""),
    ({"hidden_size": True}, "arch.hidden_size is True, but config.model.", ""),
    ({"rms_norm_eps": "inf"}, "arch.rms_norm_eps is 'inf', but config", ""),
    ({"forward_dtype": "$(touch x)\n\x1b[31m"},
     r"arch.forward_dtype is '$(touch x)\n\x1b[31m', but config.model", ""),
    ({"pos_encodings": "learned"}, "arch.pos_encodings is 'learned'",
     "--config.model.position_encoding=learned"),
    ({"puzzle_emb_len": 16}, "arch.puzzle_emb_len is 16",
     "--config.model.num_prefix_tokens=16"),
    ({"puzzle_emb_len": 0, "puzzle_emb_ndim": 40}, "arch.puzzle_emb_len is 0",
     "--config.model.num_prefix_tokens=3"),
    ({"forward_dtype": "bfloat16"}, "arch.forward_dtype is 'bfloat16'",
     "--config.model.compute_dtype=bfloat16"),
    ({"rms_norm_eps": "1e-6"}, "arch.rms_norm_eps is '1e-6'",
     "--config.model.rms_norm_eps=1e-06"),
    ({"halt_max_steps": 16}, "config.train.max_supervision_steps is 3",
     "--config.train.max_supervision_steps=16"),
    ({"no_ACT_continue": False}, "config.train.halt_rule is 'halt'",
     "--config.train.halt_rule=halt_over_continue"),
  ],
)  # fmt: skip
def test_each_setting_that_differs_is_named_with_its_flag(arch, sentence, flag):
  tree = yaml.safe_load(torch_settings.to_yaml(torch_files.config()))
  found = _differences({**tree["arch"], **arch}, torch_files.config())
  assert any(sentence in d.text and flag == d.flag for d in found), found


@pytest.mark.parametrize(
  ("arch", "sentence"),
  [
    ({"name": "recursive_reasoning.trm_other@Other"}, "an unknown network"),
    ({"name": "\x1b[31m"}, r"arch.name is '\x1b[31m', an unknown network"),
    ({"name": ["x"]}, "arch.name is an object of type list, neither"),
    ({"mlp_t": np.ones(2)}, "arch.mlp_t is an object of type ndarray,"),
    ({"L_cycles": 10**5000}, "arch.L_cycles is a number of 16,610 bits,"),
    ({"L_cycles": "x" * 99}, f"arch.L_cycles is '{'x' * 79}...', neither"),
  ],
)
def test_settings_that_cannot_be_compared_are_named(arch, sentence):
  tree = yaml.safe_load(torch_settings.to_yaml(torch_files.config()))
  with pytest.raises(errors.UserError) as caught:
    torch_settings.named({**tree["arch"], **arch})
  assert sentence in str(caught.value)
  assert str(caught.value).isprintable()


def test_settings_that_nothing_reads_are_named():
  """A network of other parameters would show it; one without any does not."""
  for kind in torch_files.KINDS:
    arch = yaml.safe_load(torch_settings.to_yaml(torch_files.of_kind(kind)))
    assert torch_settings.unread(arch["arch"]) == {}
  assert torch_settings.unread(_OF_TRM | {"act_enabled": True}) == {}
  other = _OF_TRM | {"conv_kernel": 3, "mlp_gate": "gelu", 7: None}
  assert torch_settings.unread(other) == {
    "conv_kernel": 3,
    "mlp_gate": "gelu",
    "7": None,
  }


_NANO_TRM = {
  "hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_grid_size": 4,
  "H_cycles": 2, "L_cycles": 1, "N_supervision": 3, "N_supervision_val": 16,
  "ffn_expansion": 4, "learning_rate": 1e-4, "puzzle_emb_dim": 16,
  "puzzle_emb_len": 1, "rope_theta": 10000, "pos_emb_type": "1d",
  "use_conv_swiglu": False, "vocab_size": 6, "seq_len": 16,
}  # fmt: skip


def test_settings_of_nano_trm():
  config = torch_files.config(model=torch_files.ATTENTION)
  arch = torch_settings.find({"hyper_parameters": _NANO_TRM})
  assert torch_settings.unread(arch) == {}
  found = _differences({"forward_dtype": "float32", **arch}, config)
  assert not found
  with_mlp = {**_NANO_TRM, "use_mlp_t": True, "pos_emb_type": None}
  arch = torch_settings.find({"hyper_parameters": with_mlp})
  found = _differences(
    {"forward_dtype": "float32", **arch}, torch_files.config()
  )
  assert not found
  # A rotation by row and column is not ours, nor is a convolution.
  other = {**_NANO_TRM, "pos_emb_type": "2d", "use_conv_swiglu": True}
  arch = torch_settings.find({"hyper_parameters": other})
  assert torch_settings.is_official(arch)  # so they are refused
  assert torch_settings.unread(arch) == {
    "pos_emb_type": "2d",
    "use_conv_swiglu": True,
  }


def test_what_means_the_same_is_no_difference():
  tree = yaml.safe_load(torch_settings.to_yaml(torch_files.config()))
  same = {
    "expansion": 4,
    "pos_encodings": "rope",  # without attention, nothing rotates
    "num_heads": 3,
    "rope_theta": 1,
    "puzzle_emb_len": 0,  # one of 16 numbers holds a vector of 16
    "rms_norm_eps": "1e-05",  # what YAML makes of it
    "H_layers": 4,
  }
  assert not _differences({**tree["arch"], **same}, torch_files.config())
  # Officially, an unknown position encoding is none.
  other = {**tree["arch"], "pos_encodings": "sinusoidal"}
  assert not _differences(other, torch_files.config())
  # What a file does not say is what it officially is by default.
  arch = {k: v for k, v in tree["arch"].items() if k != "forward_dtype"}
  (found,) = _differences(arch, torch_files.config())
  assert "arch.forward_dtype is by default 'bfloat16'" in found.text
  assert found.flag == "--config.model.compute_dtype=bfloat16"


@pytest.mark.parametrize(
  ("content", "text"),
  [
    (b"arch: [", "is not plain YAML"),
    (b"[" * 5000, "is not plain YAML: it is nested more than 20 levels"),
    (b"a: !!int ''", "is not plain YAML"),
    (b"a: !!bool x", "is not plain YAML"),
    (b"!!python/object/apply:os.mkdir ['made']", "is not plain YAML"),
    (b"arch: {H_cycles: 3}", "has no settings of a network"),
    (b"x", "has no settings of a network"),
    (b"a: &a {b: *a}", "has aliases"),
    (b"#" * 2**21, "is too long"),
    (b"\xff\xfe\x00", "is not plain YAML"),
  ],
)
def test_settings_that_are_none(tmp_path, monkeypatch, content, text):
  monkeypatch.chdir(tmp_path)
  path = epath.Path(tmp_path) / "all_config.yaml"
  path.write_bytes(content)
  with pytest.raises(errors.UserError, match=text) as caught:
    torch_settings.read(path)
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "made").exists()


def _nested_aliases(levels=40):
  """Lists of ten times the list before, as YAML; the last is a setting."""
  lines = ["a0: &a0 [x]"]
  for level in range(1, levels):
    inner = ", ".join([f"*a{level - 1}"] * 10)
    lines.append(f"a{level}: &a{level} [{inner}]")
  return "\n".join([*lines, f"H_cycles: *a{levels - 1}", "L_cycles: 1"])


def test_settings_that_would_fill_the_memory_as_text(tmp_path):
  path = epath.Path(tmp_path) / "all_config.yaml"
  path.write_text(_nested_aliases())
  with pytest.raises(errors.UserError, match="has aliases; write their"):
    torch_settings.read(path)
  nested = ["x"]  # and without a file of their own, in a checkpoint's dict
  for _ in range(40):
    nested = [nested] * 10
  arch = {"H_cycles": nested, "L_cycles": 1}
  with pytest.raises(errors.UserError, match="is an object of type list, nei"):
    torch_settings.named(arch)


def test_layers_of_unequal_networks_have_no_flag():
  config = torch_files.of_kind("hrm")
  arch = yaml.safe_load(torch_settings.to_yaml(config))["arch"]
  (found,) = _differences({**arch, "H_layers": 1}, config)
  assert found.text == (
    "arch.L_layers is 2 and arch.H_layers is 1, but config.model.num_layers is"
    " 2"
  )
  assert not found.flag
