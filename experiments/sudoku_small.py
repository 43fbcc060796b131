r"""Sudoku-Extreme on two CPU cores: a network of 383,618 parameters.

For a laptop, without a GPU: the width is a quarter of the paper's (128 instead
of 512), a step has 10 network calls instead of 21. Trained on the same 1,000
puzzles as the paper's network, tested on others. The run is in progress; its
state is in benchmarks/RESULTS.md.

What differs from experiments/sudoku.py:
  Width 128, n = 4, T = 2, one prefix token: 82 tokens in place of 97.
  Muon for the matrices (rate 0.02, decay 0.005, momentum 0.6, 3 iterations),
  AdamW for embedding and heads at rate 1e-3, gradients limited to norm 1, as in
  sudoku_fast.py; the normed gate keeps Muon stable there.
  Cosine to 0 after a warm-up of 20 steps, so that the end depends on
  train.num_steps: a shorter run is another schedule, not this one cut short.
  EMA 0.998, an average over about 500 steps; 0.99 suits runs of 2,000 steps.
  Staggered slots: otherwise all 256 take new puzzles at the same step.
  New variants without end instead of 1,000 for each puzzle.

The log's in-slot accuracy is that of puzzles the network has just been trained
on for up to 16 steps, and far above that of unseen ones at this learning rate.
The test score in the same line is of 500 unseen puzzles, every 1,000 steps.

  python -m trm_jax.main --config=experiments/sudoku_small.py \
    --workdir=runs/sudoku_small

downloads the public files and draws 1,000 training puzzles;
--config.data.source=FOLDER takes train.csv[.gz] and test.csv[.gz] from a
folder, --config.data.num_train=0 all of its training puzzles. An evening (three
hours) instead of the whole run, with a cosine of its own:

  --config.train.num_steps=9000

Evaluate all test puzzles instead of 500 with --mode=evaluate
--config.eval.max_tasks=0. Add `smoke` for a few steps of a narrow network on
generated 9x9 puzzles, which need no files.
"""

import ml_collections

from experiments import arguments, base, smoke


def get_config(text: str = "") -> ml_collections.ConfigDict:
  """Returns the config of the variants named in `text`."""
  words = arguments.parse(text, ("smoke",))
  config = base.get_config()
  config.name = "_".join(["sudoku_small", *sorted(words)])

  config.model.hidden_size = 128
  config.model.puzzle_embed_dim = 128
  config.model.num_prefix_tokens = 1
  config.model.mlp_multiple = 32
  config.model.mlp_gate = "normed"
  config.model.latent_updates = 4
  config.model.recursion_cycles = 2

  config.optimizer.name = "muon"
  config.optimizer.muon_momentum = 0.6
  config.optimizer.muon_iterations = 3
  config.optimizer.max_gradient_norm = 1.0
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = 20
  config.optimizer.min_learning_rate_ratio = 0.0
  config.optimizer.ema_decay = 0.998

  config.data.augmentation = "endless"

  config.train.stagger_slots = True
  config.train.batch_size = 256
  config.train.num_steps = 24000

  config.eval.every_steps = 1000
  config.eval.max_tasks = 500
  config.eval.batch_size = 250

  config.checkpoint.every_steps = 250
  if "smoke" in words:
    smoke.shrink(config)
    config.data.task = "generated_sudoku"
    config.data.num_train = 48
    config.data.num_test = 24
    config.eval.max_tasks = 0
  return config
