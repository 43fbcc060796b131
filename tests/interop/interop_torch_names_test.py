"""Names, shapes and settings of official checkpoints, and what differs."""

import jax
import numpy as np
import pytest
import torch_files
import yaml
from etils import epath

from trm_jax import errors
from trm_jax.interop import (
  torch_config,
  torch_fit,
  torch_names,
  torch_settings,
  torch_shapes,
  torch_state_dict,
)
from trm_jax.runtime import mesh, program

# --- names -------------------------------------------------------------------


@pytest.mark.parametrize("model", [
  {},
  {"token_mixing": "attention", "positions": "rope"},
  {"positions": "learned", "num_layers": 3},
])  # fmt: skip
def test_every_parameter_of_the_model_has_one_official_name(model):
  config = torch_files.config(model=model)
  built = program.build(config, program.Sizes(6, 16, 1), mesh.make_mesh())
  weights = jax.tree.map(
    lambda leaf: np.zeros(leaf.shape, leaf.dtype),
    built.abstract_state().averaged_weights,
  )
  state_dict = torch_names.state_dict_of(
    weights, num_puzzle_ids=1, recurrence=config.model.recurrence
  )
  expected = torch_shapes.expected(config.model, built.sizes).tensors()
  assert {name: v.shape for name, v in state_dict.items()} == expected
  again = torch_names.params_of(state_dict)
  assert jax.tree.map(np.shape, again) == jax.tree.map(np.shape, weights.params)


@pytest.mark.parametrize(
  "prefix",
  [
    "",
    "inner.",
    "model.inner.",
    "_orig_mod.model.inner.",
    "module.model.inner.",
    "module._orig_mod.model.inner.",
    "_orig_mod.module.model.inner.",
    "model._orig_mod.inner.",
  ],
)
def test_every_official_prefix_is_taken_off(prefix):
  state_dict = torch_files.state_dict(torch_files.config())
  tree = {prefix + name: value for name, value in state_dict.items()}
  found, taken = torch_state_dict.find(tree, where="it")
  assert found.keys() == state_dict.keys()
  assert all(found[name] is state_dict[name] for name in found)
  assert taken == "the state dict itself"


def _parameters(state_dict):
  """What EMAHelper has: no buffers."""
  buffers = ("H_init", "L_init", "puzzle_emb.weights")
  return {n: v + 1 for n, v in state_dict.items() if n not in buffers}


WRAPPED = {
  "model": (lambda s: {"model": s, "step": 7}, "the state dict 'model'", 0),
  "optimizer": (
    lambda s: {
      "model_state_dict": s,
      "optimizer": {"state": {0: {"exp_avg": np.ones(3)}}, "param_groups": []},
    },
    "the state dict 'model_state_dict'",
    0,
  ),
  "ema": (lambda s: {"ema": s}, "the averaged weights 'ema'", 0),
  "ema_helper": (
    lambda s: {
      "model": s,
      "optimizers": [{"state": {}}],
      "ema_helper": _parameters(s),
      "config": {"arch": {}},
    },
    "the averaged weights 'ema_helper', and H_init, L_init, puzzle_emb.weights"
    " of 'model'",
    1,
  ),
  "shadow": (
    lambda s: {"state_dict": s, "ema": {"mu": 0.9, "shadow": _parameters(s)}},
    "the averaged weights 'ema/shadow', and H_init, L_init,"
    " puzzle_emb.weights of 'state_dict'",
    1,
  ),
  "cache": (
    lambda s: {
      **s,
      "puzzle_emb.local_weights": np.ones((8, 16)),
      "puzzle_emb.local_ids": np.ones(8, np.int32),
    },
    "the state dict itself",
    0,
  ),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_dicts_around_the_state_dict(kind):
  state_dict = torch_files.state_dict(torch_files.config())
  wrap, expected, added = WRAPPED[kind]
  found, taken = torch_state_dict.find(wrap(state_dict), where="it")
  assert taken == expected
  assert found.keys() == state_dict.keys()
  name = "lm_head.weight"
  np.testing.assert_array_equal(found[name], state_dict[name] + added)
  np.testing.assert_array_equal(found["H_init"], state_dict["H_init"])


@pytest.mark.parametrize(
  ("wrap", "text"),
  [
    (lambda s: {"a": s, "b": dict(s)}, "several state dicts, 'a' and 'b'"),
    (lambda s: {"ema": s, "shadow": s | {}}, "several state dicts, 'ema' and"),
    (lambda s: {**s, "model.lm_head.weight": s["H_init"]}, "twice, under"),
    (lambda s: {"weight": s["H_init"]}, "no weights of a TRM"),
    (lambda s: [s], "no weights of a TRM"),
    (lambda s: 7, "no weights of a TRM"),
  ],
)
def test_dicts_of_which_it_is_not_clear_what_to_take(wrap, text):
  tree = wrap(torch_files.state_dict(torch_files.config()))
  with pytest.raises(errors.UserError, match=text):
    torch_state_dict.find(tree, where="it")


class _Counted(dict):
  """A dict that counts how often its values are looked at."""

  num_looks = 0

  def values(self):
    self.num_looks += 1
    return super().values()


def test_a_dict_that_holds_itself_ends():
  """However often it does: it is looked at once on each level."""
  tree = _Counted()
  tree.update({f"model_{number}": tree for number in range(50)})
  with pytest.raises(errors.UserError, match="no weights of a TRM"):
    torch_state_dict.find(tree, where="it")
  assert torch_config.find(tree) is None
  assert tree.num_looks <= 5


def test_names_of_a_file_are_shown_short_and_harmless():
  prefixes = "model." * 10**5
  state_dict = torch_files.state_dict(torch_files.config())
  ours = state_dict.pop("lm_head.weight")
  state_dict |= {prefixes + "lm_head.weight": ours, "\x1b[31m\n": ours}
  named, _ = torch_state_dict.find(state_dict, where="it")
  assert named["lm_head.weight"] is ours
  (found,) = torch_fit.differences(
    named, torch_files.config(), program.Sizes(6, 16, 1), rows_of="names.json"
  )
  assert found.text == r"'\x1b[31m\n' is unknown here"
  dicts = {f"\x1b{number}" + "x" * 1000: dict(named) for number in range(50)}
  with pytest.raises(errors.UserError) as caught:
    torch_state_dict.find(dicts, where="it")
  assert str(caught.value).isprintable()
  assert len(str(caught.value)) < 400


@pytest.mark.parametrize("name", ["", "model.", "model.inner.", "models.inner"])
def test_what_is_only_a_prefix_or_like_one_stays(name):
  rest = torch_names.without_prefix(name)
  assert name.endswith(rest)
  assert bool(rest) == bool(name)


# --- what does not fit -------------------------------------------------------

_DOWN = "L_level.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
  ("theirs", "expected"),
  [
    ({}, []),
    (
      {"vocab_size": 12},
      [
        "its vocabulary has 12 tokens, that of config.data.task"
        " 'generated_sudoku' has 6"
      ],
    ),
    (
      {"model": {"hidden_size": 32}},
      ["its hidden_size is 32, config.model.hidden_size is 16"],
    ),
    (
      {"model": {"num_layers": 4}},
      ["its num_layers is 4, config.model.num_layers is 2"],
    ),
    (
      {"model": torch_files.ATTENTION},
      ["its token_mixing is 'attention', config.model.token_mixing is 'mlp'"],
    ),
    (
      {"model": {"num_prefix_tokens": 3}},
      [
        "it is for 19 tokens, config.model.num_prefix_tokens 1 and the 16"
        " cells of config.data.task 'generated_sudoku' are 17"
      ],
    ),
    (
      {"model": {"positions": "learned"}},
      ["it has learned positions, config.model.positions is 'none'"],
    ),
    (
      {"model": {"puzzle_vector_size": 8}},
      [
        "it has vectors of 8 for puzzles, config.model.puzzle_vector_size is 16"
      ],
    ),
    (
      {"model": {"puzzle_vector_size": 0, "num_prefix_tokens": 0}},
      [
        "it is for 16 tokens, config.model.num_prefix_tokens 1 and the 16"
        " cells of config.data.task 'generated_sudoku' are 17",
        "it has no table for puzzles, config.model.puzzle_vector_size is 16",
      ],
    ),
    (
      {"num_rows": 1001},
      [
        "its puzzle table has 1,001 rows, names.json names 1: it is the table"
        " of another data set"
      ],
    ),
    (
      {"model": {"mlp_multiple": 256}},
      [
        "the inner width of its MLPs is 256, expected 48 and over tokens 256,"
        " expected 48 by config.model.mlp_expansion and"
        " config.model.mlp_multiple (officially 4 and 256)"
      ],
    ),
  ],
)
def test_each_size_that_differs_is_named_once(theirs, expected):
  sizes = {key: value for key, value in theirs.items() if key != "model"}
  state_dict = torch_files.state_dict(
    torch_files.config(model=theirs.get("model", {})), **sizes
  )
  found = torch_fit.differences(
    state_dict,
    torch_files.config(),
    program.Sizes(6, 16, 1),
    rows_of="names.json",
  )
  assert [difference.text for difference in found] == expected


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    (lambda s: s.pop("lm_head.weight"), ["lm_head.weight is missing"]),
    (lambda s: s.pop("L_init"), ["L_init is missing"]),
    (lambda s: s.pop("embed_tokens.embedding_weight"),
     ["embed_tokens.embedding_weight is missing"]),
    (lambda s: s.update(other=np.ones(3)), ["'other' is unknown here"]),
    (lambda s: s.update({"L_level.layers.7.mlp.up.weight": np.ones(3)}),
     ["num_layers is 8", "'L_level.layers.7.mlp.up.weight' is unknown here"]),
    (lambda s: s.update({_DOWN: s[_DOWN].T}),
     [f"{_DOWN} has shape (48, 16), expected (16, 48)"]),
    (lambda s: s.update({"q_head.bias": np.ones((2, 1))}),
     ["q_head.bias has shape (2, 1), expected (2,)"]),
    (lambda s: s.update({"q_head.bias": np.ones(2)}),
     ["q_head.bias is float64, expected float32"]),
    (lambda s: s.update({"embed_tokens.embedding_weight": np.float32(1)}),
     ["embed_tokens.embedding_weight has shape (), expected (6, 16)"]),
    (lambda s: [s.pop("L_init"), s.update(other=np.ones(3))],
     ["L_init is missing", "'other' is unknown here"]),
  ],
)  # fmt: skip
def test_each_tensor_that_differs_is_named(change, expected):
  state_dict = torch_files.state_dict(torch_files.config())
  change(state_dict)
  found = torch_fit.differences(
    state_dict,
    torch_files.config(),
    program.Sizes(6, 16, 1),
    rows_of="names.json",
  )
  text = "; ".join(difference.text for difference in found)
  assert all(part in text for part in expected), text
  if "num_layers" not in text:
    assert len(found) == len(expected)


def test_settings_survive_their_yaml():
  for model in (
    {},
    torch_files.ATTENTION,
    {"positions": "learned", "norm_epsilon": 2e-7},
  ):
    for rule in ("halt", "halt_over_continue"):
      config = torch_files.config(model=model, train={"halt_rule": rule})
      tree = yaml.safe_load(torch_config.written(config))
      assert torch_settings.differences(torch_config.find(tree), config) == []


@pytest.mark.parametrize(
  ("arch", "sentence", "flag"),
  [
    ({"H_cycles": 5}, "arch.H_cycles is 5, config.model.recursion_cycles is 2",
     "--config.model.recursion_cycles=5"),
    ({"L_cycles": 6}, "arch.L_cycles is 6, config.model.latent_updates is 1",
     "--config.model.latent_updates=6"),
    ({"hidden_size": "x"}, "arch.hidden_size is 'x', config.model.hidden_size",
     ""),
    ({"mlp_t": False}, "arch.mlp_t is False, config.model.token_mixing is",
     "--config.model.token_mixing=attention"),
    ({"mlp_t": None}, "arch.mlp_t is None, config.model.token_mixing is", ""),
    ({"hidden_size": True}, "arch.hidden_size is True, config.model.", ""),
    ({"rms_norm_eps": "inf"}, "arch.rms_norm_eps is 'inf', config.model.", ""),
    ({"forward_dtype": "$(touch x)\n\x1b[31m"},
     r"arch.forward_dtype is '$(touch x)\n\x1b[31m', config.model", ""),
    ({"pos_encodings": "learned"}, "arch.pos_encodings is 'learned'",
     "--config.model.positions=learned"),
    ({"puzzle_emb_len": 16}, "arch.puzzle_emb_len is 16",
     "--config.model.num_prefix_tokens=16"),
    ({"puzzle_emb_len": 0, "puzzle_emb_ndim": 40}, "arch.puzzle_emb_len is 0",
     "--config.model.num_prefix_tokens=3"),
    ({"forward_dtype": "bfloat16"}, "arch.forward_dtype is 'bfloat16'",
     "--config.model.compute_dtype=bfloat16"),
    ({"rms_norm_eps": "1e-6"}, "arch.rms_norm_eps is '1e-6'",
     "--config.model.norm_epsilon=1e-06"),
    ({"halt_max_steps": 16}, "config.train.max_supervision_steps is 3",
     "--config.train.max_supervision_steps=16"),
    ({"no_ACT_continue": False}, "config.train.halt_rule is 'halt'",
     "--config.train.halt_rule=halt_over_continue"),
    ({"name": "recursive_reasoning.trm_other@Other"},
     "another kind of network", ""),
    ({"name": "\x1b[31m"}, r"arch.name is '\x1b[31m', another kind", ""),
    ({"name": ["x"]}, "arch.name is something of type list, neither", ""),
    ({"H_cycles": np.ones(2)}, "arch.H_cycles is something of type ndarray,",
     ""),
    ({"mlp_t": np.ones(2)}, "arch.mlp_t is something of type ndarray,", ""),
    ({"L_cycles": 10**5000}, "arch.L_cycles is a number of 16,610 bits,", ""),
    ({"L_cycles": "x" * 99}, f"arch.L_cycles is '{'x' * 79}...', neither", ""),
  ],
)  # fmt: skip
def test_each_setting_that_differs_is_named_with_its_flag(arch, sentence, flag):
  tree = yaml.safe_load(torch_config.written(torch_files.config()))
  found = torch_settings.differences(
    {**tree["arch"], **arch}, torch_files.config()
  )
  assert any(sentence in d.text and flag == d.flag for d in found), found


def test_what_means_the_same_is_no_difference():
  tree = yaml.safe_load(torch_config.written(torch_files.config()))
  same = {
    "expansion": 4,
    "pos_encodings": "rope",  # without attention, nothing rotates
    "num_heads": 3,
    "rope_theta": 1,
    "puzzle_emb_len": 0,  # one of 16 numbers holds a vector of 16
    "rms_norm_eps": "1e-05",  # what YAML makes of it
    "H_layers": 4,
  }
  assert not torch_settings.differences(
    {**tree["arch"], **same}, torch_files.config()
  )
  # Officially, an unknown position encoding is none.
  other = {**tree["arch"], "pos_encodings": "sinusoidal"}
  assert not torch_settings.differences(other, torch_files.config())
  # What a file does not say is what it officially is by default.
  arch = {k: v for k, v in tree["arch"].items() if k != "forward_dtype"}
  (found,) = torch_settings.differences(arch, torch_files.config())
  assert "arch.forward_dtype is by default 'bfloat16'" in found.text
  assert found.flag == "--config.model.compute_dtype=bfloat16"


@pytest.mark.parametrize(
  ("content", "text"),
  [
    (b"arch: [", "is not plain YAML"),
    (b"[" * 5000, "is not plain YAML: more than 20 levels"),
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
    torch_config.read(path)
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
  with pytest.raises(errors.UserError, match="has aliases, whose values"):
    torch_config.read(path)
  nested = ["x"]  # and without a file of their own, in a checkpoint's dict
  for _ in range(40):
    nested = [nested] * 10
  arch = {"H_cycles": nested, "L_cycles": 1, "name": {"x": nested}}
  found = torch_settings.differences(arch, torch_files.config())
  assert [(d.text, d.flag) for d in found] == [
    (
      f"arch.{name} is something of type {kind}, neither a number nor a word",
      "",
    )
    for name, kind in (("name", "dict"), ("H_cycles", "list"))
  ]
