"""Two processes train and evaluate as one, also after either was killed."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests import two_processes_program as program
from trm_jax import errors
from trm_jax.data import identifiers
from trm_jax.evaluation import arc as arc_evaluation
from trm_jax.runtime import checkpoints as checkpoints_lib
from trm_jax.runtime import metric_writer, restore

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parent.parent.parent
TIMEOUT = 300  # seconds; two processes that disagree wait for each other


def _run_two(part, folder):
  """Runs a part of the program in two processes; returns how they ended."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": os.environ["XLA_FLAGS"]  # of two such flags the last one is
    + f" --xla_force_host_platform_device_count={program.NUM_DEVICES // 2}",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_DEFAULT_MATMUL_PRECISION": "highest",
  }
  command = [sys.executable, "-m", program.__name__, part, str(port)]
  logs = [folder / f"{part}_{process}.txt" for process in range(2)]
  processes = []
  try:
    for process, log in enumerate(logs):
      with log.open("w") as file:
        processes.append(
          subprocess.Popen(
            [*command, str(process), str(folder)],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
          )
        )
    return [process.wait(TIMEOUT) for process in processes]
  finally:
    for process, log in zip(processes, logs, strict=True):
      process.kill()  # JAX ignores SIGTERM
      print(log.read_text())


class _KilledError(Exception):
  pass


def _raise():
  raise _KilledError


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory):
  """Where one and two processes have been killed, and two have gone on."""
  assert jax.device_count() == program.NUM_DEVICES
  folder = tmp_path_factory.mktemp("two_processes")
  first, second = _run_two("killed", folder)
  assert first == program.KILLED
  assert second != 0
  killed = folder / "two_killed"
  assert len(_votes(killed)) == program.NUM_SEEN
  for name in ("then_one", "damaged", "own_disk_0", "own_disk_1"):
    shutil.copytree(killed, folder / name)
  for name in ("damaged", "own_disk_1"):  # the second must never be read
    path = _place(folder / name) / arc_evaluation.LOG_FILE
    path.write_text(path.read_text().replace('"line": 2', '"line": 7'))
  with program.killed(_raise), pytest.raises(_KilledError):
    program.evaluation("arc", folder / "one_killed")
  assert _run_two("everything", folder) == [0, 0]
  return folder


@pytest.fixture(scope="module", name="found")
def _found(folder):
  """What the two processes found: the same, number by number."""
  first, second = (
    json.loads((folder / f"found_{process}.json").read_text())
    for process in range(2)
  )
  assert first == second
  return first


@pytest.fixture(scope="module", name="alone")
def _alone(tmp_path_factory):
  """The folder of one process that was never killed, and what it found."""
  workdir = tmp_path_factory.mktemp("alone")
  return workdir, program.evaluation("arc", workdir)


def _place(workdir, step=program.STEP):
  return arc_evaluation.folder(str(workdir), step)


def _votes(workdir):
  """All lines of the log but its first."""
  path = _place(workdir) / arc_evaluation.LOG_FILE
  return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def _submission(workdir, step=program.STEP):
  path = _place(workdir, step) / arc_evaluation.SUBMISSION_FILE
  return json.loads(path.read_text())


def _assert_same(found, expected):
  assert found["num_puzzles"] == expected["num_puzzles"]
  assert found["metrics"] == expected["metrics"]
  assert list(found["means"]) == list(expected["means"])
  for name, values in expected["means"].items():
    # Sums over devices are rounded in another order.
    np.testing.assert_allclose(found["means"][name], values, rtol=1e-6)


@pytest.mark.parametrize("name", ["new", "two_killed", "one_killed"])
def test_two_processes_vote_as_one_does(folder, found, alone, name):
  workdir, expected = alone
  assert expected["num_puzzles"] == program.run("arc").task.test.num_examples
  assert (
    expected["num_puzzles"] % program.run("arc").program.config.eval.batch_size
  )
  _assert_same(found[name], expected)
  assert _submission(folder / name) == _submission(workdir)


@pytest.mark.parametrize("name", ["new", "two_killed", "one_killed"])
def test_each_batch_is_written_once(folder, alone, name):
  votes = _votes(folder / name)
  expected = _votes(alone[0])
  assert [vote["line"] for vote in votes] == [2, 3, 4]
  for vote, other in zip(votes, expected, strict=True):
    assert vote["content"]["results"] == other["content"]["results"]


def test_one_process_goes_on_where_two_were_killed(folder, alone, capsys):
  workdir, expected = alone
  _assert_same(program.evaluation("arc", folder / "then_one"), expected)
  assert "resuming the evaluation" in capsys.readouterr().out
  assert _submission(folder / "then_one") == _submission(workdir)


def test_only_the_first_process_needs_the_disk(folder, found, alone):
  workdir, expected = alone
  _assert_same(found["own_disk"], expected)
  assert _submission(folder / "own_disk_0") == _submission(workdir)
  assert len(_votes(folder / "own_disk_1")) == program.NUM_SEEN
  other = _place(folder / "own_disk_1") / arc_evaluation.SUBMISSION_FILE
  assert not other.exists()


def test_a_damaged_log_ends_both_processes(folder, found):
  with pytest.raises(errors.UserError) as caught:
    program.evaluation("arc", folder / "damaged")
  assert str(caught.value) == found["damaged"]
  assert "line 2 is damaged" in found["damaged"]


@pytest.mark.parametrize("task", ["maze", "sudoku"])
def test_two_processes_measure_as_one_does(tmp_path, found, task):
  expected = program.evaluation(task, tmp_path)
  assert ("valid_accuracy" in expected["metrics"]) == (task == "maze")
  _assert_same(found[task], expected)
  assert not list(tmp_path.iterdir())


def test_weights_have_one_digest_however_they_lie(found):
  assert found["digests"] == program.digests()


def test_a_workdir_that_is_not_shared_is_noticed(folder, found):
  assert found["shared"]
  assert not list((folder / "trained").glob(".*"))
  assert not found["own disks are shared"]


def test_rows_lie_host_by_host_whatever_the_order_of_devices(found):
  assert found["rows"] == list(range(16))


def _last_state(task, workdir):
  """All that was trained, and the puzzles in the slots.

  Not the latents, in which differences of rounding grow tenfold a step.
  """
  run = program.run(task)
  with checkpoints_lib.Checkpoints(str(workdir)) as checkpoints:
    state = checkpoints.restore(program.NUM_STEPS, run.program.abstract_state())
  carry = state.carry.replace(latents=None)
  return jax.device_get(state.replace(carry=carry))


@pytest.mark.parametrize(
  ("task", "name"), [("arc", "trained"), ("sudoku", "trained sudoku")]
)
def test_two_processes_train_as_one_does(folder, found, tmp_path, task, name):
  expected = program.training(task, tmp_path)
  means = [report.pop("means") for report in (dict(found[name]), expected)]
  there = folder / name.replace(" ", "_")
  for (path, a), (_, b) in zip(
    *(
      jax.tree_util.tree_leaves_with_path((_last_state(task, workdir), values))
      for workdir, values in zip((there, tmp_path), means, strict=True)
    ),
    strict=True,
  ):
    np.testing.assert_allclose(
      a, b, rtol=1e-5, atol=1e-5, err_msg=jax.tree_util.keystr(path)
    )
  metrics = []
  for workdir in (there, tmp_path):
    rows = metric_writer.read_metrics(str(workdir))
    assert len(rows) == program.NUM_STEPS + 1
    for row in rows:
      row.pop("slot_steps_per_second", None)
      row.pop("group")
    metrics.append(
      [{k: np.nan if v is None else v for k, v in row.items()} for row in rows]
    )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    *metrics,
  )


def test_one_process_reads_what_two_have_trained(folder, found, tmp_path):
  trained = folder / "trained"
  there = _submission(trained, step=program.NUM_STEPS)
  rows = metric_writer.read_metrics(str(trained))
  steps = range(1, program.NUM_STEPS + 1)
  assert [(row["step"], row["group"]) for row in rows] == [
    *((step, "train") for step in steps),
    (program.NUM_STEPS, "eval"),
  ]
  assert (
    identifiers.read(restore.identifiers_path(str(trained)))
    == program.run("arc").task.identifiers
  )
  _assert_same(found["trained, read"], found["trained"])
  shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
  _assert_same(program.trained_evaluation(tmp_path), found["trained"])
  assert _submission(tmp_path, step=program.NUM_STEPS) == there
