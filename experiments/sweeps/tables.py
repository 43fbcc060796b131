r"""The TRM paper's tables 1 to 4 on Sudoku-Extreme, paper against ours.

  python -m launch.sweep --sweep=experiments/sweeps/tables.py:1 \
    --devices_per_worker=1 --workers=8

Test accuracy in the paper (arXiv 2510.04871; all 422,786 test puzzles), in %:

  1  which part of TRM matters
     hrm                55.0    four_layers        79.5
     trm                87.4    attention          74.7
     continue_loss      86.1    t2_n2              73.7
     separate_networks  82.4    one_step_gradient  56.5
     no_ema             79.9
  2  number of latents: trm (y and z) 87.4; multi_scale (a z for each update)
     77.6; single_latent (y alone) 71.9
  3  number of recursions; n = 2K with TRM's 2 layers, n = K with HRM's 4
     K  T   hrm_kK_tT   trm_kK_tT
     1  1        46.4        63.2
     2  2        55.0        81.9
     3  3        61.6        87.4
     4  4        59.5        84.2
     6  3        62.3        out of memory
     3  6        58.8        85.8
     6  6        57.5        out of memory
  4  Sudoku's column: direct (a transformer of 8 layers, once) 0.0; hrm 55.0;
     attention 74.7; trm 87.4. The language models of this table are left out.

Not yet run here. The official code takes less than 36 hours for `trm` and
`attention` together on one L40S (its README at commit e7b6871); the other rows
take time in proportion to their depth, `trm_k6_t6` four times as long as `trm`.
What ran out of memory in the paper fits with
--config.train.gradient_accumulation_steps=2 (or more), which changes no result.
--rows=trm,no_ema trains these only, and other rows can be added later;
--seeds=0,1,2 gives a mean and a standard deviation. The whole table on 6x6
puzzles, for a laptop:

  python -m launch.sweep --sweep=experiments/sweeps/tables.py:1,quickstart \
    --config.train.num_steps=300
"""

from experiments import ablations, arguments
from launch import sweep_spec

_TITLES = {
  "1": "Table 1 of arXiv 2510.04871: ablations on Sudoku-Extreme",
  "2": "Table 2 of arXiv 2510.04871: number of latents, on Sudoku-Extreme",
  "3": "Table 3 of arXiv 2510.04871: recursions, on Sudoku-Extreme",
  "4": "Table 4 of arXiv 2510.04871: who solves Sudoku-Extreme",
}


def get_sweep(text: str = "1") -> sweep_spec.Table:
  """Returns the table that `text` names, e.g. "1" or "1,quickstart"."""
  words = arguments.parse(text, (*_TITLES, "smoke", "quickstart"))
  numbers = words & set(_TITLES)
  if len(numbers) > 1 or len(words - numbers) > 1:
    raise ValueError(
      f"{text!r}: name one table, and smoke or quickstart, e.g. 1,quickstart"
    )
  number = next(iter(numbers), "1")
  return sweep_spec.Table(
    title=_TITLES[number],
    experiment="experiments/ablations.py",
    get_config=ablations.get_config,
    rows={
      name: (ablations.ROWS[name].text, ablations.ROWS[name].accuracy)
      for name in ablations.TABLES[f"table{number}"]
    },
    variant=",".join(words - numbers),
  )
