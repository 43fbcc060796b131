r"""Learning rate and weight decay of the quickstart: a grid of eight.

  python -m launch.sweep --config=experiments/quickstart.py \
    --sweep=experiments/sweeps/quickstart.py --workers=2

Every trial is evaluated at half of its steps; once four trials are complete,
those below the median are pruned there.
"""

from optuna import distributions, pruners

from launch import sweep_spec


def get_sweep() -> sweep_spec.Sweep:
  """Returns the sweep."""
  choices = distributions.CategoricalDistribution
  return sweep_spec.Sweep(
    space={
      "optimizer.learning_rate": choices((1e-3, 2e-3, 4e-3, 8e-3)),
      "optimizer.weight_decay": choices((0.1, 1.0)),
    },
    pruner=pruners.MedianPruner(n_startup_trials=4),
  )
