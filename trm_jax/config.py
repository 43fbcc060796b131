"""Settings: ml_collections ConfigDicts become frozen dataclasses here.

Experiments are ConfigDicts with the groups below; experiments/base.py documents
every setting, its default and its unit. No other module sees a ConfigDict: a
misspelled, missing or impossible setting is rejected here, by name. Names of
variants that `core` defines (e.g. `model.token_mixing`) are checked by
`runtime.setting_checks`, where the registries are known.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ml_collections

from trm_jax import errors, settings

SOLVERS = ("fixed", "adaptive", "rollouts")  # see core/solve_batch.py

_T = TypeVar("_T")

_LARGEST_SEED = settings.LARGEST
_LARGEST_SIDE = 30  # of a grid
# Arrays of these sizes can be described, though no device may hold them, and
# what is unrolled can be compiled.
_LARGEST_WIDTH, _LARGEST_DEPTH, _LARGEST_BATCH = 2**16, 2**10, 2**24


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """The network and its recursion (paper, section 4)."""

  hidden_size: int
  num_heads: int
  num_layers: int
  mlp_expansion: float
  mlp_multiple: int
  mlp_gate: str
  token_mixing: str
  position_encoding: str
  rope_theta: float
  rms_norm_eps: float
  symbol_mixing: str
  symbol_heads: int
  symbol_head_size: int
  puzzle_embed_dim: int
  num_prefix_tokens: int
  latent_updates: int
  recursion_cycles: int
  recursion_type: str
  separate_networks: bool
  gradient_updates: int
  compute_dtype: str
  remat: str
  attention_kernel: str
  gate_kernel: str

  def __post_init__(self):
    positions = {"rope": 2, "rope_2d": 4, "learned": 1, "none": 1}
    one_of("model.position_encoding", self.position_encoding, tuple(positions))
    one_of("model.compute_dtype", self.compute_dtype, ("float32", "bfloat16"))
    one_of("model.remat", self.remat, ("auto", "none", "dots", "full"))
    one_of(
      "model.attention_kernel",
      self.attention_kernel,
      ("auto", "xla", "splash", "cudnn"),
    )
    one_of("model.gate_kernel", self.gate_kernel, ("xla", "triton"))
    for name in (
      *("hidden_size", "num_heads", "mlp_multiple"),
      *("symbol_heads", "symbol_head_size"),
    ):
      at_least(f"model.{name}", getattr(self, name), 1, most=_LARGEST_WIDTH)
    for name in ("num_layers", "latent_updates", "recursion_cycles"):
      at_least(f"model.{name}", getattr(self, name), 1, most=_LARGEST_DEPTH)
    for name in ("puzzle_embed_dim", "num_prefix_tokens"):
      at_least(f"model.{name}", getattr(self, name), 0, most=_LARGEST_WIDTH)
    between(
      "model.gradient_updates", self.gradient_updates, 0, self.latent_updates
    )
    at_least("model.mlp_expansion", self.mlp_expansion, 0, most=_LARGEST_DEPTH)
    for name in ("mlp_expansion", "rope_theta", "rms_norm_eps"):
      positive(f"model.{name}", getattr(self, name))
    if self.token_mixing == "attention" and self.hidden_size % self.num_heads:
      raise errors.UserError(
        f"config.model.hidden_size {self.hidden_size} does not divide into"
        f" config.model.num_heads {self.num_heads}"
      )
    pairs = positions[self.position_encoding]  # heads are multiples of this
    if pairs > 1 and self.token_mixing == "mlp":
      raise errors.UserError(
        f"config.model.position_encoding {self.position_encoding!r} rotates"
        " attention's queries and keys; with token_mixing 'mlp' choose 'none'"
        " or 'learned'"
      )
    if self.hidden_size // self.num_heads % pairs:
      raise errors.UserError(
        f"config.model.position_encoding {self.position_encoding!r} needs heads"
        f" whose size is a multiple of {pairs}, not"
        f" {self.hidden_size // self.num_heads}; change"
        " config.model.num_heads or config.model.hidden_size"
      )
    if self.symbol_mixing != "none":
      self._check_symbols()
    if self.puzzle_embed_dim > self.num_prefix_tokens * self.hidden_size:
      raise errors.UserError(
        f"config.model.puzzle_embed_dim {self.puzzle_embed_dim} does not"
        f" fit into {self.num_prefix_tokens} prefix tokens of"
        f" {self.hidden_size}; raise config.model.num_prefix_tokens"
      )
    if self.num_prefix_tokens and not self.puzzle_embed_dim:
      raise errors.UserError(
        "config.model.num_prefix_tokens needs a puzzle vector: set"
        " config.model.puzzle_embed_dim, or no prefix tokens"
      )

  def _check_symbols(self):
    if self.num_prefix_tokens or self.position_encoding == "learned":
      raise errors.UserError(
        "config.model.symbol_mixing needs config.model.num_prefix_tokens and"
        " puzzle_embed_dim 0 and position_encoding 'rope_2d' or 'none'"
      )
    if self.hidden_size % self.symbol_heads:
      raise errors.UserError(
        f"config.model.hidden_size {self.hidden_size} does not divide into"
        f" config.model.symbol_heads {self.symbol_heads}"
      )


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Optimizer, schedule, puzzle table and weight average."""

  name: str
  learning_rate: float
  warmup_steps: int
  min_learning_rate_ratio: float
  beta1: float
  beta2: float
  weight_decay: float
  muon_learning_rate: float
  muon_weight_decay: float
  muon_momentum: float
  muon_iterations: int
  max_gradient_norm: float
  puzzle_learning_rate: float
  puzzle_weight_decay: float
  ema_decay: float

  def __post_init__(self):
    for name in (
      "warmup_steps",
      "learning_rate",
      "weight_decay",
      "muon_learning_rate",
      "muon_weight_decay",
      "max_gradient_norm",
      "puzzle_learning_rate",
      "puzzle_weight_decay",
    ):
      at_least(f"optimizer.{name}", getattr(self, name), 0)
    ratio = self.min_learning_rate_ratio
    between("optimizer.min_learning_rate_ratio", ratio, 0, 1)
    for name in ("beta1", "beta2", "muon_momentum", "ema_decay"):
      decay(f"optimizer.{name}", getattr(self, name))
    iterations = self.muon_iterations
    at_least("optimizer.muon_iterations", iterations, 1, most=_LARGEST_DEPTH)


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Puzzles, their number and their augmentation."""

  task: str
  source: str
  cache_dir: str
  seed: int
  num_train: int
  num_test: int
  box_rows: int
  box_cols: int
  num_clues: int
  grid_rows: int
  grid_cols: int
  charset: str
  dihedral: bool
  relabel: str
  subsets: tuple[str, ...]
  test_subset: str
  identifiers: str
  new_rows: str
  augmentation: str
  num_augmentations: int

  def __post_init__(self):
    one_of("data.augmentation", self.augmentation, ("none", "fixed", "endless"))
    if self.new_rows:
      one_of("data.new_rows", self.new_rows, ("mean", "zeros"))
    for name in ("num_train", "num_test", "num_augmentations"):
      at_least(f"data.{name}", getattr(self, name), 0)
    for name in ("grid_rows", "grid_cols"):
      between(f"data.{name}", getattr(self, name), 0, _LARGEST_SIDE)
    between("data.seed", self.seed, 0, _LARGEST_SEED)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Training loop, loss and halting rule."""

  batch_size: int
  num_steps: int
  max_supervision_steps: int
  exploration_prob: float
  halt_rule: str
  answer_loss: str
  label_smoothing: float
  halt_loss_weight: float
  gradient_accumulation_steps: int
  stagger_slots: bool
  depth_curriculum: bool
  step_loss_decay: float
  num_starts: int
  freeze_network: bool
  time_limit_minutes: float

  def __post_init__(self):
    one_of("train.halt_rule", self.halt_rule, ("halt", "halt_over_continue"))
    for name in ("batch_size", "gradient_accumulation_steps", "num_starts"):
      at_least(f"train.{name}", getattr(self, name), 1, most=_LARGEST_BATCH)
    positive("train.step_loss_decay", self.step_loss_decay)
    decay("train.label_smoothing", self.label_smoothing)
    between("train.exploration_prob", self.exploration_prob, 0, 1)
    for name in ("num_steps", "time_limit_minutes", "halt_loss_weight"):
      at_least(f"train.{name}", getattr(self, name), 0)
    at_least("train.max_supervision_steps", self.max_supervision_steps, 1)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """Evaluation: what, how and how often."""

  every_steps: int
  batch_size: int
  solver: str
  supervision_steps: int
  halt_threshold: float
  rollouts: int
  rollout_variation: str
  noise: float
  rollout_halting: str
  rollout_selection: str
  max_tasks: int
  max_augmentations: int
  checkpoint: str

  def __post_init__(self):
    one_of("eval.solver", self.solver, SOLVERS)
    for name in ("batch_size", "supervision_steps", "rollouts"):
      at_least(f"eval.{name}", getattr(self, name), 1, most=_LARGEST_BATCH)
    for name in ("every_steps", "max_tasks", "max_augmentations", "noise"):
      at_least(f"eval.{name}", getattr(self, name), 0)
    between("eval.halt_threshold", self.halt_threshold, 0, 1)
    one_of("eval.checkpoint", self.checkpoint, ("latest", "best"))

  @property
  def report_steps(self) -> tuple[int, ...]:
    """Steps after which accuracy is reported: powers of two and the last."""
    last = self.supervision_steps
    powers = (2**i for i in range(last.bit_length()))
    return tuple(sorted({*powers, last}))


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When checkpoints are saved and which are kept."""

  init_from: str
  every_steps: int
  keep_last: int
  keep_best: int

  def __post_init__(self):
    at_least("checkpoint.every_steps", self.every_steps, 1)
    at_least("checkpoint.keep_last", self.keep_last, 1)
    at_least("checkpoint.keep_best", self.keep_best, 0)


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """Logging."""

  every_steps: int
  trackers: tuple[str, ...]

  def __post_init__(self):
    at_least("log.every_steps", self.every_steps, 1)


@dataclasses.dataclass(frozen=True)
class Config:
  """A whole experiment."""

  name: str
  seed: int
  model: ModelConfig
  optimizer: OptimizerConfig
  data: DataConfig
  train: TrainConfig
  eval: EvalConfig
  checkpoint: CheckpointConfig
  log: LogConfig

  def __post_init__(self):
    between("seed", self.seed, 0, _LARGEST_SEED)
    if not self.name:
      raise errors.UserError("config.name is empty; it names the workdir")


def from_config_dict(config: ml_collections.ConfigDict) -> Config:
  """Returns the frozen settings.

  Args:
    config: all groups of experiments/base.py.

  Raises:
    UserError: a setting is misspelled, missing, impossible or of the wrong
      type.
  """
  try:
    values = config.to_dict()
  except AttributeError as error:
    raise errors.UserError(
      f"the experiment's get_config() returned {type(config).__name__}, not a"
      " ConfigDict"
    ) from error
  return settings.build(Config, values, "config.")


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
  """Returns the settings as a ConfigDict; `from_config_dict` undoes it."""
  return ml_collections.ConfigDict(dataclasses.asdict(config))


def flatten(config: Config) -> dict[str, Any]:
  """Returns {"model.hidden_size": 512, ...}."""
  return settings.flatten(config)


def unflatten(flat: Mapping[str, Any]) -> Config:
  """Inverts `flatten`; raises UserError as `from_config_dict` does."""
  return settings.unflatten(Config, flat, "config.")


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
  """Returns the settings with changes to some, e.g. "eval.solver"."""
  return unflatten(flatten(config) | dict(changes))


def knob_names() -> tuple[str, ...]:
  """Returns the dotted name of every setting."""
  names = []
  for field in dataclasses.fields(Config):
    if dataclasses.is_dataclass(field.type):
      names += [
        f"{field.name}.{knob.name}" for knob in dataclasses.fields(field.type)
      ]
    else:
      names.append(field.name)
  return tuple(names)


def fill(kind: Callable[..., _T], *groups: Any, **values: Any) -> _T:
  """Builds a dataclass whose fields have the names of settings.

  Args:
    kind: the dataclass, e.g. `core.layers.NetworkConfig`.
    *groups: settings; each field takes the setting of its name, if there is
      one.
    **values: of the other fields, and of those that override settings.
  """
  found = {
    field.name: getattr(group, field.name)
    for field in dataclasses.fields(kind)  # type: ignore[arg-type]
    for group in groups
    if hasattr(group, field.name)
  }
  return kind(**(found | values))


# Checks of single settings; errors name the setting and its valid values.


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
  """Raises UserError unless `value` is one of `choices`."""
  if value not in choices:
    raise errors.UserError(
      f"config.{name} is {value!r}; choose one of {', '.join(choices)}"
    )


def between(name: str, value: float, least: float, most: float) -> None:
  """Raises UserError unless least <= value <= most."""
  if not least <= value <= most:  # NaN, too, is refused
    raise errors.UserError(
      f"config.{name} is {value}; it must lie between {least} and {most}"
    )


def at_least(
  name: str, value: float, least: float, *, most: float = math.inf
) -> None:
  """Raises UserError unless value is finite and least <= value <= most."""
  if value > most and value < math.inf:
    raise errors.UserError(
      f"config.{name} is {value}; it must be at most {most}"
    )
  if not least <= value < math.inf:
    raise errors.UserError(
      f"config.{name} is {value}; it must be at least {least}"
    )


def positive(name: str, value: float) -> None:
  """Raises UserError unless value is finite and > 0."""
  if not 0 < value < math.inf:
    raise errors.UserError(f"config.{name} is {value}; it must be above 0")


def decay(name: str, value: float) -> None:
  """Raises UserError unless 0 <= value < 1."""
  if not 0 <= value < 1:
    raise errors.UserError(
      f"config.{name} is {value}; it must be at least 0 and below 1"
    )
