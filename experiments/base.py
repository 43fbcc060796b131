"""Every knob, once, with its unit and default; experiments start from here.

The defaults are the paper's Sudoku-Extreme recipe with MLP mixing
(arXiv 2510.04871), with the numbers of the official README.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked base config."""
  config = ml_collections.ConfigDict()
  config.name = "base"  # names the default workdir, runs/<name>
  config.seed = 0  # weights, exploration draws, order of the data

  config.model = ml_collections.ConfigDict()
  config.model.hidden_size = 512  # D
  config.model.num_heads = 8  # H, attention only; D = H x head size
  config.model.num_layers = 2
  config.model.mlp_expansion = 4.0  # inner width of SwiGLU = 2/3 of this x D,
  config.model.mlp_multiple = 256  # rounded up to a multiple of this
  # SwiGLU's silu(gate) * up, or 'normed': sigmoid(gate) * norm(gate * up),
  # which keeps its size when Muon trains the matrices.
  config.model.mlp_gate = "silu"
  config.model.token_mixing = "mlp"  # 'attention' or 'mlp' over the sequence
  config.model.position_encoding = (
    "none"  # 'rope' (attention), 'learned' or 'none'
  )
  config.model.rope_theta = 10000.0
  config.model.rms_norm_eps = 1e-5
  config.model.puzzle_embed_dim = 512  # width of a row of the puzzle table
  config.model.num_prefix_tokens = 16  # P, tokens the puzzle vector fills
  config.model.latent_updates = 6  # n, updates of z per cycle
  config.model.recursion_cycles = 3  # T, cycles; only the last has gradients
  # Which latents there are and what updates them: 'two_latents' (TRM, HRM),
  # 'single_latent', 'latent_per_update' (multi-scale z), 'direct' (one call
  # on answer and question, no z); core/recursion.py has them all.
  config.model.recursion_type = "two_latents"
  config.model.separate_networks = False  # True: y has a network of its own
  # Of the last cycle's updates of z the last so many carry gradients, and the
  # update of y; 0: all of them. 1 is HRM's one-step gradient.
  config.model.gradient_updates = 0
  config.model.compute_dtype = "bfloat16"  # 'float32' or 'bfloat16'
  # What the backward pass recomputes: 'none' (most memory; unrolls the
  # differentiated calls), 'dots' (all but matrix products), 'full' (every
  # network call; least memory). 'auto': on GPU and CPU 'none' if it fits into
  # memory, else 'full'.
  config.model.remat = "auto"
  # 'auto', 'xla', or a fused kernel, which saves the memory of all S x S
  # weights: 'splash' (TPU), 'cudnn' (NVIDIA GPUs); auto takes what helps.
  config.model.attention_kernel = "auto"
  # 'xla', or 'triton' (NVIDIA GPUs): a kernel that computes SwiGLU's products
  # and gate at once. Not measured yet.
  config.model.gate_kernel = "xla"

  config.optimizer = ml_collections.ConfigDict()
  # Or 'adamw', or 'muon': matrices of the network by Muon, the rest by AdamW.
  config.optimizer.name = "adam_atan2"
  config.optimizer.learning_rate = 1e-4  # after the warm-up
  config.optimizer.warmup_steps = 2000
  config.optimizer.min_learning_rate_ratio = 1.0  # cosine's end; 1 = constant
  config.optimizer.beta1 = 0.9
  config.optimizer.beta2 = 0.95
  config.optimizer.weight_decay = 1.0  # decoupled, times the learning rate
  config.optimizer.muon_learning_rate = 0.02  # those of name = 'muon' only
  config.optimizer.muon_weight_decay = 0.005  # times this learning rate
  config.optimizer.muon_momentum = 0.95  # Nesterov's
  config.optimizer.muon_iterations = 5  # Newton-Schulz, to orthogonalise
  config.optimizer.max_gradient_norm = 0.0  # over all parameters; 0: no limit
  config.optimizer.puzzle_learning_rate = 1e-4  # sign-SGD on the puzzle table
  config.optimizer.puzzle_weight_decay = 1.0
  config.optimizer.ema_decay = 0.999  # 0: evaluate the newest weights

  config.data = ml_collections.ConfigDict()
  # 'sudoku', 'maze', 'arc', 'grid' (your own puzzles), or 'generated_sudoku',
  # 'generated_maze', 'generated_arc', which need no files.
  config.data.task = "sudoku"
  # A folder: train.csv[.gz] and test.csv[.gz]; ARC's JSON files; or what the
  # official builders wrote. Empty: the public download.
  config.data.source = ""
  config.data.cache_dir = ""  # of prepared data; empty: ~/tensorflow_datasets
  config.data.seed = 0  # of subsets, variants and generated puzzles
  config.data.num_train = 1000  # puzzles, drawn with the seed; 0: all there
  config.data.num_test = 0  # are (generated puzzles: at least 1)
  config.data.box_rows = 3  # Sudoku: a box has this many rows and columns;
  config.data.box_cols = 3  # 2x2, 2x3 or 3x3 for generated puzzles
  config.data.num_clues = 26  # of a generated Sudoku
  config.data.grid_rows = 0  # of 'grid' and 'generated_maze'; 0 for both:
  config.data.grid_cols = 0  # a square, from the number of characters
  config.data.charset = ""  # of 'grid'; empty: all characters in the files
  config.data.dihedral = False  # 'grid': may be turned and mirrored
  config.data.relabel = ""  # 'grid': characters that may change places
  config.data.subsets = ()  # 'arc': what to train on; in this order the
  config.data.test_subset = ""  # variants are drawn. Of this one, which is
  # among them, test outputs are kept for the evaluation
  config.data.identifiers = ""  # 'arc': JSON file that says what the rows of
  # the puzzle table are, or the workdir with it; empty: by the variants' plan
  # Tasks that this list lacks get rows at the end of the trained table of
  # checkpoint.init_from, which begin as the 'mean' of its rows or as 'zeros'.
  config.data.new_rows = ""  # empty: such tasks are an error
  config.data.augmentation = "fixed"  # 'none', 'fixed' or 'endless' variants
  config.data.num_augmentations = 1000  # per puzzle, beside it; for 'fixed'

  config.train = ml_collections.ConfigDict()
  config.train.batch_size = 768  # slots, over all devices and hosts
  # The slots of a device are worked on in so many parts, one after another,
  # for less memory; gradients add up to the same.
  config.train.gradient_accumulation_steps = 1
  config.train.num_steps = 65104  # supervision steps = optimizer steps
  config.train.max_supervision_steps = 16  # per puzzle
  config.train.exploration_prob = 0.1  # of a random least number of steps
  config.train.halt_rule = "halt"  # or 'halt_over_continue' (HRM's)
  config.train.answer_loss = "stablemax"  # or 'softmax' cross-entropy
  config.train.label_smoothing = 0.0  # share that all tokens have in a target
  config.train.halt_loss_weight = 0.5
  # Save and end after so long, e.g. before a time limit; 0: no limit.
  config.train.time_limit_minutes = 0.0
  # True: at the first step, slot i counts as if it had i mod 16 supervision
  # steps behind it, so that not all slots take new puzzles at the same time.
  config.train.stagger_slots = False
  config.train.freeze_network = False  # True: only the puzzle table is trained

  config.eval = ml_collections.ConfigDict()
  config.eval.every_steps = 5000  # supervision steps; 0: only at the end
  config.eval.batch_size = 768
  # 'fixed': all puzzles have all steps; 'adaptive': a puzzle that the network
  # believes to be solved makes room for the next; 'rollouts': several attempts
  # from noisy latents at each, of which one is chosen.
  config.eval.solver = "fixed"
  config.eval.supervision_steps = 16  # with 'adaptive' at most so many
  # 'adaptive': confidence to stop at, by the halting head's first logit alone,
  # also with train.halt_rule 'halt_over_continue'.
  config.eval.halt_threshold = 0.5
  config.eval.rollouts = 8  # 'rollouts': attempts at each puzzle, K
  config.eval.noise = 0.5  # 'rollouts': standard deviation, added before a step
  config.eval.rollout_selection = (
    "confidence"  # 'rollouts': or 'vote', the most frequent
  )
  config.eval.max_tasks = 0  # evaluate the first so many only; 0: all (a task
  # is a single puzzle where puzzles have no variants)
  config.eval.max_augmentations = (
    0  # vote over the first so many of each; 0: all
  )
  # Which checkpoint to read, for --mode=evaluate and checkpoint.init_from.
  config.eval.checkpoint = "latest"  # or 'best'

  config.checkpoint = ml_collections.ConfigDict()
  # A workdir whose averaged weights and puzzle table a new run starts with.
  config.checkpoint.init_from = ""
  config.checkpoint.every_steps = 1000  # supervision steps
  config.checkpoint.keep_last = 2
  config.checkpoint.keep_best = 1  # by exact accuracy; ARC: by pass@2

  config.log = ml_collections.ConfigDict()
  config.log.every_steps = 50  # supervision steps
  return config.lock()
