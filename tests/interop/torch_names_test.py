"""Official names and layouts of weights."""

import math

import jax
import numpy as np
import pytest
import torch_files

from experiments import hrm
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.core import types
from trm_jax.interop import torch_fit, torch_names
from trm_jax.runtime import program

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

OFFICIAL = {
  "embed_tokens.embedding_weight": (6, 16),
  "lm_head.weight": (6, 16),
  "q_head.weight": (2, 16),
  "q_head.bias": (2,),
  "puzzle_emb.weights": (1, 16),
  "H_init": (16,),
  "L_init": (16,),
}

MLP = {"mlp.gate_up_proj": (96, 16), "mlp.down_proj": (16, 48)}

TOKEN_MLP = {"mlp_t.gate_up_proj": (96, 17), "mlp_t.down_proj": (17, 48)}

ATTENTION = {"self_attn.qkv_proj": (48, 16), "self_attn.o_proj": (16, 16)}


@pytest.mark.parametrize(
  ("model", "block", "others"),
  [
    ({}, TOKEN_MLP, {}),
    (torch_files.ATTENTION, ATTENTION, {}),
    (
      {"position_encoding": "learned", "num_layers": 3},
      TOKEN_MLP,
      {"embed_pos.embedding_weight": (17, 16)},
    ),
  ],
)
def test_every_parameter_of_the_model_has_one_official_name(
  model, block, others
):
  config = torch_files.config(model=model)
  blocks = {
    f"L_level.layers.{number}.{part}.weight": shape
    for number in range(config.model.num_layers)
    for part, shape in {**MLP, **block}.items()
  }
  expected = {**OFFICIAL, **others, **blocks}
  assert torch_files.shapes(config) == expected
  params = torch_names.params_of(torch_files.state_dict(config))
  built = torch_fit.build(config, program.DataSpec(6, 16, 1))
  abstract = built.abstract_state().params
  assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, abstract)


@pytest.mark.parametrize("kind", torch_files.KINDS)
def test_networks_and_initial_latents_have_their_official_names(kind):
  state_dict = torch_files.state_dict(torch_files.of_kind(kind))
  levels = {name.split(".")[0] for name in state_dict if "_level" in name}
  assert levels == LEVELS[kind]
  assert {n for n in state_dict if n.endswith("_init")} == INITIAL[kind]


@pytest.mark.parametrize("kind", torch_files.KINDS)
def test_weights_come_back_bit_for_bit(kind):
  config = torch_files.of_kind(kind)
  state_dict = torch_files.state_dict(config)
  weights = torch_names.weights_of(state_dict)
  sizes = program.DataSpec(6, 16, 1)
  built = torch_fit.build(config, sizes).abstract_state()
  for part in ("params", "initial_latents"):
    shapes = jax.tree.map(np.shape, getattr(weights, part))
    assert shapes == jax.tree.map(np.shape, getattr(built, part))
  again = torch_names.state_dict_of(
    weights, num_puzzle_ids=1, recurrence=config.model.recursion_type
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
  state_dict = torch_files.state_dict(torch_files.of_kind("trm_hier6"))
  z = torch_names.weights_of(state_dict).initial_latents.z
  for number in range(1, 7):
    np.testing.assert_array_equal(z[number - 1], state_dict[f"L{number}_init"])


def test_hrm_has_as_many_elements_as_its_published_checkpoint():
  config = config_lib.from_config_dict(hrm.get_config())
  shapes = torch_files.shapes(config, seq_len=81, vocab_size=11)
  assert sum(map(math.prod, shapes.values())) == 27_276_802


@pytest.mark.parametrize("name", ["", "model.", "model.inner.", "models.inner"])
def test_what_is_only_a_prefix_or_like_one_stays(name):
  rest = torch_names.without_prefix(name)
  assert name.endswith(rest)
  assert bool(rest) == bool(name)


def test_a_network_that_the_official_code_does_not_have_is_refused():
  weights = types.Weights({"role_embedding": {}}, None, None)
  with pytest.raises(errors.UserError, match="no symbol-equivariant network"):
    torch_names.state_dict_of(
      weights, num_puzzle_ids=1, recurrence="two_latents"
    )
