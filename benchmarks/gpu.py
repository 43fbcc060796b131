r"""Measures on a GPU all that benchmarks/RESULTS.md has a row for.

  python -m benchmarks.gpu --out=runs/gpu --peer='python trm_in_torch.py'

needs no network and ends within --minutes: training, 16-step evaluation and
memory of the experiments at the paper's batch of 768 (or the largest that fits,
first in several parts), the settings that trade memory for speed, and a
PyTorch peer that takes --config sudoku_mlp, sudoku_att or maze_att, --batch,
--dtype, --device, --steps and --compile. Each row is a process of its own.

Each figure is in FOLDER/results.jsonl as soon as there is one. The same command
typed again measures the rows that are missing; --only=Maze takes only rows with
this in their name. The last lines are the table, in Markdown. --try measures
narrow networks on any device, to see that all of it works.
"""

import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from benchmarks import commands, compare, gpu_rows
from trm_jax import errors
from trm_jax.runtime import command_line

_OUT = flags.DEFINE_string("out", None, "Folder for results.jsonl.")
_PEER = flags.DEFINE_string("peer", "", "Command of a PyTorch peer.")
_MINUTES = flags.DEFINE_float(
  "minutes", 8.0, "When to end, whatever is left.", lower_bound=0.0
)
_ONLY = flags.DEFINE_string("only", "", "Rows with this in their name.")
_TRY = flags.DEFINE_bool("try", False, "Narrow networks, on any device.")

# Of a row: longer than any should take; less than this is not worth a start.
_MOST_SECONDS, _LEAST_SECONDS = 150.0, 20.0
_TOO_BIG = ("does not fit", "out of memory", "resource_exhausted")
# JAX takes three quarters of a GPU's memory where nothing is said.
_MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92"}

Record = Mapping[str, Any]  # a line of results.jsonl
Run = Callable[..., dict[str, Any]]  # as commands.run


def measure(
  rows: Sequence[gpu_rows.Row],
  records: Sequence[Record],
  *,
  seconds: float,
  run: Run,
  clock: Callable[[], float] = time.monotonic,
) -> Iterator[Record]:
  """Measures the rows that have no result yet, until the time is over.

  Args:
    rows: in the order of worth.
    records: of earlier runs.
    seconds: for all rows.
    run: as `commands.run`.
    clock: in seconds.

  Yields:
    A record of each attempt, as soon as there is one.
  """
  end = clock() + seconds
  done = results(rows, records)
  fitting: dict[str, int] = {}  # by ladder
  for row in rows:
    if row.name in done:
      continue
    for number in range(fitting.get(row.ladder, 0), len(row.attempts)):
      left = end - clock()
      if left < _LEAST_SECONDS:
        return
      record = _attempt(row, number, min(left, _MOST_SECONDS), run)
      yield record
      if not record["too_big"]:
        fitting[row.ladder] = number
        break


def _attempt(
  row: gpu_rows.Row, number: int, seconds: float, run: Run
) -> Record:
  attempt = row.attempts[number]
  found: dict[str, Any]
  environment = _MEMORY | dict(os.environ)
  if attempt.xla_flags:
    given = environment.get("XLA_FLAGS", "")
    environment["XLA_FLAGS"] = f"{given} {attempt.xla_flags}".strip()
  try:
    result = run(attempt.command, seconds=seconds, environment=environment)
  except commands.MeasuredNothingError as error:
    text = str(error).lower()
    found = {
      "error": str(error),
      "too_big": any(words in text for words in _TOO_BIG),
    }
  else:
    most = row.most_gb
    too_big = most is not None and result["peak_gb"] > most
    found = {"result": result, "too_big": too_big}
  return {"row": row.name, "size": attempt.size, **found}


def results(
  rows: Sequence[gpu_rows.Row], records: Sequence[Record]
) -> dict[str, Record]:
  """Returns the record that counts of each row that is measured."""
  names = {row.name for row in rows}
  return {
    record["row"]: record
    for record in records
    if record["row"] in names and "result" in record and not record["too_big"]
  }


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


def table(
  rows: Sequence[gpu_rows.Row], records: Sequence[Record]
) -> Iterator[str]:
  """Yields the lines of the Markdown table, every row in it."""
  measured = results(rows, records)
  failed = {record["row"]: record for record in records if "error" in record}
  peers = {
    row.task: _rate(measured[row.name]["result"])
    for row in rows
    if row.kind == gpu_rows.PEER and row.name in measured
  }
  yield _markdown(_HEAD)
  yield _markdown(["---"] * len(_HEAD))
  for row in rows:
    if row.name in measured:
      peer = peers.get(row.task) if row.kind == gpu_rows.TRAINING else None
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
  yield f"{_peak_gb(result):.2f} GB"
  seconds = [result.get(f"compile_seconds_{how}") for how in ("cold", "cached")]
  yield " / ".join(_number(each, "{:.1f} s") for each in seconds if each)
  yield _number(peer and _rate(result) / peer, "{:.2f}")


def _rate(result: Mapping[str, float]) -> float:
  """Returns examples per second; of an evaluation, whole puzzles."""
  name = "puzzles" if "puzzles_per_second" in result else "examples"
  return result[f"{name}_per_second"]


def _peak_gb(result: Mapping[str, float]) -> float:
  if "peak_gb" in result:
    return result["peak_gb"]
  return result["peak_gib"] * 2**30 / 1e9  # the peer's


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
        f"{path}, line {number}: this is no JSON; delete the line"
      ) from error
  return found


def _check_device() -> None:
  """Raises UserError without a GPU; leaves its memory to the rows."""
  machine = [sys.executable, "-m", "benchmarks.machine"]
  platform = commands.run(machine, field="num_devices")["platform"]
  if platform != "gpu":
    raise errors.UserError(
      f"there is no GPU that JAX can use here, only {platform}; --try measures"
      " narrow networks on any device"
    )


def main(argv: Sequence[str]) -> None:
  """Measures, and prints the table."""
  start = time.monotonic()
  command_line.expect_no_words(argv)
  if not _OUT.value:
    raise errors.UserError("name a folder for the results: --out=FOLDER")
  peer = compare.peer_command(_PEER.value, "--peer") if _PEER.value else []
  rows = [
    row
    for row in gpu_rows.plan(peer=peer, tried=_TRY.value)
    if _ONLY.value in row.name
  ]
  if not rows:
    raise errors.UserError(f"no row has {_ONLY.value!r} in its name")
  commands.end_with_what_was_started()
  if _TRY.value:
    print("Narrow networks, beside a peer of full size: no measurement.\n")
  else:
    _check_device()
  path = pathlib.Path(_OUT.value) / "results.jsonl"
  records = read(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  seconds = 60 * _MINUTES.value - (time.monotonic() - start)
  with path.open("a") as file:
    for record in measure(rows, records, seconds=seconds, run=commands.run):
      records.append(record)
      file.write(json.dumps(record) + "\n")
      file.flush()
      print(_progress(record), file=sys.stderr, flush=True)
  print(*table(rows, records), sep="\n")


def _progress(record: Record) -> str:
  if "result" in record:
    said = f"{record['result']['seconds_per_step']:.4f} s"
  else:
    said = record["error"]
  return f"{record['row']}, batch {record['size']}: {said}"


if __name__ == "__main__":
  command_line.run(main)
