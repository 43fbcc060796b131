r"""Your own puzzles: any grid of characters, up to 30x30, or ARC's JSON.

Put train.csv and test.csv (or .csv.gz) into a folder, with the header
`question,answer` and one character per cell, row after row; all grids have the
same size. Square grids need nothing else:

  python -m trm_jax.main --config=experiments/custom.py \
    --config.data.source=FOLDER --workdir=runs/mine

Others need --config.data.grid_rows and --config.data.grid_cols. If the puzzle
is invariant under rotation and reflection, add --config.data.dihedral=True;
list interchangeable symbols, e.g. --config.data.relabel=ABC. Every visit to a
puzzle then sees another variant.

With `arc` (`custom.py:arc`) the folder has training/NAME.json and
evaluation/NAME.json in ARC's format, and every test input is answered by a vote
of the original and up to 100 variants. Its 900 cells call for a GPU.

The network is small and learns on a laptop's CPU, with the settings of
quickstart.py; raise model.hidden_size and train.num_steps for harder puzzles.
"""

import ml_collections

from experiments import arguments, quickstart


def get_config(text: str = "") -> ml_collections.ConfigDict:
  """Returns the config of the variants named in `text`."""
  words = arguments.parse(text, ("arc",))
  config = quickstart.get_config()
  config.name = "_".join(["custom", *sorted(words)])
  config.data.task = "grid"
  config.data.num_train = 0
  config.data.num_test = 0
  if "arc" in words:
    config.data.task = "arc"
    config.data.subsets = ("training", "evaluation")
    config.data.test_subset = "evaluation"
    config.data.augmentation = "fixed"
    config.data.num_augmentations = 100
    config.model.token_mixing = "attention"
    config.model.position_encoding = "rope"
    config.model.num_heads = 2
    config.optimizer.puzzle_learning_rate = 1e-2
    config.train.batch_size = 32
    config.eval.batch_size = 32
  return config
