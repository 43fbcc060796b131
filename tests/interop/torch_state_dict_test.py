"""The state dict in a file."""

import numpy as np
import pytest
import torch_files

from trm_jax import errors
from trm_jax.interop import torch_settings, torch_state_dict


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
    "net.",
    "net._orig_mod.model.",
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


def test_a_compiled_part_of_a_model_is_seen_through():
  state_dict = torch_files.state_dict(torch_files.config())
  tree = {
    name.replace("L_level.", "L_level._orig_mod."): value
    for name, value in state_dict.items()
  }
  found, _ = torch_state_dict.find(tree, where="it")
  assert found.keys() == state_dict.keys()


def test_nano_trm_has_the_same_network_under_other_names():
  """In a Lightning checkpoint; its halting head has one row."""
  state_dict = torch_files.state_dict(torch_files.config())
  theirs = torch_files.as_nano_trm(state_dict)
  tree = {"state_dict": theirs, "optimizer_states": [{"state": {}}]}
  found, taken = torch_state_dict.find(tree, where="it")
  assert taken == "the state dict 'state_dict'"
  assert found.keys() == state_dict.keys()
  for name, value in state_dict.items():
    if name.startswith("q_head"):
      np.testing.assert_array_equal(found[name][0], value[0])
      # That of continue is as officially before any training.
      assert (found[name][1] == (-5 if name.endswith("bias") else 0)).all()
    else:
      np.testing.assert_array_equal(found[name], value)


def test_a_file_of_another_network_shows_what_it_has():
  tensors = {f"layer_{n}.weight": np.ones((3, n)) for n in range(20)}
  with pytest.raises(errors.UserError) as caught:
    torch_state_dict.find({"model": tensors, "step": 3}, where="it")
  assert (
    "no dict in it has lm_head.weight or H_init, but 'model/layer_0.weight'"
    " (3, 0), 'model/layer_1.weight' (3, 1), " in str(caught.value)
  )
  assert str(caught.value).endswith(", 14 more")
  with pytest.raises(errors.UserError, match="but no tensor at all"):
    torch_state_dict.find({"\x1b": 7}, where="it")


def test_names_of_a_file_are_shown_short_and_harmless():
  prefixes = "model." * 10**5
  state_dict = torch_files.state_dict(torch_files.config())
  ours = state_dict.pop("lm_head.weight")
  state_dict |= {prefixes + "lm_head.weight": ours, "\x1b[31m\n": ours}
  named, _ = torch_state_dict.find(state_dict, where="it")
  assert named["lm_head.weight"] is ours
  assert "\x1b[31m\n" in named
  dicts = {f"\x1b{number}" + "x" * 1000: dict(named) for number in range(50)}
  with pytest.raises(errors.UserError) as caught:
    torch_state_dict.find(dicts, where="it")
  assert str(caught.value).isprintable()
  assert len(str(caught.value)) < 400
