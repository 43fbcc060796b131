"""Quickstart: a small TRM learns 6x6 Sudoku on a laptop's CPU.

Puzzles are generated (2x3 boxes, a unique solution, 14 to 16 clues); no test
puzzle equals a training puzzle up to symmetry. Nothing is downloaded.

  python -m trm_jax.main --config=experiments/quickstart.py
"""

import ml_collections

from experiments import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the config."""
  config = base.get_config()
  config.name = "quickstart"

  config.data.task = "generated_sudoku"
  config.data.box_rows = 2
  config.data.box_cols = 3
  config.data.num_clues = 14
  config.data.num_train = 2000
  config.data.num_test = 500
  config.data.augmentation = "endless"

  config.model.hidden_size = 96
  config.model.mlp_multiple = 32
  config.model.puzzle_embed_dim = 96
  config.model.num_prefix_tokens = 1
  config.model.latent_updates = 3
  config.model.recursion_cycles = 2
  config.model.compute_dtype = "float32"

  config.optimizer.learning_rate = 4e-3
  config.optimizer.puzzle_learning_rate = 4e-3
  config.optimizer.warmup_steps = 60
  config.optimizer.weight_decay = 0.1
  config.optimizer.puzzle_weight_decay = 0.1
  config.optimizer.ema_decay = 0.98

  config.train.batch_size = 64
  config.train.num_steps = 700

  config.eval.every_steps = 350
  config.eval.batch_size = 250

  config.checkpoint.every_steps = 350
  config.log.every_steps = 50
  return config
