"""Which processes join, and what is refused.

Two real ones join in train_stopping_test.
"""

import pytest

from trm_jax import errors
from trm_jax.runtime import processes

CLUSTER = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


@pytest.fixture(name="joined", autouse=True)
def _joined(monkeypatch):
  """The arguments of each call of jax.distributed.initialize."""
  calls: list[dict] = []
  monkeypatch.setattr(
    processes.jax.distributed, "initialize", lambda **given: calls.append(given)
  )
  for name in (*CLUSTER, "SLURM_NTASKS", "JAX_COORDINATOR_ADDRESS"):
    monkeypatch.delenv(name, raising=False)
  return calls


def test_a_process_by_itself_joins_nobody(joined):
  processes.join()
  assert joined == []


def test_the_flags_are_handed_on(joined):
  processes.join("node1:1234", 4, 3)
  assert joined == [
    {
      "coordinator_address": "node1:1234",
      "num_processes": 4,
      "process_id": 3,
    }
  ]


def test_one_of_one_joins_nobody(joined):
  processes.join("node1:1234", 1, 0)
  assert joined == []


@pytest.mark.parametrize("name", CLUSTER)
def test_srun_and_mpirun_are_noticed(joined, monkeypatch, name):
  monkeypatch.setenv(name, "1")
  processes.join()
  assert joined == []
  monkeypatch.setenv(name, "2")
  processes.join()
  assert joined == [{}]


def test_a_batch_script_outside_of_srun_is_one_process(joined, monkeypatch):
  monkeypatch.setenv("SLURM_NTASKS", "8")
  processes.join()
  assert joined == []


@pytest.mark.parametrize("device", ["/dev/accel0", "/dev/vfio/0"])
def test_a_tpu_machine_joins_its_pod(joined, monkeypatch, device):
  monkeypatch.setattr(
    processes.glob,
    "glob",
    lambda pattern: [device] * (pattern[:8] == device[:8]),
  )
  monkeypatch.setattr(processes.importlib.util, "find_spec", lambda _: object())
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  processes.join()
  assert joined == []
  monkeypatch.delenv("JAX_PLATFORMS")
  processes.join()
  assert joined == [{}]


def test_a_tpu_machine_that_knows_of_no_others_says_so(monkeypatch, capsys):
  def fail():
    raise ValueError("coordinator_address should be defined.")

  monkeypatch.setattr(processes, "_is_tpu_machine", lambda: True)
  monkeypatch.setattr(processes.jax.distributed, "initialize", fail)
  processes.join()
  assert "training on this one" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (("node1:1234",), "--num_processes and --process_id missing"),
    (("", 2, 0), "--coordinator missing"),
    (("node1", 2, 0), "it must be HOST:PORT"),
    (("node1:x", 2, 0), "it must be HOST:PORT"),
    (("node1:1", 2, 2), "it must be 0 to 1"),
    (("node1:1", 2, -1), "it must be 0 to 1"),
  ],
)
def test_what_cannot_be_is_refused(joined, arguments, message):
  with pytest.raises(errors.UserError, match=message):
    processes.join(*arguments)
  assert joined == []


def test_absent_processes_are_one_line(monkeypatch):
  def fail(**_):
    raise RuntimeError("DEADLINE_EXCEEDED: no barrier\nmore lines")

  monkeypatch.setattr(processes.jax.distributed, "initialize", fail)
  with pytest.raises(errors.UserError) as raised:
    processes.join("node1:1234", 2, 0)
  assert str(raised.value) == (
    "cannot join the 2 processes at node1:1234: DEADLINE_EXCEEDED: no barrier"
  )


def test_alone_the_first_host_is_all_there_are():
  assert processes.is_first()
  assert processes.from_first(lambda: {"a": [1, None]}) == {"a": [1, None]}
  assert processes.all_of(True) == [True]

  def fail():
    raise errors.UserError("no room")

  with pytest.raises(errors.UserError, match=r"^no room$"):
    processes.from_first(fail)
