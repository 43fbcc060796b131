"""Experiment trackers that metrics go to, beside metrics.jsonl.

To add one, add an entry to `TRACKERS`. `config.log.trackers` names those of a
run.
"""

import dataclasses
import importlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from etils import epath

from trm_jax import errors
from trm_jax.data import files

PROJECT = "trm_jax"  # of W&B; MLflow's experiment
_RUN_IDS_FILE = "trackers.json"
TENSORBOARD_FOLDER = "tensorboard"


@dataclasses.dataclass(frozen=True)
class Run:
  """What a tracker may show of a run.

  Attributes:
    folder: the workdir.
    name: `config.name`.
    first_step: where this process begins; what an earlier one logged of later
      steps is superseded.
    settings: of the run, by dotted name.
  """

  folder: epath.Path
  name: str
  first_step: int
  settings: Mapping[str, Any]

  def known_id(self, tracker: str) -> str | None:
    """Returns the id under which this workdir was tracked before, if any."""
    return self._ids().get(tracker)

  def keep_id(self, tracker: str, run_id: str) -> None:
    """Saves the id of the run, so that a resumed training continues it."""
    with files.writing(self.folder / _RUN_IDS_FILE) as file:
      file.write(json.dumps(self._ids() | {tracker: run_id}).encode())

  def _ids(self) -> dict[str, str]:
    path = self.folder / _RUN_IDS_FILE
    return json.loads(path.read_text()) if path.exists() else {}


class Tracker(Protocol):
  """Receives a run's metrics.

  Attributes:
    is_local: whether it writes to the workdir, where a failure ends the run; a
      service that fails gets no more metrics.
  """

  is_local: bool

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Logs finite values by name, as "train/answer_loss"."""

  def close(self) -> None:
    """Ends the run."""


class TensorBoard:
  """Event files that TensorBoard opens, written without TensorFlow.

  Not tensorboardX's SummaryWriter, which writes in a thread of its own: on a
  full disk that one dies with a traceback, and who waits for it waits for ever.
  """

  is_local = True

  def __init__(self, run: Run):
    """Opens a file in a local folder, which is made if missing.

    Raises:
      OSError: the file cannot be written.
    """
    # Imported late: it imports PyTorch, where there is one, which takes
    # seconds. When there are metrics, the device has a step to do meanwhile.
    from tensorboardX import event_file_writer, summary
    from tensorboardX.proto import event_pb2

    self._summary, self._proto = summary, event_pb2
    folder = run.folder / TENSORBOARD_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    # A run that starts twice in a second must not overwrite its file.
    self._writer = event_file_writer.EventsWriter(
      str(folder / "events"), filename_suffix=f".{os.getpid()}"
    )
    if run.first_step:
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._write(run.first_step + 1, session_log=start)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Writes values by tag; when it returns, they are in the file."""
    for tag, value in values.items():
      self._write(step, summary=self._summary.scalar(tag, value))
    self._writer.flush()

  def close(self) -> None:
    """Closes the file."""
    self._writer.close()

  def _write(self, step: int, **content) -> None:
    self._writer.write_event(
      self._proto.Event(wall_time=time.time(), step=step, **content)
    )


class WeightsAndBiases:
  """A run of Weights & Biases; WANDB_MODE=offline and WANDB_PROJECT apply."""

  is_local = False

  def __init__(self, run: Run):
    """Starts or continues the run."""
    wandb = _import("wandb")
    self._run = wandb.init(
      project=os.environ.get("WANDB_PROJECT", PROJECT),
      name=run.name,
      dir=str(run.folder),
      id=run.known_id("wandb"),
      resume="allow",
      config=dict(run.settings),
    )
    # Steps of the training, which may begin again at an earlier checkpoint:
    # W&B's own only increase.
    self._run.define_metric("step")
    self._run.define_metric("*", step_metric="step")
    run.keep_id("wandb", self._run.id)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Logs the values of a step."""
    self._run.log({"step": step, **values})

  def close(self) -> None:
    """Ends the run."""
    self._run.finish()


class MLflow:
  """A run of MLflow; MLFLOW_TRACKING_URI says where."""

  is_local = False

  def __init__(self, run: Run):
    """Starts or continues the run."""
    self._mlflow = mlflow = _import("mlflow")
    if "MLFLOW_EXPERIMENT_NAME" not in os.environ:
      mlflow.set_experiment(PROJECT)
    known = run.known_id("mlflow")
    started = mlflow.start_run(run_id=known, run_name=run.name)
    if not known:
      mlflow.log_params(dict(run.settings))
      run.keep_id("mlflow", started.info.run_id)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Logs the values of a step."""
    self._mlflow.log_metrics(dict(values), step=step)

  def close(self) -> None:
    """Ends the run."""
    self._mlflow.end_run()


# A class that starts or continues a run when it is called.
TRACKERS: Mapping[str, Callable[[Run], Tracker]] = {
  "tensorboard": TensorBoard,
  "wandb": WeightsAndBiases,
  "mlflow": MLflow,
}


def start(names: Sequence[str], run: Run) -> dict[str, Tracker]:
  """Starts or continues a run in each of the named trackers.

  Raises:
    UserError: one cannot be started.
  """
  started: dict[str, Tracker] = {}
  for name in names:
    with errors.user_error_context(
      f"cannot start tracker {name!r} of config.log.trackers"
    ):
      started[name] = TRACKERS[name](run)
  return started


def _import(module: str) -> Any:
  """Imports a tracker's package, which its extra installs."""
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise errors.UserError(
      f"config.log.trackers has {module!r}, which needs a package:"
      f" pip install '.[{module}]'"
    ) from error
