r"""Sudoku-Extreme on one GPU: Muon and a normed gate.

The baseline of arXiv 2601.19085v2 (Speed is Confidence, sections 3.4.1 and 5.1;
code github.com/jvdillon/sic, code/sudoku/x182m.py), with one latent per puzzle.
Their accuracy on the first 38,400 test puzzles, with adaptive halting after at
most 16 supervision steps, and ours:

                thousand steps   1   2   3   4   5   6   7   8
  exact %, theirs, seed 42      13  22  45  58  72  83  87  87
                   seed 43       9  16  42  55  67  81  85  86
                   seed 44      19  20  44  61  72  81  85  85
                   seed 45       8  22  38  57  69  80  83  84
                   mean         12  20  42  58  70  81  85  85.5 (+- 1.3)
           ours                  not yet run here

Their training took 48 minutes on an RTX 5090 (0.36 s a step) in 16 GiB; their
logs have another 81 minutes for 16 evaluations.

  python -m trm_jax.main --config=experiments/sudoku_fast.py \
    --workdir=runs/sudoku_fast

Differences from experiments/sudoku.py, and their source:
  Muon for the matrices of the network, AdamW (rate 1e-4, decay 1) for
  embedding and heads: section 3.4.1; momentum 0.6 and 3 iterations: their
  code/experiment.py only. Muon treats gate and up as one matrix, as there.
  The normed gate: section 3.4.1. Without it Muon failed there.
  Softmax cross-entropy with 0.2 label smoothing, halting loss x 0.05: 3.3.
  n = 9, T = 6, batch 384, 8,000 steps: 5.1. 60 network calls a step, not 21.
  Cosine to 0 without warm-up, gradients clipped to norm 1, EMA 0.9 (an average
  over about ten steps) instead of 0.999: code/sudoku/x182.py.
  Endless variants: theirs rotates, reflects and relabels each of the official
  builder's 1,000 variants again at every visit.
  One prefix token instead of 16: total length 82, 4,856,834 parameters.

Differences from theirs:
  Weights are float32 and rounded in products; theirs are stored in bfloat16.
  The prefix token is a puzzle vector with sign-SGD, not an embedded token
  with AdamW; the answer head has no bias; tokens are 11, not 12.
  The average starts at the first step, not at step 5,000; both forget what is
  older than 100 steps.
  Muon's first moment is corrected for its zero start and orthogonalized in
  float32, not bfloat16.
  A puzzle that halts makes room for one of the next batch. Theirs keeps puzzles
  waiting in a queue; here the other rows of the batch are dropped, as in the
  official code.

sudoku_fast.py:winner trains the best of four chains of each puzzle, of the same
paper: batch 192, 36,000 steps; theirs reached 96.9 % (+- 0.6) in 6 hours. Not
run here. Theirs draws all four starts and aligns three with singular directions
of a matrix of the first block; here the first start is that of evaluation, and
nothing is aligned.

Cost: 27.7 TFLOP per step, 222 PFLOP in all. Memory by the compiler's account
for a TPU (launch/aot.py, v6e:1x1), not measured: 3.4 GiB for a training step;
19 GiB with --config.model.remat=none, which recomputes nothing.

Add `smoke` for a few steps of a narrow network on generated 9x9 puzzles,
which need no files.
"""

import ml_collections

from experiments import arguments, base, smoke


def get_config(text: str = "") -> ml_collections.ConfigDict:
  """Returns the config of the variants named in `text`."""
  words = arguments.parse(text, ("winner", "smoke"))
  config = base.get_config()
  config.name = "_".join(["sudoku_fast", *sorted(words)])

  config.model.mlp_gate = "normed"
  config.model.latent_updates = 9
  config.model.recursion_cycles = 6
  config.model.num_prefix_tokens = 1

  config.optimizer.name = "muon"
  config.optimizer.muon_momentum = 0.6
  config.optimizer.muon_iterations = 3
  config.optimizer.warmup_steps = 0
  config.optimizer.min_learning_rate_ratio = 0.0
  config.optimizer.max_gradient_norm = 1.0
  config.optimizer.ema_decay = 0.9

  config.data.augmentation = "endless"

  config.train.batch_size = 384
  config.train.num_steps = 8000
  config.train.answer_loss = "softmax"
  config.train.label_smoothing = 0.2
  config.train.halt_loss_weight = 0.05

  if "winner" in words:
    config.train.batch_size = 192
    config.train.num_steps = 36000
    config.train.num_starts = 4

  config.eval.every_steps = 1000
  config.eval.solver = "adaptive"
  config.eval.max_tasks = 38400
  if "smoke" in words:
    smoke.shrink(config)
    config.data.task = "generated_sudoku"
    config.data.num_train = 48
    config.data.num_test = 24
    config.eval.max_tasks = 0
  return config
