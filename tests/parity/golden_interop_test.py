"""Golden weights through official files: their answers are the golden ones.

golden_torch/step_8 was saved by PyTorch 2.15 from case09_eval.npz:

  case = np.load("tests/golden/case09_eval.npz")
  state = collections.OrderedDict(
    (f"_orig_mod.model.{key[3:]}", torch.from_numpy(case[key]))
    for key in case.files if key.startswith("sd/"))
  state._metadata = collections.OrderedDict({"": {"version": 1}})
  torch.save(state, "tests/golden_torch/step_8")

and all_config.yaml beside it by yaml.safe_dump, from the case's config, nested
as the official code nests it; identifiers.json has made-up names.
"""

import json
import pathlib

import golden_support as golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_files

from trm_jax import config as config_lib
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import (
  torch_checkpoint,
  torch_names,
  torch_reader,
  torch_settings,
  torch_source,
  torch_state_dict,
)

SAVED = pathlib.Path(__file__).parent.parent / "golden_torch" / "step_8"
# It was made of these numbers; TRM_GOLDEN_DIR may have others.
SHIPPED = pathlib.Path(__file__).parent.parent / "golden" / "case09_eval.npz"
PREFIXES = ("_orig_mod.model.", "module._orig_mod.model.", "model.", "")


def _write(folder, config, state_dict, prefix, num_rows):
  """Writes golden weights as an official checkpoint."""
  torch_files.write(
    folder / "step_12",
    {prefix + name: value for name, value in state_dict.items()},
  )
  (folder / "all_config.yaml").write_text(json.dumps({"arch": config}))
  names = ["<blank>", *(f"puzzle {row}" for row in range(1, num_rows))]
  (folder / "identifiers.json").write_text(json.dumps(names))
  return folder / "step_12"


def _evaluated(case, path, workdir) -> None:
  """Imports a checkpoint of case 9; compares what its solver answers."""
  config = golden.run_config(golden.json_of(case, "config"))
  torch_checkpoint.import_checkpoint(
    config, frozenset(), str(path), str(workdir)
  )
  solver = solver_lib.load(str(workdir))
  for t in range(4):
    batch = golden.under(case, f"batch{t}/batch/")
    solved = solver.solve_tokens(
      batch["inputs"].astype(np.uint8), batch["puzzle_identifiers"]
    )
    np.testing.assert_array_equal(solved.answers, case[f"batch{t}/preds"])
    confidence = jax.nn.sigmoid(jnp.asarray(case[f"batch{t}/q_halt_logits"]))
    golden.assert_close(solved.confidence, confidence, 1e-5)
    assert (solved.steps == config.eval.supervision_steps).all()


def test_what_pytorch_saved_is_the_golden_weights():
  source = torch_source.locate(str(SAVED.parent))
  assert source.weights.name == "step_8"
  assert source.step == 8
  state_dict, _ = torch_state_dict.find(
    torch_reader.read(source.weights), where="it"
  )
  with np.load(SHIPPED) as case:
    golden_names = {
      name.removeprefix("sd/inner."): case[name]
      for name in case.files
      if name.startswith("sd/")
    }
  assert set(state_dict) == set(golden_names)
  for name, value in golden_names.items():
    assert state_dict[name].tobytes() == value.tobytes(), name


def test_what_pytorch_saved_is_imported_and_answers_as_the_official_code(
  tmp_path,
):
  with np.load(SHIPPED) as arrays:
    case = {key: arrays[key] for key in arrays.files}
  _evaluated(case, SAVED, tmp_path)


@pytest.mark.slow
def test_golden_evaluation_of_an_import(tmp_path):
  case = golden.load("case09_eval")
  config = golden.json_of(case, "config")
  path = _write(
    tmp_path, config, golden.under(case, "sd/"), "_orig_mod.model.", 5
  )
  _evaluated(case, path, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["att_rope", "mlp_t"])
def test_golden_answers_of_imported_networks_of_two_blocks(tmp_path, name):
  """The first row of the golden batch begins with the initial latents."""
  case = golden.under(golden.load("case02_inner"), f"{name}/")
  config = golden.json_of(case, "config")
  path = _write(tmp_path, config, golden.under(case, "sd/"), "model.", 5)
  torch_checkpoint.import_checkpoint(
    golden.run_config(config), frozenset(), str(path), str(tmp_path / "run")
  )
  solver = solver_lib.load(str(tmp_path / "run"))
  assert solver.identifiers[4] == "puzzle 4"
  batch = golden.under(case, "batch/")
  trace = solver.trace_tokens(
    batch["inputs"][:1].astype(np.uint8),
    batch["puzzle_identifiers"][:1],
    supervision_steps=1,
  )
  np.testing.assert_array_equal(trace.answers[0], case["H3L6/preds"][:1])
  expected = jax.nn.sigmoid(jnp.asarray(case["H3L6/q_halt"][:1]))
  golden.assert_close(trace.confidence[0], expected, case["noise"][0, 3])


@pytest.mark.parametrize(
  ("prefix", "name"),
  [
    (0, "att_rope"),
    (1, "mlp_t"),
    (2, "att_learned"),
    (3, "att_ndim0"),
    (0, "att_len0"),
    (1, "mlp_t_len0"),
    (2, "att_pad"),
  ],
)
def test_golden_forward_of_weights_from_a_file(tmp_path, prefix, name):
  case = golden.under(golden.load("case02_inner"), f"{name}/")
  config = golden.json_of(case, "config")
  state_dict = golden.under(case, "sd/")
  path = _write(tmp_path, config, state_dict, PREFIXES[prefix], 5)
  source = torch_source.locate(str(path))
  state_dict, _ = torch_state_dict.find(
    torch_reader.read(source.weights), where="it"
  )
  weights = torch_names.weights_of(state_dict)
  arch = torch_settings.read(source.config)
  assert not torch_settings.differences(
    torch_settings.values(torch_settings.named(arch), arch),
    golden.run_config(config),
  )
  rows = case["batch/puzzle_identifiers"] % len(weights.puzzle_table)
  output = jax.jit(golden.build_model(config).apply)(
    {"params": weights.params},
    jnp.asarray(case["batch/inputs"]),
    jnp.asarray(weights.puzzle_table[rows]),
    golden.latents_of(case, "carry_in/"),
  )
  *_, noise_logits, noise_halt = case["noise"][0]
  golden.assert_close(output.logits, case["H3L6/logits"], noise_logits)
  golden.assert_close(output.halt_logits, case["H3L6/q_halt"], noise_halt)
  for ours, row in (("y", "H_init"), ("z", "L_init")):
    np.testing.assert_array_equal(
      getattr(weights.initial_latents, ours), case[f"sd/inner.{row}"]
    )
  again = torch_names.state_dict_of(
    weights, num_puzzle_ids=5, recurrence="two_latents"
  )
  assert set(again) == set(state_dict)
  for key, value in again.items():
    np.testing.assert_array_equal(
      value.astype(np.float32), state_dict[key], err_msg=key
    )


# --- HRM and the variants ----------------------------------------------------

# What their official settings are in ours, where all are not of one name.
VARIANTS = {
  "hrm": ("hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1",
          {"separate_networks": True, "gradient_updates": 1}),
  "singlez": ("recursive_reasoning.trm_singlez@TinyRecursiveReasoningModel",
              {"recursion_type": "single_latent"}),
  "hier6": ("recursive_reasoning.trm_hier6@TinyRecursiveReasoningModel_ACTV1",
            {"recursion_type": "latent_per_update"}),
}  # fmt: skip


def _assert_golden_inner_outputs(model, weights, case):
  """Applies the model where the golden forward began."""
  output = jax.jit(model.apply)(
    {"params": weights.params},
    jnp.asarray(case["batch/inputs"]),
    jnp.asarray(weights.puzzle_table)[case["batch/puzzle_identifiers"]],
    golden.latents_of(case, "carry_in/"),
  )
  noise = golden.json_of(case, "noise")["logits_abs"]
  golden.assert_close(output.logits, case["inner/logits"], noise)
  golden.assert_close(output.halt_logits, case["inner/q_halt"], noise)
  golden.assert_close(output.continue_logits, case["inner/q_continue"], noise)


@pytest.mark.parametrize(
  "name",
  [
    "hrm",
    *(pytest.param(n, marks=pytest.mark.slow) for n in ("singlez", "hier6")),
  ],
)
def test_golden_answers_of_an_imported_variant(tmp_path, name):
  """Free slots begin with the initial latents: their answers are known."""
  case = golden.under(golden.load("case08_variants"), f"{name}/")
  arch_name, model = VARIANTS[name]
  config = golden.json_of(case, "config")
  path = _write(
    tmp_path,
    {**config, "name": arch_name},
    golden.under(case, "sd/"),
    "_orig_mod.model.",
    5,
  )
  is_hrm = name == "hrm"
  whole = {"puzzle_emb_len": 0, "no_ACT_continue": not is_hrm, **config}
  ours = config_lib.changed(
    golden.run_config(whole),
    {f"model.{knob}": value for knob, value in model.items()},
  )
  torch_checkpoint.import_checkpoint(
    ours, frozenset(), str(path), str(tmp_path / "run")
  )
  solver = solver_lib.load(str(tmp_path / "run"), supervision_steps=1)
  _assert_golden_inner_outputs(solver.program.model, solver.weights, case)
  free = case["carry_in/halted"]
  assert free.any()
  solved = solver.solve_tokens(
    case["batch/inputs"][free].astype(np.uint8),
    case["batch/puzzle_identifiers"][free],
  )
  np.testing.assert_array_equal(solved.answers, case["out/preds"][free])
  noise = golden.json_of(case, "noise")["logits_abs"]
  golden.assert_close(solved.halt_logits, case["out/q_halt"][free], noise)
  path = tmp_path / "again" / "step_12.safetensors"
  torch_checkpoint.export_checkpoint(solver, str(path), "safetensors")
  again = torch_reader.read(path)
  assert {torch_names.without_prefix(key) for key in again} == {
    key.removeprefix("sd/inner.") for key in case if key.startswith("sd/")
  }
  for key, value in again.items():
    official = case[f"sd/inner.{torch_names.without_prefix(key)}"]
    assert value.astype(np.float32).tobytes() == official.tobytes(), key


def test_golden_forward_of_direct_prediction_from_a_file(tmp_path):
  """Its three heads of 10 do not divide 32, which no experiment of ours may."""
  case = golden.under(golden.load("case08_variants"), "baseline/")
  config = golden.json_of(case, "config")
  state_dict = golden.under(case, "sd/")
  path = _write(tmp_path, config, state_dict, "_orig_mod.model.", 5)
  found, _ = torch_state_dict.find(torch_reader.read(path), where="it")
  weights = torch_names.weights_of(found)
  whole = {"mlp_t": False, "puzzle_emb_len": 0, "L_cycles": 1, **config}
  model = golden.build_model(
    {**whole, "L_layers": config["H_layers"]}, recursion_type="direct"
  )
  _assert_golden_inner_outputs(model, weights, case)
  again = torch_names.state_dict_of(
    weights, num_puzzle_ids=5, recurrence="direct"
  )
  assert {f"inner.{key}" for key in again} == state_dict.keys()
  for key, value in again.items():
    official = state_dict[f"inner.{key}"]
    assert value.astype(np.float32).tobytes() == official.tobytes(), key
