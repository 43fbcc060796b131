r"""The TRM paper's table 1, paper against ours: what of TRM does it.

  python -m launch.sweep --sweep=experiments/sweeps/table1.py \
    --devices_per_worker=1 --workers=8

  hrm                55.0 %    four_layers        79.5 %
  trm                87.4 %    attention          74.7 %
  continue_loss      86.1 %    t2_n2              73.7 %
  separate_networks  82.4 %    one_step_gradient  56.5 %
  no_ema             79.9 %

(arXiv 2510.04871; Sudoku-Extreme, all 422,786 test puzzles.) Not yet run here.
Hours: `trm` takes about 18 on one L40S with the official code, the others by
their depth; all nine are about a week of such a GPU. --rows=trm,no_ema trains
these only, and other rows join the table later; --seeds=0,1,2 gives a mean and
a spread. A trial of the whole table that a laptop finishes, on 6x6 puzzles:

  python -m launch.sweep --sweep=experiments/sweeps/table1.py:quickstart \
    --config.train.num_steps=300
"""

from experiments import ablations
from launch.sweeps import table


def get_sweep(words: str = "") -> table.Table:
  """Returns the table; `words` are further variants of all rows."""
  return table.Table(
    title="Table 1 of arXiv 2510.04871: ablations on Sudoku-Extreme",
    experiment="experiments/ablations.py",
    get_config=ablations.get_config,
    rows={name: ablations.ROWS[name] for name in ablations.TABLES["table1"]},
    words=words,
  )
