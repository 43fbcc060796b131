r"""Sudoku-Extreme, 1,000 training puzzles with 1,000 variants each.

Paper (arXiv 2510.04871, table 4; official README): exact accuracy on the
422,786 test puzzles after 16 supervision steps

  sudoku.py              MLP mixing, 5,028,866 parameters         87.4 %
  sudoku.py:attention    attention with RoPE, 6,828,034 parameters 74.7 %

Reruns of the MLP recipe by others report 72 to 87 %, typically 85: e.g. 79.3
(alphaXiv's weights, batch 1,536), 84.8 (the baseline of arXiv 2605.21488),
86.65 (that of arXiv 2511.08653). Not yet run here. The official code takes less
than 36 hours for both runs on one L40S (its README at commit e7b6871). A step
at batch 768 is 32.8 TFLOP; 65,104 steps take 46 minutes at 790 TFLOP/s, which
is the floor on an H200.

  python -m trm_jax.main --config=experiments/sudoku.py \
    --workdir=runs/sudoku

downloads the public files; --config.data.source=FOLDER reads train.csv[.gz] and
test.csv[.gz] from a folder. Add `smoke` (`sudoku.py:smoke`,
`sudoku.py:attention,smoke`) for a few steps of a narrow network on generated
9x9 puzzles, which need no files.
"""

import ml_collections

from experiments import arguments, base, smoke


def get_config(text: str = "") -> ml_collections.ConfigDict:
  """Returns the config of the variants named in `text`."""
  words = arguments.parse(text, ("attention", "smoke"))
  config = base.get_config()
  config.name = "_".join(["sudoku", *sorted(words)])
  if "attention" in words:
    config.model.token_mixing = "attention"
    config.model.position_encoding = "rope"
  if "smoke" in words:
    smoke.shrink(config)
    config.data.task = "generated_sudoku"
    config.data.num_train = 48
    config.data.num_test = 24
  return config
