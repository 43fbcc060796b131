r"""Measures on a GPU all that docs/performance.md has a target for.

  python -m benchmarks.gpu --out=runs/gpu --peer='python trm_in_torch.py'

needs no network and ends within --minutes: training, 16-step evaluation and
memory of the experiments at the paper's batch of 768 (or the largest that fits,
first with gradient accumulation), the settings that trade memory for speed, and
a PyTorch peer that takes --config sudoku_mlp, sudoku_att or maze_att, --batch,
--dtype, --device, --steps and --compile. Each row is a process of its own, the
most telling first.

Results are appended to FOLDER/results.jsonl as they come. Repeating the
command measures only the missing rows; --only=Maze selects rows by name. The
last lines are the table, in Markdown. --try measures narrow networks on any
device, to check that everything works.
"""

import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import commands, compare
from trm_jax import errors
from trm_jax.runtime import command_line

_OUT = flags.DEFINE_string("out", None, "Folder for results.jsonl.")
_PEER = flags.DEFINE_string("peer", "", "Command of a PyTorch peer.")
_MINUTES = flags.DEFINE_float("minutes", 8.0, "Time limit.", lower_bound=0.0)
_ONLY = flags.DEFINE_string("only", "", "Only rows with this in their name.")
_TRY = flags.DEFINE_bool("try", False, "Narrow networks, on any device.")

TRAINING, EVALUATION, PEER = "training", "evaluation", "peer"

# Time limit of a row, and the time below which none is started.
_MOST_SECONDS, _LEAST_SECONDS = 150.0, 20.0
_TOO_BIG = ("does not fit", "out of memory", "resource_exhausted")
# By default JAX reserves three quarters of a GPU's memory.
_MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}
# XLA's flags that may pay; trm_jax sets none of them.
_XLA_FLAGS = (
  "xla_gpu_triton_gemm_any=true",
  "xla_gpu_exhaustive_tiling_search=true",
  "xla_gpu_enable_command_buffer=",
)

Record = Mapping[str, Any]  # a line of results.jsonl


@dataclasses.dataclass(frozen=True)
class Row:
  """One row of the table.

  Attributes:
    task: training is compared with the peer of its task.
    kind: TRAINING, EVALUATION or PEER.
    settings: those in which rows of a task and kind differ.
    commands: by size, e.g. '768 in 2 parts'; the first that fits counts.
    xla_flags: in addition to those of the environment.
  """

  task: str
  kind: str
  settings: str
  commands: Mapping[str, Sequence[str]]
  xla_flags: str = ""

  @property
  def name(self) -> str:
    """Names the row; no other has this name."""
    return ", ".join(filter(None, (self.task, self.kind, self.settings)))


# Name in the table, experiment, and the peer's --config.
_Task = tuple[str, str, str]
_TASKS = (
  ("Sudoku MLP", "sudoku", "sudoku_mlp"),
  ("Sudoku attention", "sudoku:attention", "sudoku_att"),
  ("Maze", "maze", "maze_att"),
  ("ARC", "arc", ""),
)

# (share of the slots, parts): each needs less memory than the one before.
_BATCHES = ((1, 1), (1, 2), (1, 4), (2, 4), (4, 4))


def plan(*, peer: Sequence[str] = (), tried: bool = False) -> list[Row]:
  """Lists the rows, the most telling first.

  Args:
    peer: words of the peer's command; may be empty.
    tried: whether networks are narrow and batches small.
  """
  slots = 4 if tried else 768
  mlp, attention, maze, arc = (
    (name + ", tried small" * tried, experiment, peer_name)
    for name, experiment, peer_name in _TASKS
  )
  dtype = f"--config.model.compute_dtype={'float32' if tried else 'bfloat16'}"

  def ours(benchmark: str, task: _Task, *flags: str) -> Sequence[str]:
    file, _, word = task[1].partition(":")
    words = ",".join(filter(None, (word, "smoke" * tried)))
    config = f"--config=experiments/{file}.py" + f":{words}" * bool(words)
    return (sys.executable, "-m", f"benchmarks.{benchmark}", config, *flags)

  def training(
    task: _Task, *, xla_flag: str = "", least_parts: int = 1, **model: Any
  ) -> Row:
    settings = _in_words(model) or xla_flag
    flags = [f"--config.model.{name}={value}" for name, value in model.items()]
    if settings:
      flags.append("--nocompile_seconds")
    return Row(
      task[0],
      TRAINING,
      "in parts, " * (least_parts > 1) + settings,
      {
        f"{slots // share}" + f" in {parts} parts" * (parts > 1): ours(
          "train_step",
          task,
          "--calls=5",
          dtype,
          *flags,
          f"--config.train.batch_size={slots // share}",
          f"--config.train.gradient_accumulation_steps={parts}",
        )
        for share, parts in _BATCHES
        if parts >= least_parts
      },
      f"--{xla_flag}" if xla_flag else "",
    )

  def evaluation(task: _Task, **model: Any) -> Row:
    flags = [f"--config.model.{name}={value}" for name, value in model.items()]
    return Row(
      task[0],
      EVALUATION,
      _in_words(model),
      {
        str(size): ours(
          "solve",
          task,
          *("--calls=3", "--warm_up=1"),
          dtype,
          *flags,
          f"--config.eval.batch_size={size}",
        )
        for size in (slots, slots // 2, slots // 4)
      },
    )

  def peers(task: _Task) -> Iterator[Row]:
    device = ("--device", "cpu", "--dtype", "float32", "--steps", "1")
    if not tried:
      device = ("--device", "cuda", "--dtype", "bfloat16", "--steps", "5")
      device += ("--compile",)
    if peer and task[2]:
      command = (*peer, "--config", task[2], *device)
      sizes = [str(slots // share) for share in (1, 2, 4, 8) if slots // share]
      batches = {size: (*command, "--batch", size) for size in sizes}
      yield Row(task[0], PEER, "", batches)

  memory_for_speed = tuple({"remat": way} for way in ("full", "dots", "none"))
  rows = [
    training(mlp),
    *peers(mlp),
    training(maze),
    *peers(maze),
    evaluation(mlp),
    evaluation(maze),
    training(arc),
    evaluation(mlp, gate_kernel="triton"),
    training(mlp, gate_kernel="triton"),
    evaluation(maze, gate_kernel="triton"),
    training(maze, gate_kernel="triton"),
    training(maze, least_parts=2, gate_kernel="xla"),
    training(maze, least_parts=2, gate_kernel="triton"),
    training(attention),
    *peers(attention),
    evaluation(attention),
    *(training(mlp, xla_flag=flag) for flag in _XLA_FLAGS),
    *(training(mlp, **each) for each in memory_for_speed),
    *(
      training(task, **each, attention_kernel=kernel)
      for task in (maze, attention)
      for kernel in ("cudnn", "xla")
      for each in memory_for_speed
    ),
  ]
  if tried:  # anything but a GPU knows neither these kernels nor these flags
    rows = [
      row
      for row in rows
      if not any(word in row.settings for word in ("triton", "cudnn", "xla_"))
    ]
  return rows


def _in_words(settings: Mapping[str, Any]) -> str:
  return " ".join(f"{name}={value}" for name, value in settings.items())


def measure(
  rows: Sequence[Row],
  records: Sequence[Record],
  *,
  seconds: float,
  run: Callable[..., dict[str, Any]] = commands.run,
  clock: Callable[[], float] = time.monotonic,
) -> Iterator[Record]:
  """Measures the rows without a result, until the time is up.

  Args:
    rows: in the order of worth.
    records: of earlier runs.
    seconds: for all rows.
    run: as `commands.run`.
    clock: in seconds.

  Yields:
    A record of each attempt.
  """
  end = clock() + seconds
  done = results(records)
  too_big = {(each["row"], each["size"]) for each in records if each["too_big"]}
  for row in rows:
    if row.name in done:
      continue
    for size, command in row.commands.items():
      if (row.name, size) in too_big:
        continue
      left = end - clock()
      if left < _LEAST_SECONDS:
        return
      environment = _MEMORY | dict(os.environ)
      xla_flags = f"{environment.get('XLA_FLAGS', '')} {row.xla_flags}".strip()
      if xla_flags:
        environment["XLA_FLAGS"] = xla_flags
      record = {"row": row.name, "size": size, "too_big": False}
      try:
        record["result"] = run(
          command, seconds=min(left, _MOST_SECONDS), environment=environment
        )
      except commands.NoResultError as error:
        text = str(error).lower()
        record["error"] = str(error)
        record["too_big"] = any(words in text for words in _TOO_BIG)
      yield record
      if not record["too_big"]:
        break


def results(records: Sequence[Record]) -> dict[str, Record]:
  """Returns the record of each row that is measured."""
  return {each["row"]: each for each in records if "result" in each}


_HEAD = (
  "what",
  "batch",
  "seconds a step",
  "examples/s",
  "TFLOP/s",
  "of a large product",
  "peak memory",
  "compiled in, cold / cached",
  "times as fast as the peer",
)


def table(rows: Sequence[Row], records: Sequence[Record]) -> Iterator[str]:
  """Yields the lines of the Markdown table, every row in it."""
  measured = results(records)
  failed = {each["row"]: each for each in records if "error" in each}
  peers = {
    row.task: _rate(measured[row.name]["result"])
    for row in rows
    if row.kind == PEER and row.name in measured
  }
  yield _markdown(_HEAD)
  yield _markdown(["---"] * len(_HEAD))
  for row in rows:
    if row.name in measured:
      peer = peers.get(row.task) if row.kind == TRAINING else None
      yield _markdown([row.name, *_cells(measured[row.name], peer)])
    elif row.name in failed:
      last = failed[row.name]
      yield _markdown([row.name, last["size"], f"failed: {last['error']}"])
    else:
      yield _markdown([row.name, "", "not measured"])


def _cells(record: Record, peer: float | None) -> Iterator[str]:
  result = record["result"]
  yield record["size"]
  yield f"{result['seconds_per_step']:.4f}"
  yield f"{_rate(result):.1f}"
  yield _number(result.get("model_tflops_per_second"), "{:.1f}")
  yield _number(result.get("share_of_product"), "{:.1%}")
  peak = result.get("peak_gb") or result["peak_gib"] * 2**30 / 1e9  # the peer's
  yield f"{peak:.2f} GB"
  seconds = [result.get(f"compile_seconds_{how}") for how in ("cold", "cached")]
  yield " / ".join(_number(each, "{:.1f} s") for each in seconds if each)
  yield _number(peer and _rate(result) / peer, "{:.2f}")


def _rate(result: Mapping[str, float]) -> float:
  """Returns examples per second; for evaluation, whole puzzles."""
  return result.get("puzzles_per_second") or result["examples_per_second"]


def _number(value: float | None, form: str) -> str:
  return "" if value is None else form.format(value)


def _markdown(cells: Sequence[str]) -> str:
  cells = [cell.replace("|", "/") for cell in cells]
  return f"| {' | '.join(cells + [''] * (len(_HEAD) - len(cells)))} |"


def read(path: pathlib.Path) -> list[Record]:
  """Returns the records of a file; none if there is no file."""
  found = []
  lines = path.read_text().splitlines() if path.exists() else []
  for number, line in enumerate(lines, start=1):
    try:
      found.append(json.loads(line))
    except ValueError as error:
      raise errors.UserError(
        f"{path}, line {number}: invalid JSON; delete the line"
      ) from error
  return found


def _check_device() -> None:
  """Raises UserError without a GPU; in a process that leaves it its memory."""
  machine = [sys.executable, "-m", "benchmarks.machine"]
  platform = commands.run(machine, field="num_devices")["platform"]
  if platform != "gpu":
    raise errors.UserError(
      f"JAX finds no GPU here, only {platform}; --try measures narrow networks"
      " on any device"
    )


def main(argv: Sequence[str]) -> None:
  """Measures, and prints the table."""
  start = time.monotonic()
  command_line.expect_no_words(argv)
  if not _OUT.value:
    raise errors.UserError("name a folder for the results: --out=FOLDER")
  peer = compare.peer_command(_PEER.value, "--peer") if _PEER.value else []
  rows = [
    row for row in plan(peer=peer, tried=_TRY.value) if _ONLY.value in row.name
  ]
  if not rows:
    raise errors.UserError(f"no row has {_ONLY.value!r} in its name")
  commands.end_children_on_sigterm()
  if _TRY.value:
    print("Narrow networks, and a peer of full size: no measurement.\n")
  else:
    _check_device()
  path = pathlib.Path(_OUT.value) / "results.jsonl"
  records = read(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  seconds = 60 * _MINUTES.value - (time.monotonic() - start)
  with path.open("a") as file:
    for record in measure(rows, records, seconds=seconds):
      records.append(record)
      file.write(json.dumps(record) + "\n")
      file.flush()
      if "result" in record:
        found = f"{record['result']['seconds_per_step']:.4f} s"
      else:
        found = record["error"]
      print(
        f"{record['row']}, batch {record['size']}: {found}",
        file=sys.stderr,
        flush=True,
      )
  print(*table(rows, records), sep="\n")


if __name__ == "__main__":
  command_line.run(main)
