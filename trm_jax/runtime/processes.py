"""Multi-process training: joining, logging once, agreeing on values.

A host is a process with devices of its own: one per machine of a TPU pod, one
per GPU under SLURM. All run the same program with the same settings; only
process 0 logs and writes files.
"""

import glob
import importlib.util
import itertools
import json
import os
import sys
import uuid
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from trm_jax import errors
from trm_jax.terminal import progress

_MAX_BYTES = 512  # of a message to the other hosts
_TIMEOUT_MS = 24 * 60 * 60 * 1000  # the first host may prepare data
_barriers = itertools.count()  # each needs a name of its own


def join(
  coordinator: str = "",
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins the other processes, if any; call it before any other use of JAX.

  Processes find each other on TPU pods and where srun or mpirun started them.

  Args:
    coordinator: HOST:PORT where process 0 listens; empty to detect.
    num_processes: number of processes.
    process_id: index of this process (0-based).

  Raises:
    UserError: one of the three is missing, or the others do not answer.
  """
  given = {
    "--coordinator": coordinator or None,
    "--num_processes": num_processes,
    "--process_id": process_id,
  }
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    if _were_started_together():
      _initialize("the processes that were started with this one")
    elif _is_tpu_machine():
      _initialize("the other machines of this TPU slice", may_be_alone=True)
    return
  if missing:
    raise errors.UserError(
      f"{' and '.join(missing)} missing: processes that train together"
      " need --coordinator, --num_processes and --process_id"
    )
  assert num_processes is not None
  assert process_id is not None
  host, colon, port = coordinator.rpartition(":")
  if not (host and colon and port.isdigit()):
    raise errors.UserError(
      f"--coordinator is {coordinator!r}; it must be HOST:PORT of the process"
      " with --process_id=0"
    )
  if not 0 <= process_id < num_processes:
    raise errors.UserError(
      f"--process_id is {process_id}; of {num_processes} processes"
      f" (--num_processes) it must be 0 to {num_processes - 1}"
    )
  if num_processes > 1:
    _initialize(
      f"the {num_processes} processes at {coordinator}",
      coordinator_address=coordinator,
      num_processes=num_processes,
      process_id=process_id,
    )


def _initialize(
  others: str, *, may_be_alone: bool = False, **arguments: Any
) -> None:
  try:
    jax.distributed.initialize(**arguments)
  except Exception as error:  # also of variables that are no numbers
    # JAX found no other machines.
    if may_be_alone and isinstance(error, ValueError):
      print("no other TPU machines found: training on this one", flush=True)
      return
    raise errors.UserError(
      f"cannot join {others}: {errors.first_line(error)}"
    ) from error


def check_alone(what: str) -> None:
  """Raises UserError if several processes were started for what one does."""
  if _were_started_together():
    raise errors.UserError(
      f"--mode={what} runs in one process, and several were started; start it"
      " without srun or mpirun"
    )


def _were_started_together() -> bool:
  """Returns whether srun or mpirun started several processes."""
  # In a batch script, outside of srun, SLURM_NTASKS is set but not this.
  counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
  for name in counts:
    count = os.environ.get(name) or "1"
    if not count.isdecimal():
      raise errors.UserError(
        f"the environment variable {name} is {count!r}; it must be the number"
        " of processes"
      )
    if int(count) > 1:
      return True
  return "JAX_COORDINATOR_ADDRESS" in os.environ


def _is_tpu_machine() -> bool:
  wanted = os.environ.get("JAX_PLATFORMS") or "tpu"
  return (
    "tpu" in wanted
    and importlib.util.find_spec("libtpu") is not None
    and bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
  )


def is_first() -> bool:
  """Returns whether this is process 0, the one that logs and writes."""
  return jax.process_index() == 0


def print_once(text: str) -> None:
  """Prints on process 0 only."""
  if is_first():
    progress.write(text, sys.stdout)


def log_once(text: str) -> None:
  """Prints progress or a warning to stderr, on process 0 only."""
  if is_first():
    progress.write(text, sys.stderr)


def from_first(make: Callable[[], Any]) -> Any:
  """Returns on all hosts what `make` returns on process 0 (JSON types).

  Raises:
    UserError: on all hosts, if `make` raises it, so that none waits forever.
  """
  made = "null"
  if is_first():
    try:
      made = json.dumps({"value": make()})
    except errors.UserError as error:
      made = json.dumps({"error": str(error)})
  _wait()
  content = np.frombuffer(made.encode(), np.uint8)
  # Hosts must know an array's size to receive it.
  size = multihost_utils.broadcast_one_to_all(np.int32(content.size))
  content = multihost_utils.broadcast_one_to_all(np.resize(content, int(size)))
  found = json.loads(content.tobytes())
  if "error" in found:
    raise errors.UserError(found["error"])
  return found["value"]


def _wait() -> None:
  """Waits for all hosts, one of which may still be preparing data."""
  # Device collectives may time out after minutes; this barrier does not.
  ocp.multihost.get_barrier_sync_fn()(
    key=f"trm_jax_{next(_barriers)}", timeout_ms=_TIMEOUT_MS
  )


def all_of(flag: bool) -> list[bool]:
  """Returns every host's flag, in process order; all hosts wait."""
  flags = multihost_utils.process_allgather(np.asarray(flag))
  return [bool(value) for value in np.reshape(flags, -1)]


def least_of(number: int) -> int:
  """Returns the minimum over all hosts, below 2**31; all hosts wait."""
  if jax.process_count() == 1:
    return number
  _wait()
  return int(np.min(multihost_utils.process_allgather(np.int32(number))))


def of_any_host(problem: str) -> str:
  """Returns on all hosts the problem of any host, or ''; all hosts wait.

  Args:
    problem: this host's, or ''.
  """
  if jax.process_count() == 1:
    return problem
  encoded = problem.encode()[:_MAX_BYTES]
  mine = np.frombuffer(encoded.ljust(_MAX_BYTES, b"\0"), np.uint8)
  for row in multihost_utils.process_allgather(mine):
    text = np.asarray(row).tobytes().rstrip(b"\0").decode(errors="replace")
    if text:
      return text
  return ""


def check_shared(folder: epath.Path) -> None:
  """Creates a folder; raises UserError unless all hosts see the same one."""
  if jax.process_count() == 1:
    return
  path = folder / ".shared"
  written = uuid.uuid4().hex

  def write():
    with errors.user_error_context(f"cannot write to {folder}"):
      folder.mkdir(parents=True, exist_ok=True)
      path.write_text(written)
    return written

  expected = from_first(write)
  try:
    sees = path.read_text() == expected
  except Exception:  # whatever the reason, this host does not see it
    sees = False
  is_shared = all(all_of(sees))
  from_first(lambda: path.unlink(missing_ok=True))
  if not is_shared:
    raise errors.UserError(
      f"not all processes see the files of process 0 in {folder}; choose a"
      " shared --workdir, a network folder or gs://"
    )
