r"""What pays in experiments/sudoku_small.py: one setting changed at a time.

  python -m launch.sweep --config=experiments/sudoku_small.py \
    --sweep=experiments/sweeps/sudoku_small.py --config.data.source=FOLDER

Each trial is 204,800 slot-steps (800 steps of 256 slots), about a quarter of an
hour on two idle CPU cores; there are 15. They are judged by answer loss and
cells on the same 1,000 test puzzles, because whole grids come later. The cosine
ends after 800 steps, and the average is shorter than the experiment's (0.99),
which 800 steps would not fill. Repeat what looks like a gain with another seed
(--config.seed=1 --workdir=...). Times per step differ: n = 6 and T = 3 cost
about 1.5 times as much. Results: benchmarks/RESULTS.md.
"""

from optuna import distributions

from launch import sweep_spec

# The experiment's own choice first.
_CHOICES = {
  "train.stagger_slots": (True, False),
  "train.answer_loss": ("stablemax", "softmax"),
  "train.label_smoothing": (0.0, 0.2),
  "train.halt_loss_weight": (0.5, 0.05),
  "train.max_supervision_steps": (16, 8),
  "optimizer.name": ("muon", "adam_atan2"),
  "optimizer.muon_momentum": (0.6, 0.95),
  "optimizer.muon_weight_decay": (0.005, 0.05),
  "optimizer.min_learning_rate_ratio": (0.0, 1.0),
  "optimizer.ema_decay": (0.99, 0.9, 0.998),
  "model.mlp_gate": ("normed", "silu"),
  "model.latent_updates": (4, 6),
  "model.recursion_cycles": (2, 3),
}


def get_sweep() -> sweep_spec.Sweep:
  """Returns the sweep."""
  return sweep_spec.Sweep(
    space={
      name: distributions.CategoricalDistribution(choices)
      for name, choices in _CHOICES.items()
    },
    one_at_a_time=True,
    metric="answer_loss",
    direction="minimize",
    shown=("cell_accuracy", "exact_accuracy"),
    fixed={
      "train.num_steps": 800,
      "eval.every_steps": 200,
      "eval.max_tasks": 1000,
    },
  )
