r"""The TRM paper's table 3, paper against ours: how many recursions.

  python -m launch.sweep --sweep=experiments/sweeps/table3.py \
    --rows=trm_k1_t1,trm_k2_t2,trm_k4_t4 --devices_per_worker=1 --workers=3

  k  T   hrm_kK_tT (n = k, 4 layers)   trm_kK_tT (n = 2k, 2 layers)
  1  1            46.4 %                         63.2 %
  2  2            55.0 %                         81.9 %
  3  3            61.6 %                         87.4 %
  4  4            59.5 %                         84.2 %
  6  3            62.3 %                      out of memory
  3  6            58.8 %                         85.8 %
  6  6            57.5 %                      out of memory

(arXiv 2510.04871; Sudoku-Extreme, all 422,786 test puzzles.) Not yet run here.
Hours grow with the depth: `trm_k3_t3`, which is `trm` of table 1, takes about
18 on one L40S with the official code, `trm_k6_t6` four times as long. What ran
out of memory there is split by --config.train.microbatches=2 (or more), which
changes no result. --rows, --seeds and `table3.py:quickstart` are as in
table1.py.
"""

from experiments import ablations
from launch.sweeps import table


def get_sweep(words: str = "") -> table.Table:
  """Returns the table; `words` are further variants of all rows."""
  return table.Table(
    title="Table 3 of arXiv 2510.04871: recursions, on Sudoku-Extreme",
    experiment="experiments/ablations.py",
    get_config=ablations.get_config,
    rows={name: ablations.ROWS[name] for name in ablations.TABLES["table3"]},
    words=words,
  )
