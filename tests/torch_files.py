"""Official checkpoints of random weights, for tests of what reads them."""

import functools

import jax
import ml_dtypes
import numpy as np
import tiny
import torch_stand_in

from trm_jax import config as config_lib
from trm_jax.inference import solver as solver_lib
from trm_jax.interop import (
  torch_checkpoint,
  torch_fit,
  torch_names,
  torch_settings,
)
from trm_jax.runtime import program

ATTENTION = {
  "token_mixing": "attention",
  "position_encoding": "rope",
  "num_heads": 2,
}

HRM = dict(separate_networks=True, gradient_updates=1, latent_updates=2)
DIRECT = dict(recursion_type="direct", recursion_cycles=1, **ATTENTION)
# Official networks by module, as changes of a tiny config.model.
KINDS = {
  "trm": {},
  "hrm": HRM,
  "trm_singlez": dict(recursion_type="single_latent"),
  "trm_hier6": dict(recursion_type="latent_per_update", latent_updates=6),
  "transformers_baseline": DIRECT,
}
# Their official code halts by the continue logit, whatever the settings say.
HALTS_OVER_CONTINUE = ("hrm", "transformers_baseline")


def config(**groups) -> config_lib.Config:
  """A tiny experiment with other settings in some groups."""
  plain = tiny.config_dict()
  plain.model.update(num_layers=2, recursion_cycles=2)
  for group, values in groups.items():
    plain[group].update(values)
  return config_lib.from_config_dict(plain)


def of_kind(kind, **model) -> config_lib.Config:
  """A tiny experiment with a network of KINDS."""
  rule = "halt_over_continue" if kind in HALTS_OVER_CONTINUE else "halt"
  return config(model={**KINDS[kind], **model}, train={"halt_rule": rule})


@functools.cache
def shapes(settings, seq_len=16, vocab_size=6, num_rows=1):
  """The shapes of the settings' network, by names without prefix."""
  sizes = program.DataSpec(vocab_size, seq_len, num_rows)
  return torch_fit.shapes_of(torch_fit.build(settings, sizes))


def state_dict(settings, **sizes):
  """Random weights of the settings' network, by names without prefix."""
  rng = np.random.default_rng(0)
  return {
    name: rng.standard_normal(shape).astype(np.float32)
    for name, shape in shapes(settings, **sizes).items()
  }


def as_nano_trm(weights):
  """The same weights by nano-trm's names; its halting head has one row."""
  names = {
    "H_init": "z_H_init",
    "L_init": "z_L_init",
    "embed_tokens.embedding_weight": "input_embedding.embedding_weight",
  }
  return {
    names.get(name, name.replace("L_level.", "lenet.")): (
      value[:1] if name.startswith("q_head") else value
    )
    for name, value in weights.items()
  }


def tensors(tree):
  """A tree of dicts with its arrays as tensors of the stand-in for torch."""
  if isinstance(tree, dict):
    return {key: tensors(value) for key, value in tree.items()}
  if not isinstance(tree, np.ndarray):
    return tree
  array = np.array(tree, order="C")
  if array.dtype == ml_dtypes.bfloat16:
    return torch_stand_in.Tensor(array)
  return torch_stand_in.torch.from_numpy(array)


def write(path, tree):
  """Writes what torch.save writes of a tree of dicts, arrays and values."""
  torch_stand_in.torch.save(tensors(tree), path)


def save(folder, settings, weights=None, name="step_30"):
  """Writes an official checkpoint, with all_config.yaml beside it."""
  folder.mkdir(exist_ok=True)
  if weights is None:
    weights = state_dict(settings)
  write(
    folder / name,
    {torch_names.PREFIX + key: value for key, value in weights.items()},
  )
  (folder / "all_config.yaml").write_bytes(torch_settings.to_yaml(settings))
  return folder / name


def load(
  config, source, workdir, overridden=frozenset(), ignore=()
) -> solver_lib.Solver:
  """Imports a checkpoint and loads what was made of it."""
  torch_checkpoint.import_checkpoint(
    config, overridden, str(source), str(workdir), ignore=ignore
  )
  return solver_lib.load(str(workdir))


def export(solver, path):
  """Exports in the format that the name says."""
  file_format = "safetensors" if path.suffix else "torch"
  torch_checkpoint.export_checkpoint(solver, str(path), file_format)


def assert_same_weights(weights, others):
  """Compares bit for bit."""
  for one, other in zip(
    jax.tree.leaves(jax.device_get(weights)),
    jax.tree.leaves(jax.device_get(others)),
    strict=True,
  ):
    assert one.dtype == other.dtype
    assert one.tobytes() == other.tobytes()
