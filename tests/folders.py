"""Folders of puzzles for tests to make and to damage, and data settings."""

import gzip
import json
import pathlib

import numpy as np

from experiments import base
from trm_jax import config as config_lib
from trm_jax.data import task as task_lib
from trm_jax.data.arc import tasks as arc_tasks


def data(**changes) -> config_lib.DataConfig:
  """The settings of base.py in `config.data`, with changes."""
  config = base.get_config()
  config.data.update(changes)
  return config_lib.from_config_dict(config).data


def write_json(path: pathlib.Path, value) -> None:
  """Writes JSON, or bytes as they are; gzipped if the name says so."""
  path.parent.mkdir(parents=True, exist_ok=True)
  data = value if isinstance(value, bytes) else json.dumps(value).encode()
  path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def as_json(task: arc_tasks.ArcTask) -> dict:
  """A task as its JSON file has it, test outputs included."""
  value = json.loads(arc_tasks.to_json(task))
  del value["name"]
  return value


def kaggle(folder: pathlib.Path, subsets) -> None:
  """Writes subsets as Kaggle does: gzipped, solutions in a second file."""
  for subset, tasks in subsets.items():
    challenges = {task.name: as_json(task) for task in tasks}
    solutions = {
      name: [pair.pop("output") for pair in task["test"]]
      for name, task in challenges.items()
    }
    prefix = f"arc-agi_{subset}"
    write_json(folder / f"{prefix}_challenges.json.gz", challenges)
    write_json(folder / f"{prefix}_solutions.json.gz", solutions)


def repository(folder: pathlib.Path, subsets) -> None:
  """Writes subsets as the public repositories do: a file per task."""
  for subset, tasks in subsets.items():
    for task in tasks:
      write_json(folder / subset / f"{task.name}.json", as_json(task))


def official(folder: pathlib.Path, task: task_lib.Task) -> None:
  """Writes all examples of a task as the official builders do."""
  for split, puzzles in (("train", task.train), ("test", task.test)):
    inputs, labels = everything(puzzles)
    arrays = {
      "inputs": inputs,
      "labels": labels,
      "puzzle_identifiers": puzzles.puzzle_ids,
      "puzzle_indices": puzzles.puzzle_indices.astype(np.int32),
      "group_indices": puzzles.group_indices.astype(np.int32),
    }
    write_json(
      folder / split / "dataset.json",
      {
        "pad_id": 0,
        "ignore_label_id": 0,
        "blank_identifier_id": 0,
        "vocab_size": task.vocab_size,
        "seq_len": task.seq_len,
        "num_puzzle_identifiers": task.num_puzzle_ids,
        "total_groups": puzzles.num_groups,
        "mean_puzzle_examples": puzzles.num_examples / puzzles.num_puzzles,
        "total_puzzles": puzzles.num_puzzles,
        "sets": ["all"],
      },
    )
    for field, array in arrays.items():
      np.save(folder / split / f"all__{field}.npy", array)
  write_json(folder / "identifiers.json", task.identifiers)
  if task.augmentation_table is not None:
    write_json(
      folder / "test_puzzles.json",
      {
        member.name: as_json(member) for member in task.augmentation_table.tasks
      },
    )


def everything(puzzles) -> tuple[np.ndarray, np.ndarray]:
  """Inputs and labels of all examples of a set, in order."""
  examples = np.arange(puzzles.num_examples)
  places = np.searchsorted(puzzles.puzzle_indices, examples, "right") - 1
  return puzzles.fetch(examples, places)
