"""Shared by all `:smoke` variants: a few steps of a narrow network."""

import ml_collections


def shrink(config: ml_collections.ConfigDict) -> None:
  """Shrinks an experiment so that it runs within a minute."""
  config.model.hidden_size = 32
  config.model.num_heads = 1
  config.model.mlp_multiple = 32
  config.model.puzzle_embed_dim = 32
  config.model.num_prefix_tokens = 4
  config.model.latent_updates = 2
  config.model.recursion_cycles = 2
  config.optimizer.warmup_steps = 2
  config.train.batch_size = 16
  config.train.num_steps = 6
  config.eval.batch_size = 16
  config.eval.every_steps = 3
  config.checkpoint.every_steps = 3
  config.log.every_steps = 1
