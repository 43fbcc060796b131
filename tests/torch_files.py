"""Official checkpoints of random weights, for tests of what reads them."""

import numpy as np
import tiny

from trm_jax import config as config_lib
from trm_jax.interop import torch_config, torch_file, torch_names, torch_shapes
from trm_jax.runtime import program

ATTENTION = {"token_mixing": "attention", "positions": "rope", "num_heads": 2}


def config(**groups) -> config_lib.Config:
  """A tiny experiment with other settings in some groups."""
  plain = tiny.config_dict()
  for group, values in groups.items():
    plain[group].update(values)
  return config_lib.from_config_dict(plain)


def state_dict(settings, *, seq_len=16, vocab_size=6, num_rows=1):
  """Random weights of the settings' network, by names without prefix."""
  shapes = torch_shapes.expected(
    settings.model, program.Sizes(vocab_size, seq_len, num_rows)
  ).tensors()
  rng = np.random.default_rng(0)
  return {
    name: rng.standard_normal(shape).astype(np.float32)
    for name, shape in shapes.items()
  }


def save(folder, settings, tensors=None, name="step_30"):
  """Writes an official checkpoint, with all_config.yaml beside it."""
  folder.mkdir(exist_ok=True)
  if tensors is None:
    tensors = state_dict(settings)
  torch_file.write(
    folder / name,
    {torch_names.PREFIX + key: value for key, value in tensors.items()},
  )
  (folder / "all_config.yaml").write_bytes(torch_config.written(settings))
  return folder / name
