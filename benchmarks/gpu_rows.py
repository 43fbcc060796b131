"""What `benchmarks.gpu` measures, in the order of worth."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence

from experiments import arc, maze, sudoku

TRAINING, EVALUATION, PEER = "training", "evaluation", "peer"
KERNEL = "gated product"

# Flags of XLA that may pay; none is set by trm_jax.
_XLA_FLAGS = (
  "--xla_gpu_triton_gemm_any=true",
  "--xla_gpu_exhaustive_tiling_search=true",
  "--xla_gpu_enable_command_buffer=",
)


@dataclasses.dataclass(frozen=True)
class Attempt:
  """A command, and how big what it measures is."""

  size: str  # e.g. '768 in 2 parts'
  command: tuple[str, ...]
  xla_flags: str = ""  # beside those of the environment


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of the table."""

  task: str  # rows of a task are compared with its peer's
  kind: str  # TRAINING, EVALUATION, PEER or KERNEL
  settings: str  # those that rows of a task differ in
  attempts: tuple[Attempt, ...]  # the first that fits the memory counts
  # Rows with the same ladder follow each other by the memory they need: where
  # one found its fitting attempt, the next begins.
  ladder: str
  most_gb: float | None = None  # an attempt that needs more does not fit

  @property
  def name(self) -> str:
    """Names the row; no other has this name."""
    return ", ".join(filter(None, (self.task, self.kind, self.settings)))


@dataclasses.dataclass(frozen=True)
class _Task:
  """An experiment and how the peer calls it."""

  name: str
  config: str
  peer: str | None


@dataclasses.dataclass(frozen=True)
class _Scale:
  """How big the measurements are."""

  # (slots, parts): batches to train on, each needs less memory than the last.
  training: tuple[tuple[int, int], ...]
  evaluation: tuple[int, ...]
  peer_batches: tuple[int, ...]
  training_flags: tuple[str, ...]
  evaluation_flags: tuple[str, ...]
  peer_flags: tuple[str, ...]


_PAPER = _Scale(
  training=((768, 1), (768, 2), (768, 4), (384, 4), (192, 4)),
  evaluation=(768, 384, 192),
  peer_batches=(768, 384, 192, 96),
  training_flags=("--calls=5", "--config.model.compute_dtype=bfloat16"),
  evaluation_flags=(
    *("--calls=3", "--warm_up=1"),
    "--config.model.compute_dtype=bfloat16",
  ),
  peer_flags=(
    *("--device", "cuda", "--dtype", "bfloat16"),
    *("--compile", "--steps", "5"),
  ),
)
_TRIED_FLAGS = (
  *("--calls=1", "--warm_up=1"),
  "--config.model.compute_dtype=float32",
)
_TRIED = _Scale(
  training=((4, 1), (4, 2), (2, 2)),
  evaluation=(4, 2),
  peer_batches=(2, 1),
  training_flags=_TRIED_FLAGS,
  evaluation_flags=_TRIED_FLAGS,
  peer_flags=("--device", "cpu", "--dtype", "float32", "--steps", "1"),
)
# What an 80 GB GPU has.
_ARC_GB = 80.0


def plan(*, peer: Sequence[str], tried: bool) -> list[Row]:
  """Lists the rows, the most telling first.

  Args:
    peer: words of a command that takes --config sudoku_mlp, sudoku_att or
      maze_att, --batch, --dtype, --device, --steps and --compile; may be
      empty.
    tried: with narrow networks and few slots, to see that all of it works.
  """
  scale = _TRIED if tried else _PAPER
  mlp, attention, mazes, arcs = _tasks(tried)
  rows = [
    _training(mlp, scale),
    *_peer(mlp, scale, peer),
    _training(mazes, scale),
    *_peer(mazes, scale, peer),
    _evaluation(mlp, scale),
    _evaluation(mazes, scale),
    dataclasses.replace(_training(arcs, scale), most_gb=_ARC_GB),
    *([] if tried else _with_gate_kernel((mlp, mazes), scale)),
    *_in_parts(mazes, scale, kernels=("xla",) if tried else ("xla", "triton")),
    _training(attention, scale),
    *_peer(attention, scale, peer),
    _evaluation(attention, scale),
    *(
      _training(
        mlp,
        scale,
        settings=flag.removeprefix("--"),
        flags=("--nocompile_seconds",),
        xla_flags=flag,
      )
      for flag in ([] if tried else _XLA_FLAGS)
    ),
    *_variants(mlp, scale, kernels=(None,)),
    *_variants(mazes, scale, kernels=("cudnn", "xla")),
    *_variants(attention, scale, kernels=("cudnn", "xla")),
  ]
  if tried:  # cuDNN needs a GPU
    rows = [row for row in rows if "cudnn" not in row.settings]
  return rows


def _tasks(tried: bool) -> Iterator[_Task]:
  for name, module, word, peer in (
    ("Sudoku MLP", sudoku, "", "sudoku_mlp"),
    ("Sudoku attention", sudoku, "attention", "sudoku_att"),
    ("Maze", maze, "", "maze_att"),
    ("ARC", arc, "", None),
  ):
    words = ",".join(filter(None, (word, "smoke" if tried else "")))
    file = f"{module.__name__.replace('.', '/')}.py"
    yield _Task(
      name=f"{name}, tried small" if tried else name,
      config=f"--config={file}" + (f":{words}" if words else ""),
      peer=peer,
    )


def _ours(benchmark: str, task: _Task, *flags: str) -> tuple[str, ...]:
  module = f"benchmarks.{benchmark}"
  return (sys.executable, "-m", module, task.config, *flags)


def _training(
  task: _Task,
  scale: _Scale,
  *,
  settings: str = "",
  kernel: str | None = None,
  flags: Sequence[str] = (),
  xla_flags: str = "",
) -> Row:
  attempts = tuple(
    Attempt(
      f"{slots} in {parts} parts" if parts > 1 else str(slots),
      _ours(
        "train_step",
        task,
        *scale.training_flags,
        *flags,
        f"--config.train.batch_size={slots}",
        f"--config.train.microbatches={parts}",
      ),
      xla_flags,
    )
    for slots, parts in scale.training
  )
  return Row(
    task.name, TRAINING, settings, attempts, f"{task.name}, kernel {kernel}"
  )


def _variants(
  task: _Task, scale: _Scale, *, kernels: Sequence[str | None]
) -> Iterator[Row]:
  """Yields training with the settings that trade memory for speed.

  Args:
    task: to train.
    scale: of the measurement.
    kernels: of attention.
  """
  for kernel in kernels:
    for remat in ("full", "dots", "none"):
      knobs = {"remat": remat}
      if kernel:
        knobs["attention_kernel"] = kernel
      yield _training(
        task,
        scale,
        settings=" ".join(f"{name}={value}" for name, value in knobs.items()),
        kernel=kernel,
        flags=(
          "--nocompile_seconds",
          *(f"--config.model.{name}={value}" for name, value in knobs.items()),
        ),
      )


def _with_gate_kernel(tasks: Sequence[_Task], scale: _Scale) -> Iterator[Row]:
  """Yields the kernel by itself, and steps that use it."""
  kernel = ("--config.model.gate_kernel=triton",)
  for task in tasks:
    command = _ours(
      "gated_product", task, "--calls=10", "--config.eval.batch_size=768"
    )
    yield Row(
      task.name, KERNEL, "", (Attempt("768", command),), f"{task.name}, gate"
    )
    settings = "gate_kernel=triton"
    yield _evaluation(task, scale, settings=settings, flags=kernel)
    yield _training(
      task,
      scale,
      settings=settings,
      flags=("--nocompile_seconds", *kernel),
    )


def _in_parts(
  task: _Task, scale: _Scale, *, kernels: Sequence[str]
) -> Iterator[Row]:
  """Yields training in parts, where the whole batch is too big to keep all.

  Args:
    task: to train.
    scale: of the measurement.
    kernels: of the gates.
  """
  parts = tuple(each for each in scale.training if each[1] > 1)
  for kernel in kernels:
    row = _training(
      task,
      dataclasses.replace(scale, training=parts),
      settings=f"in parts, gate_kernel={kernel}",
      flags=("--nocompile_seconds", f"--config.model.gate_kernel={kernel}"),
    )
    yield dataclasses.replace(row, ladder=f"{task.name}, in parts")


def _evaluation(
  task: _Task,
  scale: _Scale,
  *,
  settings: str = "",
  flags: Sequence[str] = (),
) -> Row:
  attempts = tuple(
    Attempt(
      str(size),
      _ours(
        "solve",
        task,
        *scale.evaluation_flags,
        *flags,
        f"--config.eval.batch_size={size}",
      ),
    )
    for size in scale.evaluation
  )
  return Row(
    task.name, EVALUATION, settings, attempts, f"{task.name}, evaluation"
  )


def _peer(task: _Task, scale: _Scale, command: Sequence[str]) -> Iterator[Row]:
  if command and task.peer:
    attempts = tuple(
      Attempt(
        str(size),
        (
          *command,
          *("--config", task.peer, "--batch", str(size)),
          *scale.peer_flags,
        ),
      )
      for size in scale.peer_batches
    )
    yield Row(task.name, PEER, "", attempts, f"{task.name}, peer")
