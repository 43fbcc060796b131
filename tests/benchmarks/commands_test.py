"""Benchmarks and other programs as processes, compared with each other."""

import json
import os
import pathlib
import subprocess
import sys

import command_line
import pytest

from benchmarks import commands, compare

ROOT = pathlib.Path(compare.__file__).parent.parent


def _python(source: str) -> list[str]:
  return [sys.executable, "-c", source]


@pytest.mark.parametrize(
  ("command", "expected"),
  [
    (_python("print('one'); print('two'); exit(3)"), "status 3.*with: two$"),
    (_python("raise ValueError('bad')"), "status 1.*ValueError: bad$"),
    (_python("print('done')"), "no JSON line.*seconds_per_step.*done$"),
    (_python("print('[1]')"), "no JSON line"),
    (_python("print('{\"seconds\": 1}')"), "no JSON line"),
    (_python('print(\'{"seconds_per_step": "1"}\')'), "no JSON line"),
    (_python("print('{\"seconds_per_step\": 0}')"), "no JSON line"),
    (_python(""), "with: nothing$"),
    (["/nowhere/peer", "a b"], "`/nowhere/peer 'a b'` does not start"),
  ],
)
def test_a_command_without_a_result_is_one_line(command, expected):
  with pytest.raises(commands.NoResultError, match=expected) as error:
    commands.run(command)
  assert "\n" not in str(error.value)


def test_the_last_json_line_counts_and_errors_of_ours_are_preferred():
  found = commands.run(
    _python(
      "print('{\"seconds_per_step\": 1}'); print('{\"seconds_per_step\": 2}');"
      " print('bye')"
    )
  )
  assert found == {"seconds_per_step": 2}
  source = "import sys; sys.exit('error: too big\\nWARNING: leaked')"
  with pytest.raises(commands.NoResultError, match=r"error: too big$"):
    commands.run(_python(source))


@pytest.mark.slow
def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path):
  pipe = tmp_path / "pipe"
  os.mkfifo(pipe)
  child = (
    f"import time; pipe = open({str(pipe)!r}, 'w', buffering=1);"
    " pipe.write('begun\\n'); time.sleep(20); pipe.write('ended\\n')"
  )
  source = (
    f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
  )
  reader = os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
  with pytest.raises(commands.NoResultError, match="longer than 3 s"):
    commands.run(_python(source), seconds=3)
  os.set_blocking(reader.fileno(), True)
  with reader:  # read to the end, which is there when nobody can write
    assert reader.read() == "begun\n"


def _says_its_next(folder, name: str, seconds: list[float]) -> list[str]:
  """A program whose runs report these seconds, one after the other."""
  source = (
    "import json, pathlib, sys; log = pathlib.Path(sys.argv[1]);"
    " before = log.read_text() if log.exists() else '';"
    f" log.write_text(before + {name!r});"
    f" seconds = {seconds}[before.count({name!r})];"
    " print(json.dumps({'seconds_per_step': seconds}))"
  )
  return [*_python(source), str(folder / "log")]


def test_both_run_in_turn_and_the_ratio_is_theirs_by_ours(tmp_path, capsys):
  ours = _says_its_next(tmp_path, "A", [2.0, 4.0, 1.0])
  theirs = _says_its_next(tmp_path, "B", [3.0, 5.0, 4.0])
  found = compare.compare(ours, theirs, rounds=3)
  assert (tmp_path / "log").read_text() == "ABABAB"
  assert found["seconds_per_step"] == 2.0
  assert found["their_seconds_per_step"] == 4.0
  assert found["ratio"] == 2.0
  assert found["smallest_ratio"] == 1.25
  assert found["largest_ratio"] == 4.0
  assert found["rounds"][1]["theirs"] == {"seconds_per_step": 5.0}
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 3
  assert lines[0] == "round 1 of 3: ours 2 s, theirs 3 s, ratio 1.500"


def _command(module: str, *arguments: str) -> subprocess.CompletedProcess:
  """Types a benchmark's command."""
  return subprocess.run(
    [sys.executable, "-m", f"benchmarks.{module}", *arguments],
    cwd=ROOT,
    env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    | {"XLA_FLAGS": command_line.COMPILES_FAST},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
def test_train_step_and_a_peer_as_people_type_it(tmp_path):
  peer = _says_its_next(tmp_path, "B", [3.0])
  (tmp_path / "peer.py").write_text(peer[2])
  result = _command(
    "compare",
    f"--with={sys.executable} {tmp_path}/peer.py {tmp_path}/log",
    "--rounds=1",
    "--",
    "train_step",
    "--config=experiments/sudoku.py:smoke",
    *("--calls=1", "--warm_up=1", "--nocompile_seconds"),
    "--config.train.batch_size=2",
    *("--config.model.num_layers=1", "--config.model.latent_updates=1"),
    "--config.model.recursion_cycles=1",
    "--config.model.compute_dtype=float32",
    "--num_puzzle_ids=7",
  )
  assert result.returncode == 0, result.stderr
  found = json.loads(result.stdout.splitlines()[-1])
  (ours,) = (each["ours"] for each in found["rounds"])
  assert ours["batch_size"] == 2
  assert ours["puzzle_ids"] == 7
  assert ours["command"].startswith("python -m benchmarks.train_step --config")
  assert found["ratio"] == pytest.approx(3.0 / ours["seconds_per_step"])


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    (["compare", "--", "train_step"], "error: name a command to compare with"),
    (["compare", "--with=peer", "--", "train"], "error: name a benchmark"),
    (["compare", "--with=peer '", "--", "solve"], "No closing quotation"),
    (
      ["compare", "--with=x", "--config=experiments/maze.py", "solve"],
      "error: --config is a flag of the benchmark",
    ),
    (["gpu"], "error: name a folder"),
    (["gpu", "--out=x", "--only=chess"], "error: no row has 'chess'"),
    (["solve"], "error: name an experiment"),
  ],
)
def test_a_mistake_is_one_line(arguments, expected):
  result = _command(*arguments)
  assert result.returncode == 1, result.stderr
  assert expected in result.stderr.splitlines()[-1]
  assert "Traceback" not in result.stderr
  assert not result.stdout
