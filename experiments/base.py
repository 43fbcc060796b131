"""All settings with units and defaults; experiments start from here.

The defaults are the paper's Sudoku-Extreme recipe with MLP mixing
(arXiv 2510.04871), with the numbers of the official README.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked base config."""
  config = ml_collections.ConfigDict()
  config.name = "base"  # the default workdir is runs/<name>
  config.seed = 0  # of weights, exploration draws and data order

  config.model = ml_collections.ConfigDict()
  config.model.hidden_size = 512  # D
  config.model.num_heads = 8  # H, attention only; the head size is D / H
  config.model.num_layers = 2
  # SwiGLU's inner width is 2/3 of mlp_expansion x D, rounded up to a multiple
  # of mlp_multiple.
  config.model.mlp_expansion = 4.0
  config.model.mlp_multiple = 256
  # SwiGLU's silu(gate) * up, or 'normed': sigmoid(gate) * norm(gate * up),
  # which keeps its scale when Muon trains the matrices; or 'conv' (attention
  # only): silu(conv(silu(gate) * up)), over each token and the one before it.
  config.model.mlp_gate = "silu"
  config.model.token_mixing = "mlp"  # 'attention' or 'mlp' over the sequence
  # 'rope', 'rope_2d' (both for attention only), 'learned' or 'none'.
  config.model.position_encoding = "none"
  config.model.rope_theta = 10000.0
  config.model.rms_norm_eps = 1e-5
  # 'mean' or 'attention' over interchangeable symbols (Sudoku's digits): a
  # network that is equivariant to permuting them; see core/equivariant.py. It
  # has no prefix tokens. The heads are those of 'attention'.
  config.model.symbol_mixing = "none"
  config.model.symbol_heads = 4
  config.model.symbol_head_size = 32
  config.model.puzzle_embed_dim = 512  # width of a row of the puzzle table
  config.model.num_prefix_tokens = 16  # P, tokens that hold the puzzle vector
  config.model.latent_updates = 6  # n, updates of z per cycle
  config.model.recursion_cycles = 3  # T; only the last cycle has gradients
  # 'two_latents' (TRM, HRM), 'single_latent', 'latent_per_update' (multi-scale
  # z) or 'direct' (one call on answer and question, no z); see
  # core/recursion.py.
  config.model.recursion_type = "two_latents"
  config.model.separate_networks = False  # True: y has a network of its own
  # Backpropagate through only the last k updates of z, and the update of y, in
  # the last cycle; 0 for all. 1 is HRM's one-step gradient.
  config.model.gradient_updates = 0
  config.model.compute_dtype = "bfloat16"  # 'float32' or 'bfloat16'
  # What the backward pass recomputes: 'none' (most memory), 'dots' (everything
  # but matrix products), 'full' (every network call; least memory). 'auto': on
  # GPU and CPU 'none' if the memory suffices, else 'full'.
  config.model.remat = "auto"
  # 'auto', 'xla', or a fused kernel, which avoids storing the S x S attention
  # weights: 'splash' (TPU), 'cudnn' (NVIDIA GPUs). 'auto' takes the faster one.
  config.model.attention_kernel = "auto"
  # 'xla', or 'triton' (NVIDIA GPUs): one kernel for SwiGLU's products and gate.
  # Not measured yet.
  config.model.gate_kernel = "xla"

  config.optimizer = ml_collections.ConfigDict()
  # 'adam_atan2', 'adamw', or 'muon': Muon for the network's matrices, AdamW for
  # the rest.
  config.optimizer.name = "adam_atan2"
  config.optimizer.learning_rate = 1e-4  # after the warm-up
  config.optimizer.warmup_steps = 2000
  # Final learning rate of the cosine schedule, as a ratio; 1 = constant.
  config.optimizer.min_learning_rate_ratio = 1.0
  config.optimizer.beta1 = 0.9
  config.optimizer.beta2 = 0.95
  config.optimizer.weight_decay = 1.0  # decoupled, times the learning rate
  config.optimizer.muon_learning_rate = 0.02  # this and the next three: 'muon'
  config.optimizer.muon_weight_decay = 0.005  # times muon_learning_rate
  config.optimizer.muon_momentum = 0.95  # Nesterov
  config.optimizer.muon_iterations = 5  # Newton-Schulz iterations
  config.optimizer.max_gradient_norm = 0.0  # global norm clipping; 0: none
  config.optimizer.puzzle_learning_rate = 1e-4  # sign-SGD on the puzzle table
  config.optimizer.puzzle_weight_decay = 1.0
  config.optimizer.ema_decay = 0.999  # 0: evaluate the latest weights

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
  config.data.num_test = 0  # 0: all (generated puzzles: at least 1)
  # Rows and columns of a Sudoku box; 2x2, 2x3 or 3x3 for generated puzzles.
  config.data.box_rows = 3
  config.data.box_cols = 3
  config.data.num_clues = 26  # of a generated Sudoku
  # Grid size of 'grid' and 'generated_maze'; 0 for both: a square that fits
  # the number of characters.
  config.data.grid_rows = 0
  config.data.grid_cols = 0
  config.data.charset = ""  # of 'grid'; empty: all characters in the files
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
  config.data.augmentation = "fixed"  # 'none', 'fixed' or 'endless' variants
  config.data.num_augmentations = 1000  # per puzzle, beside it; for 'fixed'

  config.train = ml_collections.ConfigDict()
  config.train.batch_size = 768  # slots, over all devices and hosts
  # Parts into which the slots of a device are split, processed one after
  # another to save memory; the gradients are summed.
  config.train.gradient_accumulation_steps = 1
  config.train.num_steps = 65104  # supervision steps = optimizer steps
  config.train.max_supervision_steps = 16  # per puzzle
  # Share of puzzles with a random minimum number of supervision steps.
  config.train.exploration_prob = 0.1
  config.train.halt_rule = "halt"  # or 'halt_over_continue' (HRM's)
  config.train.answer_loss = "stablemax"  # or 'softmax' cross-entropy
  config.train.label_smoothing = 0.0  # probability spread over all tokens
  config.train.halt_loss_weight = 0.5
  # Save and stop after this time, e.g. before a job's limit; 0: no limit.
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
  config.eval.batch_size = 768
  # 'fixed': all puzzles take all steps; 'adaptive': a puzzle whose answer the
  # network is confident of makes room for the next one; 'rollouts': several
  # attempts at each puzzle, of which one is selected. The first is 'fixed'.
  config.eval.solver = "fixed"
  config.eval.supervision_steps = 16  # 'adaptive': at most
  # 'adaptive': confidence to stop at, from the halting logit alone, also with
  # train.halt_rule 'halt_over_continue'.
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
  # Checkpoint to read, for --mode=evaluate and for checkpoint.init_from.
  config.eval.checkpoint = "latest"  # or 'best'

  config.checkpoint = ml_collections.ConfigDict()
  # A workdir whose EMA weights and puzzle table a new run starts from.
  config.checkpoint.init_from = ""
  config.checkpoint.every_steps = 1000  # supervision steps
  config.checkpoint.keep_last = 2
  config.checkpoint.keep_best = 1  # by exact accuracy; ARC: by pass@2

  config.log = ml_collections.ConfigDict()
  config.log.every_steps = 50  # supervision steps
  # 'tensorboard', 'wandb' (Weights & Biases; pip install '.[wandb]'), 'mlflow'
  # (pip install '.[mlflow]'); metrics.jsonl is always written.
  config.log.trackers = ("tensorboard",)
  return config.lock()
