r"""The TRM paper's table 2, paper against ours: how many latents.

  python -m launch.sweep --sweep=experiments/sweeps/table2.py \
    --devices_per_worker=1 --workers=3

  trm            y and z                       87.4 %
  multi_scale    a z for each of the updates   77.6 %
  single_latent  y alone                       71.9 %

(arXiv 2510.04871; Sudoku-Extreme, all 422,786 test puzzles.) Not yet run here.
Hours: about 18 each on one L40S, by the official code's README for `trm`. Row
`trm` is also one of tables 1 and 4, each of which has a folder of its own.
--rows, --seeds and `table2.py:quickstart` are as in table1.py.
"""

from experiments import ablations
from launch.sweeps import table


def get_sweep(words: str = "") -> table.Table:
  """Returns the table; `words` are further variants of all rows."""
  return table.Table(
    title="Table 2 of arXiv 2510.04871: number of latents, on Sudoku-Extreme",
    experiment="experiments/ablations.py",
    get_config=ablations.get_config,
    rows={name: ablations.ROWS[name] for name in ablations.TABLES["table2"]},
    words=words,
  )
