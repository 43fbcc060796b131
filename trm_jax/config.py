"""The one door through which settings enter: ConfigDict to dataclasses.

Experiments are ml_collections ConfigDicts with the groups below (every knob,
its default and unit stand in experiments/base.py). Nothing past this file
sees a ConfigDict: a misspelt, missing or impossible knob stops here, by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from trm_jax import checks, errors, model_config, settings

TASKS = (
  "sudoku",
  "generated_sudoku",
  "maze",
  "generated_maze",
  "arc",
  "generated_arc",
  "grid",
)

SOLVERS = ("fixed", "adaptive", "rollouts")  # see solve.py

_LARGEST_SEED = 2**31 - 1
_LARGEST_SIDE = 30  # of a grid


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
    checks.one_of("optimizer.name", self.name, ("adam_atan2", "adamw", "muon"))
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
      checks.at_least(f"optimizer.{name}", getattr(self, name), 0)
    ratio = self.min_learning_rate_ratio
    checks.between("optimizer.min_learning_rate_ratio", ratio, 0, 1)
    for name in ("beta1", "beta2", "muon_momentum", "ema_decay"):
      checks.decay(f"optimizer.{name}", getattr(self, name))
    checks.at_least("optimizer.muon_iterations", self.muon_iterations, 1)


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Which puzzles, how many, and how they are varied."""

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
  num_variants: int
  prefetch_threads: int
  prefetch_batches: int

  def __post_init__(self):
    checks.one_of("data.task", self.task, TASKS)
    checks.one_of(
      "data.augmentation", self.augmentation, ("none", "fixed", "endless")
    )
    if self.new_rows:
      checks.one_of("data.new_rows", self.new_rows, ("mean", "zeros"))
      checks.one_of("data.task (new_rows)", self.task, ("arc", "generated_arc"))
    for name in ("num_train", "num_test", "num_variants", "prefetch_threads"):
      checks.at_least(f"data.{name}", getattr(self, name), 0)
    for name in ("grid_rows", "grid_cols"):
      checks.between(f"data.{name}", getattr(self, name), 0, _LARGEST_SIDE)
    checks.at_least("data.prefetch_batches", self.prefetch_batches, 1)
    checks.between("data.seed", self.seed, 0, _LARGEST_SEED)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """The loop, the loss and the halting rule."""

  batch_size: int
  num_steps: int
  max_supervision_steps: int
  exploration_prob: float
  halt_rule: str
  answer_loss: str
  label_smoothing: float
  halt_loss_weight: float
  microbatches: int
  frozen_network: bool
  max_minutes: float

  def __post_init__(self):
    checks.one_of(
      "train.halt_rule", self.halt_rule, ("halt", "halt_over_continue")
    )
    checks.one_of(
      "train.answer_loss", self.answer_loss, ("stablemax", "softmax")
    )
    for name in ("batch_size", "microbatches"):
      checks.at_least(f"train.{name}", getattr(self, name), 1)
    checks.decay("train.label_smoothing", self.label_smoothing)
    checks.at_least("train.halt_loss_weight", self.halt_loss_weight, 0)
    checks.between("train.exploration_prob", self.exploration_prob, 0, 1)
    for name in ("num_steps", "max_minutes"):
      checks.at_least(f"train.{name}", getattr(self, name), 0)
    checks.at_least(
      "train.max_supervision_steps", self.max_supervision_steps, 1
    )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
  """What is evaluated, and how often."""

  every_steps: int
  batch_size: int
  solver: str
  supervision_steps: int
  halt_threshold: float
  puzzles_per_slot: int
  rollouts: int
  noise: float
  choice: str
  report_steps: tuple[int, ...]
  tasks: int
  variants: int
  checkpoint: str

  def __post_init__(self):
    checks.one_of("eval.solver", self.solver, SOLVERS)
    checks.one_of("eval.choice", self.choice, ("confidence", "vote"))
    for name in (
      "batch_size",
      "supervision_steps",
      "puzzles_per_slot",
      "rollouts",
    ):
      checks.at_least(f"eval.{name}", getattr(self, name), 1)
    for name in ("every_steps", "tasks", "variants", "noise"):
      checks.at_least(f"eval.{name}", getattr(self, name), 0)
    checks.between("eval.halt_threshold", self.halt_threshold, 0, 1)
    checks.one_of("eval.checkpoint", self.checkpoint, ("latest", "best"))
    if any(s < 1 or s > self.supervision_steps for s in self.report_steps):
      raise errors.UserError(
        f"config.eval.report_steps {self.report_steps} must lie between 1 and"
        f" config.eval.supervision_steps {self.supervision_steps}"
      )


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When states are saved and which are kept."""

  start_from: str
  every_steps: int
  keep_last: int
  keep_best: int

  def __post_init__(self):
    checks.at_least("checkpoint.every_steps", self.every_steps, 1)
    checks.at_least("checkpoint.keep_last", self.keep_last, 1)
    checks.at_least("checkpoint.keep_best", self.keep_best, 0)


@dataclasses.dataclass(frozen=True)
class LogConfig:
  """What a run leaves to look at."""

  every_steps: int
  tensorboard: bool
  plots: bool

  def __post_init__(self):
    checks.at_least("log.every_steps", self.every_steps, 1)


@dataclasses.dataclass(frozen=True)
class Config:
  """A whole experiment."""

  name: str
  seed: int
  model: model_config.ModelConfig
  optimizer: OptimizerConfig
  data: DataConfig
  train: TrainConfig
  eval: EvalConfig
  checkpoint: CheckpointConfig
  log: LogConfig

  def __post_init__(self):
    checks.between("seed", self.seed, 0, _LARGEST_SEED)
    if not self.name:
      raise errors.UserError("config.name is empty; it names the workdir")


def from_config_dict(config: ml_collections.ConfigDict) -> Config:
  """Returns the frozen settings.

  Args:
    config: all groups of experiments/base.py.

  Raises:
    UserError: a knob is misspelt, missing, of the wrong type or impossible.
  """
  try:
    values = config.to_dict()
  except AttributeError as error:
    raise errors.UserError(
      f"the experiment's get_config() returned {type(config).__name__}, not a"
      " ConfigDict"
    ) from error
  return settings.build(Config, values, "config.")


def flatten(config: Config) -> dict[str, Any]:
  """Returns {"model.hidden_size": 512, ...}."""
  return settings.flatten(config)


def unflatten(flat: Mapping[str, Any]) -> Config:
  """Undoes `flatten`; raises UserError as `from_config_dict`."""
  return settings.unflatten(Config, flat, "config.")


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
  """Returns the settings with others for some, e.g. "eval.solver"."""
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
