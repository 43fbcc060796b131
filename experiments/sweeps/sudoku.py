r"""Optimizer of Sudoku-Extreme: 24 trials of a third of the steps.

  python -m launch.sweep --config=experiments/sudoku.py \
    --sweep=experiments/sweeps/sudoku.py --devices_per_worker=1 --workers=8

The paper's settings (learning rate 1e-4, weight decay 1, averaging 0.999) lie
in the middle of what is drawn. Successive halving keeps a quarter of the trials
at 2,500 steps and a quarter of those at 10,000. Every evaluation is of the same
20,000 of the 422,786 test puzzles, with a standard error of about a third of a
percentage point: scores are for comparing trials, and the best one's is a
little too good. Train its settings with all steps, and evaluate them on all
puzzles. Not yet run here.
"""

from launch.sweeps import search


def get_sweep() -> search.Sweep:
  """Returns the sweep."""
  return search.Sweep(
    space={
      "optimizer.learning_rate": search.LogUniform(2e-5, 5e-4),
      "optimizer.weight_decay": search.Choice((0.1, 0.3, 1.0, 3.0)),
      "optimizer.ema_decay": search.Choice((0.995, 0.999, 0.9995)),
    },
    sampler="tpe",
    num_trials=24,
    pruner=search.Halving(first_step=2500, factor=4),
    fixed={
      "train.num_steps": 20000,
      "eval.every_steps": 2500,
      "data.num_test": 20000,
    },
  )
