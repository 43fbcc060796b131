"""What of a checkpoint does not fit the config, and what would make it fit."""

import numpy as np
import pytest
import torch_files

from trm_jax import errors
from trm_jax.interop import torch_fit, torch_names
from trm_jax.runtime import program

SIZES = program.DataSpec(vocab_size=6, seq_len=16, num_puzzle_ids=1)


def _differences(state_dict, config, sizes=SIZES):
  checkpoint = torch_fit.Checkpoint(state_dict, rows_from="names.json")
  return torch_fit.differences(checkpoint, config, sizes)


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
      ["it has num_prefix_tokens 3, but config.model.num_prefix_tokens is 1"],
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
      [
        "it has puzzle_embed_dim 0, but config.model.puzzle_embed_dim is 16",
        "it has num_prefix_tokens 0, but config.model.num_prefix_tokens is 1",
      ],
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
      ["it has mlp_multiple 256, but config.model.mlp_multiple is 16"],
    ),
    (
      {"model": {"mlp_expansion": 8}},
      ["it has mlp_expansion 8.0, but config.model.mlp_expansion is 4.0"],
    ),
    (
      {"seq_len": 81},
      [
        "it has 81 cells, but config.data.task 'generated_sudoku' has 16 cells"
        " (config.data.box_rows and config.data.box_cols set its size)"
      ],
    ),
  ],
)
def test_each_size_that_differs_is_named_once(theirs, expected):
  sizes = {key: value for key, value in theirs.items() if key != "model"}
  state_dict = torch_files.state_dict(
    torch_files.config(model=theirs.get("model", {})), **sizes
  )
  found = _differences(state_dict, torch_files.config())
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
  found = _differences(state_dict, torch_files.config())
  text = "; ".join(difference.text for difference in found)
  assert all(part in text for part in expected), text
  assert len(found) == len(expected)


def _found_in(kind, change):
  """What of a state dict of the kind differs from its config, as texts."""
  config = torch_files.of_kind(kind)
  state_dict = torch_files.state_dict(config)
  change(state_dict)
  found = _differences(state_dict, config)
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


GRID = {"task": "grid"}


def test_everything_that_the_weights_show_is_proposed_at_once():
  """With those flags, nothing more is asked for."""
  theirs = torch_files.config(
    model={
      **torch_files.ATTENTION, "hidden_size": 32, "num_layers": 1,
      "position_encoding": "learned", "puzzle_embed_dim": 0,
      "num_prefix_tokens": 0, "mlp_multiple": 256,
    }
  )  # fmt: skip
  state_dict = torch_files.state_dict(theirs, vocab_size=9, seq_len=6)
  found = _differences(
    state_dict,
    torch_files.config(data=GRID),
    program.DataSpec(vocab_size=0, seq_len=0, num_puzzle_ids=1),
  )
  assert {difference.flag for difference in found} == {
    "--config.model.hidden_size=32",
    "--config.model.num_layers=1",
    "--config.model.token_mixing=attention",
    "--config.model.position_encoding=learned",
    "--config.model.puzzle_embed_dim=0",
    "--config.model.num_prefix_tokens=0",
    "--config.model.mlp_multiple=256",
    "--config.data.charset=CHARACTERS",
    "--config.data.grid_rows=ROWS",
    "--config.data.grid_cols=COLUMNS",
  }
  texts = [difference.text for difference in found]
  assert any(
    "must have 8 characters, those of tokens 1 to 8" in t for t in texts
  )
  assert any(
    "it has 6 cells, but config.data.grid_rows is 0" in t for t in texts
  )
  of_grid = torch_files.config(
    data={**GRID, "charset": "12345678", "grid_rows": 2, "grid_cols": 3},
    model={field: getattr(theirs.model, field) for field in vars(theirs.model)},
  )
  assert not _differences(state_dict, of_grid, program.DataSpec(9, 6, 1))


def _error(checkpoint, config, given=()):
  with pytest.raises(errors.UserError) as caught:
    torch_fit.check(checkpoint, config, SIZES, given=given, where="it")
  return str(caught.value)


def test_what_weights_alone_do_not_show_is_asked_for_in_the_same_line():
  theirs = torch_files.config(
    model={**torch_files.ATTENTION, "num_prefix_tokens": 16}
  )
  state_dict = torch_files.state_dict(theirs)
  message = _error(torch_fit.Checkpoint(state_dict), torch_files.config())
  assert (
    "pass --config.model.token_mixing=attention --config.model.latent_updates=n"
    " --config.model.recursion_cycles=T --config.model.num_heads=H"
    " --config.model.position_encoding=rope --config.model.num_prefix_tokens=16"
    "; weights do not show how they are applied (latent_updates," in message
  )
  assert "published: n is 6 for Sudoku" in message
  # Settings may lack some, too; what they say is not asked for.
  arch = {"H_cycles": 2, "L_cycles": 1, "hidden_size": 16, "expansion": 4}
  checkpoint = torch_fit.Checkpoint(
    state_dict, arch | {"forward_dtype": "float32"}, "its own settings"
  )
  given = ("model.position_encoding",)
  message = _error(checkpoint, torch_files.config(), given)
  assert "are applied (num_heads), and" in message
  assert "--config.model.recursion_cycles" not in message


def test_defaults_do_not_contradict_the_tensors():
  """A file that does not name its prefix tokens has those of its table."""
  theirs = torch_files.config(
    model={"num_prefix_tokens": 0, "puzzle_embed_dim": 0}
  )
  arch = {
    "H_cycles": 2, "L_cycles": 1, "hidden_size": 16, "expansion": 4,
    "L_layers": 2, "halt_max_steps": 3, "forward_dtype": "float32",
  }  # fmt: skip
  checkpoint = torch_fit.Checkpoint(
    torch_files.state_dict(theirs), arch, "its own settings"
  )
  assert not torch_fit.differences(checkpoint, theirs, SIZES)


def test_idle_units_are_taken_off_and_others_are_not():
  config = torch_files.config()
  state_dict = torch_files.state_dict(config)
  wide = torch_names.with_inner_widths(state_dict, lambda size: 256)
  back = torch_fit.without_idle_units(wide, config)
  assert back.keys() == state_dict.keys()
  for name, value in state_dict.items():
    np.testing.assert_array_equal(back[name], value)
  wide[_DOWN] = wide[_DOWN] + 1
  assert torch_fit.without_idle_units(wide, config) is wide
  narrow = torch_files.state_dict(torch_files.config(model={"mlp_multiple": 1}))
  assert torch_fit.without_idle_units(narrow, config) is narrow
