"""launch/reproduce.sh: chunks of trainings until all are done."""

import json
import os
import pathlib
import shlex
import subprocess
import sys

import pytest
import simulated_machine

# Writes down its words. A training makes a step in each call and has its result
# after the third; an evaluation prints a score.
PYTHON = """
import json, os, pathlib, sys
words = sys.argv[1:]
with open(os.environ["CLOUD"] + "/calls", "a") as file:
  file.write(json.dumps(words) + "\\n")
flags = dict(word.split("=", 1) for word in words if "=" in word)
if "benchmarks.gpu" in words:
  print("| a table |")
elif "--mode=evaluate" in words:
  print("exact_accuracy=0.8740")
elif "stuck" in os.environ:
  print("nothing done")
else:
  run = pathlib.Path(flags["--workdir"])
  steps = len(list(run.glob("checkpoints/*"))) + 1
  (run / f"checkpoints/ckpt_{5 * steps}").mkdir(parents=True)
  if steps == 3:
    (run / "result.json").touch()
"""


@pytest.fixture(name="machine")
def _machine(tmp_path):
  machine = simulated_machine.Machine(tmp_path)
  machine.program("python", PYTHON, f"{sys.executable} -SE")
  return machine


def _run(machine, *words, **environment):
  out = f"--out={machine.folder / 'all'}"
  return machine.run(simulated_machine.REPRODUCE, out, *words, **environment)


def test_every_experiment_is_trained_in_chunks_and_evaluated(machine):
  result = _run(machine, "--minutes=9.5", "--data=/data")
  assert result.returncode == 0, result.stderr
  out = machine.folder / "all"
  first, *calls = machine.calls()
  assert first == ["-m", "benchmarks.gpu", f"--out={out}/gpu", "--minutes=9.5"]
  expected = []
  for name in ("sudoku_fast", "sudoku", "maze"):
    words = [
      *("-m", "trm_jax.main", f"--config=experiments/{name}.py"),
      f"--workdir={out}/{name}",
      f"--config.data.source=/data/{name.removesuffix('_fast')}",
    ]
    limit = "--config.train.time_limit_minutes=9.5"
    expected += 3 * [[*words, "--config.eval.max_tasks=10000", limit]]
    expected += [[*words, "--mode=evaluate", "--config.eval.max_tasks=0"]]
  assert calls == expected
  lines = result.stdout.splitlines()
  assert lines[:3] == [
    f"# {name}: not begun" for name in ("sudoku_fast", "sudoku", "maze")
  ]
  assert "# sudoku: step 10" in lines
  assert lines[-1] == "# maze: exact_accuracy=0.8740"
  # Nothing is left: a second call runs nothing.
  assert _run(machine).returncode == 0
  assert len(machine.calls()) == 1 + len(calls)


def test_a_call_may_end_after_a_chunk(machine):
  for chunk in range(1, 6):
    result = _run(machine, "--chunks=1", "maze")
    assert result.returncode == 0
    assert len(machine.calls()) == chunk
  assert result.stdout.splitlines()[-1] == "# maze: exact_accuracy=0.8740"


def test_a_dry_run_prints_what_is_next(machine):
  text = _run(machine, "--dry_run", "--try", "maze").stdout
  assert not (machine.folder / "calls").exists()
  assert not (machine.folder / "all").exists()
  commands = [
    shlex.split(line[2:]) for line in text.splitlines() if line[0] == "+"
  ]
  assert [words[2] for words in commands] == [
    "benchmarks.gpu",
    *("trm_jax.main", "trm_jax.main"),
  ]
  assert "--try" in commands[0]
  assert "--config=experiments/maze.py:smoke" in commands[1]


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--minutes=soon"], "minutes is 'soon'; it must be a number above 0"),
    (["--minutes=0.0"], "must be a number above 0"),
    (["--chunks=-1"], "chunks is '-1'; it must be a number"),
    (["arc"], "unexpected argument 'arc'; see launch/reproduce.sh --help"),
  ],
)
def test_a_mistake_is_one_line(machine, words, message):
  assert message in simulated_machine.error_of(_run(machine, *words))
  assert not (machine.folder / "calls").exists()


def test_what_fails_ends_the_script(machine):
  result = _run(machine, "maze", stuck="1")
  assert result.returncode == 1
  assert "error: maze made no step in 10 minutes" in result.stderr
  machine.program("python", "exit 3")
  assert _run(machine, "maze").returncode == 3


@pytest.mark.slow
def test_narrow_networks_train_and_are_evaluated(tmp_path):
  gpu = tmp_path / "gpu"
  gpu.mkdir()
  (gpu / "table.md").touch()  # measured before
  folder = pathlib.Path(sys.executable).parent
  result = subprocess.run(
    [
      *(simulated_machine.REPRODUCE, "--try", f"--out={tmp_path}", "sudoku"),
    ],
    env=os.environ
    | {
      "PATH": f"{folder}:{os.environ['PATH']}",
      "XLA_FLAGS": "--xla_backend_optimization_level=0",
    },
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  last = result.stdout.splitlines()[-1]
  assert last.startswith("# sudoku: exact_accuracy=")
  metrics = json.loads((tmp_path / "sudoku/result.json").read_text())["metrics"]
  assert last.endswith(f"={metrics['exact_accuracy']:.4f}")
