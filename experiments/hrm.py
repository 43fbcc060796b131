r"""HRM, TRM's predecessor: two 4-layer networks, a one-step gradient.

HRM (arXiv 2506.21734) as the TRM paper reports it (tables 4 and 5), after 16
supervision steps:

  hrm.py        Sudoku-Extreme, 27,276,802 numbers in its checkpoint   55.0 %
  hrm.py:maze   Maze-Hard                                              74.5 %
  hrm.py:arc    ARC-AGI-1 + ConceptARC                                 40.3 %
  hrm.py:arc,2  ARC-AGI-2 + ConceptARC                                  5.0 %

Not yet run here. Its authors' README gives about 10 minutes for Sudoku, an hour
for the maze and a day for ARC, on 8 GPUs. It warns that late training on Sudoku
may become unstable and that scores vary by 2 points.

HRM is TRM's recursion with a separate network for y (HRM's high level; the low
level updates z), n = T = 2, gradients through the last update of z and of y
only, and halting by Q-learning: halt when the halt logit exceeds the continue
logit, whose target needs one more forward pass. One prefix token, no averaged
weights. Everything else is as in sudoku.py, maze.py and arc.py, which also say
where the puzzles come from.

  python -m trm_jax.main --config=experiments/hrm.py --workdir=runs/hrm

--config.model.recursion_cycles=3 --config.model.latent_updates=3 gave 61.6 % on
Sudoku-Extreme (TRM paper, table 3). Its published weights can be imported
(--mode=import; docs/howto/weights.md). Add `smoke` (`hrm.py:smoke`,
`hrm.py:maze,smoke`, `hrm.py:arc,smoke`, `hrm.py:arc,2,smoke`) for a few steps
of a narrow network on generated puzzles.
"""

import ml_collections

from experiments import arc, arguments, maze, sudoku

STEPS = 26041  # Sudoku, Maze: 20,000 epochs of 1,000 puzzles, 768 at a time


def make_hrm(config: ml_collections.ConfigDict) -> None:
  """Turns an experiment with TRM into one with HRM."""
  config.model.separate_networks = True
  config.model.gradient_updates = 1
  config.model.num_layers = 4
  config.model.latent_updates = 2
  config.model.recursion_cycles = 2
  config.model.token_mixing = "attention"
  config.model.position_encoding = "rope"
  config.model.num_prefix_tokens = 1
  config.optimizer.ema_decay = 0.0
  config.train.halt_rule = "halt_over_continue"


def get_config(text: str = "") -> ml_collections.ConfigDict:
  """Returns the config of the variants named in `text`."""
  words = arguments.parse(text, ("maze", "arc", "2", "smoke"))
  if "maze" in words and "arc" in words:
    raise ValueError("choose one of maze, arc")
  if "2" in words and "arc" not in words:
    raise ValueError("2 is a variant of arc: hrm.py:arc,2")
  rest = ",".join(words - {"maze", "arc"})
  if "arc" in words:
    config = arc.get_config(rest)
  else:
    task = maze if "maze" in words else sudoku
    config = task.get_config(rest)
    if "smoke" not in words:
      config.train.num_steps = STEPS
  make_hrm(config)
  config.name = "_".join(["hrm", *sorted(words - {"2"}), *(words & {"2"})])
  return config
