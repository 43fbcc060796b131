r"""Optimizer of Sudoku-Extreme: 24 trials of a third of the steps.

  python -m launch.sweep --config=experiments/sudoku.py \
    --sweep=experiments/sweeps/sudoku.py --devices_per_worker=1 --workers=8

The paper's settings (learning rate 1e-4, weight decay 1, EMA 0.999) are in the
middle of the space. Successive halving keeps a quarter of the trials at 2,500
steps and a quarter of those at 10,000. Every evaluation uses the same 20,000 of
the 422,786 test puzzles, with a standard error of about a third of a percentage
point: the scores compare trials, and that of the best one is optimistic. Train
the best settings with all steps and evaluate them on all puzzles. Not yet run
here.
"""

from optuna import distributions, pruners, samplers

from launch import sweep_spec


def get_sweep() -> sweep_spec.Sweep:
  """Returns the sweep."""
  choices = distributions.CategoricalDistribution
  return sweep_spec.Sweep(
    space={
      "optimizer.learning_rate": distributions.FloatDistribution(
        2e-5, 5e-4, log=True
      ),
      "optimizer.weight_decay": choices((0.1, 0.3, 1.0, 3.0)),
      "optimizer.ema_decay": choices((0.995, 0.999, 0.9995)),
    },
    sampler=samplers.TPESampler(constant_liar=True),
    num_trials=24,
    pruner=pruners.SuccessiveHalvingPruner(
      min_resource=2500, reduction_factor=4
    ),
    fixed={
      "train.num_steps": 20000,
      "eval.every_steps": 2500,
      "data.num_test": 20000,
    },
  )
