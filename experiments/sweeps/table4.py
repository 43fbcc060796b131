r"""The TRM paper's table 4, Sudoku's column, paper against ours.

  python -m launch.sweep --sweep=experiments/sweeps/table4.py \
    --devices_per_worker=1 --workers=4

  direct     a transformer of 8 layers, once    0.0 %
  hrm        HRM                               55.0 %
  attention  TRM with self-attention           74.7 %
  trm        TRM with MLP mixing               87.4 %

(arXiv 2510.04871; Sudoku-Extreme, all 422,786 test puzzles.) Not yet run here.
Hours: about 18 for `trm` on one L40S with the official code; the transformer
needs a small part of that. The language models of the table are not ours to
train. --rows, --seeds and `table4.py:quickstart` are as in table1.py.
"""

from experiments import ablations
from launch.sweeps import table


def get_sweep(words: str = "") -> table.Table:
  """Returns the table; `words` are further variants of all rows."""
  return table.Table(
    title="Table 4 of arXiv 2510.04871: who solves Sudoku-Extreme",
    experiment="experiments/ablations.py",
    get_config=ablations.get_config,
    rows={name: ablations.ROWS[name] for name in ablations.TABLES["table4"]},
    words=words,
  )
