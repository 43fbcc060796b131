"""The trainings of benchmarks.family, each in a process of its own."""

import dataclasses
import math
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import ablations
from trm_jax import config as config_lib
from trm_jax import errors
from trm_jax.runtime import flops, metric_writer, restore

# What trains; tests put something small in its place.
TRAINER: tuple[str, ...] = (sys.executable, "-m", "trm_jax.main")
# Four or eight layers of attention do not learn at TRM's rate, that of the
# quickstart, or less well. Chosen of 1e-3, 2e-3 and 4e-3 by the training loss
# of one seed after 240 (HRM) and 180 steps.
LEARNING_RATES: Mapping[str, float] = {"hrm": 2e-3, "direct": 2e-3}
_ROOT = pathlib.Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Run:
  """A training."""

  row: str  # of ablations.ROWS
  seed: int
  settings: Mapping[str, Any]  # that differ from the experiment's

  @property
  def config(self) -> config_lib.Config:
    """All settings."""
    values = ablations.get_config(f"{self.row},quickstart")
    values.update_from_flattened_dict({**self.settings, "seed": self.seed})
    return config_lib.from_config_dict(values)

  def folder(self, workdir: pathlib.Path) -> pathlib.Path:
    """Returns its own folder."""
    return workdir / f"{self.row}_seed{self.seed}"

  def command(self, folder: pathlib.Path) -> list[str]:
    """Returns the words of the command that trains it."""
    return [
      *TRAINER,
      f"--config=experiments/ablations.py:{self.row},quickstart",
      f"--workdir={folder}",
      f"--config.seed={self.seed}",
      *(f"--config.{name}={value}" for name, value in self.settings.items()),
    ]


def plan(
  rows: Sequence[str],
  seeds: Sequence[int],
  *,
  network_calls: int,
  evaluations: int,
  num_clues: int,
  learning_rate: float | None,
) -> list[list[Run]]:
  """Returns the trainings: of each row those of all seeds.

  Args:
    rows: of ablations.ROWS.
    seeds: of each row.
    network_calls: that each training makes.
    evaluations: of each, after equal numbers of network calls.
    num_clues: of the puzzles.
    learning_rate: of all rows; None: of LEARNING_RATES or the quickstart's.

  Raises:
    UserError: a row does not exist, or steps do not come out even.
  """
  if wrong := [row for row in rows if row not in ablations.ROWS]:
    raise errors.UserError(
      f"--rows: there is no {wrong[0]!r}, only {', '.join(ablations.ROWS)}"
    )
  if evaluations < 1:
    raise errors.UserError(f"--evaluations={evaluations}; at least 1 is needed")
  usual = {row: Run(row, 0, {}).config for row in rows}
  calls = {row: flops.forward_calls(config) for row, config in usual.items()}
  even = math.lcm(*calls.values()) * evaluations
  if network_calls % even or network_calls < 1:
    raise errors.UserError(
      f"--network_calls={network_calls} are not, for every row, whole steps"
      f" between {evaluations} evaluations; try"
      f" {max(1, round(network_calls / even)) * even}"
    )

  def run(row, seed):
    steps = network_calls // calls[row]
    rate = learning_rate
    if rate is None:
      rate = LEARNING_RATES.get(row, usual[row].optimizer.learning_rate)
    often = ("eval.every_steps", "checkpoint.every_steps", "log.every_steps")
    own = {
      "data.num_clues": num_clues,
      "train.num_steps": steps,
      "optimizer.learning_rate": rate,
      **dict.fromkeys(often, steps // evaluations),
    }
    return Run(row, seed, own)

  return [[run(row, seed) for seed in seeds] for row in rows]


def train(run: Run, folder: pathlib.Path) -> None:
  """Trains to the end, from where the folder stands; if it has not ended yet.

  Args:
    run: what to train.
    folder: of this run alone.

  Raises:
    UserError: the training failed or was ended, or it was another one's folder.
  """
  result = folder / metric_writer.RESULT_FILE
  if result.exists():
    if restore.saved_config(str(folder)) != run.config:
      raise errors.UserError(
        f"{folder} holds a run with other settings; name another --workdir"
      )
    return
  print(f"\n{run.row}, seed {run.seed}", flush=True)
  # The trainer saves and ends if this process is killed.
  shim = [sys.executable, "-m", "launch.sweeps.dies_with_parent"]
  status = subprocess.run(
    [*shim, str(os.getpid()), *run.command(folder)], cwd=_ROOT, check=False
  ).returncode
  if status or not result.exists():
    raise errors.UserError(
      f"{run.row}, seed {run.seed}: training ended with status {status} before"
      " its last step, see above; the same command goes on from there"
    )
