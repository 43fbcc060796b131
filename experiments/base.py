"""All settings with units and defaults; every experiment starts from here.

The defaults are the paper's Sudoku-Extreme recipe with MLP mixing (arXiv
2510.04871), with the hyperparameters of the official README.

The comment above a setting, or at the end of its line, documents it; the
settings page of the documentation is generated from these comments.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked base config."""
  config = ml_collections.ConfigDict()
  config.name = "base"  # of the experiment; the default workdir is runs/NAME
  config.seed = 0  # of initial weights, exploration draws and data order

  config.model = ml_collections.ConfigDict()
  config.model.hidden_size = 512  # D, features per token
  config.model.num_heads = 8  # H, attention only; the head size is D / H
  config.model.num_layers = 2  # blocks of the network
  # SwiGLU's inner width, as a multiple of 2/3 of its input size.
  config.model.mlp_expansion = 4.0
  # SwiGLU's inner width is rounded up to a multiple of this.
  config.model.mlp_multiple = 256
  # SwiGLU's gate. 'silu': silu(gate) * up; 'normed': sigmoid(gate) *
  # norm(gate * up), whose scale stays bounded when Muon trains the matrices;
  # 'conv' (attention only): silu(conv(silu(gate) * up)), a convolution over
  # each token and the one before it.
  config.model.mlp_gate = "silu"
  # How tokens are mixed: 'attention', or an 'mlp' over the sequence.
  config.model.token_mixing = "mlp"
  # 'rope', 'rope_2d' (both for attention only), 'learned' or 'none'.
  config.model.position_encoding = "none"
  config.model.rope_theta = 10000.0  # base of RoPE's wavelengths
  config.model.rms_norm_eps = 1e-5  # added to the mean square in RMS norms
  # 'mean' or 'attention' over interchangeable symbols (Sudoku's digits): a
  # network that is equivariant to permuting them, without prefix tokens; see
  # core/equivariant.py. 'none': an ordinary network.
  config.model.symbol_mixing = "none"
  config.model.symbol_heads = 4  # heads of symbol_mixing 'attention'
  config.model.symbol_head_size = 32  # features per head of symbol_mixing
  # E, features per row of the puzzle table; 0 for no puzzle vector.
  config.model.puzzle_embed_dim = 512
  # P, tokens in front of the grid that hold the puzzle vector.
  config.model.num_prefix_tokens = 16
  config.model.latent_updates = 6  # n, updates of z per cycle
  # T, cycles per supervision step; only the last one has gradients.
  config.model.recursion_cycles = 3
  # 'two_latents' (TRM, HRM), 'single_latent', 'latent_per_update' (multi-scale
  # z) or 'direct' (one call on answer and question, no z); see
  # core/recursion.py.
  config.model.recursion_type = "two_latents"
  # True: the updates of y have a network of their own, as in HRM.
  config.model.separate_networks = False
  # Backpropagate through only the last k updates of z, and the update of y, in
  # the last cycle; 0 for all. 1 is HRM's one-step gradient.
  config.model.gradient_updates = 0
  # Of activations and matrix products: 'float32' or 'bfloat16'. Parameters are
  # always float32.
  config.model.compute_dtype = "bfloat16"
  # What the backward pass recomputes: 'none' (most memory), 'dots' (everything
  # but matrix products), 'full' (every network call; least memory). 'auto': on
  # GPU and CPU 'none' if the memory suffices, else 'full'.
  config.model.remat = "auto"
  # 'auto', 'xla', or a fused kernel, which avoids storing the S x S attention
  # weights: 'splash' (TPU), 'cudnn' (NVIDIA GPUs). 'auto' takes the faster one.
  config.model.attention_kernel = "auto"
  # 'xla', or 'triton' (NVIDIA GPUs): one kernel for SwiGLU's products and gate.
  # The kernel has not been measured yet.
  config.model.gate_kernel = "xla"

  config.optimizer = ml_collections.ConfigDict()
  # 'adam_atan2', 'adamw', or 'muon': Muon for the network's matrices, AdamW for
  # the rest.
  config.optimizer.name = "adam_atan2"
  config.optimizer.learning_rate = 1e-4  # after the warm-up
  config.optimizer.warmup_steps = 2000  # of the linear warm-up
  # Final learning rate of the cosine schedule, as a ratio; 1 = constant.
  config.optimizer.min_learning_rate_ratio = 1.0
  config.optimizer.beta1 = 0.9  # decay of the first moment, per step
  config.optimizer.beta2 = 0.95  # decay of the second moment, per step
  config.optimizer.weight_decay = 1.0  # decoupled, times the learning rate
  config.optimizer.muon_learning_rate = 0.02  # 'muon': of the matrices
  config.optimizer.muon_weight_decay = 0.005  # 'muon': times its rate
  config.optimizer.muon_momentum = 0.95  # 'muon': Nesterov momentum
  config.optimizer.muon_iterations = 5  # 'muon': Newton-Schulz iterations
  # Gradients are clipped to this global norm; 0: no clipping.
  config.optimizer.max_gradient_norm = 0.0
  config.optimizer.puzzle_learning_rate = 1e-4  # sign-SGD on the puzzle table
  # Of the puzzle table: decoupled, times puzzle_learning_rate.
  config.optimizer.puzzle_weight_decay = 1.0
  # Decay of the averaged weights, per step; 0: evaluate the latest weights.
  config.optimizer.ema_decay = 0.999

  config.data = ml_collections.ConfigDict()
  # 'sudoku', 'maze', 'arc', 'grid' (your own puzzles), or 'generated_sudoku',
  # 'generated_maze', 'generated_arc', which need no files.
  config.data.task = "sudoku"
  # A folder: train.csv[.gz] and test.csv[.gz]; ARC's JSON files; or a data set
  # of the official builders. Empty: the public download.
  config.data.source = ""
  # For public downloads and ARC's variants; empty: ~/tensorflow_datasets.
  config.data.cache_dir = ""
  config.data.seed = 0  # of subsets, variants and generated puzzles
  config.data.num_train = 1000  # puzzles, drawn with the seed; 0: all of them
  # Puzzles; 0: all of them (generated puzzles: at least 1).
  config.data.num_test = 0
  # Rows of a Sudoku box; generated puzzles have boxes of 2x2, 2x3 or 3x3.
  config.data.box_rows = 3
  config.data.box_cols = 3  # columns of a Sudoku box
  config.data.num_clues = 26  # given cells of a generated Sudoku
  # Rows of the grids of 'grid' and 'generated_maze'; 0 here and in grid_cols:
  # a square that fits the number of characters.
  config.data.grid_rows = 0
  config.data.grid_cols = 0  # columns, likewise
  # 'grid': the characters that may occur; empty: all that do.
  config.data.charset = ""
  # 'grid': the puzzle is invariant under rotation and reflection.
  config.data.dihedral = False
  config.data.relabel = ""  # 'grid': interchangeable symbols
  # 'arc': subsets to train on; variants are drawn in this order.
  config.data.subsets = ()
  # 'arc': the subset, one of the above, whose test outputs are evaluated.
  config.data.test_subset = ""
  # 'arc': JSON file that lists what the rows of the puzzle table stand for, or
  # a workdir with one; empty: given by the variants.
  config.data.identifiers = ""
  # 'arc': tasks missing from that list get new rows at the end of the table of
  # checkpoint.init_from, initialized to the 'mean' of its rows or to 'zeros'.
  # Empty: such tasks are an error.
  config.data.new_rows = ""
  # Variants of the training puzzles: 'none', a 'fixed' number of each, or
  # 'endless' new ones.
  config.data.augmentation = "fixed"
  # 'fixed': variants per puzzle, in addition to the puzzle itself.
  config.data.num_augmentations = 1000

  config.train = ml_collections.ConfigDict()
  config.train.batch_size = 768  # slots, over all devices and hosts
  # Parts into which the slots of a device are split, processed one after
  # another to save memory; the gradients are summed.
  config.train.gradient_accumulation_steps = 1
  # Supervision steps = optimizer steps. To train until time_limit_minutes:
  # 2147483647, the largest number; a cosine schedule then hardly decays.
  config.train.num_steps = 65104
  config.train.max_supervision_steps = 16  # per puzzle, then it must halt
  # Share of puzzles with a random minimum number of supervision steps.
  config.train.exploration_prob = 0.1
  # 'halt': at a positive halting logit; 'halt_over_continue': where it exceeds
  # the continue logit, as in HRM.
  config.train.halt_rule = "halt"
  # Cross-entropy with 'stablemax' or 'softmax'.
  config.train.answer_loss = "stablemax"
  config.train.label_smoothing = 0.0  # probability spread over all tokens
  config.train.halt_loss_weight = 0.5  # total = answer loss + this x halt loss
  # Save and stop after this many minutes, e.g. before a job's time limit; 0: no
  # limit.
  config.train.time_limit_minutes = 0.0
  # True: at the first step, slot i counts as if it had i mod 16 supervision
  # steps behind it, so that not all slots take new puzzles at the same time.
  config.train.stagger_slots = False
  # True: n and T grow to those of the model at 30 % and 60 % of training
  # (CGAR).
  config.train.depth_curriculum = False
  # Weight of a puzzle's loss relative to the supervision step before (CGAR:
  # 0.7), of mean 1 over max_supervision_steps; 1: all alike.
  config.train.step_loss_decay = 1.0
  # K > 1: each puzzle has K chains, from random z; in each step only the one of
  # the lowest answer loss is trained, and its y is given to the others (SiC).
  config.train.num_starts = 1
  config.train.freeze_network = False  # True: only the puzzle table is trained

  config.eval = ml_collections.ConfigDict()
  config.eval.every_steps = 5000  # supervision steps; 0: only at the end
  config.eval.batch_size = 768  # puzzles at a time, over all devices and hosts
  # 'fixed': all puzzles take all steps; 'adaptive': a puzzle whose answer the
  # network is confident of makes room for the next one; 'rollouts': several
  # attempts at each puzzle, of which one is selected. The first is 'fixed'.
  config.eval.solver = "fixed"
  # Per puzzle; 'adaptive': the maximum.
  config.eval.supervision_steps = 16
  # 'adaptive': confidence to stop at, a probability. It comes from the halting
  # logit alone, also with train.halt_rule 'halt_over_continue'.
  config.eval.halt_threshold = 0.5
  config.eval.rollouts = 8  # 'rollouts': attempts per puzzle, K
  # How attempts differ: 'noise' on z before each step, random 'starts' of y and
  # z, or 'symmetries' of the puzzle (not of ARC's).
  config.eval.rollout_variation = "noise"
  config.eval.noise = 0.3  # standard deviation of the 'noise'
  # 'never': all attempts take all steps; 'attempt': each halts at
  # halt_threshold; 'puzzle': the first to do so also ends all others at the
  # same puzzle.
  config.eval.rollout_halting = "never"
  # 'confidence', 'first' (to halt), 'residual' (whose answer changed least in
  # the last three steps), 'vote' (the most frequent answer), or 'rules' (an
  # answer that is valid by the rules of the game; then by confidence).
  config.eval.rollout_selection = "confidence"
  # Evaluate only the first N tasks; 0: all. Without variants, a task is one
  # puzzle.
  config.eval.max_tasks = 0
  # Vote over the first N augmentations of each task only; 0: all.
  config.eval.max_augmentations = 0
  # Checkpoint to read, in all modes but train and for checkpoint.init_from:
  # 'latest' or 'best'.
  config.eval.checkpoint = "latest"

  config.checkpoint = ml_collections.ConfigDict()
  # A workdir whose EMA weights and puzzle table a new run starts from.
  config.checkpoint.init_from = ""
  config.checkpoint.every_steps = 1000  # supervision steps
  config.checkpoint.keep_last = 2  # number of the newest checkpoints to keep
  # Number of the best checkpoints to keep, by exact accuracy (ARC: by pass@2).
  config.checkpoint.keep_best = 1

  config.log = ml_collections.ConfigDict()
  config.log.every_steps = 50  # supervision steps between two lines
  # Where metrics go besides metrics.jsonl: any of 'tensorboard', 'wandb'
  # (Weights & Biases; pip install '.[wandb]'), 'mlflow' (pip install
  # '.[mlflow]').
  config.log.trackers = ("tensorboard",)
  return config.lock()
