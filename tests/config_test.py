"""The door through which settings enter: what it lets in and what not."""

import dataclasses

import pytest

from experiments import base
from trm_jax import config as config_lib
from trm_jax import errors


def _with(values):
  """The base config with some knobs, by dotted name, set to anything."""
  config = base.get_config().unlock()
  with config.ignore_type():
    for name, value in values.items():
      group, _, knob = name.rpartition(".")
      (config[group] if group else config)[knob] = value
  return config


def _refused(config) -> str:
  with pytest.raises(errors.UserError) as caught:
    config_lib.from_config_dict(config)
  text = str(caught.value)
  assert "\n" not in text
  return text


def test_base_config_holds_exactly_the_known_knobs():
  config = config_lib.from_config_dict(base.get_config())
  assert set(config_lib.flatten(config)) == set(config_lib.knob_names())
  assert config.model.hidden_size == 512
  assert config.eval.supervision_steps == 16


def test_settings_are_frozen():
  config = config_lib.from_config_dict(base.get_config())
  with pytest.raises(dataclasses.FrozenInstanceError):
    config.model.hidden_size = 3


@pytest.mark.parametrize(
  ("name", "meant"),
  [
    ("model.hiden_size", "config.model.hidden_size"),
    ("optimizer.learning_rates", "config.optimizer.learning_rate"),
    ("trian", "config.train"),
    ("sede", "config.seed"),
  ],
)
def test_a_misspelt_knob_is_named_with_the_one_meant(name, meant):
  text = _refused(_with({name: 1}))
  assert f"config.{name}" in text
  assert f"did you mean {meant}?" in text


def test_a_knob_like_no_other_is_named_without_advice():
  text = _refused(_with({"data.zzz": 1}))
  assert "config.data.zzz" in text
  assert "did you mean" not in text


@pytest.mark.parametrize("name", ["model.remat", "seed", "log", "data.subsets"])
def test_a_missing_knob_is_named(name):
  config = base.get_config().unlock()
  group, _, knob = name.rpartition(".")
  del (config[group] if group else config)[knob]
  assert f"config.{name}" in _refused(config)


def test_all_missing_knobs_of_a_group_are_named():
  config = base.get_config().unlock()
  del config.train.halt_rule, config.train.num_steps
  text = _refused(config)
  assert "config.train.halt_rule" in text
  assert "config.train.num_steps" in text


@pytest.mark.parametrize(
  ("name", "value", "kind"),
  [
    ("model.hidden_size", 512.0, "int"),
    ("model.hidden_size", "512", "int"),
    ("model.num_layers", True, "int"),
    ("seed", False, "int"),
    ("optimizer.learning_rate", "1e-4", "float"),
    ("optimizer.learning_rate", None, "float"),
    ("train.freeze_network", 1, "bool"),
    ("name", 3, "str"),
    ("data.source", None, "str"),
    ("data.subsets", (1.5,), "tuple"),
    ("data.subsets", 4, "tuple"),
  ],
)
def test_a_wrong_type_is_refused(name, value, kind):
  text = _refused(_with({name: value}))
  assert f"config.{name} is {value!r}" in text
  assert kind in text


def test_whole_numbers_serve_as_floats():
  config = config_lib.from_config_dict(
    _with({"optimizer.weight_decay": 1, "model.mlp_expansion": 4})
  )
  assert config.optimizer.weight_decay == 1.0
  assert type(config.optimizer.weight_decay) is float
  assert type(config.model.mlp_expansion) is float


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("model.position_encoding", "sinusoidal"),
    ("model.compute_dtype", "float16"),
    ("model.remat", "some"),
    ("data.augmentation", "mirror"),
    ("train.halt_rule", "never"),
    ("eval.checkpoint", "oldest"),
  ],
)
def test_an_unknown_choice_is_named_with_the_known_ones(name, value):
  text = _refused(_with({name: value}))
  assert f"config.{name} is {value!r}" in text
  known = config_lib.flatten(config_lib.from_config_dict(base.get_config()))
  assert known[name] in text


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("model.hidden_size", 0),
    ("model.latent_updates", 0),
    ("model.recursion_cycles", 0),
    ("model.num_prefix_tokens", -1),
    ("optimizer.warmup_steps", -1),
    ("optimizer.muon_iterations", 0),
    ("data.num_train", -1),
    ("train.batch_size", 0),
    ("train.gradient_accumulation_steps", 0),
    ("train.num_steps", -1),
    ("train.max_supervision_steps", 0),
    ("eval.batch_size", 0),
    ("eval.every_steps", -1),
    ("eval.supervision_steps", 0),
    ("checkpoint.every_steps", 0),
    ("checkpoint.keep_last", 0),
    ("checkpoint.keep_best", -1),
    ("log.every_steps", 0),
  ],
)
def test_a_number_too_small_is_refused(name, value):
  text = _refused(_with({name: value}))
  assert f"config.{name} is {value}" in text
  assert "at least" in text


@pytest.mark.parametrize(
  ("values", "named"),
  [
    (
      {
        "model.token_mixing": "attention",
        "model.position_encoding": "rope",
        "model.num_heads": 7,
      },
      ["config.model.hidden_size", "config.model.num_heads"],
    ),
    ({"model.position_encoding": "rope"}, ["config.model.position_encoding"]),
    (
      {"model.puzzle_embed_dim": 16 * 512 + 1},
      ["config.model.puzzle_embed_dim", "config.model.num_prefix_tokens"],
    ),
    (
      {"model.puzzle_embed_dim": 0},
      ["config.model.num_prefix_tokens", "config.model.puzzle_embed_dim"],
    ),
  ],
)
def test_an_impossible_combination_names_its_knobs(values, named):
  text = _refused(_with(values))
  for name in named:
    assert name in text


def test_no_prefix_and_no_puzzle_vector_is_possible():
  config = config_lib.from_config_dict(
    _with({"model.puzzle_embed_dim": 0, "model.num_prefix_tokens": 0})
  )
  assert config.model.num_prefix_tokens == 0


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("optimizer.beta1", 1.0),
    ("optimizer.beta2", 1.0),
    ("optimizer.ema_decay", 1.0),
    ("optimizer.learning_rate", float("nan")),
    ("optimizer.weight_decay", float("inf")),
    ("optimizer.weight_decay", -0.1),
    ("optimizer.muon_weight_decay", -0.1),
    ("optimizer.max_gradient_norm", -1.0),
    ("optimizer.min_learning_rate_ratio", 1.5),
    ("train.exploration_prob", 7.0),
    ("train.label_smoothing", 1.0),
    ("model.mlp_expansion", 0.0),
    ("model.rope_theta", 0.0),
    ("seed", -1),
    ("seed", 2**31),
    ("data.seed", -1),
    ("name", ""),
  ],
)
def test_impossible_values_are_refused_by_name(name, value):
  assert f"config.{name}" in _refused(_with({name: value}))


def test_what_is_no_config_is_refused():
  assert "int" in _refused(3)


def test_flatten_names_every_value_by_its_path():
  config = config_lib.from_config_dict(
    _with({"seed": 5, "train.num_steps": 7, "data.subsets": ("a", "b")})
  )
  flat = config_lib.flatten(config)
  assert flat["seed"] == 5
  assert flat["train.num_steps"] == 7
  assert flat["data.subsets"] == ("a", "b")
  assert not any(isinstance(value, dict) for value in flat.values())


@pytest.mark.parametrize(
  ("last", "steps"),
  [(1, (1,)), (3, (1, 2, 3)), (4, (1, 2, 4)), (16, (1, 2, 4, 8, 16))],
)
def test_accuracy_is_reported_after_powers_of_two_and_the_last_step(
  last, steps
):
  config = config_lib.from_config_dict(_with({"eval.supervision_steps": last}))
  assert config.eval.report_steps == steps


def test_fill_takes_settings_by_name_and_values_over_them():
  @dataclasses.dataclass(frozen=True)
  class Wanted:
    hidden_size: int
    num_steps: int
    seed: int
    other: int = 7

  config = config_lib.from_config_dict(base.get_config())
  filled = config_lib.fill(
    Wanted, config.model, config.train, num_steps=3, seed=1
  )
  assert filled == Wanted(hidden_size=512, num_steps=3, seed=1)


def test_fill_refuses_to_leave_a_field_without_a_value():
  @dataclasses.dataclass(frozen=True)
  class Wanted:
    misspelled: int

  config = config_lib.from_config_dict(base.get_config())
  with pytest.raises(TypeError, match="misspelled"):
    config_lib.fill(Wanted, config.model)


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("train.num_steps", 3 * 10**9),
    ("train.batch_size", 10**12),
    ("eval.batch_size", 10**9),
    ("model.hidden_size", 10**9),
    ("model.num_layers", 10**6),
    ("model.mlp_expansion", 1e9),
    ("data.num_train", 10**30),
    ("log.every_steps", 2**31),
  ],
)
def test_numbers_beyond_what_arrays_and_int32_hold_are_refused(name, value):
  text = _refused(_with({name: value}))
  assert text.startswith(f"config.{name} is {value}")
  assert "the largest number here is 2147483647" in text or "at most" in text


def test_to_train_without_an_end_is_the_largest_number():
  config = _with({"train.num_steps": 2**31 - 1})
  assert config_lib.from_config_dict(config).train.num_steps == 2**31 - 1
