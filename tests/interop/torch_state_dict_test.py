"""The state dict in a file, and what of it does not fit the network."""

import numpy as np
import pytest
import torch_files

from trm_jax import errors
from trm_jax.interop import torch_settings, torch_state_dict
from trm_jax.runtime import program

SIZES = program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=1)

# --- in a file ---------------------------------------------------------------


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
  assert torch_settings.find(tree) is None
  assert tree.num_looks <= 5


def test_names_of_a_file_are_shown_short_and_harmless():
  prefixes = "model." * 10**5
  state_dict = torch_files.state_dict(torch_files.config())
  ours = state_dict.pop("lm_head.weight")
  state_dict |= {prefixes + "lm_head.weight": ours, "\x1b[31m\n": ours}
  named, _ = torch_state_dict.find(state_dict, where="it")
  assert named["lm_head.weight"] is ours
  (found,) = torch_state_dict.differences(
    named, torch_files.config(), SIZES, rows_from="names.json"
  )
  assert found.text == r"'\x1b[31m\n' is unknown"
  dicts = {f"\x1b{number}" + "x" * 1000: dict(named) for number in range(50)}
  with pytest.raises(errors.UserError) as caught:
    torch_state_dict.find(dicts, where="it")
  assert str(caught.value).isprintable()
  assert len(str(caught.value)) < 400


# --- what does not fit -------------------------------------------------------


CELLS = (
  "the cells of config.data.task 'generated_sudoku',"
  " config.model.num_prefix_tokens and config.model.mlp_multiple"
)

WIDTH = "config.model.mlp_expansion and config.model.mlp_multiple, officially 4"

WIDTH += " and 256"

_DOWN = "L_level.layers.1.mlp.down_proj.weight"


@pytest.mark.parametrize(
  ("theirs", "expected"),
  [
    ({}, []),
    (
      {"vocab_size": 12},
      [
        "embed_tokens.embedding_weight and 1 more have shape (12, 16), expected"
        " (6, 16) by the vocabulary of config.data.task 'generated_sudoku'"
      ],
    ),
    (
      {"model": {"hidden_size": 32}},
      ["it has hidden_size 32, but config.model.hidden_size is 16"],
    ),
    (
      {"model": {"num_layers": 4}},
      ["L_level has num_layers 4, but config.model.num_layers is 2"],
    ),
    (
      {"model": torch_files.ATTENTION},
      [
        "it has token_mixing 'attention', but config.model.token_mixing is"
        " 'mlp'"
      ],
    ),
    (
      {"model": {"num_prefix_tokens": 3}},
      [
        "L_level.layers.0.mlp_t.down_proj.weight and 1 more have shape"
        f" (19, 64), expected (17, 48) by {CELLS}",
        "L_level.layers.0.mlp_t.gate_up_proj.weight and 1 more have shape"
        f" (128, 19), expected (96, 17) by {CELLS}",
      ],
    ),
    (
      {"model": {"position_encoding": "learned"}},
      [
        "it has position_encoding 'learned', but"
        " config.model.position_encoding is 'none'"
      ],
    ),
    (
      {"model": {"puzzle_embed_dim": 8}},
      ["it has puzzle_embed_dim 8, but config.model.puzzle_embed_dim is 16"],
    ),
    (
      {"model": {"puzzle_embed_dim": 0, "num_prefix_tokens": 0}},
      ["it has puzzle_embed_dim 0, but config.model.puzzle_embed_dim is 16"],
    ),
    (
      {"num_rows": 1001},
      [
        "puzzle_emb.weights has shape (1001, 16), expected (1, 16) by the rows"
        " that names.json lists; it is the table of another data set"
      ],
    ),
    (
      {"model": {"mlp_multiple": 256}},
      [
        f"L_level.layers.0.{part} and 1 more have shape {there}, expected"
        f" {here} by {reason}"
        for part, there, here, reason in (
          ("mlp.down_proj.weight", (16, 256), (16, 48), WIDTH),
          ("mlp.gate_up_proj.weight", (512, 16), (96, 16), WIDTH),
          ("mlp_t.down_proj.weight", (17, 256), (17, 48), CELLS),
          ("mlp_t.gate_up_proj.weight", (512, 17), (96, 17), CELLS),
        )
      ],
    ),
  ],
)
def test_each_size_that_differs_is_named_once(theirs, expected):
  sizes = {key: value for key, value in theirs.items() if key != "model"}
  state_dict = torch_files.state_dict(
    torch_files.config(model=theirs.get("model", {})), **sizes
  )
  found = torch_state_dict.differences(
    state_dict,
    torch_files.config(),
    SIZES,
    rows_from="names.json",
  )
  assert [difference.text for difference in found] == expected


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    (lambda s: s.pop("lm_head.weight"), ["lm_head.weight is missing"]),
    (lambda s: s.pop("L_init"), ["L_init is missing"]),
    (lambda s: s.pop("embed_tokens.embedding_weight"),
     ["embed_tokens.embedding_weight is missing"]),
    (lambda s: s.update(other=np.ones(3)), ["'other' is unknown"]),
    (lambda s: s.update({"L_level.layers.7.mlp.up.weight": np.ones(3)}),
     ["'L_level.layers.7.mlp.up.weight' is unknown"]),
    (lambda s: s.update({"L_level.layers.2.mlp.down_proj.weight": s[_DOWN]}),
     ["L_level has num_layers 3, but config.model.num_layers is 2",
      "L_level.layers.2.mlp.gate_up_proj.weight is missing",
      "L_level.layers.2.mlp_t.down_proj.weight is missing",
      "L_level.layers.2.mlp_t.gate_up_proj.weight is missing"]),
    (lambda s: s.update({_DOWN: s[_DOWN].T}),
     [f"{_DOWN} has shape (48, 16), expected (16, 48)"]),
    (lambda s: s.update({"q_head.bias": np.ones((2, 1))}),
     ["q_head.bias has shape (2, 1), expected (2,)"]),
    (lambda s: s.update({"q_head.bias": np.ones(2)}),
     ["q_head.bias has dtype float64, expected float32"]),
    (lambda s: s.update({"embed_tokens.embedding_weight": np.float32(1)}),
     ["embed_tokens.embedding_weight has shape (), expected (6, 16)"]),
    (lambda s: [s.pop("L_init"), s.update(other=np.ones(3))],
     ["L_init is missing", "'other' is unknown"]),
  ],
)  # fmt: skip
def test_each_tensor_that_differs_is_named(change, expected):
  state_dict = torch_files.state_dict(torch_files.config())
  change(state_dict)
  found = torch_state_dict.differences(
    state_dict,
    torch_files.config(),
    SIZES,
    rows_from="names.json",
  )
  text = "; ".join(difference.text for difference in found)
  assert all(part in text for part in expected), text
  assert len(found) == len(expected)


def _found_in(kind, change):
  """What of a state dict of the kind differs from its config, as texts."""
  config = torch_files.of_kind(kind)
  state_dict = torch_files.state_dict(config)
  change(state_dict)
  found = torch_state_dict.differences(
    state_dict, config, SIZES, rows_from="names.json"
  )
  return [difference.text for difference in found]


def test_networks_of_unequal_depth_are_told():
  def cut(state_dict):
    for name in [n for n in state_dict if n.startswith("H_level.layers.1")]:
      del state_dict[name]

  first, *others = _found_in("hrm", cut)
  assert first == (
    "L_level has num_layers 2 and H_level has num_layers 1, but"
    " config.model.num_layers is 2"
  )
  assert len(others) == 4
  for text in others:
    assert text.startswith("H_level.layers.1")
    assert text.endswith("is missing")


def test_a_lost_tensor_of_either_network_is_named():
  name = "H_level.layers.1.mlp.down_proj.weight"
  assert _found_in("hrm", lambda s: s.pop(name)) == [f"{name} is missing"]
  assert _found_in("hrm", lambda s: s.pop("L_init")) == ["L_init is missing"]
  assert _found_in("trm_hier6", lambda s: s.update(L_init=s["H_init"]))


def test_heads_that_do_not_divide_the_network_are_told():
  """Officially 12 heads of 42 in a network of 512."""

  def divide_otherwise(state_dict):
    for number in range(2):
      block = f"H_level.layers.{number}.self_attn"
      state_dict[f"{block}.qkv_proj.weight"] = np.ones((45, 16), np.float32)
      state_dict[f"{block}.o_proj.weight"] = np.ones((16, 15), np.float32)

  _, text = sorted(_found_in("transformers_baseline", divide_otherwise))
  assert text == (
    "H_level.layers.0.self_attn.qkv_proj.weight and 1 more have shape (45, 16),"
    " expected (48, 16) by config.model.num_heads"
  )


@pytest.mark.parametrize("size", [2**20, 2**40])
def test_sizes_that_no_network_has_are_not_built(size):
  def enlarge(state_dict):
    name = "embed_tokens.embedding_weight"
    state_dict[name] = np.zeros((0, size), np.float32)

  assert _found_in("trm", enlarge) == [
    f"it has hidden_size {size}, but config.model.hidden_size is 16"
  ]


def test_many_layers_are_not_built():
  name = "L_level.layers.{}.mlp.down_proj.weight"

  def deepen(state_dict):
    state_dict[name.format(999)] = state_dict[name.format(0)]

  (text,) = _found_in("trm", deepen)
  assert text.startswith("L_level has num_layers 1000")
