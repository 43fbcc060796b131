"""All rows for a GPU, with simulated commands: order, time limit, table."""

import dataclasses
import os
import re

import pytest

from benchmarks import commands, gpu
from trm_jax import config as config_lib
from trm_jax import errors


def _row(name: str, *sizes: int, kind: str = gpu.TRAINING) -> gpu.Row:
  return gpu.Row(
    name, kind, "", {str(size): (name, str(size)) for size in sizes}
  )


class _Simulated:
  """Runs commands that take a minute each, and a clock that knows it."""

  def __init__(self, **results):
    self.results = results  # name -> an error, or {size: fields or an error}
    self.now = 0.0
    self.ran: list[tuple[str, ...]] = []
    self.limits: list[float] = []
    self.xla_flags: list[str | None] = []

  def run(self, command, *, seconds, environment):
    assert environment["PATH"] == os.environ["PATH"]
    self.xla_flags.append(environment.get("XLA_FLAGS"))
    self.ran.append(command)
    self.limits.append(seconds)
    self.now += min(60.0, seconds)
    name, size = command
    result = self.results.get(name, {})
    if isinstance(result, dict):
      result = result.get(int(size), {})
    if isinstance(result, str):
      raise commands.NoResultError(result)
    return {
      "seconds_per_step": 0.5,
      "examples_per_second": 100.0,
      "peak_gb": 60.0,
    } | result

  def measure(self, rows, *, minutes, records=()):
    return list(
      gpu.measure(
        rows,
        records,
        seconds=60 * minutes,
        run=self.run,
        clock=lambda: self.now,
      )
    )


def test_rows_are_measured_in_order_until_the_time_is_over():
  rows = [_row(name, 768) for name in ("a", "b", "c", "d")]
  simulated = _Simulated()
  records = simulated.measure(rows, minutes=2.5)
  assert [record["row"] for record in records] == [
    "a, training",
    "b, training",
    "c, training",
  ]
  # The last had half a minute; no row may take for ever.
  assert simulated.limits == [150.0, 90.0, 30.0]
  lines = list(gpu.table(rows, records))
  assert lines[-1].startswith("| d, training |  | not measured |")
  assert lines[2].startswith("| a, training | 768 | 0.5000 | 100.0 |")


def test_the_same_command_again_measures_what_is_missing():
  rows = [_row(name, 768) for name in ("a", "b", "c")]
  first = _Simulated(a="`a` failed with status 1; it ended with: boom")
  records = first.measure(rows, minutes=2)
  second = _Simulated()
  records += second.measure(rows, minutes=9, records=records)
  assert [name for name, _ in second.ran] == ["a", "c"]
  assert all("failed" not in line for line in gpu.table(rows, records))
  assert not _Simulated().measure(rows, minutes=9, records=records)


def test_what_does_not_fit_is_tried_smaller():
  too_big = "`x` failed; error: this does not fit the memory; lower it"
  rows = [_row("a", 768, 384, 192), _row("b", 768, 384)]
  simulated = _Simulated(
    a={768: too_big, 384: "torch.OutOfMemoryError: CUDA out of memory"}
  )
  # Continued in the middle, without trying again what is known not to fit.
  records = simulated.measure(rows, minutes=1)
  records += simulated.measure(rows, minutes=99, records=records)
  assert simulated.ran == [
    ("a", "768"),
    ("a", "384"),
    ("a", "192"),
    ("b", "768"),
  ]
  assert gpu.results(records)["a, training"]["size"] == "192"


def test_flags_of_xla_are_those_of_a_row_beside_the_users(monkeypatch):
  rows = [
    _row("a", 768),
    dataclasses.replace(_row("b", 768), xla_flags="--xla_b=1"),
  ]
  for mine, expected in (
    (None, [None, "--xla_b=1"]),
    ("--xla_a=1", ["--xla_a=1", "--xla_a=1 --xla_b=1"]),
  ):
    if mine:
      monkeypatch.setenv("XLA_FLAGS", mine)
    else:
      monkeypatch.delenv("XLA_FLAGS", raising=False)
    simulated = _Simulated()
    simulated.measure(rows, minutes=9)
    assert simulated.xla_flags == expected


def test_an_error_of_another_kind_ends_the_row():
  rows = [_row("a", 768, 384)]
  records = _Simulated(a="error: no | such knob").measure(rows, minutes=9)
  assert len(records) == 1
  assert "failed: error: no / such knob" in list(gpu.table(rows, records))[-1]


def test_training_is_compared_with_the_peer_of_its_task():
  rows = [
    _row("a", 768),
    _row("a", 768, kind=gpu.PEER),
    _row("a", 768, kind=gpu.EVALUATION),
    _row("b", 768),
  ]
  records = [
    {"row": row.name, "size": "768", "too_big": False, "result": result}
    for row, result in zip(
      rows,
      [
        {"seconds_per_step": 1, "examples_per_second": 50.0, "peak_gb": 1.0},
        {"seconds_per_step": 1, "examples_per_second": 20.0, "peak_gib": 1.0},
        {"seconds_per_step": 1, "puzzles_per_second": 5.0, "peak_gb": 1.0},
        {"seconds_per_step": 1, "examples_per_second": 50.0, "peak_gb": 1.0},
      ],
      strict=True,
    )
  ]
  last = [
    line.rstrip("| ").rpartition("|")[2].strip()
    for line in list(gpu.table(rows, records))[2:]
  ]
  assert last[0] == "2.50"
  assert "2.50" not in last[1:]


@pytest.mark.parametrize("tried", [False, True])
def test_the_plan_names_rows_once_and_settings_that_exist(tried):
  rows = gpu.plan(peer=["python", "peer.py"], tried=tried)
  names = [row.name for row in rows]
  assert len(set(names)) == len(names)
  assert {row.kind for row in rows[:5]} == {
    gpu.TRAINING,
    gpu.EVALUATION,
    gpu.PEER,
  }
  knobs = set(config_lib.knob_names())
  for row in rows:
    assert row.commands
    for command in row.commands.values():
      set_here = re.findall(r"--config\.([\w.]+)=", " ".join(command))
      assert set(set_here) <= knobs
      assert set_here or row.kind == gpu.PEER
  assert not any(row.kind == gpu.PEER for row in gpu.plan(tried=tried))


def test_results_of_narrow_networks_are_not_taken_for_others():
  names = [{row.name for row in gpu.plan(tried=tried)} for tried in (0, 1)]
  assert not set.intersection(*names)


def test_an_invalid_line_of_results_is_an_error(tmp_path):
  path = tmp_path / "results.jsonl"
  assert gpu.read(path) == []
  path.write_text('{"row": "a"}\n{"row"')
  with pytest.raises(errors.UserError, match="line 2: invalid JSON"):
    gpu.read(path)
