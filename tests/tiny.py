"""A tiny experiment, for tests that run the whole loop.

One block and one cycle compile fastest. The warm-up is longer than the runs:
their step is then the same for every number of steps, and compiled once.
"""

from experiments import arc, quickstart
from trm_jax import config as config_lib
from trm_jax.runtime import program


def config_dict():
  config = quickstart.get_config()
  config.name = "tiny"
  config.data.box_rows = 2
  config.data.box_cols = 2
  config.data.num_clues = 6
  config.data.num_train = 24
  config.data.num_test = 12
  config.model.hidden_size = 16
  config.model.mlp_multiple = 16
  config.model.puzzle_embed_dim = 16
  config.model.num_layers = 1
  config.model.latent_updates = 1
  config.model.recursion_cycles = 1
  config.optimizer.learning_rate = 2e-3
  config.optimizer.warmup_steps = 20
  config.optimizer.min_learning_rate_ratio = 1.0
  config.train.batch_size = 8
  config.train.num_steps = 4
  config.train.max_supervision_steps = 3
  config.eval.batch_size = 8
  config.eval.every_steps = 0
  config.eval.supervision_steps = 4
  config.checkpoint.every_steps = 1000
  config.log.every_steps = 1
  return config


def config() -> config_lib.Config:
  return config_lib.from_config_dict(config_dict())


def narrow(config) -> None:
  """Makes an experiment's network as narrow as the tiny one's."""
  config.model.update(
    hidden_size=16,
    mlp_multiple=16,
    puzzle_embed_dim=16,
    num_prefix_tokens=1,
    recursion_cycles=1,
    compute_dtype="float32",  # rounding must not change votes
    remat="none",
  )


def arc_config_dict(**data):
  """Generated ARC tasks, two to train on and two to solve."""
  config = arc.get_config("smoke")
  narrow(config)
  config.data.update({"num_train": 2, "num_test": 2, "num_augmentations": 3})
  config.data.update(data)
  return config


def load_task(config, task, mesh) -> program.Loaded:
  """As `program.load`, with a task and devices of the test's own."""
  sizes = program.DataSpec.of_look(task.look, task.num_puzzle_ids)
  return program.Loaded(program.build(config, sizes, mesh), task)
