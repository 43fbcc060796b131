r"""Learning rate and weight decay of the quickstart: a grid of eight.

  python -m launch.sweep --config=experiments/quickstart.py \
    --sweep=experiments/sweeps/quickstart.py --workers=2

Every trial is evaluated at half of its
steps; once four have ended, those below the median are pruned there.
"""

from launch.sweeps import search


def get_sweep() -> search.Sweep:
  """Returns the sweep."""
  return search.Sweep(
    space={
      "optimizer.learning_rate": search.Choice((1e-3, 2e-3, 4e-3, 8e-3)),
      "optimizer.weight_decay": search.Choice((0.1, 1.0)),
    },
    sampler="grid",
    pruner=search.Median(first_trials=4),
  )
