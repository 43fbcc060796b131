r"""Maze-Hard: the shortest path through 30x30 mazes, 1,000 to learn from.

Paper (arXiv 2510.04871, table 4; official README): exact accuracy on the 1,000
test mazes after 16 supervision steps

  maze.py    attention with RoPE, 6,822,914 parameters    85.3 %

Not yet run here. The official code takes less than 24 hours on four L40S (its
README at commit e7b6871). A step at batch 768 is 305 TFLOP; 65,104 steps take 7
hours at 790 TFLOP/s, which is the floor on an H200.

Every maze has several shortest paths. The label is the one that a breadth-first
search finds when it tries down, left, right and up in this order. A rotated or
reflected label is also a shortest path, but not the one that the test expects,
so augmentation is off; --config.data.augmentation=endless draws one of the
eight symmetries at every visit. Evaluations also report the share of answers
that are any shortest path. Cell accuracy says little: the question itself has
87.5 % of the cells right.

  python -m trm_jax.main --config=experiments/maze.py --workdir=runs/maze

downloads the public files; --config.data.source=FOLDER reads train.csv[.gz] and
test.csv[.gz] from a folder. Add `smoke` (`maze.py:smoke`) for a few steps of a
narrow network on small generated mazes, which need no files.
"""

import ml_collections

from experiments import arguments, base, smoke


def get_config(text: str = "") -> ml_collections.ConfigDict:
  """Returns the config of the variants named in `text`."""
  words = arguments.parse(text, ("smoke",))
  config = base.get_config()
  config.name = "_".join(["maze", *sorted(words)])
  config.data.task = "maze"
  config.data.num_train = 0
  config.data.augmentation = "none"
  config.model.token_mixing = "attention"
  config.model.position_encoding = "rope"
  config.model.latent_updates = 4
  config.eval.noise = 1.0  # of solver=rollouts: PTRM's for mazes, with a vote
  config.eval.rollout_selection = "vote"
  if "smoke" in words:
    smoke.shrink(config)
    config.data.task = "generated_maze"
    config.data.grid_rows = 8
    config.data.grid_cols = 10
    config.data.num_train = 32
    config.data.num_test = 16
  return config
